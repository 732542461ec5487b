/* A service as small as one can be: says its name by a datagram to an address, and stays. say ADDRESS PORT NAME */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **words)
{
	struct sockaddr_in6 to = {.sin6_family = AF_INET6};
	int datagrams = socket(AF_INET6, SOCK_DGRAM, 0);

	if (count != 4 || datagrams < 0 || inet_pton(AF_INET6, words[1], &to.sin6_addr) != 1)
		return 1;
	to.sin6_port = htons(atoi(words[2]));
	if (sendto(datagrams, words[3], strlen(words[3]), 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		return 1;
	for (;;)
		pause();
}

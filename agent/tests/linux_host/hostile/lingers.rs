//! Files that take days to close, sent along to sockets that Plat reads. Where the kernel refuses them nothing comes of it, and
//! where it does not whoever closes them keeps nobody else waiting: the tests of `aside`, `inside` and `notify` have it so
//! everywhere.

use super::*;
use crate::conformance::TALKS;
use nix::libc::SYS_sendmsg;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

const TIMES: usize = 12;

/// Sends one end of a connection that is full, and lets go of it at once, so often; each from a process of its own, which
/// closes it itself where nobody took it. A line in `tried` for each.
fn sends(to: &str, kind: &str) -> String {
    format!(
        "exec perl -MSocket -MFcntl -e '
        my $to = shift; $to =~ s/^@/\\0/; $| = 1; open(my $tried, \">>\", \"tried\");
        socket(my $at, AF_INET, SOCK_STREAM, 0); bind($at, pack_sockaddr_in(0, INADDR_LOOPBACK)); listen($at, 1);
        for (1 .. {TIMES}) {{
            socket(my $full, AF_INET, SOCK_STREAM, 0); connect($full, getsockname($at)); accept(my $kept, $at);
            fcntl($full, F_SETFL, O_NONBLOCK); 1 while syswrite($full, \"x\" x 65536);
            setsockopt($full, SOL_SOCKET, SO_LINGER, pack(\"ii\", 1, 1000000)) or die;
            pipe(my $go, my $going);
            if (fork == 0) {{
                close($going); sysread($go, my $end, 1);
                socket(my $speak, AF_UNIX, {kind}, 0); connect($speak, pack_sockaddr_un($to)) or syswrite($tried, \"$!\\n\");
                my ($text, $rights) = (\"{{\\\"v\\\": 1, \", pack(\"Q i i i x4\", 20, 1, 1, fileno($full)));
                my $parts = pack(\"P Q\", $text, length($text));
                my $message = pack(\"P L x4 P Q P Q i x4\", undef, 0, $parts, 1, $rights, 24, 0);
                my $sent = syscall({SYS_sendmsg}, fileno($speak), $message, 0);
                my $how = $sent > 0 ? \"sent\" : \"not sent: $!\";
                syswrite($tried, \"$how\\n\"); close($full) if $sent > 0; sleep 600
            }}
            close($full); close($going); push(@kept, $kept);
        }}
        sleep 600' '{to}'"
    )
}

impl Street {
    /// A service of the hostile one sends them, and goes on running.
    async fn sends(&self, spec: &ServiceSpec) {
        let _not_there_yet = fs::remove_file(self.node.home().join("tried"));
        start(&self.host, spec).await.unwrap();
        until("it has tried", async || {
            fs::read_to_string(self.node.home().join("tried")).is_ok_and(|tried| tried.lines().count() >= TIMES)
        })
        .await;
    }

    /// As quickly as one that nothing holds up.
    async fn stops(&self, partition: PartitionName, name: &str) {
        let stop = Action::StopService { partition, service: service(name) };
        tokio::time::timeout(Duration::from_secs(10), self.host.perform(&stop)).await.expect("it hangs").unwrap();
    }
}

/// How long a question may take; that of who has taken all places at his socket himself, until they are given up.
const AT_ONCE: Duration = Duration::from_secs(10);
const IN_TURN: Duration = Duration::from_secs(40);

async fn is_answered(path: PathBuf, within: Duration) {
    let ask = async {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(b"{\"v\": 1, \"ask\": \"get\"}\n").await.unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.unwrap();
        assert!(line.starts_with("{\"v\":1,"), "{line}");
    };
    tokio::time::timeout(within, ask).await.expect("nobody answers");
}

pub async fn what_it_sends_along_to_the_agent_keeps_nobody_waiting(street: Street) {
    let (inside, _) = listen_on(&street.host);
    let partitions = street.host.node().await.unwrap().partitions;
    let instances = [instance(), InstanceId::parse(&"b".repeat(32)).unwrap()];
    for (partition, instance) in partitions.iter().zip(&instances) {
        inside.keep(partition, Some(instance)).await;
    }
    let attack = with_script("attack", &sends(&street.node.home().join(SOCKET).display().to_string(), "SOCK_STREAM"));
    street.sends(&attack).await;
    is_answered(street.theirs(SOCKET), AT_ONCE).await;
    is_answered(street.node.home().join(SOCKET), IN_TURN).await;
    for (partition, instance) in partitions.iter().zip(&instances) {
        inside.renew(&partition.name);
        inside.keep(partition, Some(instance)).await;
    }
    is_answered(street.theirs(SOCKET), AT_ONCE).await;
    street.stops(part(), "attack").await;
    street.done().await;
}

pub async fn what_it_sends_along_to_who_stands_by_a_service_keeps_nobody_waiting(street: Street) {
    let instance = InstanceId::parse(&"b".repeat(32)).unwrap();
    let talks = ServiceSpec { watchdog_seconds: Some(2), instance, ..with_script("talks", TALKS) };
    street.host.perform(&Action::StartService { partition: neighbour(), spec: talks }).await.unwrap();
    let theirs =
        async || street.host.observe_partition(&neighbour()).await.unwrap().services[&service("talks")].clone();
    let before = theirs().await;
    let environment = fs::read_to_string(format!("/proc/{}/environ", running(&before))).unwrap();
    let socket = environment.split('\0').find_map(|variable| variable.strip_prefix("NOTIFY_SOCKET=")).unwrap();
    // systemd's own is one for all, and not Plat's.
    if socket.starts_with('@') {
        street.sends(&with_script("attack", &sends(socket, "SOCK_DGRAM"))).await;
        street.stops(part(), "attack").await;
        let own = sends("'\"$NOTIFY_SOCKET\"'", "SOCK_DGRAM");
        street.sends(&ServiceSpec { watchdog_seconds: Some(600), ..with_script("own", &own) }).await;
        street.stops(part(), "own").await;
    }
    let since = plat_agent::clock::Clock::steady(&plat_agent::clock::SystemClock);
    until("the neighbour's has run for longer than it may be silent", async || {
        let now = plat_agent::clock::Clock::steady(&plat_agent::clock::SystemClock);
        now.since(since) > Duration::from_secs(3)
    })
    .await;
    assert_eq!(theirs().await, before, "it is heard as before");
    street.stops(neighbour(), "talks").await;
    street.done().await;
}

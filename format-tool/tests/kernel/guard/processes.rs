//! Processes in the machine's own network. Partition n has 10.200.0.(n + 2) and fd00:1::(n + 1):0:0:1, and the first half of
//! fd00:1:0:0:(n + 1)::/80.

use super::outside::outside;
use super::sockets::{at, exchange, partition, refused, silent, tcp, udp, unanswered};
use super::{FIRST_UID, PORT, format};
use crate::machine::on_a_machine;
use std::fs;
use std::net::{Ipv6Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::process::Command;

const IPV4: [&str; 2] = ["10.200.0.2", "10.200.0.3"];
const IPV6: [&str; 2] = ["fd00:1::1:0:0:1", "fd00:1::2:0:0:1"];
/// The machine's own, and the outside's.
const WAYS_OUT: [(&str, &str); 2] = [("192.0.2.1", "192.0.2.9"), ("2001:db8:7::1", "2001:db8:7::9")];

#[test]
fn a_partition_reaches_the_outside_from_its_own_address_and_the_machines_but_no_others() {
    on_a_machine(|machine| {
        let there = outside();
        format(machine, 2, "tuns = true\ntun_ipv4_network = \"172.16.0.0/12\"");
        let servers = WAYS_OUT.map(|(_, far)| there.enter(|| TcpListener::bind(at(far, PORT)).unwrap()));
        for (((machines, far), [own, neighbours]), server) in WAYS_OUT.into_iter().zip([IPV4, IPV6]).zip(&servers) {
            let accepted = |server: &TcpListener| server.accept().unwrap().0;
            for (from, seen) in [(Some(own), own), (Some(machines), machines), (None, machines)] {
                let client = partition(0, || tcp(from, at(far, PORT))).unwrap();
                assert_eq!(exchange(client, server, accepted).to_string(), seen, "from {from:?}");
            }
            assert!(refused(partition(0, || tcp(Some(neighbours), at(far, PORT)))), "{neighbours}");
            // Root is not held, and so it is the guard that refused.
            assert!(tcp(Some(neighbours), at(far, PORT)).is_ok());
            let socket = partition(0, || udp(at(neighbours, 0)));
            assert!(socket.send_to(b"spoofed", at(far, PORT)).is_err());
        }
        let of_its_tun = "172.16.0.1";
        assert!(partition(0, || tcp(Some(of_its_tun), at(WAYS_OUT[0].1, PORT))).is_ok());
        assert!(refused(partition(1, || tcp(Some(of_its_tun), at(WAYS_OUT[0].1, PORT)))));
        // With `ip_nonlocal_bind` anybody can bind to what is nobody's, or is behind a tap. Nobody is told so: whom could
        // the kernel tell?
        for nobodys in ["2001:db8:99::1", "fd00:1::1:8000:0:1"] {
            let socket = partition(0, || udp(at(nobodys, 0)));
            assert!(socket.send_to(b"spoofed", at(WAYS_OUT[1].1, PORT)).is_err(), "{nobodys}");
            let socket = udp(at(nobodys, 0));
            socket.send_to(b"root's", at(WAYS_OUT[1].1, PORT)).unwrap();
        }
        assert!(partition(0, || tcp(Some("fd00:1::1:7fff:0:1"), at(WAYS_OUT[1].1, PORT))).is_ok(), "of its range");
    });
}

#[test]
fn a_partition_serves_at_its_own_addresses_and_nobody_gets_through_to_it_at_others() {
    on_a_machine(|machine| {
        let there = outside();
        format(machine, 2, "");
        for ((machines, far), [own, neighbours]) in WAYS_OUT.into_iter().zip([IPV4, IPV6]) {
            let accepted = |server: &TcpListener| partition(0, || server.accept().unwrap().0);
            let wildcard = if far.contains(':') { "::" } else { "0.0.0.0" };
            for listening in [own, wildcard] {
                let server = partition(0, || TcpListener::bind(at(listening, PORT)).unwrap());
                let client = there.enter(|| tcp(None, at(own, PORT))).unwrap();
                assert_eq!(exchange(client, &server, accepted).to_string(), far);
                let client = tcp(None, at(own, PORT)).unwrap();
                exchange(client, &server, accepted);
            }
            for listening in [neighbours, machines, wildcard] {
                let server = partition(0, || TcpListener::bind(at(listening, PORT)).unwrap());
                server.set_nonblocking(true).unwrap();
                for other in [neighbours, machines].into_iter().filter(|other| [other, wildcard].contains(&listening)) {
                    assert!(there.enter(|| unanswered(at(other, PORT))), "{other} from outside");
                    assert!(unanswered(at(other, PORT)), "{other} from the machine");
                    assert!(server.accept().is_err(), "{other}");
                }
            }
            for listening in [neighbours, machines] {
                let server = partition(0, || udp(at(listening, PORT)));
                let client = there.enter(|| udp(at(far, 0)));
                client.send_to(b"question", at(listening, PORT)).unwrap();
                let (_, from) = server.recv_from(&mut [0; 16]).unwrap();
                assert!(server.send_to(b"answer", from).is_err());
                assert!(silent(&client), "{listening}");
            }
        }
    });
}

#[test]
fn not_even_a_syn_cookie_lets_a_partition_serve_at_a_neighbours_address() {
    on_a_machine(|machine| {
        let there = outside();
        format(machine, 2, "");
        // Always, as if the listener had more connections half open than it takes.
        fs::write("/proc/sys/net/ipv4/tcp_syncookies", "2").unwrap();
        for neighbours in [IPV4[1], IPV6[1]] {
            let _server = partition(0, || TcpListener::bind(at(neighbours, PORT)).unwrap());
            assert!(there.enter(|| unanswered(at(neighbours, PORT))), "{neighbours}");
        }
    });
}

#[test]
fn loopback_is_everybodys() {
    on_a_machine(|machine| {
        format(machine, 2, "");
        for ip in ["127.0.0.1", "::1"] {
            let server = partition(1, || TcpListener::bind(at(ip, PORT)).unwrap());
            let client = partition(0, || tcp(None, at(ip, PORT))).unwrap();
            let seen = exchange(client, &server, |server| partition(1, || server.accept().unwrap().0));
            assert_eq!(seen.to_string(), ip);
        }
    });
}

#[test]
fn partitions_of_one_machine_reach_each_other_and_see_who_it_is() {
    on_a_machine(|machine| {
        format(machine, 3, "");
        let in_range = "fd00:1::2:0:0:77";
        for (main, neighbours, third) in [
            (IPV4[0], IPV4[1], "10.200.0.4"),
            (IPV6[0], IPV6[1], "fd00:1::3:0:0:1"),
            (IPV6[0], in_range, "fd00:1::3:0:0:1"),
        ] {
            let server = partition(1, || TcpListener::bind(at(neighbours, PORT)).unwrap());
            let accept = |server: &TcpListener| partition(1, || server.accept().unwrap().0);
            let loopback = if main.contains(':') { "::1" } else { "127.0.0.1" };
            for from in [None, Some(main), Some(loopback)] {
                let client = partition(0, || tcp(from, at(neighbours, PORT))).unwrap();
                assert_eq!(exchange(client, &server, accept).to_string(), main, "TCP to {neighbours} from {from:?}");
            }
            assert!(refused(partition(0, || tcp(Some(third), at(neighbours, PORT)))));

            let server = partition(1, || udp(at(neighbours, PORT)));
            let any = if main.contains(':') { "::" } else { "0.0.0.0" };
            let client = partition(0, || udp(at(any, 0)));
            client.connect(at(neighbours, PORT)).unwrap();
            client.send(b"question").unwrap();
            let (_, from) = server.recv_from(&mut [0; 16]).unwrap();
            assert_eq!(from.ip().to_string(), main, "UDP to {neighbours}");
            server.send_to(b"answer", from).unwrap();
            assert_eq!(client.recv(&mut [0; 16]).unwrap(), 6);
        }
    });
}

#[test]
fn a_connection_that_a_neighbour_had_begun_is_not_carried_on_in_its_name() {
    on_a_machine(|machine| {
        format(machine, 3, "");
        let server = partition(2, || udp(at("10.200.0.4", PORT)));
        let begin = |n: u32| partition(n, || udp(at("10.200.0.4", 5000)));
        // Partition 2 speaks to itself; the kernel remembers the pair of addresses and ports.
        begin(2).send_to(b"mine", at("10.200.0.4", PORT)).unwrap();
        assert_eq!(server.recv_from(&mut [0; 16]).unwrap().1.ip().to_string(), "10.200.0.4");
        let _ = begin(0).send_to(b"not mine", at("10.200.0.4", PORT));
        assert!(silent(&server));
    });
}

#[test]
fn a_process_of_a_partition_is_held_as_its_sockets_are() {
    on_a_machine(|machine| {
        format(machine, 2, "");
        for (neighbours, main) in [(IPV4[1], IPV4[0]), (IPV6[1], IPV6[0])] {
            let server = partition(1, || TcpListener::bind(at(neighbours, PORT)).unwrap());
            let said = format!("exec 3<>/dev/tcp/{neighbours}/{PORT}; read word <&3; echo \"$word\"");
            let mut bash = Command::new("bash");
            bash.arg("-c").arg(said).uid(FIRST_UID).gid(FIRST_UID).stdout(std::process::Stdio::piped());
            let child = bash.spawn().unwrap();
            let (mut accepted, from) = partition(1, || server.accept().unwrap());
            assert_eq!(from.ip().to_string(), main);
            std::io::Write::write_all(&mut accepted, b"hello\n").unwrap();
            assert_eq!(child.wait_with_output().unwrap().stdout, b"hello\n");
        }
        // What is bound nowhere in particular is at the machine's address for those outside: the kernel's choice is not
        // another partition's.
        let socket = partition(0, || udp(at("::", 0)));
        socket.connect(at("fd00:1::ffff:0:0:1", PORT)).unwrap();
        assert_eq!(socket.local_addr().unwrap().ip(), "fd00:1::1".parse::<Ipv6Addr>().unwrap());
    });
}

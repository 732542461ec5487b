//! Partitions with namespaces of their own: who is root inside can give itself any address, and must not get out with it.

use super::format;
use super::outside::Namespace;
use super::sockets::{at, udp};
use crate::machine::{ip, on_a_machine};
use std::process::Command;

/// What the machine hears at this address first of two words: one from `spoofed`, one from `own`.
fn heard_first(inside: &Namespace, spoofed: &str, own: &str, machines: &str) -> Vec<u8> {
    let socket = udp(at(machines, 4000));
    inside.enter(|| {
        for (from, word) in [(spoofed, b"spoofed"), (own, b"honest!")] {
            udp(at(from, 0)).send_to(word, at(machines, 4000)).unwrap();
        }
    });
    let mut word = [0; 7];
    assert_eq!(socket.recv(&mut word).unwrap(), 7);
    word.to_vec()
}

/// Who is at an address of this network, as the machine's kernel has heard.
fn neighbours() -> String {
    let output = Command::new("ip").args(["neigh", "show", "dev", "plat0"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn root_in_a_partitions_namespace_gets_out_with_the_partitions_addresses_alone() {
    on_a_machine(|machine| {
        format(machine, 2, "namespaces = true");
        let inside = Namespace::open(&machine.path("run/netns/part0"));
        inside.enter(|| {
            ip("address add 10.200.0.3/32 dev eth0");
            ip("address add fd00:1::2:0:0:1/128 dev eth0 nodad");
        });
        // The first words make sure that both ends know each other.
        assert_eq!(heard_first(&inside, "10.200.0.2", "10.200.0.2", "10.200.0.1"), b"spoofed");
        assert_eq!(heard_first(&inside, "fd00:1::1:0:0:1", "fd00:1::1:0:0:1", "fd00:1::1"), b"spoofed");
        assert_eq!(heard_first(&inside, "10.200.0.3", "10.200.0.2", "10.200.0.1"), b"honest!");
        assert_eq!(heard_first(&inside, "fd00:1::2:0:0:1", "fd00:1::1:0:0:1", "fd00:1::1"), b"honest!");
        assert_eq!(
            heard_first(&inside, "fd00:1::1:7fff:0:1", "fd00:1::1:0:0:1", "fd00:1::1"),
            b"spoofed",
            "of its range"
        );
    });
}

#[test]
fn neighbours_in_namespaces_reach_each_other() {
    on_a_machine(|machine| {
        format(machine, 2, "namespaces = true");
        let [one, other] = ["part0", "part1"].map(|name| Namespace::open(&machine.path("run/netns").join(name)));
        for (from, to) in [("10.200.0.2", "10.200.0.3"), ("fd00:1::1:0:0:1", "fd00:1::2:0:0:1")] {
            let server = other.enter(|| udp(at(to, 4000)));
            one.enter(|| udp(at(from, 0)).send_to(b"hello", at(to, 4000)).unwrap());
            assert_eq!(server.recv_from(&mut [0; 16]).unwrap().1.ip().to_string(), from);
        }
    });
}

#[test]
fn nobody_in_a_namespace_says_that_a_neighbours_address_is_his() {
    on_a_machine(|machine| {
        format(machine, 2, "namespaces = true");
        let inside = Namespace::open(&machine.path("run/netns/part0"));
        inside.enter(|| {
            ip("address add 10.200.0.3/32 dev eth0");
            // Asking for the machine's address from there, the kernel says where 10.200.0.3 is.
            ip("neigh flush dev eth0");
            udp(at("10.200.0.3", 0)).send_to(b"spoofed", at("10.200.0.1", 4000)).unwrap();
        });
        assert_eq!(heard_first(&inside, "10.200.0.2", "10.200.0.2", "10.200.0.1"), b"spoofed");
        let known = neighbours();
        assert!(known.contains("10.200.0.2 ") && !known.contains("10.200.0.3 "), "{known}");
    });
}

#[test]
fn another_hardware_address_gets_nowhere() {
    on_a_machine(|machine| {
        format(machine, 2, "namespaces = true");
        let inside = Namespace::open(&machine.path("run/netns/part0"));
        let link = inside.enter(|| Command::new("ip").args(["-o", "link", "show", "eth0"]).output().unwrap().stdout);
        let link = String::from_utf8(link).unwrap();
        let own = link.split_once("link/ether ").unwrap().1.split(' ').next().unwrap();
        let machines = udp(at("10.200.0.1", 4000));
        let say = |mac: &str, word: &[u8]| {
            inside.enter(|| {
                ip(&format!("link set eth0 address {mac}"));
                udp(at("10.200.0.2", 0)).send_to(word, at("10.200.0.1", 4000)).unwrap();
            });
        };
        say(own, b"before");
        say("06:00:00:00:00:99", b"spoofed");
        say(own, b"after");
        for expected in ["before", "after"] {
            let mut word = [0; 16];
            let length = machines.recv(&mut word).unwrap();
            assert_eq!(&word[..length], expected.as_bytes());
        }
    });
}

//! What is behind taps and tuns. The guest of partition n has 10.200.128.n, fd00:1::(n + 1):8000:0:0/82 and the hardware
//! address that ends in n.

use super::format;
use super::frames::{EVERYBODY, Mac, arp, carrying, frame, is_at, ping, router, udp, who_has};
use super::sockets::{at, udp as listen};
use super::tap::Guest;
use crate::machine::{Machine, ip, on_a_machine};

const MINE: Mac = [0x06, 0x67, 0x6A, 0xBC, 0, 0];
const NEIGHBOURS: Mac = [0x06, 0x67, 0x6A, 0xBC, 0, 1];
/// What follows from the hardware addresses.
const LINK_LOCAL: &str = "fe80::467:6aff:febc:0";
const NEIGHBOURS_LINK_LOCAL: &str = "fe80::467:6aff:febc:1";
const ADDRESS: &str = "fd00:1::1:8000:0:5";
const NEIGHBOURS_ADDRESS: &str = "fd00:1::2:8000:0:5";
const IPV4: &str = "10.200.128.0";
const GATEWAY: &str = "10.200.0.1";

/// Which of these frames, sent to everybody behind tap 0, arrive behind tap 1.
fn arriving(frames: &[Vec<u8>]) -> Vec<bool> {
    let (guest, other) = (Guest::behind_tap("part0"), Guest::behind_tap("part1"));
    let hello = to_all(MINE, &udp(IPV4, 9, "255.255.255.255", 9, b"is there anybody?"));
    guest.ask(&hello, &other, |frame| frame == hello);
    frames.iter().for_each(|frame| guest.send(frame));
    let last = carrying(MINE, EVERYBODY, &udp(IPV4, 9, "255.255.255.255", 9, b"the last"));
    guest.send(&last);
    let seen = other.receive_until(|frame| frame == last);
    frames.iter().map(|frame| seen.contains(frame)).collect()
}

fn to_all(from: Mac, packet: &[u8]) -> Vec<u8> {
    carrying(from, EVERYBODY, packet)
}

fn honest() -> Vec<Vec<u8>> {
    vec![
        frame(MINE, EVERYBODY, 0x0806, &arp(1, MINE, IPV4, GATEWAY)),
        frame(MINE, EVERYBODY, 0x0806, &arp(1, MINE, "0.0.0.0", IPV4)),
        to_all(MINE, &udp("0.0.0.0", 68, "255.255.255.255", 67, b"discover")),
        to_all(MINE, &udp(IPV4, 4000, "255.255.255.255", 4000, b"own")),
        to_all(MINE, &udp(ADDRESS, 4000, "ff02::1", 4000, b"own")),
        to_all(MINE, &udp(LINK_LOCAL, 4000, "ff02::1", 4000, b"own")),
        to_all(MINE, &who_has(MINE, "::", ADDRESS)),
        to_all(MINE, &who_has(MINE, LINK_LOCAL, "fd00:1::1")),
        to_all(MINE, &is_at(MINE, ADDRESS, ADDRESS)),
    ]
}

fn spoofed() -> Vec<Vec<u8>> {
    let tagged = [&[0, 7, 8, 0], &udp("10.200.128.1", 4000, "255.255.255.255", 4000, b"tagged")[..]].concat();
    vec![
        to_all(NEIGHBOURS, &udp(IPV4, 4000, "255.255.255.255", 4000, b"mac")),
        to_all(MINE, &udp("10.200.128.1", 4000, "255.255.255.255", 4000, b"guest's")),
        to_all(MINE, &udp("10.200.0.2", 4000, "255.255.255.255", 4000, b"process's")),
        to_all(MINE, &udp(GATEWAY, 4000, "255.255.255.255", 4000, b"machine's")),
        to_all(MINE, &udp("0.0.0.0", 4000, "255.255.255.255", 4000, b"nobody's")),
        to_all(MINE, &udp(IPV4, 67, "255.255.255.255", 68, b"offer")),
        frame(MINE, EVERYBODY, 0x8100, &tagged),
        frame(MINE, EVERYBODY, 0x88CC, b"something else"),
        frame(MINE, EVERYBODY, 0x0806, &arp(2, MINE, GATEWAY, IPV4)),
        frame(MINE, EVERYBODY, 0x0806, &arp(2, MINE, "10.200.128.1", IPV4)),
        frame(MINE, EVERYBODY, 0x0806, &arp(2, NEIGHBOURS, IPV4, IPV4)),
        to_all(MINE, &udp(NEIGHBOURS_ADDRESS, 4000, "ff02::1", 4000, b"guest's")),
        to_all(MINE, &udp("fd00:1::1:0:0:1", 4000, "ff02::1", 4000, b"process's")),
        to_all(MINE, &udp(NEIGHBOURS_LINK_LOCAL, 4000, "ff02::1", 4000, b"guest's")),
        to_all(MINE, &udp("::", 4000, "ff02::1", 4000, b"nobody's")),
        to_all(MINE, &udp(ADDRESS, 547, "ff02::1", 546, b"advertise")),
        to_all(MINE, &is_at(MINE, ADDRESS, "fd00:1::1")),
        to_all(MINE, &is_at(MINE, LINK_LOCAL, NEIGHBOURS_ADDRESS)),
        to_all(MINE, &router(LINK_LOCAL)),
    ]
}

#[test]
fn a_bridged_tap_lets_its_guest_be_itself_alone() {
    on_a_machine(|machine| {
        format(machine, 2, "isolation = false");
        assert_eq!(arriving(&honest()), vec![true; honest().len()]);
        assert_eq!(arriving(&spoofed()), vec![false; spoofed().len()]);
    });
}

#[test]
fn without_the_guard_the_same_frames_arrive() {
    on_a_machine(|machine| {
        format(machine, 2, "isolation = false\nguard = false");
        assert_eq!(arriving(&spoofed()), vec![true; spoofed().len()]);
    });
}

#[test]
fn isolated_guests_reach_the_machine_and_do_not_hear_each_other() {
    on_a_machine(|machine| {
        for (isolation, hears) in [("", false), ("isolation = false", true)] {
            format(machine, 2, isolation);
            let (guest, other) = (Guest::behind_tap("part0"), Guest::behind_tap("part1"));
            let reach = |guest: &Guest, mac: Mac, ip: &str| -> Mac {
                let question = frame(mac, EVERYBODY, 0x0806, &arp(1, mac, ip, GATEWAY));
                let answer = guest.ask(&question, guest, |frame| frame[12..14] == [8, 6] && frame[21] == 2);
                answer[6..12].try_into().unwrap()
            };
            reach(&guest, MINE, IPV4);
            let machines = reach(&other, NEIGHBOURS, "10.200.128.1");
            let word = to_all(MINE, &udp(IPV4, 4000, "255.255.255.255", 4000, b"a word"));
            guest.send(&word);
            other.send(&carrying(NEIGHBOURS, machines, &ping("10.200.128.1", GATEWAY, b"after it")));
            let seen = other.receive_until(|frame| frame[12..14] == [8, 0] && frame.ends_with(b"after it"));
            assert_eq!(seen.contains(&word), hears, "{isolation}");
        }
    });
}

#[test]
fn the_guest_behind_a_bridged_tap_is_answered() {
    on_a_machine(|machine| {
        format(machine, 2, "");
        let guest = Guest::behind_tap("part0");
        let question = frame(MINE, EVERYBODY, 0x0806, &arp(1, MINE, IPV4, GATEWAY));
        let answer = |frame: &[u8]| frame[..6] == MINE && frame[12..14] == [8, 6] && frame[21] == 2;
        let machines: Mac = guest.ask(&question, &guest, answer)[6..12].try_into().unwrap();
        guest.send(&carrying(MINE, machines, &ping(IPV4, GATEWAY, b"hello")));
        guest.receive_until(|frame| frame[12..14] == [8, 0] && frame[34] == 0 && frame.ends_with(b"hello"));
        guest.send(&carrying(MINE, machines, &ping(ADDRESS, "fd00:1::1", b"hello")));
        // The machine asks who has that address first.
        guest.receive_until(|frame| {
            frame[12..14] == [0x86, 0xDD] && frame[54] == 135 && frame[62..78] == octets(ADDRESS)
        });
        guest.send(&carrying(MINE, machines, &is_at(MINE, ADDRESS, ADDRESS)));
        guest.receive_until(|frame| frame[12..14] == [0x86, 0xDD] && frame[54] == 129 && frame.ends_with(b"hello"));
    });
}

fn octets(ip: &str) -> [u8; 16] {
    ip.parse::<std::net::Ipv6Addr>().unwrap().octets()
}

/// What the machine hears of packets from these addresses to its own, by the guest of partition 0.
fn heard(send: impl Fn(Vec<u8>), to: &str, sources: &[&str]) -> Vec<String> {
    let socket = listen(at(to, 4000));
    for source in sources {
        send(udp(source, 4000, to, 4000, source.as_bytes()));
    }
    let (mut all, mut text) = (Vec::new(), [0; 64]);
    // The last is heard in any case.
    while all.last().is_none_or(|last| last != sources[sources.len() - 1]) {
        let length = socket.recv(&mut text).unwrap();
        all.push(String::from_utf8(text[..length].to_vec()).unwrap());
    }
    all
}

fn routed(machine: &Machine, more: &str) {
    let text = "tap_mode = \"routed\"\ntuns = true\ntun_ipv4_network = \"172.16.0.0/12\"\n";
    format(machine, 2, &format!("{text}{more}"));
    for switch in ["all", "default", "part0", "part-tun0"] {
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{switch}/rp_filter"), "0").unwrap();
    }
}

const SOURCES_4: [&str; 4] = ["10.200.128.1", "10.200.0.2", "192.0.2.77", IPV4];
const SOURCES_6: [&str; 5] = [NEIGHBOURS_ADDRESS, "fd00:1::1:0:0:1", "2001:db8::1", "fd00:1::1:bfff:0:1", ADDRESS];

#[test]
fn a_routed_tap_lets_its_guests_addresses_in_alone() {
    on_a_machine(|machine| {
        routed(machine, "");
        let guest = Guest::behind_tap("part0");
        let machines = hardware_address("part0");
        let send = |packet: Vec<u8>| guest.send(&carrying(MINE, machines, &packet));
        assert_eq!(heard(send, GATEWAY, &SOURCES_4), [IPV4]);
        assert_eq!(heard(send, "fd00:1::1", &SOURCES_6), ["fd00:1::1:bfff:0:1", ADDRESS]);
        let lying = |packet: Vec<u8>| {
            guest.send(&carrying(NEIGHBOURS, machines, &packet));
            guest.send(&carrying(MINE, machines, &udp(IPV4, 4000, GATEWAY, 4000, b"the last")));
        };
        assert_eq!(heard_last(lying), "the last");
    });
}

/// What the machine hears first of two packets.
fn heard_last(send: impl Fn(Vec<u8>)) -> String {
    let socket = listen(at(GATEWAY, 4000));
    send(udp(IPV4, 4000, GATEWAY, 4000, b"the first"));
    let mut text = [0; 64];
    let length = socket.recv(&mut text).unwrap();
    String::from_utf8(text[..length].to_vec()).unwrap()
}

#[test]
fn a_tun_lets_the_addresses_of_its_range_in_alone() {
    on_a_machine(|machine| {
        routed(machine, "");
        let software = Guest::behind_tun("part-tun0");
        let send = |packet: Vec<u8>| software.send(&packet);
        let sources = ["172.16.0.65", "10.200.0.2", "172.16.0.62", "172.16.0.2"];
        assert_eq!(heard(send, GATEWAY, &sources), ["172.16.0.62", "172.16.0.2"]);
        let sources = ["fd00:1::2:c000:0:2", ADDRESS, "fd00:1::1:c000:0:2"];
        assert_eq!(heard(send, "fd00:1::1", &sources), ["fd00:1::1:c000:0:2"]);
    });
}

#[test]
fn without_the_guard_a_routed_tap_lets_any_address_in() {
    on_a_machine(|machine| {
        routed(machine, "guard = false");
        let guest = Guest::behind_tap("part0");
        let machines = hardware_address("part0");
        let send = |packet: Vec<u8>| guest.send(&carrying(MINE, machines, &packet));
        // Those of the machine itself are martians to the kernel.
        assert_eq!(heard(send, GATEWAY, &SOURCES_4), ["10.200.128.1", "192.0.2.77", IPV4]);
        assert!(heard(send, "fd00:1::1", &SOURCES_6).contains(&NEIGHBOURS_ADDRESS.to_owned()));
    });
}

fn hardware_address(link: &str) -> Mac {
    let text = std::process::Command::new("ip").args(["-o", "link", "show", link]).output().unwrap().stdout;
    let text = String::from_utf8(text).unwrap();
    let mac = text.split_once("link/ether ").unwrap().1.split(' ').next().unwrap();
    let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

#[test]
fn whoever_calls_his_tap_by_a_neighbours_hardware_address_gets_nothing_of_the_neighbours() {
    on_a_machine(|machine| {
        format(machine, 2, "");
        let guest = Guest::behind_tap("part0");
        guest.takes(NEIGHBOURS);
        ip("neighbour replace 10.200.128.1 lladdr 06:67:6a:bc:00:01 dev plat0 nud permanent");
        let own = std::net::UdpSocket::bind("10.200.0.1:0").unwrap();
        own.set_broadcast(true).unwrap();
        let has = |frame: &[u8], text: &[u8]| frame.windows(text.len()).any(|part| part == text);
        // A port of the bridge forwards only a moment after its tap was opened.
        guest.hear(|| assert_eq!(own.send_to(b"hello", "10.200.255.255:9").unwrap(), 5), |frame| has(frame, b"hello"));
        own.send_to(b"the neighbour's", "10.200.128.1:9").unwrap();
        own.send_to(b"the last", "10.200.255.255:9").unwrap();
        let seen = guest.receive_until(|frame| has(frame, b"the last"));
        assert!(!seen.iter().any(|frame| has(frame, b"the neighbour's")), "{seen:?}");
    });
}

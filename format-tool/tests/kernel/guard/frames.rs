//! Frames and packets, byte by byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub type Mac = [u8; 6];
pub const EVERYBODY: Mac = [0xFF; 6];

const ICMPV6: u8 = 58;
const UDP: u8 = 17;

pub fn frame(from: Mac, to: Mac, kind: u16, packet: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), packet].concat()
}

/// The frame of a packet of either family.
pub fn carrying(from: Mac, to: Mac, packet: &[u8]) -> Vec<u8> {
    frame(from, to, if packet[0] >> 4 == 6 { 0x86DD } else { 0x0800 }, packet)
}

/// 1 asks who has `target`, 2 says that `sender` is at `mac`.
pub fn arp(operation: u8, mac: Mac, sender: &str, target: &str) -> Vec<u8> {
    let [sender, target] = [sender, target].map(|ip| ip.parse::<Ipv4Addr>().unwrap().octets());
    [&[0, 1, 8, 0, 6, 4, 0, operation][..], &mac, &sender, &[0; 6], &target].concat()
}

pub fn udp(from: &str, from_port: u16, to: &str, to_port: u16, text: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + text.len()).unwrap();
    let head = [from_port, to_port, length, 0].map(u16::to_be_bytes).concat();
    ip(from, to, UDP, 64, &[&head, text].concat(), Some(6))
}

pub fn ping(from: &str, to: &str, text: &[u8]) -> Vec<u8> {
    let ipv6 = to.contains(':');
    let head = [if ipv6 { 128 } else { 8 }, 0, 0, 0, 0, 1, 0, 1];
    ip(from, to, if ipv6 { ICMPV6 } else { 1 }, 64, &[&head, text].concat(), Some(2))
}

/// Router advertisement: this is a router, for half an hour.
pub fn router(from: &str) -> Vec<u8> {
    ip(from, "ff02::1", ICMPV6, 255, &[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0], Some(2))
}

/// Neighbour solicitation: who has `target`?
pub fn who_has(mac: Mac, from: &str, target: &str) -> Vec<u8> {
    neighbour(135, [0; 4], 1, mac, from, target)
}

/// Neighbour advertisement, which nobody asked for: `target` is at `mac`.
pub fn is_at(mac: Mac, from: &str, target: &str) -> Vec<u8> {
    neighbour(136, [0x20, 0, 0, 0], 2, mac, from, target)
}

fn neighbour(kind: u8, flags: [u8; 4], option: u8, mac: Mac, from: &str, target: &str) -> Vec<u8> {
    let target = target.parse::<Ipv6Addr>().unwrap().octets();
    let option = if from == "::" { Vec::new() } else { [&[option, 1][..], &mac].concat() };
    ip(from, "ff02::1", ICMPV6, 255, &[&[kind, 0, 0, 0][..], &flags, &target, &option].concat(), Some(2))
}

/// A packet; the checksum of what it carries is put at this place of it.
fn ip(from: &str, to: &str, protocol: u8, hops: u8, carried: &[u8], checksum: Option<usize>) -> Vec<u8> {
    let length = u16::try_from(carried.len()).unwrap();
    let mut carried = carried.to_vec();
    let (head, pseudo) = match (from.parse().unwrap(), to.parse().unwrap()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let ends = [from.octets(), to.octets()].concat();
            let total = (20 + length).to_be_bytes();
            let mut head = [&[0x45, 0, total[0], total[1], 0, 0, 0x40, 0, hops, protocol, 0, 0], &ends[..]].concat();
            let sum = sum(&head).to_be_bytes();
            head[10..12].copy_from_slice(&sum);
            let counted =
                if protocol == UDP { [&ends, &[0, protocol][..], &length.to_be_bytes()].concat() } else { Vec::new() };
            (head, counted)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ends = [from.octets(), to.octets()].concat();
            let head = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[protocol, hops], &ends].concat();
            (head, [&ends, &[0, 0][..], &length.to_be_bytes(), &[0, 0, 0, protocol]].concat())
        }
        _ => panic!("{from} and {to} are of two families"),
    };
    if let Some(place) = checksum {
        let sum = sum(&[&pseudo[..], &carried].concat()).to_be_bytes();
        carried[place..place + 2].copy_from_slice(&sum);
    }
    [head, carried].concat()
}

/// The checksum of the internet protocols.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xFFFF {
        sum = (sum >> 16) + (sum & 0xFFFF);
    }
    !u16::try_from(sum).unwrap()
}

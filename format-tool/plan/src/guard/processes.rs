//! Processes in the machine's own network, told apart by the uid that opened the socket.

use super::table::{Part, Table};
use super::{FAMILIES, Family, all_of, one};
use crate::shares;
use ipnet::IpNet;
use plat_model::node::NodePartition;
use std::net::IpAddr;

pub(super) fn hold(table: &mut Table, partitions: &[NodePartition]) {
    let uids: Vec<u32> = partitions.iter().filter_map(uid).collect();
    let (Some(first), Some(last)) = (uids.iter().min(), uids.iter().max()) else { return };
    if partitions.iter().all(|partition| partition.addresses.is_empty()) {
        return;
    }
    // They are numbered one after the other.
    table.set("users".into(), "type uid".into(), [vec![Part::Uids(*first, *last)]]);
    let (mut own, mut chosen, mut taken, mut ownerless) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut named, mut checked) = (Vec::new(), Vec::new());
    for family in &FAMILIES {
        if !place_sets(table, family, partitions) {
            continue;
        }
        let Family { ip, .. } = family;
        let [owns, same, others, main] = ["own", "same", "taken", "main"].map(|kind| family.set(kind));
        own.push(format!("meta skuid . {ip} saddr @{owns} accept"));
        chosen.push(format!("ct direction original {ip} saddr . {ip} daddr @{same} accept"));
        taken.push(format!("{ip} saddr @{others} goto refuse"));
        // An answer to a SYN that has no socket is a SYN cookie's: whoever listens could not be known, and would be sent
        // what the other end says first.
        ownerless.push(format!("tcp flags & (syn | ack) == syn | ack {ip} saddr @{others} drop"));
        named.push(format!("meta skuid . {ip} saddr @{owns} accept"));
        named.push(format!("oif \"lo\" {ip} daddr @{others} snat {ip} to meta skuid map @{main}"));
        // A connection that another uid had begun is not named anew.
        checked.push(format!("meta skuid @users {ip} saddr @{others} meta skuid . {ip} saddr != @{owns} drop"));
    }
    table.chain("refuse", None, REFUSE.map(String::from).into());
    let rest = ["ip saddr 127.0.0.0/8 accept", "ip6 saddr ::1 accept", LOCAL_CLIENT, "goto refuse"];
    let rest: Vec<String> = rest.map(String::from).into();
    table.chain("process", None, [own, chosen, taken, rest].concat());
    // No socket has the uid 4294967295: the rule is for whatever has a socket at all.
    let mut output = vec!["meta skuid @users goto process".into(), "meta skuid != 4294967295 accept".into()];
    output.append(&mut ownerless);
    table.chain("output", Some("filter hook output priority filter"), output);
    table.chain("name", Some("nat hook postrouting priority srcnat - 1"), named);
    table.chain("named", Some("filter hook postrouting priority srcnat + 1"), checked);
}

/// Only a source that is the machine's own can be told: what is said to another would go out. A connection is reset, so
/// that nothing is left to be sent once the socket has lost its owner.
const REFUSE: [&str; 3] = [
    "fib saddr type != local drop",
    "meta l4proto tcp reject with tcp reset",
    "reject with icmpx type admin-prohibited",
];

/// With IPV6_FREEBIND, or where the kernel lets anybody bind to what is nobody's, a source need not be the machine's.
const LOCAL_CLIENT: &str = "ct direction original fib saddr type local accept";

/// The sets of a family. False: no partition has an address of it.
fn place_sets(table: &mut Table, family: &Family, partitions: &[NodePartition]) -> bool {
    let this = |address: IpAddr| address.is_ipv6() == family.ipv6;
    let users = || partitions.iter().filter_map(|partition| Some((partition, uid(partition)?)));
    let main = users().filter_map(|(partition, uid)| {
        let address = partition.addresses.iter().find(|address| this(**address))?;
        Some(vec![Part::Uids(uid, uid), one(*address)])
    });
    let address = family.address;
    if !table.set(family.set("main"), format!("type uid : {address}"), main.collect::<Vec<_>>()) {
        return false;
    }
    let sources = users().flat_map(|(partition, uid)| {
        let ranges = own(partition).into_iter().filter(|range| this(range.addr()));
        ranges.map(move |range| vec![Part::Uids(uid, uid), all_of(range)])
    });
    table.set(family.set("own"), format!("type uid . {address}"), sources.collect::<Vec<_>>());
    let same = users().flat_map(|(partition, _)| {
        let ends = tun(partition).into_iter().map(node_end);
        let ranges = addresses(partition).into_iter().chain(ends).filter(|range| this(range.addr()));
        ranges.map(|range| vec![all_of(range), all_of(range)])
    });
    table.set(family.set("same"), format!("type {address} . {address}"), same.collect::<Vec<_>>());
    let taken = partitions.iter().flat_map(|partition| {
        let guest = partition.guest.iter();
        let guest =
            guest.flat_map(|guest| guest.ipv4.map(|ip| IpNet::from(ip.addr())).into_iter().chain(guest.ipv6_range));
        own(partition).into_iter().chain(guest).filter(|range| this(range.addr()))
    });
    let taken = merged(taken.collect()).into_iter().map(|(first, last)| vec![Part::Addresses(first, last)]);
    table.set(family.set("taken"), format!("type {address}"), taken)
}

fn uid(partition: &NodePartition) -> Option<u32> {
    partition.account.as_ref().map(|account| account.uid)
}

/// What the processes of a partition may send from.
fn own(partition: &NodePartition) -> Vec<IpNet> {
    addresses(partition).into_iter().chain(tun(partition)).collect()
}

/// Its addresses, but one in its range only as part of that.
fn addresses(partition: &NodePartition) -> Vec<IpNet> {
    let range = partition.ipv6_range;
    let single = partition.addresses.iter().filter(|address| !range.is_some_and(|range| range.contains(*address)));
    single.map(|address| IpNet::from(*address)).chain(range).collect()
}

fn tun(partition: &NodePartition) -> Vec<IpNet> {
    let tun = partition.tun.iter();
    tun.flat_map(|tun| [tun.ipv4_range, tun.ipv6_range]).flatten().collect()
}

/// The machine's own address of a tun's range.
fn node_end(range: IpNet) -> IpNet {
    match range {
        IpNet::V4(range) => IpAddr::from(shares::ipv4_gateway(range)).into(),
        IpNet::V6(range) => IpAddr::from(shares::first(range)).into(),
    }
}

/// Ranges of one family, those that touch put together: a listing does not tell them apart.
fn merged(mut ranges: Vec<IpNet>) -> Vec<(IpAddr, IpAddr)> {
    ranges.sort();
    let mut merged: Vec<(IpAddr, IpAddr)> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some((_, last)) if follows(range.network(), *last) => *last = range.broadcast().max(*last),
            _ => merged.push((range.network(), range.broadcast())),
        }
    }
    merged
}

/// Whether `address` is at most the next one after `last`.
fn follows(address: IpAddr, last: IpAddr) -> bool {
    match (address, last) {
        (IpAddr::V4(address), IpAddr::V4(last)) => address.to_bits() <= last.to_bits().saturating_add(1),
        (IpAddr::V6(address), IpAddr::V6(last)) => address.to_bits() <= last.to_bits().saturating_add(1),
        _ => false,
    }
}

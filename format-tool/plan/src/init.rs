//! A configuration that fits a machine: what `node-format init` writes. The same machine gives the same one.

use crate::facts::{HostFacts, Presence, Scope};
use crate::shares::fnv;
use ipnet::IpNet;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Partitions for each GiB of memory: enough for small services; an operator knows better.
const PER_GIB: u32 = 1;
const AMOUNT: std::ops::RangeInclusive<u32> = 2..=100;
/// Ids that are looked for in one piece: a node may grow without a change of numbers.
const IDS: u32 = 10_000;
/// Networks that are tried in turn.
const NETWORKS: [&str; 6] =
    ["10.112.0.0/16", "10.113.0.0/16", "172.30.0.0/16", "172.31.0.0/16", "192.168.240.0/20", "198.18.0.0/16"];

/// What links that are made get: where it is 1, no IPv6.
const IPV6_OFF: &str = "net.ipv6.conf.default.disable_ipv6";

/// What to look at, to propose a configuration.
pub fn scope() -> Scope {
    Scope { network: true, accounts: true, sysctls: [IPV6_OFF.to_owned()].into(), ..Scope::default() }
}

/// The text of a configuration. `amount`: how many partitions, if that was said. `machine_id` makes the private IPv6
/// prefix differ from other machines'.
pub fn propose(facts: &HostFacts, machine_id: &str, amount: Option<u32>) -> String {
    let memory = facts.machine.memory_mib.unwrap_or(0) / 1024;
    let amount = amount.unwrap_or_else(|| (memory * PER_GIB).clamp(*AMOUNT.start(), *AMOUNT.end()));
    let first_id = free_ids(facts);
    let mut text = String::from(
        "# Written by `node-format init` for this machine. `node-format example` shows every key with its meaning;\n\
         # `node-format plan` shows what this one would do, `node-format apply` does it.\nversion = 1\n",
    );
    let _ = write!(text, "\n[partitions]\namount    = {amount}\nfirst_uid = {first_id}\nfirst_gid = {first_id}\n");
    if facts.groups.contains_key("kvm") {
        text.push_str("groups    = [\"kvm\"]       # for virtual machines at full speed\n");
    }
    network(&mut text, facts, machine_id);
    let builder = first_id - 1;
    let _ = write!(text, "\n[builder]\nuid = {builder}\ngid = {builder}\n");
    text.push_str("\n[limits]               # of each partition\nprocesses = 4096\n");
    text
}

fn network(text: &mut String, facts: &HostFacts, machine_id: &str) {
    text.push_str("\n[network]\nmode         = \"bridge\"\n");
    let routes = facts.routes.iter().map(|route| (route.destination, &route.link));
    let ways = facts.ways.iter().filter(|way| way.main);
    let ways = ways.flat_map(|way| way.links.iter().map(|link| (way.destination, link)));
    // Most machines have a way for each family.
    let out = routes.chain(ways).filter(|(to, link)| to.prefix_len() == 0 && *link != "lo");
    for link in out.map(|(_, link)| link).collect::<BTreeSet<_>>() {
        let on_it = facts.addresses.iter().filter(|found| found.link == *link && !found.address.addr().is_loopback());
        let on_it: BTreeSet<_> = on_it.map(|found| found.address).collect();
        let addresses: Vec<_> = on_it.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "# This machine is reached through {link} ({}).", addresses.join(", "));
    }
    match NETWORKS.iter().filter_map(|text| text.parse().ok()).find(|network| is_free(facts, IpNet::V4(*network))) {
        Some(network) => drop(writeln!(text, "ipv4_network = \"{network}\"   # private; nothing here uses it")),
        None => text.push_str("# ipv4_network = \"…\"     # every network that was tried is in use here: choose one\n"),
    }
    let is_off = facts.sysctls.get(IPV6_OFF).is_some_and(|value| value == "1");
    if facts.kernel.ipv6 == Presence::Absent {
        text.push_str("# ipv6_prefix = \"…\"      # the kernel has no IPv6\n");
    } else if is_off {
        let _ = writeln!(text, "# ipv6_prefix = \"…\"      # IPv6 is switched off here (`{IPV6_OFF}`)");
    } else {
        let (high, low) = (fnv(machine_id), fnv(&format!("plat {machine_id}")));
        let [a, b, c] = [high >> 24 & 0xFF, high & 0xFFFF, low & 0xFFFF];
        let whose = match machine_id {
            "" => "private; without a machine id it is every such machine's: choose one of this machine's own",
            _ => "private, this machine's own",
        };
        let prefix = |n| format!("fd{a:02x}:{b:x}:{:x}::/64", (c + n) & 0xFFFF);
        let free = (0..0x1_0000).map(prefix).find(|text| text.parse().is_ok_and(|network| is_free(facts, network)));
        let _ = writeln!(text, "ipv6_prefix  = \"{}\"   # {whose}", free.unwrap_or_else(|| prefix(0)));
    }
    let taps = facts.kernel.tun != Presence::Absent;
    let _ = writeln!(text, "taps         = {taps}{}", if taps { "" } else { "   # there is no /dev/net/tun" });
    let guard = facts.kernel.nft != Presence::Absent;
    let why = if guard { "" } else { "   # nft is not installed: partitions can use their neighbours' addresses" };
    let _ = writeln!(text, "guard        = {guard}{why}");
}

/// The first of a free range of ids, with a free one before it for the builder.
fn free_ids(facts: &HostFacts) -> u32 {
    let taken = |range: std::ops::Range<u32>| {
        let users = facts.users.values().any(|user| range.contains(&user.uid) || range.contains(&user.gid));
        let subordinate = facts.subordinate_uids.iter().chain(&facts.subordinate_gids);
        let subordinate = subordinate.filter(|found| found.within(range.clone()).is_some()).count() > 0;
        users || subordinate || facts.groups.values().any(|group| range.contains(&group.gid))
    };
    let starts = (0..1000).map(|n| 20_000 + n * IDS);
    starts.clone().find(|first| !taken(first - 1..first + IDS)).unwrap_or(20_000)
}

fn is_free(facts: &HostFacts, network: IpNet) -> bool {
    let overlaps =
        |other: IpNet| network.contains(&other.network()) || (other.prefix_len() > 0 && other.contains(&network));
    let routes = facts.routes.iter().map(|route| route.destination);
    let ways = facts.ways.iter().map(|way| way.destination).chain(facts.local_routes.iter().copied());
    let routes = routes.chain(ways).filter(|to| to.prefix_len() > 0);
    !facts.addresses.iter().map(|found| found.address).chain(routes).any(overlaps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;
    use crate::facts::{AddressFact, GroupFact, Route, Subordinate, UserFact, Way};

    #[test]
    fn what_is_proposed_can_be_read_and_leaves_what_is_there_alone() {
        let mut facts = HostFacts::default();
        facts.machine.memory_mib = Some(16_384);
        facts.users.insert("ann".into(), UserFact { uid: 20_500, gid: 100, home: "/home/ann".into() });
        facts.groups.insert("kvm".into(), GroupFact { gid: 104, ..GroupFact::default() });
        facts.subordinate_uids.insert(Subordinate { owner: "ann".into(), first: 35_000, count: 10 });
        let address = "10.112.7.1/24".parse().unwrap();
        facts.addresses.insert(AddressFact { link: "eth0".into(), address, leased: false, bound_only: false });
        let settings = parse("format.toml", &propose(&facts, "0123", None)).unwrap();
        assert_eq!((settings.partitions.amount, settings.partitions.first_uid), (16, 40_000));
        assert_eq!(settings.network.ipv4_network.unwrap().to_string(), "10.113.0.0/16");
        assert_eq!(settings.partitions.groups, ["kvm"]);
        let prefix = settings.network.ipv6_prefix.unwrap();
        let (link, via) = ("eth0".to_owned(), Some("fe80::1".parse().unwrap()));
        let taken = Route { destination: prefix.into(), link, via, metric: 0, source: None, onlink: false };
        facts.routes.insert(taken.clone());
        let another = parse("format.toml", &propose(&facts, "0123", None)).unwrap().network.ipv6_prefix.unwrap();
        assert!(another != prefix && another.to_string().starts_with("fd"), "{another}");
        facts.routes.remove(&taken);
        assert_eq!(propose(&facts, "0123", None), propose(&facts, "0123", None));
        assert_ne!(propose(&facts, "0123", None), propose(&facts, "0124", None));
        assert_eq!(parse("x", &propose(&facts, "0123", Some(7))).unwrap().partitions.amount, 7);
    }

    #[test]
    fn each_way_to_the_machine_is_named_once_and_no_prefix_is_its_own_without_an_id() {
        let mut facts = HostFacts::default();
        for (destination, via) in [("0.0.0.0/0", "192.0.2.1"), ("::/0", "2001:db8::1")] {
            let (destination, via) = (destination.parse().unwrap(), Some(via.parse().unwrap()));
            facts.routes.insert(Route { destination, link: "up0".into(), via, metric: 0, source: None, onlink: false });
        }
        let text = propose(&facts, "0123", None);
        assert_eq!(text.matches("reached through up0").count(), 1, "{text}");
        assert!(text.contains("this machine's own") && !text.contains("choose one"), "{text}");
        assert!(propose(&facts, "", None).contains("choose one of this machine's own"));
    }

    #[test]
    fn no_range_is_proposed_that_a_route_of_any_kind_leads_into_and_each_way_out_is_named() {
        let way = |destination: &str, links: &[&str], main| {
            let links = links.iter().map(|link| (*link).to_owned()).collect();
            Way { destination: destination.parse().unwrap(), links, what: "a route".into(), metric: 0, main }
        };
        let mut facts = HostFacts::default();
        facts.ways.insert(way("10.112.9.0/24", &[], true));
        facts.ways.insert(way("10.113.9.0/24", &["up0"], false));
        facts.ways.insert(way("0.0.0.0/0", &["up0", "up1"], true));
        facts.ways.insert(way("0.0.0.0/0", &["wg0"], false));
        facts.local_routes.insert("172.30.1.0/24".parse().unwrap());
        let text = propose(&facts, "0123", None);
        assert_eq!(parse("x", &text).unwrap().network.ipv4_network.unwrap().to_string(), "172.31.0.0/16");
        let named: Vec<&str> = text.lines().filter(|line| line.contains("is reached through")).collect();
        assert!(named.len() == 2 && named[0].contains("up0") && named[1].contains("up1"), "{text}");
    }

    #[test]
    fn what_the_kernel_lacks_is_left_out() {
        let mut facts = HostFacts::default();
        (facts.kernel.tun, facts.kernel.ipv6, facts.kernel.nft) =
            (Presence::Absent, Presence::Absent, Presence::Absent);
        let settings = parse("format.toml", &propose(&facts, "", None)).unwrap();
        assert!(!settings.network.taps && !settings.network.guard && settings.network.ipv6_prefix.is_none());
        assert_eq!(settings.partitions.amount, 2);
    }

    #[test]
    fn no_ipv6_is_proposed_where_it_is_switched_off_and_that_is_said() {
        let mut facts = HostFacts::default();
        facts.sysctls.insert(IPV6_OFF.into(), "1".into());
        assert!(facts.seen(&scope()).sysctls.contains_key(IPV6_OFF));
        let text = propose(&facts, "0123", None);
        assert!(parse("x", &text).unwrap().network.ipv6_prefix.is_none() && text.contains(IPV6_OFF), "{text}");
        facts.sysctls.insert(IPV6_OFF.into(), "0".into());
        assert!(parse("x", &propose(&facts, "0123", None)).unwrap().network.ipv6_prefix.is_some());
    }
}

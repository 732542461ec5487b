//! What comes out of routed taps and tuns, told apart by the link.

use super::table::{Part, Table};
use super::{FAMILIES, all_of, one, ports};
use crate::settings::{Settings, TapMode};
use ipnet::IpNet;
use plat_model::node::NodePartition;
use std::net::IpAddr;

pub(super) fn hold(table: &mut Table, settings: &Settings, partitions: &[NodePartition]) {
    let routed = settings.network.tap_mode == TapMode::Routed;
    let (mut names, mut macs, mut sources) = (Vec::new(), Vec::new(), Vec::new());
    for (partition, n) in partitions.iter().zip(0..) {
        if let (Some(tap), Some(guest), true) = (&partition.tap, &partition.guest, routed) {
            let mac = crate::layout::guest_mac(settings, n);
            let link = Part::Link(tap.clone());
            names.push(vec![link.clone()]);
            macs.push(vec![link.clone(), Part::Mac(mac)]);
            let single = guest.ipv4.map(|ip| ip.addr()).into_iter().chain([IpAddr::V6(ports::link_local(mac))]);
            sources.extend(single.map(|address| (link.clone(), one(address))));
            sources.extend(guest.ipv6_range.map(|range| (link, all_of(range))));
        }
        if let Some(tun) = &partition.tun {
            let link = Part::Link(tun.name.clone());
            names.push(vec![link.clone()]);
            let ranges = [tun.ipv4_range, tun.ipv6_range].into_iter().flatten();
            sources.extend(ranges.map(|range: IpNet| (link.clone(), all_of(range))));
        }
    }
    if !table.set("links".into(), "type ifname".into(), names) {
        return;
    }
    let mut rules = Vec::new();
    if table.set("link_macs".into(), "type ifname . ether_addr".into(), macs) {
        // A tun's packets have no hardware address: this does not concern them.
        rules.push("meta iiftype ether iifname . ether saddr != @link_macs drop".to_owned());
    }
    rules.extend(ports::SERVERS.map(String::from));
    for family in &FAMILIES {
        let of_family = sources.iter().filter(|(_, range)| match range {
            Part::Addresses(first, _) => first.is_ipv6() == family.ipv6,
            _ => false,
        });
        let elements: Vec<_> = of_family.map(|(link, range)| vec![link.clone(), range.clone()]).collect();
        let name = family.set("link_own");
        if table.set(name.clone(), format!("type ifname . {}", family.address), elements) {
            rules.push(format!("iifname . {} saddr @{name} accept", family.ip));
        }
    }
    rules.extend(ports::WITHOUT_ADDRESS.map(String::from));
    rules.push("drop".into());
    table.chain("link", None, rules);
    // Before the kernel follows its connections: what is dropped begins none.
    table.chain("links_in", Some("filter hook prerouting priority raw"), vec!["iifname @links goto link".into()]);
}

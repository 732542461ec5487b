//! What comes out of bridged taps and of namespaces, told apart by the bridge's port.

use super::table::{Part, Table};
use super::{all_of, one};
use crate::layout;
use crate::settings::{Settings, TapMode};
use ipnet::IpNet;
use plat_model::node::NodePartition;
use std::net::{IpAddr, Ipv6Addr};

/// What only a router says, and what only a server of IPv4 or IPv6 addresses does.
pub(super) const SERVERS: [&str; 3] =
    ["icmpv6 type { nd-router-advert, nd-redirect } drop", "udp sport 67 drop", "udp sport 547 drop"];

/// What is said by whoever has no address yet.
pub(super) const WITHOUT_ADDRESS: [&str; 2] = [
    "ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept",
    "ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld2-listener-report } accept",
];

struct Port {
    name: String,
    mac: [u8; 6],
    ranges: Vec<IpNet>,
}

pub(super) fn hold(table: &mut Table, settings: &Settings, partitions: &[NodePartition]) {
    let ports: Vec<Port> =
        partitions.iter().zip(0..).filter_map(|(partition, n)| port(settings, partition, n)).collect();
    if ports.is_empty() {
        return;
    }
    let link = |port: &Port| Part::Link(port.name.clone());
    table.set("ports".into(), "type ifname".into(), ports.iter().map(|port| vec![link(port)]));
    let macs = ports.iter().map(|port| vec![link(port), Part::Mac(port.mac)]);
    table.set("port_macs".into(), "type ifname . ether_addr".into(), macs);
    let sources = |ipv6: bool| {
        ports.iter().flat_map(move |port| {
            let ranges = port.ranges.iter().filter(move |range| range.addr().is_ipv6() == ipv6);
            ranges.map(move |range| vec![link(port), all_of(*range)])
        })
    };
    let ipv4 = table.set("port_own4".into(), "type ifname . ipv4_addr".into(), sources(false));
    let own6 = ports.iter().map(|port| vec![link(port), one(link_local(port.mac).into())]).chain(sources(true));
    let own6: Vec<Vec<Part>> = own6.collect();
    // The target of a neighbour advertisement: an address, but plain bits to the packet filter.
    let targets = own6.iter().map(|parts| parts.iter().map(bits).collect());
    table.set("port_targets".into(), "typeof iifname . @th,64,128".into(), targets);
    table.set("port_own6".into(), "type ifname . ipv6_addr".into(), own6);

    let some = |rules: &[&str]| rules.iter().map(|rule| (*rule).to_owned()).collect::<Vec<_>>();
    let own = |rule: &str| if ipv4 { some(&[rule]) } else { Vec::new() };
    let arp = [
        some(&[
            "arp htype != 1 drop",
            "arp ptype != ip drop",
            "arp hlen != 6 drop",
            "arp plen != 4 drop",
            "iifname . arp saddr ether != @port_macs drop",
        ]),
        own("iifname . arp saddr ip @port_own4 accept"),
        some(&["arp saddr ip 0.0.0.0 accept", "drop"]),
    ];
    table.chain("port_arp", None, arp.concat());
    let ip = [some(&[SERVERS[1]]), own("iifname . ip saddr @port_own4 accept"), some(&[WITHOUT_ADDRESS[0], "drop"])];
    table.chain("port_ip", None, ip.concat());
    let ip6 = some(&[
        SERVERS[0],
        SERVERS[2],
        "icmpv6 type nd-neighbor-advert iifname . @th,64,128 != @port_targets drop",
        "iifname . ip6 saddr @port_own6 accept",
        WITHOUT_ADDRESS[1],
        "drop",
    ]);
    table.chain("port_ip6", None, ip6);
    // Whatever else there is on a wire (tagged frames above all) could carry a packet past the filter.
    let port = [
        "iifname . ether saddr != @port_macs drop",
        "ether type arp goto port_arp",
        "ether type ip goto port_ip",
        "ether type ip6 goto port_ip6",
        "drop",
    ];
    table.chain("port", None, some(&port));
    // Whoever may open a tap can give it any hardware address, and the bridge then takes it to be the way to that address
    // for what the machine itself sends.
    let port_out = ["ether daddr & 01:00:00:00:00:00 == 00:00:00:00:00:00 oifname . ether daddr != @port_macs drop"];
    table.chain("port_out", None, some(&port_out));
    table.chain("ports_out", Some("filter hook output priority filter"), some(&["oifname @ports goto port_out"]));
    table.chain("ports_in", Some("filter hook prerouting priority dstnat"), some(&["iifname @ports goto port"]));
}

/// The port of partition n, if it has one.
fn port(settings: &Settings, partition: &NodePartition, n: u32) -> Option<Port> {
    let bridged = settings.network.tap_mode == TapMode::Bridged;
    let mac = layout::guest_mac(settings, n);
    if partition.namespace.is_some() {
        let range = partition.ipv6_range;
        let single = partition.addresses.iter().filter(|address| !range.is_some_and(|range| range.contains(*address)));
        let ranges = single.map(|address| IpNet::from(*address)).chain(range).collect();
        return Some(Port { name: settings.veth_name(n), mac, ranges });
    }
    let (name, guest) = (partition.tap.clone().filter(|_| bridged)?, partition.guest.as_ref()?);
    let ipv4 = guest.ipv4.map(|ip| IpNet::from(ip.addr()));
    Some(Port { name, mac, ranges: ipv4.into_iter().chain(guest.ipv6_range).collect() })
}

/// The link-local address that follows from a hardware address (RFC 4291, appendix A).
pub fn link_local(mac: [u8; 6]) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac;
    Ipv6Addr::from([0xFE, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xFF, 0xFE, d, e, f])
}

fn bits(part: &Part) -> Part {
    match part {
        Part::Addresses(IpAddr::V6(first), IpAddr::V6(last)) => Part::Bits(*first, *last),
        other => other.clone(),
    }
}

//! What settings leave to the machine: the prefix that its router announces, the hardware address that its network knows.

use super::check::bad;
use super::{Network, NetworkMode, Settings, TapMode};
use crate::facts::{HostFacts, LinkFact, LinkKind, MTU};
use ipnet::{IpNet, Ipv6Net};
use plat_model::problem::Problems;
use std::collections::BTreeSet;

/// In bytes, what the kernel lets a tap take at most.
const MTU_OF_A_TAP: u32 = 65_521;

impl Settings {
    /// Whether [`Settings::resolve`] has anything to do.
    pub fn needs_the_machine(&self) -> bool {
        let network = &self.network;
        let links = matches!(network.mode, NetworkMode::Bridge | NetworkMode::Interface);
        let joins = network.mode == NetworkMode::Interface && network.taps && network.tap_mode == TapMode::Bridged;
        network.prefix_from.is_some() || network.uplink.is_some() || joins || (links && network.sysctls)
    }

    /// The same settings with what they leave to the machine filled in, and checked with it. The outcome is the same
    /// before the uplink has become a port of the bridge and after.
    ///
    /// # Errors
    /// As [`Settings::check`]; besides, if the interface is missing or has no IPv6 prefix.
    pub fn resolve(mut self, facts: &HostFacts) -> Result<Self, Problems> {
        let mut wrong = Problems::default();
        if let Some(uplink) = &self.network.uplink {
            match facts.links.get(uplink) {
                Some(link) if matches!(link.kind, LinkKind::Bridge | LinkKind::Tap(_) | LinkKind::Tun(_)) => {
                    let what = format!("{uplink} cannot be an uplink");
                    wrong.push(bad("network.uplink", what).because("it is a bridge, a tap or a tun"));
                }
                Some(link) => self.network.bridge_mac = Some(link.mac),
                None => wrong.push(
                    bad("network.uplink", format!("there is no interface {uplink}"))
                        .fix("name one that `ip link` shows, or leave `uplink` out"),
                ),
            }
        }
        if let Some(from) = &self.network.prefix_from {
            let bridge = (self.network.mode == NetworkMode::Bridge).then_some(&self.network.link);
            // As a port it has none itself; what it is a port of may have had another name.
            let above = facts.links.get(from).and_then(|link| link.bridge.as_ref());
            match prefix_on(facts, &[Some(from), above, bridge]) {
                Some(prefix) => {
                    self.network.ipv6_prefix = Some(prefix);
                    if self.network.ipv6_share == 0 {
                        self.network.ipv6_share = prefix.prefix_len().saturating_add(16).min(128);
                    }
                }
                None => wrong.push(
                    bad("network.ipv6_prefix", format!("{from} has no IPv6 prefix"))
                        .because("none of its addresses is a global one with a prefix shorter than 128")
                        .fix("give the prefix itself, or leave `ipv6_prefix` out and use IPv4 only"),
                ),
            }
        }
        self.network.listening = listening(facts, &self.network);
        self.network.port_mtu = port_mtu(facts, &self.network);
        wrong.none_or(())?;
        self.check()?;
        Ok(self)
    }
}

/// A bridge takes no larger packets than all its ports do, and what stands on it would keep the least it ever had.
fn port_mtu(facts: &HostFacts, network: &Network) -> Option<u32> {
    let beside = match network.mode {
        NetworkMode::Bridge => network.uplink.as_ref(),
        NetworkMode::Interface => Some(&network.link),
        NetworkMode::Loopback | NetworkMode::None => None,
    };
    let mtu = facts.links.get(beside?)?.mtu.filter(|mtu| *mtu > MTU);
    mtu.map(|mtu| mtu.min(MTU_OF_A_TAP))
}

/// What a machine may be reached by in the place of its hardware. Early in a boot nothing has been announced there yet.
fn stands_for_hardware(kind: &LinkKind) -> bool {
    match kind {
        LinkKind::Bridge => true,
        LinkKind::Other(kind) => ["bond", "team", "vlan"].contains(&kind.as_str()),
        LinkKind::Tap(_) | LinkKind::Tun(_) | LinkKind::Veth => false,
    }
}

/// Interfaces by which routers' announcements may come, apart from what is ours: hardware and what stands for it, whatever else
/// an address or a way came by, and the uplink, which hears them again once it is given back.
fn listening(facts: &HostFacts, network: &Network) -> Vec<String> {
    let bridge = (network.mode == NetworkMode::Bridge).then_some(network.link.as_str());
    // Where partitions' ports could announce a router and no guard sees to it that they do not.
    let joined = network.taps && network.tap_mode == TapMode::Bridged && !network.guard;
    let unsafe_to = joined.then_some(network.link.as_str());
    let apart = ["lo"].into_iter().chain(bridge).chain(unsafe_to);
    let apart: BTreeSet<&str> = apart.collect();
    // What a user may open, and what is in the group of ours.
    let partitions = |link: &LinkFact| link.is_tenants() || link.group == network.link_group;
    let hardware = LinkKind::Other(String::new());
    let links = facts.links.iter().filter(|(name, link)| {
        let is_uplink = network.uplink.as_ref() == Some(*name);
        let stands_there = link.kind == hardware || stands_for_hardware(&link.kind);
        let hears = || stands_there || is_uplink || !facts.announced_on(name).is_empty();
        !apart.contains(name.as_str()) && !partitions(link) && hears()
    });
    links.map(|(name, _)| name.clone()).collect()
}

/// The prefix of the least global address with one, on the first of these links that has such an address.
fn prefix_on(facts: &HostFacts, links: &[Option<&String>]) -> Option<Ipv6Net> {
    links.iter().flatten().find_map(|link| {
        let on_it = facts.addresses.iter().filter(|address| &address.link == *link);
        // Not in the kernel's order: it may be another one once they were moved.
        let least = on_it.filter_map(|found| match found.address {
            IpNet::V6(net) if net.prefix_len() < 128 && is_global(net) => Some(net),
            _ => None,
        });
        least.min().map(|net| net.trunc())
    })
}

/// Neither link-local nor loopback: 2000::/3 or a unique local one.
fn is_global(net: Ipv6Net) -> bool {
    let first = net.addr().segments()[0];
    first & 0xE000 == 0x2000 || first & 0xFE00 == 0xFC00
}

//! What the network of the whole node is: the bridge, its addresses, its uplink, the kernel's settings.

use super::{Layout, NeededLink, WantedUplink, net, seed};
use crate::facts::{LinkFact, LinkKind};
use crate::forwarding;
use crate::settings::{Network, NetworkMode, Settings, TapMode};
use crate::shares::{self, Side};
use std::net::{IpAddr, Ipv6Addr};

/// The machine's address on a routed tap, and the way out for what is behind it.
pub(super) const ROUTER: Ipv6Addr = Ipv6Addr::new(0xFE80, 0, 0, 0, 0, 0, 0, 1);

impl Layout {
    pub(super) fn place_network(&mut self, settings: &Settings) {
        let network = &settings.network;
        match network.mode {
            NetworkMode::Bridge => {
                let mac = network.bridge_mac.unwrap_or_else(|| shares::mac(Side::Bridge, &seed(settings), u16::MAX));
                let bridge = LinkFact { mac, mtu: network.mtu, ..blank(LinkKind::Bridge) };
                self.links.insert(network.link.clone(), bridge);
                if network.gateway {
                    let lengths =
                        settings.ranges().into_iter().map(|range| (range.prefix_len(), range.addr().is_ipv6()));
                    let gateways = lengths.filter_map(|(length, ipv6)| Some(net(gateway(network, ipv6)?, length)));
                    self.addresses.extend(gateways.map(|address| (network.link.clone(), address)));
                    self.exclusive = settings.ranges();
                }
                let uplink = network.uplink.clone();
                self.uplink = uplink.map(|link| WantedUplink { link, bridge: network.link.clone() });
            }
            NetworkMode::Interface => {
                let bridge = network.taps && network.tap_mode == TapMode::Bridged;
                self.needs_link = Some(NeededLink { name: network.link.clone(), bridge });
            }
            NetworkMode::Loopback | NetworkMode::None => return,
        }
        let grouped = network.taps || network.tuns || network.namespaces;
        self.link_group = grouped.then_some(network.link_group);
        if network.sysctls {
            self.place_sysctls(network, grouped);
        }
    }

    fn place_sysctls(&mut self, network: &Network, forwards: bool) {
        let mut set = |key: &str, value: &str| drop(self.sysctls.insert(key.into(), value.into()));
        if forwards && network.ipv4_network.is_some() {
            set(forwarding::IPV4, "1");
        }
        if forwards && network.ipv6_prefix.is_some() {
            set(forwarding::IPV6, "1");
            // A machine that forwards does not listen to routers unless it is told to.
            for link in &network.listening {
                set(&format!("net.ipv6.conf.{}.accept_ra", link.replace('.', "/")), "2");
            }
        }
        // It may forward already. Only where no partition's port can announce a router: the guard sees to that.
        if network.uplink.is_some() && network.guard {
            set(&format!("net.ipv6.conf.{}.accept_ra", network.link.replace('.', "/")), "2");
        }
        // Nobody behind the machine is a router of its.
        if network.mode == NetworkMode::Bridge && network.uplink.is_none() {
            set(&format!("net.ipv6.conf.{}.accept_ra", network.link.replace('.', "/")), "0");
        }
        if let Some(uplink) = &network.uplink {
            // What the machine had there by itself, it gets on the bridge.
            set(&format!("net.ipv6.conf.{}.disable_ipv6", uplink.replace('.', "/")), "1");
        }
        if network.local_ranges && network.ipv6_prefix.is_some() && !network.namespaces {
            // A program binds to any address of its range without having asked for IPV6_FREEBIND.
            set("net.ipv6.ip_nonlocal_bind", "1");
        }
    }
}

/// A link that is up and nothing else.
pub(super) fn blank(kind: LinkKind) -> LinkFact {
    LinkFact { kind, up: true, bridge: None, group: 0, mac: [0; 6], mtu: None, isolated: false }
}

/// The node's own address in its IPv6 prefix or IPv4 network.
pub(super) fn gateway(network: &Network, ipv6: bool) -> Option<IpAddr> {
    match ipv6 {
        true => network.ipv6_prefix.map(|range| shares::ipv6_gateway(range).into()),
        false => network.ipv4_network.map(|range| shares::ipv4_gateway(range).into()),
    }
}

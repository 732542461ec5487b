//! What the kernel makes by itself of the links and addresses there are, and makes again once they come back: a closed list.
//! What is neither on it nor said in full by the facts could not be put back exactly.

use super::addresses::{self, Found};
use super::links::{Ipv6, Link};
use ipnet::IpNet;
use node_format_plan::facts::{LinkFact, LinkKind};
use node_format_plan::link_local;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// What the kernel takes for the route to an IPv6 address's network.
const METRIC_IPV6: u32 = 256;
/// How the kernel makes link-local addresses (linux/if_link.h, `in6_addr_gen_mode`): of the hardware address, or of a
/// secret; not at all is 1.
const EUI64: i32 = 0;
const OF_A_SECRET: [i32; 2] = [2, 3];

/// A route to an address's network: link, destination, metric, source.
type Network = (u32, IpNet, u32, Option<IpAddr>);

#[derive(Default)]
pub(super) struct Kernels {
    networks: BTreeSet<Network>,
    /// Of those, by link, the ones of addresses that no router announced, with their metrics.
    lasting: BTreeSet<(u32, IpNet, u32)>,
    /// Those to an IPv6 address's network, which a router may have made end.
    of_routers: BTreeSet<(u32, IpNet)>,
    own: BTreeSet<(u32, IpAddr)>,
    broadcasts: BTreeSet<(u32, Ipv4Addr)>,
    /// Links on which neighbours need no asking for.
    without_neighbours: BTreeSet<u32>,
    ipv6: BTreeMap<u32, Ipv6>,
    told_apart: bool,
}

impl Link {
    /// Whether the kernel makes its link-local address of the hardware address.
    pub fn makes_of_its_mac(&self) -> bool {
        self.ipv6.is_some_and(|ipv6| ipv6.address == EUI64)
    }
}

impl Kernels {
    pub fn new(links: &[Link], addresses: &[Found]) -> Self {
        let mut all = Self { told_apart: addresses::are_told_apart(addresses), ..Self::default() };
        for link in links {
            all.ipv6.extend(link.ipv6.map(|ipv6| (link.index, ipv6)));
            all.without_neighbours.extend(link.without_neighbours.then_some(link.index));
        }
        for (link, found, besides) in addresses {
            let (own, length) = (found.address.addr(), found.address.prefix_len());
            all.own.insert((*link, own));
            let (peer, metric) = (besides.further.peer, besides.further.metric);
            if own.is_ipv6() {
                let metric = if metric == 0 { METRIC_IPV6 } else { metric };
                let network = (!besides.further.without_route).then(|| found.address.trunc());
                let all_of_it: Vec<IpNet> = network.into_iter().chain(peer.map(IpNet::from)).collect();
                all.networks.extend(all_of_it.iter().map(|network| (*link, *network, metric, None)));
                let lasting = all_of_it.into_iter().filter(|_| !found.leased);
                all.lasting.extend(lasting.map(|network| (*link, network, metric)));
                all.of_routers.insert((*link, found.address.trunc()));
                continue;
            }
            let Ok(IpNet::V4(network)) = IpNet::new(peer.unwrap_or(own), length) else { continue };
            let (network, of_one) = (network.trunc(), peer.is_none() && length == 32);
            if !besides.further.without_route && !besides.secondary && !of_one {
                all.networks.insert((*link, network.into(), metric, Some(own)));
                all.lasting.insert((*link, network.into(), metric));
            }
            let ends = if length < 31 { vec![network.network(), network.broadcast()] } else { Vec::new() };
            all.broadcasts.extend(ends.into_iter().chain(besides.further.broadcast).map(|ip| (*link, ip)));
        }
        all
    }

    /// Whether it makes this route, without a router, to an address's network.
    pub fn routes_to(&self, network: &Network) -> bool {
        // A link-local one is there as long as the link is.
        let near =
            network.1.prefix_len() == 64 && matches!(network.1.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local());
        self.networks.contains(network) || (near && network.2 == METRIC_IPV6)
    }

    /// Whether an IPv6 address's network is this one.
    pub fn is_network(&self, link: u32, network: IpNet) -> bool {
        self.of_routers.contains(&(link, network))
    }

    /// The networks that addresses of the link lead to whatever a router announces, and the metrics of the ways.
    pub fn lasting(&self, link: u32) -> impl Iterator<Item = (IpNet, u32)> {
        let of_it = self.lasting.iter().filter(move |(on, ..)| *on == link);
        of_it.map(|(_, network, metric)| (*network, *metric))
    }

    pub fn owns(&self, link: u32, address: IpNet) -> bool {
        address.prefix_len() == address.max_prefix_len() && self.own.contains(&(link, address.addr()))
    }

    pub fn is_broadcast(&self, link: u32, address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(ip) if ip.is_broadcast() || self.broadcasts.contains(&(link, ip)))
    }

    /// Whether it makes neighbours there that are never asked for.
    pub fn knows(&self, link: u32, neighbour: IpAddr) -> bool {
        neighbour.is_multicast() || self.is_broadcast(link, neighbour) || self.without_neighbours.contains(&link)
    }

    /// Whether it makes this link-local address again once IPv6 is switched on anew. On links that are made anew, with the hardware
    /// address that they are to have, one that somebody set is his though it looks like the kernel's.
    pub fn follows(&self, (link, found, besides): &Found, fact: &LinkFact) -> bool {
        match self.ipv6.get(link) {
            Some(ipv6) if ipv6.address == EUI64 => {
                let is_nodes = matches!(fact.kind, LinkKind::Bridge | LinkKind::Tap(_) | LinkKind::Tun(_));
                let is_set = is_nodes && self.told_apart && !besides.is_kernels;
                let like_it = found.address.addr() == IpAddr::V6(link_local(fact.mac));
                like_it && found.address.prefix_len() == 64 && !is_set
            }
            Some(ipv6) => OF_A_SECRET.contains(&ipv6.address) && besides.is_kernels,
            None => false,
        }
    }

    /// The largest packet of IPv6 there, if that is less than the link takes.
    pub fn lesser_mtu(&self, link: u32, fact: &LinkFact) -> Option<u32> {
        let mtu = self.ipv6.get(&link)?.mtu;
        fact.mtu.filter(|whole| mtu < *whole).map(|_| mtu)
    }
}

/// Every multicast address, which each link has a route to.
pub(super) fn is_all_multicast(network: IpNet) -> bool {
    network.prefix_len() == 8 && matches!(network.addr(), IpAddr::V6(ip) if ip.segments()[0] == 0xFF00)
}

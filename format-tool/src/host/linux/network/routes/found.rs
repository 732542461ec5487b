//! The routes that there are: what can be put back exactly, what the kernel or a router makes again, and the rest.

use super::super::connection::Connection;
use super::super::kernels::{Kernels, is_all_multicast};
use super::TABLE_LOCAL;
use ipnet::IpNet;
use node_format_plan::facts::{About, Odd, Route, Way};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RoutePreference, RouteProtocol,
    RouteScope, RouteType,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the kernel takes for an IPv6 route of which no metric is said.
const METRIC_IPV6: u32 = 1024;
/// Of what a route keeps to whatever the kernel learns, the bit of packets' size (`1 << RTAX_MTU`).
const LOCKED_MTU: u32 = 1 << 2;

/// All routes of interest.
#[derive(Default)]
pub(in super::super) struct Routes {
    /// Every local route that is wider than one address.
    pub local: BTreeSet<IpNet>,
    /// Of these, those that are marked as node-format marks its own, whoever made them: no address's.
    pub marked: BTreeSet<IpNet>,
    /// The main table, apart from what the kernel made by itself.
    pub main: BTreeSet<Route>,
    /// By index of the link, where those go that a router announced.
    pub announced: BTreeMap<u32, BTreeSet<IpNet>>,
    /// By index of the link, where those go that a program keeps: made in the name of DHCP, or of a router.
    pub kept: BTreeMap<u32, BTreeSet<IpNet>>,
    /// Made in the kernel's name to no address's network, and ending by themselves: a router's, if one is heard there.
    pub ending: BTreeSet<(u32, IpNet)>,
    /// By link, those of which neither can be said.
    pub odd: BTreeSet<(String, Odd)>,
    /// Of those, the ones by `lo` or by no link.
    pub unlinked: BTreeSet<Odd>,
    /// Of all that is not in `main`, where it goes, unless the kernel made it by itself.
    pub ways: BTreeSet<Way>,
    /// How many routes of the main table there are by destination and metric.
    amounts: BTreeMap<(IpNet, u32), u32>,
}

impl Routes {
    /// Of those that could be put back alone, the ones that another route has destination and metric in common with.
    pub fn doubled(&self) -> impl Iterator<Item = &Route> {
        self.main
            .iter()
            .filter(|route| self.amounts.get(&(route.destination, metric_of(route))).is_some_and(|amount| *amount > 1))
    }

    /// Of those that could be put back alone, the ones whose router the kernel would not find on their link any more, and so
    /// refuse: what led there when they were made is gone, or ends by itself.
    pub fn unreached(&self, names: &BTreeMap<u32, String>, kernels: &Kernels) -> Vec<&Route> {
        let indexes: BTreeMap<&str, u32> = names.iter().map(|(index, name)| (name.as_str(), *index)).collect();
        let router = |route: &'_ Route| route.via.filter(|via| !route.onlink && !is_link_local(*via));
        let of_main = |route: &Route| Some((route.link.clone(), router(route)?));
        // Many routes have few routers.
        let mut routers: BTreeSet<(String, IpAddr)> = self.main.iter().filter_map(of_main).collect();
        routers.retain(|(link, via)| {
            let index = indexes.get(link.as_str()).copied().unwrap_or_default();
            let networks = kernels.lasting(index).map(|(network, metric)| (network, metric, true));
            // Of IPv4 the kernel looks at what leads there directly alone.
            let beside = self.main.iter().filter(|other| other.link == *link && (other.via.is_none() || via.is_ipv6()));
            let beside = beside.map(|other| (other.destination, metric_of(other), other.via.is_none()));
            let lead_there = networks.chain(beside).filter(|(network, ..)| network.contains(via));
            let narrowest = lead_there.max_by_key(|(network, metric, _)| (network.prefix_len(), Reverse(*metric)));
            !narrowest.is_some_and(|(.., is_direct)| is_direct)
        });
        let is_meant = |route: &&Route| of_main(route).is_some_and(|router| routers.contains(&router));
        self.main.iter().filter(is_meant).collect()
    }
}

/// As the kernel tells of it.
pub(super) fn metric_of(route: &Route) -> u32 {
    if route.metric == 0 && route.destination.addr().is_ipv6() { METRIC_IPV6 } else { route.metric }
}

pub(super) fn is_main(message: &RouteMessage) -> bool {
    Told::read(message).is_some_and(|told| told.is_main())
}

/// Where a route of the main table goes, if that is a network whose way the kernel knows by itself.
pub(super) fn network_of(message: &RouteMessage) -> Option<IpNet> {
    let told = Told::read(message)?;
    (told.is_main() && told.via.is_none()).then_some(told.destination)
}

/// Each link leads to all of these.
fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

enum Found {
    Main(Route),
    Announced(Vec<u32>, IpNet),
    Ending(u32, IpNet),
    /// On each of these links.
    Odd(Vec<String>, Odd),
    Unlinked(Odd),
    /// The kernel makes it by itself, or nobody's link has it.
    Own,
}

/// One route, the place it takes in the main table, and the range if it is a local one.
struct Placed {
    found: Found,
    place: Option<(IpNet, u32)>,
    local: Option<IpNet>,
    marked: bool,
    /// If a program keeps it, of which link it is, and where it goes.
    kept: Option<(u32, IpNet)>,
    way: Option<Way>,
}

impl Extend<Placed> for Routes {
    fn extend<I: IntoIterator<Item = Placed>>(&mut self, routes: I) {
        for Placed { found, place, local, marked, kept, way } in routes {
            self.ways.extend(way);
            if let Some((link, to)) = kept {
                self.kept.entry(link).or_default().insert(to);
            }
            if let Some(place) = place {
                *self.amounts.entry(place).or_default() += 1;
            }
            self.local.extend(local);
            self.marked.extend(local.filter(|_| marked));
            match found {
                Found::Main(route) => drop(self.main.insert(route)),
                Found::Announced(links, to) => links.into_iter().for_each(|link| {
                    self.announced.entry(link).or_default().insert(to);
                }),
                Found::Ending(link, to) => drop(self.ending.insert((link, to))),
                Found::Odd(links, odd) => self.odd.extend(links.into_iter().map(|link| (link, odd.clone()))),
                Found::Unlinked(odd) => drop(self.unlinked.insert(odd)),
                Found::Own => {}
            }
        }
    }
}

/// `names`: of the links, by index.
pub(in super::super) fn all(
    connection: &mut Connection,
    names: &BTreeMap<u32, String>,
    kernels: &Kernels,
) -> io::Result<Routes> {
    let answers = connection.handle.route().get(RouteMessage::default()).execute();
    connection.ask(answers, |message| {
        let (told, header) = (Told::read(&message)?, &message.header);
        let (found, place, local) = (told.found(header, names, kernels), told.place(header), told.local(header));
        let kept = told.on.filter(|_| told.is_kept(header)).map(|on| (on, told.destination));
        let way = if matches!(found, Found::Main(_)) { None } else { told.way(header, names, kernels) };
        Some(Placed { found, place, local, marked: header.protocol == RouteProtocol::Static, kept, way })
    })
}

/// In whose name each was made of those routes of a link, given by index and name, that could be put back.
pub(in super::super) fn protocols(
    connection: &mut Connection,
    (index, name): (u32, &str),
) -> io::Result<BTreeMap<Route, RouteProtocol>> {
    let (names, kernels) = (BTreeMap::from([(index, name.to_owned())]), Kernels::default());
    let answers = connection.handle.route().get(RouteMessage::default()).execute();
    connection.ask(answers, |message| match Told::read(&message)?.found(&message.header, &names, &kernels) {
        Found::Main(route) => Some((route, message.header.protocol)),
        _ => None,
    })
}

/// One route as the kernel tells of it.
struct Told {
    ipv6: bool,
    destination: IpNet,
    via: Option<IpAddr>,
    source: Option<IpAddr>,
    on: Option<u32>,
    metric: u32,
    table: u32,
    several: Vec<u32>,
    /// It has what [`Route`] does not say.
    more: bool,
    /// Of IPv6, the largest packet by it, unless the kernel is to leave that alone (`mtu lock`).
    mtu: Option<u32>,
    ends: bool,
    /// It is for packets from some sources alone.
    narrow: bool,
}

impl Told {
    fn read(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let ipv6 = header.address_family == AddressFamily::Inet6;
        if !ipv6 && header.address_family != AddressFamily::Inet {
            return None;
        }
        let everywhere = if ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
        let mut told = Self {
            ipv6,
            destination: IpNet::new(everywhere, header.destination_prefix_length).ok()?,
            via: None,
            source: None,
            on: None,
            metric: 0,
            table: u32::from(header.table),
            several: Vec::new(),
            more: header.tos != 0,
            mtu: None,
            ends: false,
            narrow: header.tos != 0,
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => {
                    told.destination = IpNet::new(ip(address)?, header.destination_prefix_length).ok()?;
                }
                RouteAttribute::Gateway(address) => told.via = ip(address),
                RouteAttribute::PrefSource(address) => told.source = ip(address),
                RouteAttribute::Oif(index) => told.on = Some(*index),
                RouteAttribute::Priority(number) => told.metric = *number,
                RouteAttribute::Table(number) => told.table = *number,
                RouteAttribute::MultiPath(ways) => told.several.extend(ways.iter().map(|way| way.interface_index)),
                RouteAttribute::CacheInfo(info) => told.ends = info.expires != 0,
                RouteAttribute::Preference(RoutePreference::Medium) => {}
                RouteAttribute::Metrics(metrics) => (told.more, told.mtu) = (true, mtu(metrics).filter(|_| ipv6)),
                RouteAttribute::Source(_) => (told.more, told.narrow) = (true, true),
                _ => told.more = true,
            }
        }
        Some(told)
    }

    fn is_main(&self) -> bool {
        self.table == u32::from(RouteHeader::RT_TABLE_MAIN)
    }

    /// Where the kernel has one route alone unless it is told to add another.
    fn place(&self, header: &RouteHeader) -> Option<(IpNet, u32)> {
        let is_meant = self.is_main() && !self.narrow && !header.flags.contains(RouteFlags::Cloned);
        is_meant.then_some((self.destination, self.metric))
    }

    /// Whether whoever made it would make it again. What the kernel itself makes of an announcement ends.
    fn is_kept(&self, header: &RouteHeader) -> bool {
        let in_a_routers_name = header.protocol == RouteProtocol::Ra && self.ipv6 && !self.ends;
        header.protocol == RouteProtocol::Dhcp || in_a_routers_name
    }

    /// If it is a range that the machine answers for.
    fn local(&self, header: &RouteHeader) -> Option<IpNet> {
        let is_meant = self.table == u32::from(TABLE_LOCAL) && header.kind == RouteType::Local;
        (is_meant && !is_single(self.destination)).then_some(self.destination)
    }

    fn found(&self, header: &RouteHeader, names: &BTreeMap<u32, String>, kernels: &Kernels) -> Found {
        let to = self.destination;
        let links: Vec<u32> = self.several.iter().copied().chain(self.on).collect();
        if header.flags.contains(RouteFlags::Cloned) || self.is_kernels(header, kernels) {
            return Found::Own;
        }
        if header.protocol == RouteProtocol::Ra && self.is_main() && self.ipv6 {
            return Found::Announced(links, to);
        }
        let plain = self.is_main() && !self.more && self.several.is_empty() && header.kind == RouteType::Unicast;
        if let (RouteProtocol::Kernel, true, true, Some(on), None) =
            (header.protocol, plain, self.ends && self.ipv6, self.on, self.via)
        {
            return Found::Ending(on, to);
        }
        // So it would be put back.
        let scope = if self.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
        let as_made = header.protocol != RouteProtocol::Kernel && !self.ends && (self.ipv6 || header.scope == scope);
        let name = self.on.and_then(|on| names.get(&on));
        if let Some(link) = name.filter(|_| plain && as_made) {
            let onlink = header.flags.contains(RouteFlags::Onlink);
            let metric = if self.ipv6 && self.metric == METRIC_IPV6 { 0 } else { self.metric };
            let (via, source) = (self.via, self.source);
            return Found::Main(Route { destination: to, link: link.clone(), via, metric, source, onlink });
        }
        self.odd_on(&links, names, header)
    }

    /// Where it goes, unless the kernel made it by itself, or it is a range that the machine answers for.
    fn way(&self, header: &RouteHeader, names: &BTreeMap<u32, String>, kernels: &Kernels) -> Option<Way> {
        let (in_local, by_kernel) = (self.table == u32::from(TABLE_LOCAL), header.protocol == RouteProtocol::Kernel);
        let is_said = in_local && (by_kernel || self.local(header).is_some());
        if header.flags.contains(RouteFlags::Cloned) || is_said || self.is_kernels(header, kernels) {
            return None;
        }
        let indexes = || self.several.iter().copied().chain(self.on);
        let links: BTreeSet<String> = indexes().filter_map(|on| names.get(&on)).cloned().collect();
        if links.is_empty() && indexes().next().is_some() {
            return None; // Of links that came since.
        }
        // Of IPv6 what leads nowhere is by `lo`.
        let leads = !(header.kind != RouteType::Unicast && links.iter().all(|link| link == "lo"));
        Some(Way {
            destination: self.destination,
            links: if leads { links } else { BTreeSet::new() },
            what: format!("the route {}{}", self.destination, self.why(header)),
            metric: self.metric,
            main: self.is_main() || in_local,
        })
    }

    /// Why it could not be put back, in words that follow it.
    fn why(&self, header: &RouteHeader) -> String {
        if header.kind != RouteType::Unicast {
            format!(" of kind {}", format!("{:?}", header.kind).to_lowercase())
        } else if !self.several.is_empty() {
            " over several links".to_owned()
        } else if !self.is_main() {
            format!(" of table {}", self.table)
        } else if header.protocol == RouteProtocol::Ra && self.ipv6 {
            ", which a router announced".to_owned()
        } else if self.more {
            " with an mtu or other properties".to_owned()
        } else if self.ends {
            " that ends by itself".to_owned()
        } else if header.protocol == RouteProtocol::Kernel {
            ", which a program made in the kernel's name".to_owned()
        } else {
            " of another scope".to_owned()
        }
    }

    /// Nothing is ever taken from `lo`; but all that is there goes with its namespace.
    fn odd_on(&self, links: &[u32], names: &BTreeMap<u32, String>, header: &RouteHeader) -> Found {
        let on: Vec<String> =
            links.iter().filter_map(|on| names.get(on)).filter(|name| *name != "lo").cloned().collect();
        // With an address the kernel takes that from routes of IPv6 in every table, and drops those of IPv4 in the main one alone.
        let source = self.source.filter(|_| self.ipv6 || self.is_main());
        let of_links = if self.several.is_empty() { About::Other } else { About::Shared };
        let about = self.mtu.map_or(of_links, About::MtuOfRoute);
        let what = format!("the route {}{}", self.destination, self.why(header));
        let odd = || Odd { what: what.clone(), ipv6: self.ipv6, source, about };
        // What follows from an address, and what is a range that the machine answers for.
        let is_said = header.protocol == RouteProtocol::Kernel
            || (header.protocol == RouteProtocol::Static && self.local(header).is_some());
        match on.is_empty() {
            false => Found::Odd(on, odd()),
            true if is_said => Found::Own,
            true => Found::Unlinked(odd()),
        }
    }

    /// Whether the kernel made it by itself, and would again.
    fn is_kernels(&self, header: &RouteHeader, kernels: &Kernels) -> bool {
        let (Some(on), RouteProtocol::Kernel) = (self.on, header.protocol) else { return false };
        if self.via.is_some() || self.more || !self.several.is_empty() {
            return false;
        }
        let (to, single) = (self.destination, is_single(self.destination));
        match (self.table == u32::from(TABLE_LOCAL), header.kind) {
            (true, RouteType::Local) => kernels.owns(on, to),
            (true, RouteType::Broadcast) => single && kernels.is_broadcast(on, to.addr()),
            // It follows from forwarding, or from a program that listens there.
            (true, RouteType::Anycast) => single,
            (true, RouteType::Multicast | RouteType::Unicast) => is_all_multicast(to),
            (false, RouteType::Unicast) if self.is_main() => {
                let ended_by_a_router = self.ends && kernels.is_network(on, to);
                ended_by_a_router || (!self.ends && kernels.routes_to(&(on, to, self.metric, self.source)))
            }
            _ => false,
        }
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn is_single(net: IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// What a route says of packets' size, if that follows its link's.
fn mtu(metrics: &[RouteMetric]) -> Option<u32> {
    let is_locked = metrics.iter().any(|metric| matches!(metric, RouteMetric::Lock(which) if which & LOCKED_MTU != 0));
    let mtu = metrics.iter().find_map(|metric| if let RouteMetric::Mtu(bytes) = metric { Some(*bytes) } else { None });
    mtu.filter(|_| !is_locked)
}

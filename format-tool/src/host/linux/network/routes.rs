//! Routes: ranges that the machine answers for as a whole, and ways to other machines.

use super::connection::{Connection, Request};
use ipnet::IpNet;
use node_format_plan::facts::Route;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RoutePreference, RouteProtocol, RouteScope,
    RouteType,
};
use rtnetlink::{Handle, RouteMessageBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Number of the kernel's table of what is local.
const TABLE_LOCAL: u8 = 255;
/// What the kernel takes for an IPv6 route of which no metric is said.
const METRIC_IPV6: u32 = 1024;

/// All routes of interest.
#[derive(Default)]
pub(super) struct Routes {
    /// Every local route that is wider than one address.
    pub local: BTreeSet<IpNet>,
    /// The main table, apart from what the kernel made by itself.
    pub main: BTreeSet<Route>,
    /// Those that the kernel is said to have made, by link: to the networks of the addresses there.
    pub direct: BTreeSet<(String, IpNet)>,
    /// Indexes of the links with one that a router announced.
    pub announced: BTreeSet<u32>,
    /// By link, one that cannot be said so.
    pub odd: BTreeMap<String, String>,
}

/// One route, of either sort.
enum Found {
    /// A range that is local, and the link that somebody set it on.
    Local(Option<IpNet>, Option<(String, String)>),
    Main(Route),
    Direct(String, IpNet),
    Announced(u32),
    Odd(Vec<String>, String),
}

impl Extend<Found> for Routes {
    fn extend<I: IntoIterator<Item = Found>>(&mut self, routes: I) {
        routes.into_iter().for_each(|found| match found {
            Found::Local(range, odd) => {
                self.local.extend(range);
                self.odd.extend(odd);
            }
            Found::Main(route) => drop(self.main.insert(route)),
            Found::Direct(link, to) => drop(self.direct.insert((link, to))),
            Found::Announced(link) => drop(self.announced.insert(link)),
            Found::Odd(links, what) => self.odd.extend(links.into_iter().map(|link| (link, what.clone()))),
        });
    }
}

/// `names`: of the links, by index.
pub(super) fn all(connection: &mut Connection, names: &BTreeMap<u32, String>) -> io::Result<Routes> {
    let answers = connection.handle.route().get(RouteMessage::default()).execute();
    connection.ask(answers, |message| read(&message, names))
}

fn read(message: &RouteMessage, names: &BTreeMap<u32, String>) -> Option<Found> {
    let header = &message.header;
    let (mut to, mut via, mut source, mut link) = (None, None, None, None);
    let (mut metric, mut table) = (0, u32::from(header.table));
    let (mut several, mut more) = (Vec::new(), header.tos != 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => to = ip(address),
            RouteAttribute::Gateway(address) => via = ip(address),
            RouteAttribute::PrefSource(address) => source = ip(address),
            RouteAttribute::Oif(index) => link = names.get(index),
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::MultiPath(ways) => {
                several.extend(ways.iter().filter_map(|way| names.get(&way.interface_index)))
            }
            RouteAttribute::Metrics(_) | RouteAttribute::Encap(_) | RouteAttribute::Via(_) => more = true,
            RouteAttribute::Source(_) | RouteAttribute::Realm(_) | RouteAttribute::NhId(_) => more = true,
            RouteAttribute::Preference(preference) => more |= *preference != RoutePreference::Medium,
            _ => {}
        }
    }
    let ipv6 = header.address_family == rtnetlink::packet_route::AddressFamily::Inet6;
    let everywhere = if ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    let destination = IpNet::new(to.unwrap_or(everywhere), header.destination_prefix_length).ok()?;
    if table == u32::from(TABLE_LOCAL) && header.kind == RouteType::Local {
        let range = (destination.prefix_len() < destination.max_prefix_len()).then_some(destination);
        let by_hand = link.filter(|_| header.protocol != RouteProtocol::Kernel);
        let odd = by_hand.map(|link| (link.clone(), format!("the route local {destination}")));
        return Some(Found::Local(range, odd));
    }
    let on = message.attributes.iter().find_map(|one| if let RouteAttribute::Oif(on) = one { Some(*on) } else { None });
    if header.protocol == RouteProtocol::Ra {
        return on.map(Found::Announced);
    }
    // What a router announced is the kernel's too: it comes and goes by itself.
    if header.protocol == RouteProtocol::Kernel && header.kind == RouteType::Unicast {
        return link.map(|link| Found::Direct(link.clone(), destination));
    }
    let own = matches!(header.protocol, RouteProtocol::Kernel | RouteProtocol::Ra);
    if own || header.kind != RouteType::Unicast || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    if more || !several.is_empty() || table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        let why = match (several.is_empty(), more) {
            (false, _) => " over several links".to_owned(),
            (true, true) => " with an mtu or other properties".to_owned(),
            (true, false) => format!(" of table {table}"),
        };
        let links = several.into_iter().chain(link).cloned().collect();
        return Some(Found::Odd(links, format!("the route {destination}{why}")));
    }
    let onlink = header.flags.contains(RouteFlags::Onlink);
    let metric = if ipv6 && metric == METRIC_IPV6 { 0 } else { metric };
    Some(Found::Main(Route { destination, link: link?.clone(), via, metric, source, onlink }))
}

/// The ways that routers announced on a link: through them, and to their own prefixes. They end by themselves, but while
/// they are there they draw to the link what others are to carry.
pub(super) fn announced(connection: &mut Connection, link: u32) -> io::Result<Vec<RouteMessage>> {
    let answers = connection.handle.route().get(RouteMessageBuilder::<Ipv6Addr>::new().build()).execute();
    connection.ask(answers, |message: RouteMessage| {
        let has = |is: fn(&RouteAttribute, u32) -> bool| message.attributes.iter().any(|one| is(one, link));
        let there = has(|one, link| matches!(one, RouteAttribute::Oif(index) if *index == link));
        let ends = has(|one, _| matches!(one, RouteAttribute::CacheInfo(info) if info.expires != 0));
        let of_a_router = match message.header.protocol {
            RouteProtocol::Ra => true,
            RouteProtocol::Kernel => ends && message.header.kind == RouteType::Unicast,
            _ => false,
        };
        (there && of_a_router).then_some(message)
    })
}

/// As the kernel told of it.
pub(super) fn remove_as_told(handle: &Handle, route: RouteMessage) -> Request {
    Box::pin(handle.route().del(route).execute())
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

pub(super) fn add(handle: &Handle, index: u32, route: &Route) -> Request {
    Box::pin(handle.route().add(unicast(index, route)).execute())
}

pub(super) fn remove(handle: &Handle, index: u32, route: &Route) -> Request {
    let mut message = unicast(index, route);
    // Whoever made it.
    message.header.protocol = RouteProtocol::Unspec;
    message.header.scope = RouteScope::NoWhere;
    Box::pin(handle.route().del(message).execute())
}

fn unicast(index: u32, route: &Route) -> RouteMessage {
    let mut message = to(route.destination);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = if route.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    };
    if route.onlink {
        message.header.flags |= RouteFlags::Onlink;
    }
    message.attributes.push(RouteAttribute::Oif(index));
    message.attributes.extend(route.via.map(|via| RouteAttribute::Gateway(address(via))));
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(address(source))));
    if route.metric != 0 {
        message.attributes.push(RouteAttribute::Priority(route.metric));
    }
    message
}

fn to(range: IpNet) -> RouteMessage {
    match range {
        IpNet::V4(range) => {
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(range.network(), range.prefix_len()).build()
        }
        IpNet::V6(range) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(range.network(), range.prefix_len()).build()
        }
    }
}

pub(super) fn add_local(handle: &Handle, lo: u32, range: IpNet) -> Request {
    Box::pin(handle.route().add(local(lo, range)).execute())
}

pub(super) fn remove_local(handle: &Handle, lo: u32, range: IpNet) -> Request {
    Box::pin(handle.route().del(local(lo, range)).execute())
}

fn local(lo: u32, range: IpNet) -> RouteMessage {
    let mut message = to(range);
    message.header.table = TABLE_LOCAL;
    message.header.scope = RouteScope::Host;
    message.header.kind = RouteType::Local;
    message.attributes.push(RouteAttribute::Oif(lo));
    message
}

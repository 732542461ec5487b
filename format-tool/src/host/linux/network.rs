//! Links, addresses and routes of the current network namespace, over rtnetlink.

mod addresses;
mod bridged;
mod changes;
mod connection;
mod given;
mod kernels;
mod links;
mod namespaces;
mod near;
mod neighbours;
mod pppoe;
mod readable;
mod routes;
mod socket;
mod taps;
mod uplink;

pub(super) use changes::set_links;
pub(super) use namespaces::{Namespaces, Taken};
pub(super) use near::Followed;
pub(super) use readable::{meant, name_of};
pub(super) use taps::{add_taps, remove_taps};
pub(super) use uplink::{NotMoved, move_uplink};

use super::{failed, told_together};
use crate::host::Outcome;
use addresses::Found;
use connection::{Connection, Request, unless};
use indexmap::IndexSet;
use ipnet::IpNet;
use kernels::Kernels;
use links::{Ends, Link};
use nix::errno::Errno;
use node_format_plan::Action;
use node_format_plan::facts::{About, AddressFact, Further, Leases, LinkFact, LinkKind, Odd, Route, SetFrames, Way};
use plat_model::problem::{Problem, Result, codes};
use rtnetlink::Handle;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

/// The network of the namespace.
#[derive(Default)]
pub(super) struct Seen {
    pub links: BTreeMap<String, LinkFact>,
    pub addresses: IndexSet<AddressFact>,
    pub local_routes: BTreeSet<IpNet>,
    /// Of these, those that no address made.
    pub marked_routes: BTreeSet<IpNet>,
    pub routes: BTreeSet<Route>,
    pub ways: BTreeSet<Way>,
    pub announced: BTreeMap<String, BTreeSet<IpNet>>,
    pub leases: BTreeMap<String, Leases>,
    pub further: BTreeMap<String, BTreeMap<IpNet, Further>>,
    pub indexes: BTreeMap<String, u32>,
    pub stacked: BTreeMap<String, BTreeSet<String>>,
    pub without_own_mac: BTreeSet<String>,
    pub unknown_mac: BTreeMap<String, String>,
    pub doubled: BTreeMap<String, BTreeSet<IpNet>>,
    pub refused: BTreeMap<String, BTreeSet<String>>,
    pub set_frames: BTreeMap<String, BTreeSet<SetFrames>>,
    /// What of a link could not be put back if it were taken from it.
    pub odd: BTreeMap<String, BTreeSet<Odd>>,
    /// Routes by `lo`, or by no link, that somebody made: of kinds and tables that no other fact says. In a namespace also what
    /// cannot be read.
    pub unlinked: BTreeSet<Odd>,
    /// See [`links::ends`].
    pub ends: Ends,
}

/// Index of each link by its name.
type Indexes = BTreeMap<String, u32>;

pub(super) fn observe() -> Result<Seen> {
    Connection::open()
        .and_then(|mut connection| {
            let links = links::all(&mut connection)?;
            let set_frames = bridged::set_by_hand(&mut connection, &links)?;
            Ok(Seen { set_frames, ..see_with(&mut connection, links)? })
        })
        .map_err(|e| failed("the network cannot be looked at", e))
}

/// Without what is set of frames.
fn see(connection: &mut Connection) -> io::Result<Seen> {
    let links = links::all(connection)?;
    see_with(connection, links)
}

fn see_with(connection: &mut Connection, links: Vec<Link>) -> io::Result<Seen> {
    let addresses: Vec<Found> = addresses::all(connection)?;
    let names: BTreeMap<u32, String> = links.iter().map(|link| (link.index, link.name.clone())).collect();
    let kernels = Kernels::new(&links, &addresses);
    let routes = routes::all(connection, &names, &kernels)?;
    let mut doubled: BTreeMap<String, BTreeSet<IpNet>> = BTreeMap::new();
    for route in routes.doubled() {
        doubled.entry(route.link.clone()).or_default().insert(route.destination);
    }
    let mut refused: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for route in routes.unreached(&names, &kernels) {
        let why = "by a router that no fixed network of the link leads to";
        refused.entry(route.link.clone()).or_default().insert(format!("the route to {} {why}", route.destination));
    }
    let ending = addresses.iter().filter(|(_, found, _)| found.leased);
    let ending: BTreeSet<(Option<&String>, IpAddr)> =
        ending.map(|(index, found, _)| (names.get(index), found.address.addr())).collect();
    let is_from = |route: &&Route| route.source.is_some_and(|source| ending.contains(&(Some(&route.link), source)));
    for route in routes.main.iter().filter(is_from) {
        let why = "from an address that ends by itself";
        refused.entry(route.link.clone()).or_default().insert(format!("the route to {} {why}", route.destination));
    }
    let neighbours = neighbours::fixed(connection, &kernels)?;
    let (announced, kept) = (named(routes.announced, &names), named(routes.kept, &names));
    let mut seen = Seen {
        local_routes: routes.local,
        marked_routes: routes.marked,
        announced,
        doubled,
        refused,
        unlinked: routes.unlinked,
        ways: routes.ways,
        ends: links::ends(&links),
        ..Seen::default()
    };
    for (link, routes) in kept.into_iter().filter(|(_, routes)| !routes.is_empty()) {
        seen.leases.insert(link, Leases { routes, ..Leases::default() });
    }
    let mut odd = |link: &String, ipv6: bool, what: String, about: About| {
        seen.odd.entry(link.clone()).or_default().insert(Odd { what, ipv6, source: None, about });
    };
    for link in &links {
        let of_a_router =
            |(index, found, _): &Found| *index == link.index && found.leased && found.address.addr().is_ipv6();
        let heard = || seen.announced.contains_key(&link.name) || addresses.iter().any(of_a_router);
        if let Some(mtu) = kernels.lesser_mtu(link.index, &link.fact).filter(|_| !heard()) {
            odd(&link.name, true, format!("the mtu {mtu} for IPv6 alone"), About::Mtu(mtu));
        }
    }
    for (index, neighbour, about) in neighbours {
        let link = names.get(&index).filter(|link| *link != "lo");
        let what = format!("the neighbour {neighbour}, set by hand");
        link.into_iter().for_each(|link| odd(link, neighbour.is_ipv6(), what.clone(), about));
    }
    for link in pppoe::carriers()? {
        odd(&link, false, "a PPPoE connection (of pppd)".into(), About::Other);
    }
    let by_index: BTreeMap<u32, &LinkFact> = links.iter().map(|link| (link.index, &link.fact)).collect();
    for one in &addresses {
        let (index, found, besides) = one;
        let Some(link) = names.get(index) else { continue };
        let near = matches!(found.address.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local());
        if near && !found.leased && by_index.get(index).is_some_and(|fact| !kernels.follows(one, fact)) {
            let what = format!("the link-local address {}, which the kernel would not make so", found.address);
            let about = if besides.is_kernels { About::Kernels } else { About::Address(found.address) };
            odd(link, true, what, about);
        }
        if found.leased && !besides.of_a_router {
            seen.leases.entry(link.clone()).or_default().addresses.insert(found.address);
        }
        let further = seen.further.entry(link.clone()).or_default();
        further.extend((besides.further != Further::default()).then_some((found.address, besides.further)));
        if !seen.addresses.insert(AddressFact { link: link.clone(), ..found.clone() }) {
            odd(link, near, format!("the address {} more than once", found.address), About::Other);
        }
    }
    seen.further.retain(|_, further| !further.is_empty());
    for (index, to) in routes.ending {
        let link = names.get(&index).filter(|link| !seen.announced.contains_key(*link));
        link.into_iter()
            .for_each(|link| odd(link, true, format!("the route {to}, which ends by itself"), About::Other));
    }
    for (link, found) in routes.odd {
        seen.odd.entry(link).or_default().insert(found);
    }
    if connection.has_unread() {
        let what = "something that cannot be read".to_owned();
        seen.unlinked.insert(Odd { what, ipv6: false, source: None, about: About::Other });
    }
    seen.routes = routes.main;
    let bridges = links.iter().filter(|link| link.fact.kind == LinkKind::Bridge).map(|link| &link.name);
    (seen.without_own_mac, seen.unknown_mac) = given::not_given(bridges);
    for Link { name, index, master, on, fact, .. } in links {
        seen.indexes.insert(name.clone(), index);
        if let Some(below) = on.and_then(|on| names.get(&on)) {
            seen.stacked.entry(below.clone()).or_default().insert(name.clone());
        }
        let bridge = master.and_then(|master| names.get(&master).cloned());
        seen.links.insert(name, LinkFact { bridge, ..fact });
    }
    Ok(seen)
}

fn named<T>(by_index: BTreeMap<u32, T>, names: &BTreeMap<u32, String>) -> BTreeMap<String, T> {
    by_index.into_iter().filter_map(|(index, what)| Some((names.get(&index)?.clone(), what))).collect()
}

/// Performs actions that are a few requests each.
pub(super) fn perform(batch: &[Action]) -> Outcome {
    let mut sent = false;
    let result = Connection::open().and_then(|mut connection| {
        let links = by_name(links::all(&mut connection)?);
        call(&mut connection, &links, batch, &mut sent)
    });
    match result {
        Ok(why) => {
            let done = why.iter().map(Option::is_none).collect();
            Outcome { done, problem: refusals(batch, &why) }
        }
        Err(e) => {
            // Whether what was sent took effect, only the answers say.
            let done = if sent { Vec::new() } else { vec![false; batch.len()] };
            Outcome { done, problem: Some(failed("the network cannot be changed", e)) }
        }
    }
}

fn by_name(links: Vec<Link>) -> BTreeMap<String, Link> {
    links.into_iter().map(|link| (link.name.clone(), link)).collect()
}

/// Asks the kernel for each action; why it refused those that it did not do. `sent`: whether it was asked for any.
fn call(
    connection: &mut Connection,
    links: &BTreeMap<String, Link>,
    batch: &[Action],
    sent: &mut bool,
) -> io::Result<Vec<Option<Errno>>> {
    let indexes: Indexes = links.iter().map(|(name, link)| (name.clone(), link.index)).collect();
    let is_gone = |action: &Action| match action {
        Action::RemoveLink { name, link } => !links.get(name).is_some_and(|found| links::is_still(&found.fact, link)),
        Action::RemoveAddress(AddressFact { link, .. }) | Action::RemoveRoute(Route { link, .. }) => {
            !links.contains_key(link)
        }
        Action::SetLink { name, from, to } => {
            !links.contains_key(name) && *to == LinkFact { up: false, ..from.clone() }
        }
        _ => false,
    };
    let (mut requests, mut of) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    let mut why = vec![None; batch.len()];
    for (n, action) in batch.iter().enumerate() {
        match requests_for(&connection.handle, action, &indexes) {
            // Whoever may open a tap can let it go: what is on it goes along, and it is up no more. What has its name, or a
            // bridge's, by now is somebody else's.
            _ if is_gone(action) => {}
            Some(some) => some.into_iter().for_each(|request| {
                requests.push(request);
                of.push(n);
            }),
            None => why[n] = Some(Errno::ENODEV),
        }
    }
    *sent |= !requests.is_empty();
    for (result, n) in connection.call(requests)?.into_iter().zip(of) {
        why[n] = why[n].or(result.err());
    }
    Ok(why)
}

/// The requests for one action, in order. `None`: it speaks of a link that does not exist.
fn requests_for(handle: &Handle, action: &Action, indexes: &Indexes) -> Option<Vec<Request>> {
    let index = |name: &str| indexes.get(name).copied();
    let one = match action {
        Action::SetLink { name, from, to } => return links::set(handle, index(name)?, from, to, indexes),
        Action::AddLink { name, link } => links::add_bridge(handle, name, link),
        Action::RemoveLink { name, .. } => unless(links::remove(handle, index(name)?), Errno::ENODEV),
        Action::AddAddress(added) if added.bound_only => {
            addresses::add_for_binding(handle, index(&added.link)?, added.address)
        }
        Action::AddAddress(added) => addresses::add(handle, index(&added.link)?, added.address),
        Action::RemoveAddress(gone) => without(addresses::remove(handle, index(&gone.link)?, gone.address)),
        Action::AddLocalRoute { range } => routes::add_local(handle, index("lo")?, *range),
        Action::RemoveLocalRoute { range } => without(routes::remove_local(handle, index("lo")?, *range)),
        Action::AddRoute(route) => routes::add(handle, index(&route.link)?, route),
        Action::RemoveRoute(route) => without(routes::remove(handle, index(&route.link)?, route)),
        _ => return None,
    };
    Some(vec![one])
}

/// One that removes what may be gone by then: with its link, with IPv6 on it, or, an address of IPv6, because that was lowered.
fn without(removal: Request) -> Request {
    let reasons = [Errno::ENODEV, Errno::ENXIO, Errno::EADDRNOTAVAIL, Errno::ESRCH];
    reasons.into_iter().fold(removal, unless)
}

/// Why actions were refused, if any were.
fn refusals(batch: &[Action], why: &[Option<Errno>]) -> Option<Problem> {
    told_together(batch.iter().zip(why).filter_map(|(action, why)| Some(refused(action, (*why)?))))
}

fn refused(action: &Action, why: Errno) -> Problem {
    let text = node_format_plan::describe(action);
    match why {
        Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT => {
            Problem::new(codes::KERNEL_LACKS, format!("the kernel cannot do `{text}`"))
                .because(why)
                .fix("load the module it needs (bridge, tun, ipv6), or choose another network mode")
        }
        _ => failed(format!("the kernel refused `{text}`"), why),
    }
}

//! Links, addresses and routes of the current network namespace, over rtnetlink.

mod addresses;
mod connection;
mod links;
mod namespaces;
mod neighbours;
mod routes;
mod socket;
mod taps;
mod uplink;

pub(super) use namespaces::Namespaces;
pub(super) use taps::{add_taps, remove_taps};
pub(super) use uplink::move_uplink;

use super::failed;
use crate::host::Outcome;
use addresses::Besides;
use connection::{Connection, Request};
use indexmap::IndexSet;
use ipnet::IpNet;
use nix::errno::Errno;
use node_format_plan::facts::{AddressFact, LinkFact, Route};
use node_format_plan::{Action, link_local};
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
    pub routes: BTreeSet<Route>,
    pub announced: BTreeSet<String>,
    /// What of a link could not be put back if it were taken from it.
    pub odd: BTreeMap<String, String>,
}

/// Index of each link by its name.
type Indexes = BTreeMap<String, u32>;

pub(super) fn observe() -> Result<Seen> {
    Connection::open()
        .and_then(|mut connection| see(&mut connection))
        .map_err(|e| failed("the network cannot be looked at", e))
}

fn see(connection: &mut Connection) -> io::Result<Seen> {
    let found = links::all(connection)?;
    let names: BTreeMap<u32, String> = found.iter().map(|link| (link.index, link.name.clone())).collect();
    let links = found.into_iter().map(|link| {
        let bridge = link.master.and_then(|master| names.get(&master).cloned());
        (link.name, LinkFact { bridge, ..link.fact })
    });
    let links: BTreeMap<String, LinkFact> = links.collect();
    let mut odd = BTreeMap::new();
    for (index, neighbour) in neighbours::fixed(connection)? {
        odd.extend(names.get(&index).map(|link| (link.clone(), format!("the neighbour {neighbour}, set by hand"))));
    }
    let found = addresses::all(connection)?;
    let routes = routes::all(connection, &names)?;
    let routed = |without: bool| {
        let meant = found.iter().filter(move |(_, _, besides)| besides.without_route == without);
        meant.filter_map(|(index, fact, _)| Some((names.get(index)?.clone(), fact.address.trunc()))).collect()
    };
    let (alone, kernels): (BTreeSet<_>, BTreeSet<_>) = (routed(true), routed(false));
    // It would go with the address, and nobody would make it again.
    let lost = alone.difference(&kernels).filter(|of| routes.direct.contains(*of));
    odd.extend(
        lost.map(|(link, to)| (link.clone(), format!("the route {to}, which a program made in the kernel's name"))),
    );
    let addresses = found.into_iter().filter_map(|(index, found, Besides { by_hand, .. })| {
        let link = names.get(&index)?.clone();
        // One that follows from the link comes again by itself.
        let follows = |fact: &LinkFact| found.address.addr() == IpAddr::V6(link_local(fact.mac));
        if by_hand && links.get(&link).is_some_and(|fact| !follows(fact)) {
            odd.insert(link.clone(), format!("the link-local address {}, set by hand", found.address));
        }
        Some(AddressFact { link, ..found })
    });
    let addresses = addresses.collect();
    odd.extend(routes.odd);
    let announced = routes.announced.iter().filter_map(|link| names.get(link).cloned()).collect();
    Ok(Seen { links, addresses, local_routes: routes.local, routes: routes.main, announced, odd })
}

/// Performs actions that are a few requests each.
pub(super) fn perform(batch: &[Action]) -> Outcome {
    let mut done = vec![false; batch.len()];
    let result = Connection::open().and_then(|mut connection| call(&mut connection, batch, &mut done));
    match result {
        Ok(problem) => Outcome { done, problem },
        Err(e) => Outcome { done, problem: Some(failed("the network cannot be changed", e)) },
    }
}

/// Asks the kernel for each action; notes which took effect and returns the first failure.
fn call(connection: &mut Connection, batch: &[Action], done: &mut Vec<bool>) -> io::Result<Option<Problem>> {
    let indexes: Indexes = links::all(connection)?.into_iter().map(|link| (link.name, link.index)).collect();
    let (mut requests, mut of) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
    let mut problem = None;
    done.fill(true);
    for (n, action) in batch.iter().enumerate() {
        match requests_for(&connection.handle, action, &indexes) {
            Some(some) => some.into_iter().for_each(|request| {
                requests.push(request);
                of.push(n);
            }),
            // Whoever may open a tap can let it go.
            None if matches!(action, Action::RemoveLink { .. }) => {}
            None => {
                done[n] = false;
                problem = problem.or_else(|| Some(refused(action, Errno::ENODEV)));
            }
        }
    }
    // They were sent: whether they took effect, only the answers say.
    let results = connection.call(requests).inspect_err(|_| done.clear())?;
    for (result, n) in results.into_iter().zip(of) {
        // The kernel itself takes IPv6 addresses off a link that is lowered.
        let gone = matches!(batch[n], Action::RemoveAddress(_)) && result == Err(Errno::EADDRNOTAVAIL);
        if let Err(e) = result
            && !gone
        {
            done[n] = false;
            problem = problem.or_else(|| Some(refused(&batch[n], e)));
        }
    }
    Ok(problem)
}

/// The requests for one action, in order. `None`: it speaks of a link that does not exist.
fn requests_for(handle: &Handle, action: &Action, indexes: &Indexes) -> Option<Vec<Request>> {
    let index = |name: &str| indexes.get(name).copied();
    let one = match action {
        Action::SetLink { name, from, to } => return links::set(handle, index(name)?, from, to, indexes),
        Action::AddLink { name, link } => links::add_bridge(handle, name, link),
        Action::RemoveLink { name, .. } => links::remove(handle, index(name)?),
        Action::AddAddress(added) if added.bound_only => {
            addresses::add_for_binding(handle, index(&added.link)?, added.address)
        }
        Action::AddAddress(added) => addresses::add(handle, index(&added.link)?, added.address),
        Action::RemoveAddress(gone) => addresses::remove(handle, index(&gone.link)?, gone.address),
        Action::AddLocalRoute { range } => routes::add_local(handle, index("lo")?, *range),
        Action::RemoveLocalRoute { range } => routes::remove_local(handle, index("lo")?, *range),
        Action::AddRoute(route) => routes::add(handle, index(&route.link)?, route),
        Action::RemoveRoute(route) => routes::remove(handle, index(&route.link)?, route),
        _ => return None,
    };
    Some(vec![one])
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

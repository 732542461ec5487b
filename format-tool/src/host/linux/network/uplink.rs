//! An interface becomes a port of the bridge with all it has, or gets it back. Each step may have been done already by a
//! run that was cut off.

use super::connection::{Connection, Request};
use super::{Indexes, addresses, links, refused, routes};
use ipnet::IpNet;
use nix::errno::Errno;
use node_format_plan::Action;
use node_format_plan::facts::Route;
use node_format_plan::thing::Uplink;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::{Handle, LinkUnspec};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

pub(in crate::host::linux) fn move_uplink(action: &Action) -> plat_model::problem::Result<()> {
    let uplink = match action {
        Action::TakeUplink(uplink) | Action::ReturnUplink(uplink) => uplink,
        _ => return Ok(()),
    };
    let moved = Connection::open().and_then(|mut connection| {
        let found = links::all(&mut connection)?;
        let indexes: Indexes = found.into_iter().map(|link| (link.name, link.index)).collect();
        let take = matches!(action, Action::TakeUplink(_));
        let from = if take { &uplink.link } else { &uplink.bridge };
        let told = match indexes.get(from) {
            Some(index) => addresses::told(&mut connection, *index)?,
            None => BTreeMap::new(),
        };
        let Some(mut steps) = steps(&connection.handle, uplink, take, &indexes, &told) else {
            return Ok(Some(Errno::ENODEV));
        };
        // What cannot be joined keeps what it has.
        if take && let Some(Err(errno)) = connection.call(vec![steps.remove(0).0])?.pop() {
            return Ok(Some(errno));
        }
        if let Some(bridge) = indexes.get(&uplink.bridge).filter(|_| !take) {
            let stale = routes::announced(&mut connection, *bridge)?;
            let handle = &connection.handle;
            steps.extend(stale.into_iter().map(|route| (routes::remove_as_told(handle, route), GONE)));
        }
        let (requests, tolerated): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
        let results = connection.call(requests)?;
        let refused =
            results.into_iter().zip(tolerated).find_map(|(result, done)| result.err().filter(|e| !done.contains(e)));
        // What else can come back does, whatever could not.
        let to = if take { &uplink.bridge } else { &uplink.link };
        let routed = match indexes.get(to) {
            Some(_) => add_routes(&mut connection, &uplink.routes, to, &indexes)?,
            None => None,
        };
        Ok(refused.or(routed))
    });
    match moved {
        Ok(None) => Ok(()),
        Ok(Some(errno @ Errno::EBUSY)) => Err(refused(action, errno).fix(
            "see what else has the packets of the interface: a macvlan or ipvlan perhaps, which a container has taken along",
        )),
        Ok(Some(errno)) => Err(refused(action, errno)),
        Err(e) => Err(super::failed("the uplink cannot be moved", e)),
    }
}

/// Answers that mean: it is so already.
type Done = &'static [Errno];
const THERE: Done = &[Errno::EEXIST];
const GONE: Done = &[Errno::ESRCH, Errno::EADDRNOTAVAIL, Errno::ENOENT];
const NONE: Done = &[];

/// Joining comes first. On the way back whatever is there counts: of a bridge that is gone there is nothing to take away, and to an interface that
/// is gone nothing to give. `None`: what is to be joined does not exist.
///
/// `told`: the addresses where they are now. What a run that was cut off has moved already is there as the plan names it.
fn steps(
    handle: &Handle,
    uplink: &Uplink,
    take: bool,
    indexes: &Indexes,
    told: &BTreeMap<IpNet, AddressMessage>,
) -> Option<Vec<(Request, Done)>> {
    let (port, bridge) = (indexes.get(&uplink.link).copied(), indexes.get(&uplink.bridge).copied());
    let (port, bridge) = match (port, bridge) {
        (Some(port), bridge) if bridge.is_some() || !take => (port, bridge),
        (None, _) if !take => return Some(Vec::new()),
        _ => return None,
    };
    let (from, to) = if take { (Some(port), bridge?) } else { (bridge, port) };
    let join: Request = {
        let link = LinkUnspec::new_with_index(port);
        let link = if take || uplink.was_up { link.up() } else { link.down() };
        let link = if take { link.controller(to) } else { link.nocontroller() };
        Box::pin(handle.link().set(link.build()).execute())
    };
    let mut steps = vec![(join, NONE)];
    // The new addresses come before the old ones go: whoever is connected by them notices least.
    let add = |address: &IpNet| match told.get(address) {
        Some(told) => addresses::add_as_told(handle, to, told),
        None => {
            let further = uplink.further.get(address).copied().unwrap_or_default();
            addresses::add_as_recorded(handle, to, *address, further)
        }
    };
    let remove = |address: &IpNet, from: u32| match told.get(address) {
        Some(told) => addresses::remove_as_told(handle, told),
        None => addresses::remove(handle, from, *address),
    };
    // As the kernel is to prefer them: of IPv4 the one that came first, of IPv6 the one that came last.
    let (ipv4, ipv6): (Vec<&IpNet>, Vec<&IpNet>) =
        uplink.addresses.iter().partition(|address| address.addr().is_ipv4());
    steps.extend(ipv4.into_iter().chain(ipv6.into_iter().rev()).map(|address| (add(address), THERE)));
    if let Some(from) = from {
        steps.extend(uplink.routes.iter().map(|route| (routes::remove(handle, from, route), GONE)));
        steps.extend(uplink.addresses.iter().rev().map(|address| (remove(address, from), GONE)));
    }
    Some(steps)
}

/// Gives a link these routes; the first refusal. That there is one of the same destination and metric already says neither
/// that it is this one nor that it is on this link: then one looks.
fn add_routes(
    connection: &mut Connection,
    routes: &BTreeSet<Route>,
    to: &str,
    indexes: &Indexes,
) -> io::Result<Option<Errno>> {
    let Some(index) = indexes.get(to).copied() else { return Ok(Some(Errno::ENODEV)) };
    // A router must be reachable before there is a way through it.
    let (through, direct): (Vec<&Route>, Vec<&Route>) = routes.iter().partition(|route| route.via.is_some());
    let all: Vec<&Route> = direct.into_iter().chain(through).collect();
    let handle = connection.handle.clone();
    let results = connection.call(all.iter().map(|route| routes::add(&handle, index, route)).collect())?;
    let is_there = |result: &Result<(), Errno>| *result == Err(Errno::EEXIST);
    let refused = results.iter().find_map(|result| result.err().filter(|_| !is_there(result)));
    if !results.iter().any(is_there) {
        return Ok(refused);
    }
    let found = super::see(connection)?.routes;
    let missing = all.iter().zip(&results).filter(|(route, result)| {
        is_there(result) && !found.contains(&Route { link: to.to_owned(), ..(**route).clone() })
    });
    let beside = missing.map(|(route, _)| routes::add_beside(&handle, index, route)).collect();
    Ok(refused.or(connection.call(beside)?.into_iter().find_map(Result::err)))
}

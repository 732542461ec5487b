//! An interface becomes a port of the bridge with all it has, or gets it back. Each step may have been done already by a
//! run that was cut off.

use super::connection::{Connection, Request};
use super::{Indexes, addresses, links, refused, routes};
use indexmap::IndexMap;
use ipnet::IpNet;
use nix::errno::Errno;
use node_format_plan::Action;
use node_format_plan::facts::Route;
use node_format_plan::thing::Uplink;
use node_format_plan::{needs_it_up, strangers};
use plat_model::problem::Problem;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::{Handle, LinkUnspec};
use std::collections::BTreeSet;
use std::io;

/// Why an uplink was not moved whole.
pub(in crate::host::linux) struct NotMoved {
    pub problem: Problem,
    /// Whether something was done, or may have been.
    pub begun: bool,
}

pub(in crate::host::linux) fn move_uplink(action: &Action) -> Result<(), NotMoved> {
    let uplink = match action {
        Action::TakeUplink(uplink) | Action::FinishUplink { uplink, .. } | Action::ReturnUplink { uplink, .. } => {
            uplink
        }
        Action::DropUplink { left, .. } | Action::KeepUplink { left, .. } => left,
        _ => return Ok(()),
    };
    let mut begun = false;
    let moved = Connection::open().and_then(|mut connection| match action {
        Action::DropUplink { .. } => drop_left(&mut connection, uplink, &mut begun),
        Action::KeepUplink { .. } => keep_left(&mut connection, uplink, &mut begun),
        _ => go(&mut connection, uplink, action, &mut begun),
    });
    let cannot = |why: String| super::failed(format!("{} cannot be moved to {}", uplink.link, uplink.bridge), why);
    let problem = match moved {
        Ok(Moved::Whole) => return Ok(()),
        Ok(Moved::Changed(how)) => cannot(format!("since it was looked at, {how}"))
            .fix("see who changes it, then run it again: what it has then is told by `plan`"),
        Ok(Moved::Refused(errno @ Errno::EBUSY)) => refused(action, errno).fix(
            "see what else has the packets of the interface: a macvlan or ipvlan perhaps, which a container has taken along",
        ),
        Ok(Moved::Refused(errno)) => refused(action, errno),
        Err(e) => super::failed("the uplink cannot be moved", e),
    };
    Err(NotMoved { problem, begun })
}

fn go(connection: &mut Connection, uplink: &Uplink, action: &Action, begun: &mut bool) -> io::Result<Moved> {
    let take = action.takes().is_some();
    // Something is missing of it, or all.
    let known = matches!(action, Action::FinishUplink { .. });
    let seen = super::see(connection)?;
    let elsewhere = seen.links.get(&uplink.link).and_then(|link| link.bridge.as_ref());
    let elsewhere = elsewhere.filter(|bridge| **bridge != uplink.bridge);
    if let Some(how) = changed(uplink, known, &seen, elsewhere).filter(|_| take) {
        return Ok(Moved::Changed(how));
    }
    let found = links::all(connection)?;
    // Somebody else's port by now is as good as gone: there is nothing to return it to.
    let is_meant = |link: &links::Link| elsewhere.is_none() || link.name != uplink.link;
    let indexes: Indexes = found.into_iter().filter(is_meant).map(|link| (link.name, link.index)).collect();
    let from = if take { &uplink.link } else { &uplink.bridge };
    let told = match indexes.get(from) {
        Some(index) => addresses::told(connection, *index)?,
        None => Default::default(),
    };
    let stays_up =
        !take && !needs_it_up(uplink, &seen.addresses, &seen.routes, seen.stacked.get(&uplink.link)).is_empty();
    let up = take || uplink.was_up || stays_up;
    let Some(mut steps) = steps(&connection.handle, uplink, (take, up), &indexes, &told, &seen.routes) else {
        return Ok(Moved::Refused(Errno::ENODEV));
    };
    *begun = true;
    // What cannot be joined keeps what it has.
    if take && let Some(Err(errno)) = connection.call(vec![steps.remove(0).0])?.pop() {
        *begun = false;
        return Ok(Moved::Refused(errno));
    }
    let mut refused = call(connection, steps)?;
    if let Some(bridge) = indexes.get(&uplink.bridge).filter(|_| !take) {
        refused = refused.or(clear(connection, *bridge, uplink)?);
    }
    // What else can come back does, whatever could not.
    let to = if take { &uplink.bridge } else { &uplink.link };
    let routed = match indexes.get(to) {
        Some(_) => add_routes(connection, &uplink.routes, to, &indexes)?,
        None => None,
    };
    Ok(refused.or(routed).map_or(Moved::Whole, Moved::Refused))
}

/// Takes from the bridge what is left there of an interface that is gone.
fn drop_left(connection: &mut Connection, left: &Uplink, begun: &mut bool) -> io::Result<Moved> {
    let Some(bridge) = index_of(connection, &left.bridge)? else { return Ok(Moved::Whole) };
    let (told, seen) = (addresses::told(connection, bridge)?, super::see(connection)?.routes);
    let steps = leave(&connection.handle, left, (&left.bridge, bridge), &told, &seen);
    *begun = true;
    let refused = call(connection, steps)?;
    Ok(refused.or(clear(connection, bridge, left)?).map_or(Moved::Whole, Moved::Refused))
}

/// That again, of which the record alone still knows.
fn keep_left(connection: &mut Connection, left: &Uplink, begun: &mut bool) -> io::Result<Moved> {
    let Some(bridge) = index_of(connection, &left.bridge)? else { return Ok(Moved::Refused(Errno::ENODEV)) };
    let steps = come(&connection.handle, left, bridge, &IndexMap::new());
    *begun = true;
    let refused = call(connection, steps)?;
    let indexes = Indexes::from([(left.bridge.clone(), bridge)]);
    Ok(refused.or(add_routes(connection, &left.routes, &left.bridge, &indexes)?).map_or(Moved::Whole, Moved::Refused))
}

fn index_of(connection: &mut Connection, name: &str) -> io::Result<Option<u32>> {
    Ok(links::all(connection)?.into_iter().find(|link| link.name == name).map(|link| link.index))
}

/// How an interface that is to be taken is not as it was seen any more, in words. Of what a run that was cut off has begun to
/// move, some is gone from it; of what nobody has touched, nothing may be.
fn changed(uplink: &Uplink, known: bool, seen: &super::Seen, elsewhere: Option<&String>) -> Option<String> {
    if let Some(bridge) = elsewhere {
        return Some(format!("it became a port of {bridge}"));
    }
    let since = strangers(uplink, &seen.addresses, &seen.routes);
    if !since.is_empty() {
        return Some(format!("it got {}", since.join(", ")));
    }
    let has_address = |link: &String, address: &IpNet| {
        seen.addresses.iter().any(|found| found.link == *link && found.address == *address)
    };
    let has_route = |link: &String, route: &Route| seen.routes.contains(&Route { link: link.clone(), ..route.clone() });
    let bridge = &uplink.bridge;
    let is_begun = known
        || seen.links.get(&uplink.link).is_some_and(|link| link.bridge.is_some())
        || uplink.addresses.iter().any(|address| has_address(bridge, address))
        || uplink.routes.iter().any(|route| has_route(bridge, route));
    if is_begun {
        return None;
    }
    let addresses = uplink.addresses.iter().filter(|address| !has_address(&uplink.link, address));
    let routes = uplink.routes.iter().filter(|route| !has_route(&uplink.link, route));
    let addresses = addresses.map(|address| format!("the address {address}"));
    let gone: Vec<String> =
        addresses.chain(routes.map(|route| format!("the route to {}", route.destination))).collect();
    (!gone.is_empty()).then(|| format!("it lost {}", gone.join(", ")))
}

enum Moved {
    Whole,
    Refused(Errno),
    /// It is not as it was seen, in words: nothing was touched.
    Changed(String),
}

/// Answers that mean: it is so already.
type Done = &'static [Errno];
const THERE: Done = &[Errno::EEXIST];
const GONE: Done = &[Errno::ESRCH, Errno::EADDRNOTAVAIL, Errno::ENOENT];
const NONE: Done = &[];

/// Joining comes first. On the way back whatever is there counts: of a bridge that is gone there is nothing to take away, and to an
/// interface that is gone nothing to give. `None`: what is to be joined does not exist.
///
/// `told`: the addresses where they are now. What a run that was cut off has moved already is there as the plan names it.
/// `seen`: all routes there are.
fn steps(
    handle: &Handle,
    uplink: &Uplink,
    (take, up): (bool, bool),
    indexes: &Indexes,
    told: &IndexMap<IpNet, AddressMessage>,
    seen: &BTreeSet<Route>,
) -> Option<Vec<(Request, Done)>> {
    let (port, bridge) = (indexes.get(&uplink.link).copied(), indexes.get(&uplink.bridge).copied());
    let leave = |from: u32| {
        let link = if take { &uplink.link } else { &uplink.bridge };
        leave(handle, uplink, (link, from), told, seen)
    };
    let (port, bridge) = match (port, bridge) {
        (Some(port), bridge) if bridge.is_some() || !take => (port, bridge),
        (None, Some(bridge)) if !take => return Some(leave(bridge)),
        (None, None) if !take => return Some(Vec::new()),
        _ => return None,
    };
    let (from, to) = if take { (Some(port), bridge?) } else { (bridge, port) };
    let join: Request = {
        let link = LinkUnspec::new_with_index(port);
        let link = if up { link.up() } else { link.down() };
        let link = if take { link.controller(to) } else { link.nocontroller() };
        Box::pin(handle.link().set(link.build()).execute())
    };
    let mut steps = vec![(join, NONE)];
    // The new addresses come before the old ones go: whoever is connected by them notices least.
    steps.extend(come(handle, uplink, to, told));
    steps.extend(from.into_iter().flat_map(leave));
    Some(steps)
}

/// Takes all that the uplink has from this link. The kernel takes a route that it is told to remove for any that is like it, so
/// only those are removed that are there.
fn leave(
    handle: &Handle,
    uplink: &Uplink,
    (link, from): (&str, u32),
    told: &IndexMap<IpNet, AddressMessage>,
    seen: &BTreeSet<Route>,
) -> Vec<(Request, Done)> {
    let remove = |address: &IpNet| match told.get(address) {
        Some(told) => addresses::remove_as_told(handle, told),
        None => addresses::remove(handle, from, *address),
    };
    let there = |route: &&Route| seen.contains(&Route { link: link.to_owned(), ..(*route).clone() });
    let routes = uplink.routes.iter().filter(there).map(|route| (routes::remove(handle, from, route), GONE));
    routes.chain(uplink.addresses.iter().rev().map(|address| (remove(address), GONE))).collect()
}

/// Gives the uplink's addresses to this link.
fn come(handle: &Handle, uplink: &Uplink, to: u32, told: &IndexMap<IpNet, AddressMessage>) -> Vec<(Request, Done)> {
    let add = |address: &IpNet| match told.get(address) {
        Some(told) => addresses::add_as_told(handle, to, told),
        None => {
            let further = uplink.further.get(address).copied().unwrap_or_default();
            addresses::add_as_recorded(handle, to, *address, further)
        }
    };
    // As the kernel is to prefer them: of IPv4 the one that came first, of IPv6 the one that came last.
    let (ipv4, ipv6): (Vec<&IpNet>, Vec<&IpNet>) =
        uplink.addresses.iter().partition(|address| address.addr().is_ipv4());
    ipv4.into_iter().chain(ipv6.into_iter().rev()).map(|address| (add(address), THERE)).collect()
}

/// The first refusal that does not say that it is so already.
fn call(connection: &mut Connection, steps: Vec<(Request, Done)>) -> io::Result<Option<Errno>> {
    let (requests, tolerated): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
    let results = connection.call(requests)?;
    Ok(results.into_iter().zip(tolerated).find_map(|(result, done)| result.err().filter(|e| !done.contains(e))))
}

/// Takes from the bridge what would draw there what goes through another interface, once what the uplink brought is gone from it:
/// IPv6 addresses that end by themselves, then ways that routers announced and routes to networks of these addresses. The
/// kernel leaves the route to a network while any other address of it is there, and does not take it with that one.
fn clear(connection: &mut Connection, bridge: u32, uplink: &Uplink) -> io::Result<Option<Errno>> {
    let there = addresses::told(connection, bridge)?.into_iter().filter(|(address, _)| address.addr().is_ipv6());
    let (ending, staying): (Vec<_>, Vec<_>) = there.partition(|(_, told)| addresses::ends(told));
    let came = uplink.addresses.iter().chain(ending.iter().map(|(address, _)| address)).map(IpNet::trunc);
    let kept: BTreeSet<IpNet> = staying.iter().map(|(address, _)| address.trunc()).collect();
    let left: BTreeSet<IpNet> = came.filter(|network| !kept.contains(network)).collect();
    let handle = connection.handle.clone();
    let gone = ending.iter().map(|(_, told)| (addresses::remove_as_told(&handle, told), GONE)).collect();
    let refused = call(connection, gone)?;
    let stale = routes::stale(connection, bridge, &left)?;
    let stale = stale.into_iter().map(|route| (routes::remove_as_told(&handle, route), GONE)).collect();
    Ok(refused.or(call(connection, stale)?))
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

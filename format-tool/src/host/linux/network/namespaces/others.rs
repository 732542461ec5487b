//! What is in a partition's namespace besides what it was made with: it goes with it.

use super::super::connection::Connection;
use super::super::links::Ends;
use super::super::{Seen, bridged, links};
use super::{INNER, MADE_BY_THE_KERNEL, is_link_local};
use node_format_plan::facts::{About, Odd, Others, Route};
use node_format_plan::lowered_above;
use plat_model::id::shorten;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

/// Links of this namespace that are one pair with a link of the machine's, and with which. Indexes are each namespace's own: both
/// must name the other.
pub(super) fn far_ends<'a>(here: &'a Ends, outer: &'a Ends) -> BTreeMap<&'a str, &'a String> {
    let far = here.iter().filter_map(|((index, far), name)| Some((name.as_str(), outer.get(&(*far, *index))?)));
    far.collect()
}

/// What somebody set in the bridge that `eth0` is a port of.
pub(super) fn set_for_a_port() -> io::Result<BTreeSet<String>> {
    let mut connection = Connection::open_within()?;
    let links = links::all(&mut connection)?;
    let set = bridged::set_by_hand(&mut connection, &links)?.remove(INNER).unwrap_or_default();
    Ok(set.into_iter().filter(|set| set.of_bridge).map(|set| set.what).collect())
}

/// Addresses that no link has but `eth0`. (Each has its own of those that lead nowhere else.)
fn from_inner(seen: &Seen) -> BTreeSet<IpAddr> {
    let is_elsewhere =
        |ip: IpAddr| seen.addresses.iter().any(|found| found.link != INNER && found.address.addr() == ip);
    let own = seen.addresses.iter().filter(|found| found.link == INNER).map(|found| found.address.addr());
    own.filter(|ip| !is_link_local(*ip) && !is_elsewhere(*ip)).collect()
}

fn as_odd(route: &Route) -> Odd {
    let ipv6 = route.destination.addr().is_ipv6();
    Odd { what: format!("the route to {}", route.destination), ipv6, source: route.source, about: About::Other }
}

pub(super) fn others(seen: &Seen, far: &BTreeMap<&str, &String>) -> Others {
    let is_other = |name: &str| name != "lo" && name != INNER && !MADE_BY_THE_KERNEL.contains(&name);
    let links = seen.links.keys().filter(|name| is_other(name));
    let end = |name: &String| far.get(name.as_str()).map(|far| (*far).clone()).unwrap_or_default();
    let mut odd: BTreeMap<String, _> = BTreeMap::new();
    odd.extend(seen.odd.get(INNER).map(|on_it| (INNER.to_owned(), on_it.clone())));
    let addresses = seen.addresses.iter().filter(|found| found.link == "lo" && !found.address.addr().is_loopback());
    let addresses = addresses.map(|found| (format!("the address {}", found.address), found.address.addr().is_ipv6()));
    let addresses = addresses.map(|(what, ipv6)| Odd { what, ipv6, source: None, about: About::Other });
    let routes = seen.routes.iter().filter(|route| route.link == "lo").map(as_odd);
    let from_inner = from_inner(seen);
    let on_lo = addresses.chain(routes).chain(seen.unlinked.iter().cloned());
    let on_lo = on_lo.map(|odd| Odd { source: odd.source.filter(|source| from_inner.contains(source)), ..odd });
    let on_lo: BTreeSet<Odd> = on_lo.collect();
    odd.extend((!on_lo.is_empty()).then(|| ("lo".to_owned(), on_lo)));
    let routes = seen.routes.iter().map(|route| (&route.link, as_odd(route)));
    let on_others = seen.odd.iter().flat_map(|(link, odd)| odd.iter().map(move |odd| (link, odd.clone())));
    let on_others = routes.chain(on_others).filter(|(link, _)| *link != "lo" && *link != INNER);
    for (link, route) in on_others.filter(|(_, odd)| odd.source.is_some_and(|source| from_inner.contains(&source))) {
        odd.entry(shorten(link)).or_default().insert(route);
    }
    // Whoever is root in there names them, and somebody reads the names on a terminal.
    let elsewhere = seen.ends.values().filter(|name| !far.contains_key(name.as_str())).map(|name| shorten(name));
    let above = lowered_above(&seen.links, &seen.stacked, INNER);
    let above = above.into_iter().map(|(name, mtu)| (shorten(&name), mtu)).collect();
    Others {
        above,
        of_bridge: BTreeSet::new(),
        links: links.map(|name| (shorten(name), end(name))).collect(),
        elsewhere: elsewhere.collect(),
        odd,
    }
}

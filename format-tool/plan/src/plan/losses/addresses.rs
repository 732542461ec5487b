//! What the kernel takes along with addresses of a link that stays.

use super::super::Planner;
use super::super::uplink::{ending_on, is_another};
use super::comes_from;
use crate::action::Action;
use crate::facts::{About, AddressFact, HostFacts, LinkFact, NamespaceFact, Odd, Route};
use crate::thing::{Claims, Thing, Uplink};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

impl Planner<'_> {
    /// What goes with the addresses of an `eth0` that stays: routes of the main table are taken from there, and said, in any case. Those
    /// by other links go too, if they are from there.
    pub(in super::super) fn say_what_goes_with_addresses_inside(
        &mut self,
        name: &str,
        from: &NamespaceFact,
        to: &NamespaceFact,
    ) {
        let has_ipv4 = |inside: &NamespaceFact| inside.addresses.iter().any(|address| address.addr().is_ipv4());
        let keeps = from.addresses.intersection(&to.addresses).any(|address| address.addr().is_ipv4());
        let mac = |inside: &NamespaceFact| inside.link.as_ref().map(|link| link.mac);
        let is_said = |about: About| about == About::Neighbour && mac(from) != mac(to);
        let odd = self.facts.others_inside.get(name).into_iter().flat_map(|others| &others.odd);
        let of_ipv4 = odd.filter(|(link, _)| *link == "eth0").flat_map(|(_, odd)| odd);
        let of_ipv4 = of_ipv4.filter(|odd| !odd.ipv6 && !is_said(odd.about)).map(|odd| {
            move |goes: &str| {
                format!("the last IPv4 address {goes}, and with it {}, which node-format did not make there", odd.what)
            }
        });
        let all_go = has_ipv4(from) && !keeps;
        match (has_ipv4(from), has_ipv4(to)) {
            _ if all_go => {
                let lost = of_ipv4.map(|say| say(&format!("goes from eth0 in namespace {name}")));
                self.lose(lost.collect());
            }
            // If all is done nobody misses it.
            (false, true) => {
                self.lost.extend(of_ipv4.map(|say| say(&format!("goes from eth0 in namespace {name} again"))));
            }
            _ => {}
        }
        let stay: BTreeSet<IpAddr> = to.addresses.iter().map(IpNet::addr).collect();
        let gone = from.addresses.iter().map(IpNet::addr).filter(|address| !stay.contains(address));
        let gone: BTreeSet<IpAddr> = gone.collect();
        let all = || self.facts.others_inside.get(name).into_iter().flat_map(|others| &others.odd);
        let odd = all().flat_map(|(link, odd)| odd.iter().map(move |odd| (link, odd)));
        // What is on several links is said once: of `eth0`, if it is there too.
        let odd = odd.filter(|(link, odd)| odd.about != About::Shared || first_with(all(), odd) == Some(*link));
        let odd = odd.filter(|(link, odd)| odd.ipv6 || !all_go || *link != "eth0");
        let lost = odd.filter_map(|(link, odd)| {
            let source = odd.source.filter(|source| gone.contains(source))?;
            Some(comes_from(source, &odd.what, &format!("{link} in namespace {name}"), odd.ipv6))
        });
        let lost = lost.collect();
        self.lose(lost);
    }
}

/// Of the links that this is on, the one that it is said of: `eth0`, or the first.
fn first_with<'a>(odd: impl Iterator<Item = (&'a String, &'a BTreeSet<Odd>)>, one: &Odd) -> Option<&'a String> {
    odd.filter(|(_, on_it)| on_it.contains(one)).map(|(link, _)| link).min_by_key(|link| (*link != "eth0", *link))
}

/// What somebody else set that goes with the addresses that these actions take from links. What is the last address of one only all of
/// them together say: an uplink takes its own, and ours go with the ranges.
pub(in super::super) fn lost_with_addresses(
    facts: &HostFacts,
    claims: &Claims,
    actions: &[&Action],
    leaving: &BTreeSet<String>,
) -> Vec<String> {
    let mut removed: BTreeMap<&str, BTreeSet<IpNet>> = BTreeMap::new();
    let mut elsewhere: BTreeSet<Route> = BTreeSet::new();
    // Neighbours go with the one, all of IPv4 but addresses with the other, and are named there.
    let (mut another_mac, mut down) = (BTreeSet::new(), BTreeSet::new());
    let mut gone: BTreeSet<(&str, IpNet)> = BTreeSet::new();
    for action in actions {
        match action {
            Action::RemoveAddress(AddressFact { link, address, .. }) => {
                removed.entry(link).or_default().insert(*address);
                gone.insert((link, *address));
            }
            Action::RemoveRoute(route) => drop(elsewhere.insert(route.clone())),
            Action::ReturnUplink { .. } | Action::DropUplink { .. } => {
                let Some(uplink) = action.clears() else { continue };
                leave(&uplink.bridge, uplink, &mut removed, &mut elsewhere);
                // What is dropped goes for good.
                let dropped = uplink.addresses.iter().filter(|_| matches!(action, Action::DropUplink { .. }));
                gone.extend(dropped.map(|address| (uplink.bridge.as_str(), *address)));
                gone.extend(ending_on(&uplink.bridge, facts).map(|found| (uplink.bridge.as_str(), found.address)));
            }
            Action::TakeUplink(uplink) | Action::FinishUplink { uplink, .. } => {
                leave(&uplink.link, uplink, &mut removed, &mut elsewhere);
            }
            Action::SetLink { name, from, to } => {
                another_mac.extend((from.mac != to.mac).then_some(name.as_str()));
                down.extend((from.up && !to.up).then_some(name.as_str()));
            }
            _ => {}
        }
    }
    let mut lost = Vec::new();
    for (link, removed) in removed.iter().filter(|(link, _)| !leaving.contains(**link)) {
        let there = ipv4_on(facts, link);
        let along = taken_along(facts, claims, link, removed, &there);
        gone.extend(along.iter().map(|(other, _)| (*link, *other)));
        lost.extend(along.iter().map(|(other, first)| {
            format!("{first} goes from {link}, and with it {other}, which came to the same network after it: node-format did not add it")
        }));
        let goes = |address: &IpNet| removed.contains(address) || along.iter().any(|(other, _)| other == address);
        if there.is_empty() || down.contains(link) || !there.iter().all(goes) {
            continue;
        }
        let others = of_others_on(facts, claims, link, &elsewhere);
        let others = others.filter(|(_, about)| !another_mac.contains(link) || *about != About::Neighbour);
        lost.extend(others.map(|(what, _)| {
            format!("the last IPv4 address goes from {link}, and with it {what}, which node-format did not make")
        }));
    }
    lost.extend(lost_from_addresses(facts, claims, &gone, leaving));
    lost
}

/// What somebody else set that would go if these were undone: on links that have no IPv4 address before.
pub(super) fn lost_with_first_addresses(
    facts: &HostFacts,
    claims: &Claims,
    actions: &[Action],
    leaving: &BTreeSet<String>,
) -> Vec<String> {
    let (mut links, mut elsewhere): (BTreeSet<&str>, BTreeSet<Route>) = Default::default();
    for action in actions {
        match action {
            Action::AddAddress(AddressFact { link, address, .. }) if address.addr().is_ipv4() => {
                links.insert(link);
            }
            Action::TakeUplink(uplink) | Action::FinishUplink { uplink, alone: true }
                if uplink.addresses.iter().any(|address| address.addr().is_ipv4()) =>
            {
                links.insert(&uplink.bridge);
                elsewhere.extend(uplink.routes.iter().map(|route| on(&uplink.bridge, route)));
            }
            _ => {}
        }
    }
    let had = facts.addresses.iter().filter(|found| found.address.addr().is_ipv4()).map(|found| found.link.as_str());
    let had: BTreeSet<&str> = had.collect();
    let links = links.into_iter().filter(|link| !had.contains(link) && !leaving.contains(*link));
    let lost = links.flat_map(|link| of_others_on(facts, claims, link, &elsewhere).map(move |(what, _)| (link, what)));
    let lost = lost.map(|(link, what)| {
        format!("the last IPv4 address goes from {link} again, and with it {what}, which node-format did not make")
    });
    lost.collect()
}

/// What an uplink carries leaves this link, for the bridge or from it.
fn leave<'a>(
    link: &'a str,
    uplink: &Uplink,
    removed: &mut BTreeMap<&'a str, BTreeSet<IpNet>>,
    elsewhere: &mut BTreeSet<Route>,
) {
    removed.entry(link).or_default().extend(&uplink.addresses);
    elsewhere.extend(uplink.routes.iter().map(|route| on(link, route)));
}

fn on(link: &str, route: &Route) -> Route {
    Route { link: link.into(), ..route.clone() }
}

/// In the order in which they came.
fn ipv4_on(facts: &HostFacts, link: &str) -> Vec<IpNet> {
    let there = facts.addresses.iter().filter(|found| found.link == link && found.address.addr().is_ipv4());
    there.map(|found| found.address).collect()
}

/// Addresses of somebody else's that the kernel takes with the first one of their network, and which that is.
fn taken_along(
    facts: &HostFacts,
    claims: &Claims,
    link: &str,
    removed: &BTreeSet<IpNet>,
    there: &[IpNet],
) -> Vec<(IpNet, IpNet)> {
    let promotes = |of: &str| facts.sysctls.get(&promote_secondaries(of)).is_some_and(|value| value != "0");
    if promotes("all") || promotes(link) {
        return Vec::new();
    }
    let is_ours = |address: &IpNet| {
        removed.contains(address) || claims.has(&Thing::Address { link: link.into(), address: *address })
    };
    let mut along: Vec<(IpNet, IpNet)> = Vec::new();
    for (n, first) in there.iter().enumerate().filter(|(_, address)| removed.contains(*address)) {
        let same = |other: &&IpNet| other.prefix_len() == first.prefix_len() && other.trunc() == first.trunc();
        for other in there.iter().skip(n + 1).filter(same).filter(|other| !is_ours(other)) {
            if !along.iter().any(|(known, _)| known == other) {
                along.push((*other, *first));
            }
        }
    }
    along
}

/// Routes by links that stay, from addresses that go: these, and those on links that go.
fn lost_from_addresses(
    facts: &HostFacts,
    claims: &Claims,
    gone: &BTreeSet<(&str, IpNet)>,
    leaving: &BTreeSet<String>,
) -> Vec<String> {
    let goes = |found: &AddressFact| leaving.contains(&found.link) || gone.contains(&(&found.link, found.address));
    let (gone, stay): (Vec<_>, Vec<_>) = facts.addresses.iter().partition(|found| goes(found));
    // Each link has its own of those that lead nowhere else.
    let is_near = |address: &IpAddr| matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local());
    let stay = stay.into_iter().map(|found| found.address.addr()).filter(|address| !is_near(address));
    let stay: BTreeSet<IpAddr> = stay.collect();
    // What an uplink brought is on it again before it goes from here.
    let is_back = |address: &IpAddr| {
        claims.iter().any(|thing| match thing {
            Thing::Uplink(uplink) => {
                let there = facts.links.get(&uplink.link);
                let is_ours = |link: &LinkFact| link.bridge.as_ref().is_none_or(|bridge| *bridge == uplink.bridge);
                there.is_some_and(is_ours)
                    && !is_another(uplink, facts, claims)
                    && uplink.addresses.iter().any(|one| one.addr() == *address)
            }
            _ => false,
        })
    };
    let gone = gone.into_iter().map(|found| found.address.addr());
    let gone: BTreeSet<IpAddr> = gone.filter(|address| !stay.contains(address) && !is_back(address)).collect();
    let stays = |link: &String| !leaving.contains(link);
    let routes = facts.routes.iter().filter(|route| !claims.has(&Thing::Route((*route).clone())));
    let routes = routes.map(|Route { destination, link, source, .. }| {
        (link, *source, destination.addr().is_ipv6(), format!("the route to {destination}"))
    });
    let all = || facts.odd.iter().filter(|(link, _)| stays(link));
    let odd = all().flat_map(|(link, odd)| odd.iter().map(move |odd| (link, odd)));
    let odd = odd.filter(|(link, odd)| odd.about != About::Shared || first_with(all(), odd) == Some(*link));
    let odd = odd.map(|(link, odd)| (link, odd.source, odd.ipv6, odd.what.clone()));
    let notes = routes.chain(odd).filter(|(link, ..)| stays(link)).filter_map(|(link, source, ipv6, what)| {
        Some(comes_from(source.filter(|source| gone.contains(source))?, &what, link, ipv6))
    });
    notes.collect()
}

/// Of IPv4, what on a link depends on its addresses and is somebody else's. `elsewhere`: routes that these actions take from it.
pub(super) fn of_others_on<'a>(
    facts: &'a HostFacts,
    claims: &'a Claims,
    link: &'a str,
    elsewhere: &'a BTreeSet<Route>,
) -> impl Iterator<Item = (String, About)> + 'a {
    let routes = facts.routes.iter().filter(move |route| {
        let goes = elsewhere.iter().any(|one| {
            (&one.link, one.destination, one.via, one.metric)
                == (&route.link, route.destination, route.via, route.metric)
        });
        route.link == link
            && route.destination.addr().is_ipv4()
            && !goes
            && !claims.has(&Thing::Route((*route).clone()))
    });
    let odd = facts.odd.get(link).into_iter().flatten().filter(|odd| !odd.ipv6);
    routes
        .map(|route| (format!("the route to {}", route.destination), About::Other))
        .chain(odd.map(|odd| (odd.what.clone(), odd.about)))
}

/// Whether a link keeps an address when the first one of its network goes.
pub(in super::super) fn promote_secondaries(link: &str) -> String {
    format!("net.ipv4.conf.{}.promote_secondaries", link.replace('.', "/"))
}

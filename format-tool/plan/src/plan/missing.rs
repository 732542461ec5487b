//! Links that the record speaks of and that are not there. The record knows them by name: one that somebody renamed stays, with
//! what was set on it, and nobody but people can see to that.

use super::{Planner, machine, made_user, setting_before};
use crate::facts::{AddressFact, HostFacts, LinkFact, LinkKind, Route};
use crate::thing::{Claims, Thing, Uplink};
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet};

/// So many of them are named.
const NAMED: usize = 8;

impl Planner<'_> {
    pub(super) fn say_what_links_are_missing(&mut self) {
        let layout = self.layout;
        self.notes.extend(missing(self.facts, self.claims, |link| layout.links.contains_key(link)));
    }
}

/// In words, what is forgotten because its link is not there. `is_made_anew`: whether one of the name comes in its place.
pub(super) fn missing(facts: &HostFacts, claims: &Claims, is_made_anew: impl Fn(&str) -> bool) -> Vec<String> {
    let (mut notes, mut gone) = (Vec::new(), Vec::new());
    for (link, Lost { made, set, had, now }) in lost(facts, claims) {
        let anew = is_made_anew(link);
        let names = now.iter().copied().collect::<Vec<_>>().join(" or ");
        if facts.links.contains_key(link) && !made {
            notes.push(format!(
                "what node-format set on {link} is on {names} by now, and stays there: {}",
                listed(&set)
            ));
        } else if made && now.is_empty() {
            gone.extend((!anew).then(|| link.to_owned()));
        } else if made {
            let anew = if anew { " and is made anew" } else { "" };
            notes.push(format!(
                "{link}, which node-format made, is not there{anew}: it seems to be {names} by now, and stays so: \
                 `ip link delete` removes it"
            ));
        } else {
            let now = match names.as_str() {
                "" => "if somebody renamed it, it".to_owned(),
                names => format!("it seems to be {names} by now, and"),
            };
            let keeps = (!set.is_empty()).then(|| format!("keeps what node-format set there: {}", listed(&set)));
            let lacks = (!had.is_empty()).then(|| format!("does not get back {}", listed(&had)));
            let what: Vec<String> = keeps.into_iter().chain(lacks).collect();
            notes.extend((!what.is_empty()).then(|| format!("{link} is not there: {now} {}", what.join("; it "))));
        }
    }
    for thing in claims.iter() {
        let Thing::Uplink(uplink) = thing else { continue };
        let now = facts.links.get(&uplink.link).and_then(|found| found.bridge.as_ref());
        let (now, had) = (now.filter(|bridge| **bridge != uplink.bridge), uplink.carried());
        if let Some(bridge) = now.filter(|_| !had.is_empty()) {
            notes.push(format!("{} is a port of {bridge} by now, and does not get back {}", uplink.link, listed(&had)));
        }
    }
    if !gone.is_empty() {
        let (are, node_format) = (if gone.len() == 1 { "is" } else { "are" }, "which node-format made");
        notes.push(format!(
            "{}, {node_format}, {are} not there: what somebody renamed, or moved to another namespace, stays",
            listed(&gone)
        ));
    }
    notes
}

/// What the links that are missing may be by now.
pub(super) fn renamed<'a>(facts: &'a HostFacts, claims: &Claims) -> BTreeSet<&'a str> {
    lost(facts, claims).into_values().flat_map(|lost| lost.now).collect()
}

/// A link that is not there.
#[derive(Default)]
struct Lost<'a> {
    /// Whether node-format made it itself: then all that was on it goes with it.
    made: bool,
    /// What was set on it.
    set: Vec<String>,
    /// What it had before it became a port of the bridge.
    had: Vec<String>,
    /// What has what it had: its addresses; as a port, the hardware address of its bridge; or, of a tap or tun, its owner.
    now: BTreeSet<&'a str>,
}

fn lost<'a, 'c>(facts: &'a HostFacts, claims: &'c Claims) -> BTreeMap<&'c str, Lost<'a>> {
    let mut all: BTreeMap<&str, Lost> = BTreeMap::new();
    let pairs: BTreeSet<&str> = claims.iter().filter_map(super::links::veth).collect();
    // Without any, nobody looked.
    let is_lost = |link: &str| !facts.links.is_empty() && !facts.links.contains_key(link) && !pairs.contains(link);
    let mut others = None;
    for thing in claims.iter() {
        let (Thing::Bridge { name: link }
        | Thing::Tap { name: link }
        | Thing::Tun { name: link }
        | Thing::Address { link, .. }
        | Thing::Route(Route { link, .. })
        | Thing::Uplink(Uplink { link, .. })) = thing
        else {
            continue;
        };
        // Somebody moved it, or the names of two.
        let is_moved = matches!(thing, Thing::Address { address, .. } if facts.address(link, *address).is_none());
        let is_there = facts.links.contains_key(link);
        if is_there && !is_moved || !is_there && !is_lost(link) {
            continue;
        }
        let now = others.get_or_insert_with(|| Others::new(facts, claims)).like(thing);
        if now.is_empty() && !is_lost(link) {
            continue;
        }
        let lost = all.entry(link).or_default();
        lost.now.extend(now);
        match thing {
            Thing::Address { address, .. } => lost.set.push(address.to_string()),
            Thing::Route(route) => lost.set.push(format!("the route to {}", route.destination)),
            Thing::Uplink(uplink) => lost.had = uplink.carried(),
            _ => lost.made = true,
        }
    }
    for (key, before) in claims.iter().filter_map(setting_before) {
        if let Some(lost) = machine::link_of(key).and_then(|link| all.get_mut(link.as_str())) {
            lost.set.push(format!("`{key}` (before: {})", before.was));
        }
    }
    all
}

/// What there is of somebody else's.
struct Others<'a, 'c> {
    facts: &'a HostFacts,
    links: Vec<(&'a str, &'a LinkFact)>,
    addresses: BTreeMap<IpNet, Vec<&'a str>>,
    users: BTreeMap<&'c str, u32>,
    uids: BTreeSet<u32>,
}

impl<'a, 'c> Others<'a, 'c> {
    fn new(facts: &'a HostFacts, claims: &'c Claims) -> Self {
        let taken: BTreeSet<&str> = claims.iter().filter_map(taken).collect();
        let is_ours = |name: &str, found: &LinkFact| taken.contains(name) || claims.has_link(name, found);
        let mut addresses: BTreeMap<IpNet, Vec<&str>> = BTreeMap::new();
        for AddressFact { link, address, .. } in &facts.addresses {
            if !claims.has(&Thing::Address { link: link.clone(), address: *address }) {
                addresses.entry(*address).or_default().push(link);
            }
        }
        let links = facts.links.iter().filter(|(name, found)| !is_ours(name, found));
        let users: BTreeMap<&str, u32> = claims.iter().filter_map(made_user).collect();
        let uids = users.values().copied().collect();
        Self { facts, links: links.map(|(name, found)| (name.as_str(), found)).collect(), addresses, users, uids }
    }

    /// Those that may be the link of this, or have it.
    fn like(&self, thing: &Thing) -> Vec<&'a str> {
        let by = |is_it: &dyn Fn(&LinkFact) -> bool| {
            self.links.iter().filter(|(_, found)| is_it(found)).map(|(name, _)| *name).collect()
        };
        match thing {
            Thing::Address { address, .. } => self.addresses.get(address).cloned().unwrap_or_default(),
            Thing::Uplink(Uplink { bridge, .. }) => {
                let mac = self.facts.links.get(bridge).map(|bridge| bridge.mac);
                by(&|found| found.bridge.as_ref() == Some(bridge) && Some(found.mac) == mac)
            }
            Thing::Tap { name } => {
                by(&|found| matches!(found.kind, LinkKind::Tap(Some(owner)) if self.is_his(name, owner)))
            }
            Thing::Tun { name } => {
                by(&|found| matches!(found.kind, LinkKind::Tun(Some(owner)) if self.is_his(name, owner)))
            }
            _ => Vec::new(),
        }
    }

    /// Taps are mostly called as their users are; otherwise it may be any partition's.
    fn is_his(&self, link: &str, owner: u32) -> bool {
        self.users.get(link).map_or_else(|| self.uids.contains(&owner), |uid| *uid == owner)
    }
}

fn taken(thing: &Thing) -> Option<&str> {
    if let Thing::Uplink(uplink) = thing { Some(&uplink.link) } else { None }
}

fn listed(all: &[String]) -> String {
    let named = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

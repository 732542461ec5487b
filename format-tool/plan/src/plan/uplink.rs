//! The interface that becomes a port of the bridge, and what the machine is reached by through it.
//!
//! A run may have been cut off anywhere in between: the record knows what is to be moved, and moving it again does no harm.

mod another;
mod mtu;
mod take;

pub(super) use another::is_another;
use another::{exchanged, is_gone, refusal};

use super::listening::{accept_ra, forwarded};
use super::losses::{lost_with_addresses, lost_with_port, promote_secondaries};
use super::machine::{link_of, setting};
use super::order::comes_behind;
use super::{Before, Plan, Planner, setting_before};
use crate::action::Action;
use crate::facts::{AddressFact, HostFacts, LinkFact, Route, Scope};
use crate::forwarding;
use crate::layout::WantedUplink;
use crate::thing::{Announced, Claims, Thing, Uplink};
use ipnet::IpNet;
use plat_model::problem::{Problem, Problems, codes};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

impl Planner<'_> {
    pub(super) fn uplink(&mut self) {
        let wanted = self.layout.uplink.as_ref();
        let is_wanted = |uplink: &Uplink| wanted.is_some_and(|w| w.link == uplink.link && w.bridge == uplink.bridge);
        let mut taken = false;
        let mut held = None;
        for thing in self.claims.iter() {
            match thing {
                Thing::Uplink(uplink) => match (place(uplink, self.facts, self.claims), is_wanted(uplink)) {
                    (Place::Link, _) => self.forget.push(thing.clone()),
                    (Place::Another(Some(other)), wanted) => {
                        taken |= wanted;
                        self.problems.push(refusal(uplink, other));
                    }
                    (at @ (Place::Nowhere | Place::Another(None)), _) => {
                        self.notes.extend(at.is_anothers().then(|| is_gone(uplink)));
                        match left_on_the_bridge(uplink, self.facts) {
                            Some(drop) => {
                                self.remove.push(drop);
                                self.say_what_was_announced(uplink);
                            }
                            None => self.forget.push(thing.clone()),
                        }
                    }
                    (at, false) => {
                        let alone = at == Place::Alone;
                        self.remove.push(Action::ReturnUplink { uplink: uplink.clone(), alone });
                        self.notes
                            .extend(lowered(uplink, self.facts).into_iter().chain(comes_behind(uplink, self.facts)));
                        self.say_what_its_bridge_forgets(&uplink.link, &uplink.bridge);
                        self.say_what_was_announced(uplink);
                        held = held.or_else(|| wanted.filter(|wanted| wanted.link == uplink.link).map(|_| uplink));
                    }
                    (at, true) => {
                        taken = true;
                        self.say_unconfirmed(uplink);
                        self.say_what_goes_without_ipv6(uplink);
                        if matches!(at, Place::Between | Place::Alone) {
                            self.refuse_another_network(uplink);
                            self.refuse_strangers(uplink);
                            if self.facts.links.get(&uplink.link).is_some_and(|found| found.bridge.is_none()) {
                                self.refuse_lease(&uplink.link);
                            }
                            let alone = at == Place::Alone;
                            if alone {
                                self.refuse_without_consent(uplink);
                            }
                            self.add.push(Action::FinishUplink { uplink: uplink.clone(), alone });
                        }
                    }
                },
                Thing::UplinkConfirmed { link } if wanted.is_none_or(|wanted| wanted.link != *link) => {
                    self.forget.push(thing.clone());
                }
                _ => {}
            }
        }
        if let Some(wanted) = wanted.filter(|_| !taken) {
            match self.facts.links.get(&wanted.link) {
                Some(_) if let Some(uplink) = held => self.refuse_another_bridge(wanted, uplink),
                Some(found) => self.take(wanted, found),
                None => self.problems.push(
                    Problem::new(codes::BAD_CONFIG, format!("there is no interface {}", wanted.link))
                        .fix("name one that `ip link` shows, or leave `uplink` out")
                        .at("network.uplink"),
                ),
            }
        }
    }

    /// What goes from the bridge with its network, of what routers and programs put there for a time.
    fn say_what_was_announced(&mut self, uplink: &Uplink) {
        let Uplink { link, bridge, .. } = uplink;
        if self.leaving.contains(bridge) {
            return;
        }
        self.lose(ways_lost(uplink, self.facts));
        let ending = ending_on(bridge, self.facts).map(|found| found.address);
        let lost =
            ending.map(|address| format!("{link} goes from {bridge}, and with it {address}, which ends by itself"));
        self.lose(lost.collect());
    }

    /// Nobody has said that the machine is reached through the bridge, and most of its own network is back.
    fn refuse_without_consent(&mut self, uplink: &Uplink) {
        let Uplink { link, bridge, carries, .. } = uplink;
        let confirmed = self.claims.has(&Thing::UplinkConfirmed { link: link.clone() });
        if confirmed || !carries || self.consent.take_uplink {
            return;
        }
        self.problems.push(
            Problem::new(
                codes::UPLINK,
                format!("this machine is reached through {link}, which was taken and not confirmed"),
            )
            .because(format!("some of its network is back on it, and {} would move to {bridge} again", carried(uplink)))
            .fix("`node-format rollback` gives it the rest back; `node-format apply --take-uplink` takes it again"),
        );
    }

    /// In one run nobody could say in time whether the machine is still reached.
    fn refuse_another_bridge(&mut self, wanted: &WantedUplink, uplink: &Uplink) {
        let Uplink { link, bridge, .. } = uplink;
        self.problems.push(
            Problem::new(codes::UPLINK, format!("{link} cannot go from {bridge} to {} at once", wanted.bridge))
                .because(format!("node-format made it a port of {bridge}, with all it had"))
                .fix(format!("leave `uplink` out and run `node-format apply`: {link} has its own network again; then name it and the new bridge"))
                .at("network.link"),
        );
    }

    /// Nobody has said yet that the machine is reached through the bridge, and what was to be moved is gone: the machine has
    /// been given another network since, which nobody agreed to take.
    fn refuse_another_network(&mut self, uplink: &Uplink) {
        let Uplink { link, bridge, addresses, routes, .. } = uplink;
        let confirmed = self.claims.has(&Thing::UplinkConfirmed { link: link.clone() });
        let on_either = |name: &String| [link, bridge].contains(&name);
        let address =
            self.facts.addresses.iter().any(|found| on_either(&found.link) && addresses.contains(&found.address));
        let mut routes_there = self.facts.routes.iter().filter(|found| on_either(&found.link));
        let route = routes_there.any(|found| routes.contains(&Route { link: link.clone(), ..found.clone() }));
        let named_none = addresses.is_empty() && routes.is_empty();
        if confirmed || self.consent.take_uplink || named_none || address || route {
            return;
        }
        self.problems.push(
            Problem::new(codes::UPLINK, format!("{link} was taken and not confirmed, and has another network now"))
                .because(format!("{} would come to {bridge}, and none of it is there any more", carried(uplink)))
                .fix(format!(
                    "`node-format apply --take-uplink` does it; `node-format rollback` puts it back on {link}"
                )),
        );
    }

    /// What somebody gave an interface whose move was cut off would be neither moved nor left whole.
    fn refuse_strangers(&mut self, uplink: &Uplink) {
        let strangers = strangers(uplink, &self.facts.addresses, &self.facts.routes);
        if strangers.is_empty() {
            return;
        }
        let Uplink { link, bridge, .. } = uplink;
        self.problems.push(
            Problem::new(codes::UPLINK, format!("{link} cannot be moved whole to {bridge}"))
                .because(format!("that was begun, and by now {link} has {}", strangers.join(", ")))
                .fix(format!("take that away if nothing needs it (what {bridge} is to have, give it afterwards), or run `node-format rollback`")),
        );
    }

    /// What somebody gave to a port whose IPv6 is to be switched off.
    fn say_what_goes_without_ipv6(&mut self, uplink: &Uplink) {
        let facts = self.facts;
        let link = &uplink.link;
        let key = disable_ipv6(link);
        let is_off = |settings: &BTreeMap<String, String>| settings.get(&key).is_some_and(|value| value == "1");
        if !is_off(&self.layout.sysctls) || is_off(&facts.sysctls) {
            return;
        }
        let addresses = facts.addresses.iter().filter(|found| found.address.addr().is_ipv6());
        let routes = facts.routes.iter().filter(|route| route.destination.addr().is_ipv6());
        let odd = facts.odd.get(link).into_iter().flatten().filter(|odd| odd.ipv6).map(|odd| odd.what.clone());
        let gone = strangers(uplink, addresses, routes).into_iter().chain(odd);
        let lost = gone.map(|what| format!("{link} is to have no IPv6 (`{key}`), and with that goes {what}"));
        self.lose(lost.collect());
    }

    fn say_unconfirmed(&mut self, uplink: &Uplink) {
        if uplink.carries && !self.claims.has(&Thing::UplinkConfirmed { link: uplink.link.clone() }) {
            self.notes.push(format!(
                "{} is not confirmed: `node-format confirm` keeps it, `node-format rollback` gives the old network back",
                uplink.link
            ));
        }
    }
}

/// What an interface has that is not among what was to be moved from it, in words: of addresses, those that do not end by
/// themselves.
pub fn strangers<'a>(
    uplink: &Uplink,
    addresses: impl IntoIterator<Item = &'a AddressFact>,
    routes: impl IntoIterator<Item = &'a Route>,
) -> Vec<String> {
    let is_strange = |found: &&AddressFact| {
        found.link == uplink.link
            && !found.leased
            && !is_link_local(found)
            && !uplink.addresses.contains(&found.address)
    };
    let addresses = addresses.into_iter().filter(is_strange).map(|found| format!("the address {}", found.address));
    let routes = routes.into_iter().filter(|route| route.link == uplink.link && !uplink.routes.contains(*route));
    addresses.chain(routes.map(|route| format!("the route to {}", route.destination))).collect()
}

/// What [`rollback`] has to look at.
pub fn rollback_scope(claims: &Claims) -> Scope {
    let sysctls = claims.iter().filter_map(|thing| match thing {
        Thing::Sysctl { key, .. } => Some(key.clone()),
        Thing::Uplink(uplink) => Some(accept_ra(&uplink.link)),
        Thing::Bridge { name } => Some(promote_secondaries(name)),
        _ => None,
    });
    let uplinks = claims.iter().filter_map(|thing| match thing {
        Thing::Uplink(uplink) => Some(forwarding::of_a_link(&uplink.link)),
        _ => None,
    });
    let sysctls = sysctls.chain(uplinks).chain([forwarding::IPV6.to_owned()]);
    Scope { network: true, sysctls: sysctls.chain([promote_secondaries("all")]).collect(), ..Scope::default() }
}

/// Gives every interface back that was taken and not confirmed, whatever else there is to do or in the way.
///
/// # Errors
/// [`codes::UPLINK`] for one whose name another interface has by now.
pub fn rollback(facts: &HostFacts, claims: &Claims) -> Result<Plan, Problems> {
    let (mut plan, mut problems) = (Plan::default(), Problems::default());
    for thing in claims.iter() {
        let Thing::Uplink(uplink) = thing else { continue };
        if claims.has(&Thing::UplinkConfirmed { link: uplink.link.clone() }) {
            continue;
        }
        match place(uplink, facts, claims) {
            Place::Another(Some(other)) => problems.push(refusal(uplink, other)),
            _ => give_back(uplink, facts, claims, &mut plan),
        }
    }
    let actions: Vec<&Action> = plan.actions.iter().collect();
    plan.notes.extend(lost_with_addresses(facts, claims, &actions, &BTreeSet::new()));
    let is_drop = |action: &&Action| matches!(action, Action::DropUplink { .. });
    let dropped: BTreeSet<Thing> = plan.actions.iter().filter(is_drop).filter_map(Action::removes).collect();
    let is_returned =
        |thing: &Thing| matches!(thing, Thing::Uplink(_)) && (plan.forget.contains(thing) || dropped.contains(thing));
    let returned = claims
        .iter()
        .filter(|thing| is_returned(thing))
        .chain(claims.iter().filter(|thing| setting_before(thing).is_some()));
    let returned: Claims = returned.cloned().collect();
    plan.notes.extend(super::missing::missing(facts, &returned, |_| false));
    problems.none_or(plan)
}

/// What gives one interface back, with the settings of the kernel that it had of its own, and what of others' goes with that.
pub fn giving_back(uplink: &Uplink, facts: &HostFacts, claims: &Claims) -> Plan {
    let mut plan = Plan::default();
    give_back(uplink, facts, claims, &mut plan);
    let ending = ending_on(&uplink.bridge, facts).map(|found| found.address);
    plan.notes.extend(ending.map(|address| format!("{address} on {}, which ends by itself", uplink.bridge)));
    plan
}

fn give_back(uplink: &Uplink, facts: &HostFacts, claims: &Claims, plan: &mut Plan) {
    let at = place(uplink, facts, claims);
    plan.notes.extend(at.is_anothers().then(|| is_gone(uplink)));
    let returns = !matches!(at, Place::Link | Place::Nowhere | Place::Another(_));
    let listens = accept_ra(&uplink.link);
    let by_us = claims.iter().filter_map(setting_before).find(|(key, _)| *key == forwarding::IPV6);
    let forwards = facts.sysctls.get(forwarding::IPV6).is_some_and(|found| found == "1")
        && !forwarded(&uplink.link, facts, by_us.map(|(_, before)| before));
    if returns && forwards && facts.sysctls.get(&listens).is_some_and(|found| found == "1") {
        // The rest of the node stays, and a machine that forwards listens to no router unless it is told to. What forwarded
        // before listened to none.
        let before = Before { was: "1", along: &BTreeMap::new(), last: None };
        plan.actions.push(setting(&listens, before, "1", "2"));
    }
    // Its own settings come back first: without IPv6 it takes no such address.
    for (key, before) in claims.iter().filter_map(setting_before) {
        let is_its = link_of(key).as_ref() == Some(&uplink.link) && *key != listens && !at.is_anothers();
        if let Some(found) = facts.sysctls.get(key).filter(|found| is_its && *found != before.was) {
            plan.actions.push(setting(key, before, found, before.was));
        }
    }
    if !returns {
        let left = left_on_the_bridge(uplink, facts).filter(|_| at != Place::Link);
        plan.forget.extend(left.is_none().then(|| Thing::Uplink(uplink.clone())));
        if left.is_some() {
            plan.notes.extend(ways_lost(uplink, facts));
            plan.actions.extend(left);
            plan.actions.extend(ending_on(&uplink.bridge, facts).cloned().map(Action::RemoveAddress));
        }
        // What has its name by now, or gets it, is another one; of an older record it may be the same again.
        let is_gone = uplink.index.is_some() && !facts.links.contains_key(&uplink.link);
        if at.is_anothers() || is_gone {
            let is_its = |thing: &&Thing| {
                setting_before(thing).is_some_and(|(key, _)| link_of(key).as_ref() == Some(&uplink.link))
            };
            plan.forget.extend(claims.iter().filter(is_its).cloned());
        }
        return;
    }
    plan.notes.extend(lost_with_port(facts, &uplink.link, &uplink.bridge));
    plan.notes.extend(ways_lost(uplink, facts));
    plan.notes.extend(lowered(uplink, facts).into_iter().chain(comes_behind(uplink, facts)));
    plan.actions.push(Action::ReturnUplink { uplink: uplink.clone(), alone: at == Place::Alone });
    plan.actions.extend(ending_on(&uplink.bridge, facts).cloned().map(Action::RemoveAddress));
}

/// What a router or a program put there while the interface was its port, and what would draw to the bridge what goes through
/// the interface again.
pub(super) fn ending_on<'a>(bridge: &'a str, facts: &'a HostFacts) -> impl Iterator<Item = &'a AddressFact> {
    let put_there = move |found: &&AddressFact| found.leased && found.link == bridge && found.address.addr().is_ipv6();
    facts.addresses.iter().filter(put_there)
}

/// Of an interface that was down when it was taken, what becomes of it.
fn lowered(uplink: &Uplink, facts: &HostFacts) -> Option<String> {
    let link = &uplink.link;
    let since = needs_it_up(uplink, &facts.addresses, &facts.routes, facts.stacked.get(link));
    match (uplink.was_up, since.is_empty()) {
        (true, _) => None,
        (false, true) => Some(format!("{link} is set down, as it was before")),
        (false, false) => Some(format!("{link} was down before, and stays up for {}", since.join(", "))),
    }
}

/// What somebody gave an interface while it was a port, in words, that would go if it were set down.
pub fn needs_it_up<'a>(
    uplink: &Uplink,
    addresses: impl IntoIterator<Item = &'a AddressFact>,
    routes: impl IntoIterator<Item = &'a Route>,
    stacked: Option<&BTreeSet<String>>,
) -> Vec<String> {
    let mut all = strangers(uplink, addresses, routes);
    all.extend(stacked.into_iter().flatten().map(|link| format!("the link {link} on top of it")));
    all
}

/// What a router announced on the bridge.
fn ways_lost(uplink: &Uplink, facts: &HostFacts) -> Vec<String> {
    let Uplink { link, bridge, .. } = uplink;
    let ways = facts.announced.get(bridge).into_iter().flatten();
    let lost =
        ways.map(|to| format!("{link} goes from {bridge}, and with it the way to {to} that a router announced there"));
    lost.collect()
}

/// Where what an interface carried is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place<'a> {
    /// It is a port, and all it had is on the bridge alone.
    Bridge,
    /// Of what it had something is in the other place yet, or in both: a run was cut off, and moving it again finishes that.
    Between,
    /// It stands alone with some of what it had: somebody may have given the machine its network back by hand.
    Alone,
    /// It stands alone, with all it had, of which the bridge has nothing any more.
    Link,
    /// The interface itself is gone, or somebody else's port by now: there is nothing to return, and nothing to return it to.
    Nowhere,
    /// Another interface has its name; the one that was taken seems to be this one, if it is still there.
    Another(Option<&'a str>),
}

impl Place<'_> {
    fn is_anothers(self) -> bool {
        matches!(self, Self::Another(_))
    }
}

/// What an interface that is gone has left on the bridge, if it has; what was announced there besides goes with it.
fn left_on_the_bridge(uplink: &Uplink, facts: &HostFacts) -> Option<Action> {
    let bridge = &uplink.bridge;
    let addresses: Vec<IpNet> = addresses_on(bridge, uplink, facts).map(|found| found.address).collect();
    let routes: BTreeSet<Route> = routes_on(bridge, uplink, facts).collect();
    let is_left = !addresses.is_empty() || !routes.is_empty();
    let mut left = Uplink { addresses, routes, announced: Announced::default(), ..uplink.clone() };
    left.further = facts.further.get(bridge).cloned().unwrap_or_default();
    left.further.retain(|address, _| left.addresses.contains(address));
    is_left.then(|| Action::DropUplink { uplink: Box::new(uplink.clone()), left: Box::new(left) })
}

/// Those of the uplink's addresses that are on this link.
fn addresses_on<'a>(link: &str, uplink: &Uplink, facts: &'a HostFacts) -> impl Iterator<Item = &'a AddressFact> {
    uplink.addresses.iter().filter_map(move |address| facts.address(link, *address))
}

/// Those of the uplink's routes that go through this link.
fn routes_on(link: &str, uplink: &Uplink, facts: &HostFacts) -> impl Iterator<Item = Route> {
    let routes = uplink.routes.iter().map(move |route| Route { link: link.into(), ..route.clone() });
    routes.filter(move |route| facts.routes.contains(route))
}

fn place<'a>(uplink: &Uplink, facts: &'a HostFacts, claims: &Claims) -> Place<'a> {
    if let Some(now) = exchanged(uplink, facts, claims) {
        return Place::Another(now);
    }
    let Some(LinkFact { bridge, up: is_up, .. }) = facts.links.get(&uplink.link) else { return Place::Nowhere };
    let is_port = bridge.as_deref() == Some(&uplink.bridge);
    if bridge.is_some() && !is_port {
        return Place::Nowhere;
    }
    let all_on = |link: &str| {
        let (addresses, routes) = (addresses_on(link, uplink, facts), routes_on(link, uplink, facts));
        (addresses.count(), routes.count()) == (uplink.addresses.len(), uplink.routes.len())
    };
    let none_on = |link: &str| {
        addresses_on(link, uplink, facts).next().is_none() && routes_on(link, uplink, facts).next().is_none()
    };
    match is_port {
        true if *is_up && all_on(&uplink.bridge) && none_on(&uplink.link) => Place::Bridge,
        false if all_on(&uplink.link) && none_on(&uplink.bridge) => Place::Link,
        false if !none_on(&uplink.link) => Place::Alone,
        _ => Place::Between,
    }
}

pub(super) fn disable_ipv6(link: &str) -> String {
    format!("net.ipv6.conf.{}.disable_ipv6", link.replace('.', "/"))
}

/// How the kernel makes IPv6 addresses on a link.
pub(super) fn addr_gen_mode(link: &str) -> String {
    format!("net.ipv6.conf.{}.addr_gen_mode", link.replace('.', "/"))
}

fn carried(uplink: &Uplink) -> String {
    let all = uplink.carried();
    if all.is_empty() { "what a router announced".into() } else { all.join(", ") }
}

/// What the kernel makes of each link; one that somebody set by hand is among [`crate::HostFacts::odd`].
fn is_link_local(address: &AddressFact) -> bool {
    matches!(address.address.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local())
}

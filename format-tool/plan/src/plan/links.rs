//! Bridges and taps wanted × found.

use super::listening::accept_ra;
use super::{Planner, machine};
use crate::action::{Action, Kind};
use crate::facts::{LinkFact, LinkKind, MTU, Presence};
use crate::thing::Thing;
use plat_model::problem::{Problem, codes};
use std::collections::BTreeSet;

impl Planner<'_> {
    pub(super) fn links(&mut self) {
        self.refuse_group_of_others();
        let gone = self.drop_links();
        self.part(&gone, Part::Bridges);
        self.part(&gone, Part::Ports);
        self.addresses();
        self.refuse_first_address();
        self.sysctls(machine::Part::Deaf);
        self.raise_last();
    }

    /// Whether a link is raised only when all else of it is as it must be. A bridge that is made, for while it is down, neither do
    /// ports cost anything where addresses are, nor addresses where ports are: with 1000 of each that is seconds. And what would
    /// listen to routers until it is told not to, and what has come from a bridge or to one: whoever is behind it may be waiting
    /// for that.
    fn is_raised_last(&self, name: &str, wanted: &LinkFact) -> bool {
        let found = self.facts.links.get(name).filter(|found| found.kind == wanted.kind);
        let is_made = found.is_none() && wanted.kind == LinkKind::Bridge;
        let key = accept_ra(name);
        let is_deaf = found.is_some() && self.facts.sysctls.get(&key).is_some_and(|value| value == "0");
        let is_to_be = self.layout.sysctls.get(&key).is_some_and(|value| value == "0");
        let listens = is_to_be && !is_deaf && self.layout.guard.is_none();
        wanted.up && (is_made || self.moving.contains(name) || (listens && found.is_none_or(|found| !found.up)))
    }

    fn raise_last(&mut self) {
        let layout = self.layout;
        for (name, wanted) in &layout.links {
            if !self.is_raised_last(name, wanted) {
                continue;
            }
            let wanted = match self.facts.links.get(name).filter(|found| found.kind == wanted.kind) {
                Some(found) => self.completed(wanted, found),
                None => wanted.clone(),
            };
            self.add.push(Action::SetLink { name: name.clone(), from: lowered(&wanted), to: wanted });
        }
    }

    /// With an uplink a bridge gets its MTU last.
    fn completed(&self, wanted: &LinkFact, found: &LinkFact) -> LinkFact {
        if wanted.kind == LinkKind::Bridge && self.layout.uplink.is_some() {
            return LinkFact { mtu: found.mtu, ..wanted.clone() };
        }
        wanted.on(found, Some(MTU))
    }

    /// The links of one part, removed, made, changed.
    fn part(&mut self, gone: &[(String, LinkFact)], part: Part) {
        for (name, found) in gone.iter().filter(|(_, found)| part.has(found)) {
            self.leaving.insert(name.clone());
            self.say_what_stands_alone(name);
            self.remove.push(removal(name.clone(), found.clone()));
        }
        let before = self.add.len();
        let layout = self.layout;
        for (name, wanted) in layout.links.iter().filter(|(_, wanted)| part.has(wanted)) {
            self.link(name, wanted);
        }
        // Changes come after what they refer to: a port is joined to a bridge that is there.
        self.add[before..].sort_by_key(|action| matches!(action, Action::SetLink { .. }));
        self.refuse_without_tun(before);
    }

    fn drop_links(&mut self) -> Vec<(String, LinkFact)> {
        let mut gone = Vec::new();
        for thing in self.claims.iter() {
            let (Thing::Bridge { name } | Thing::Tap { name } | Thing::Tun { name }) = thing else { continue };
            match self.facts.links.get(name).filter(|found| found.thing(name).as_ref() == Some(thing)) {
                None => self.forget.push(thing.clone()),
                Some(found) if !self.layout.links.contains_key(name) => gone.push((name.clone(), found.clone())),
                Some(_) => {}
            }
        }
        gone
    }

    /// One that leaves a bridge, or joins one, leaves in a step of its own, before: of a bridge that goes the kernel would let it
    /// go by itself, and nothing would be there to undo; and what is behind it is held by the old packet filter until it is down,
    /// and by the new one before it is up.
    fn link(&mut self, name: &str, wanted: &LinkFact) {
        let found = self.facts.links.get(name).filter(|found| found.kind == wanted.kind);
        if found.is_some_and(|found| found.bridge != wanted.bridge && self.claims.has_link(name, found)) {
            self.moving.insert(name.into());
        }
        let is_raised_last = self.is_raised_last(name, wanted);
        let link = if is_raised_last { lowered(wanted) } else { wanted.clone() };
        let addition = || Action::AddLink { name: name.into(), link: link.clone() };
        let Some(found) = self.facts.links.get(name) else {
            self.say_lesser_mtu(wanted);
            return self.add.push(addition());
        };
        if !self.claims.has_link(name, found) {
            let what = format!("link {name} exists already");
            let fix = "choose another name in [network], or remove it (`ip link delete`)";
            return self.foreign(what, "node-format did not make it", fix);
        }
        let wanted = self.completed(wanted, found);
        if found.kind != wanted.kind {
            self.leaving.insert(name.into());
            self.say_what_stands_alone(name);
            self.remove.push(removal(name.into(), found.clone()));
            self.set_back(&accept_ra(name));
            self.add.push(addition());
            return;
        }
        let mut from = found.clone();
        if self.moving.contains(name) {
            let listens = accept_ra(name);
            if !self.layout.sysctls.contains_key(&listens) {
                self.set_back(&listens);
            }
            let alone = LinkFact { bridge: None, isolated: false, ..lowered(found) };
            if from != alone {
                self.remove.push(Action::SetLink { name: name.into(), from, to: alone.clone() });
            }
            if let Some(bridge) = &found.bridge {
                self.say_what_its_bridge_forgets(name, bridge);
            }
            if found.up {
                self.say_what_goes_while_it_is_down(name, found.bridge.as_deref(), wanted.bridge.as_deref());
            }
            from = alone;
        }
        if found.mac != wanted.mac && !(found.up && self.moving.contains(name)) {
            self.say_what_goes_with_its_mac(name, found.mac);
        }
        if from.mtu.zip(wanted.mtu).is_some_and(|(was, mtu)| mtu < was) || from.bridge != wanted.bridge {
            self.say_lesser_mtu(&wanted);
        }
        self.say_what_another_mtu_does(name, found, &wanted);
        let to = if is_raised_last { lowered(&wanted) } else { wanted };
        if from != to {
            self.add.push(Action::SetLink { name: name.into(), from, to });
        }
    }

    /// Taps are deleted by link group, so what else is in the group of the condemned would go with them.
    fn refuse_group_of_others(&mut self) {
        let Some(group) = self.layout.link_group.map(|group| group.wrapping_add(1)) else { return };
        let pairs: BTreeSet<&str> = self.claims.iter().filter_map(veth).collect();
        let ours = |name: &str, link: &LinkFact| pairs.contains(name) || self.claims.has_link(name, link);
        let others: Vec<_> =
            self.facts.links.iter().filter(|(name, link)| link.group == group && !ours(name, link)).collect();
        if let Some((name, _)) = others.first() {
            let what = format!("link group {group} is used by link {name}");
            let why = "node-format deletes taps through this group, and would delete that link too";
            self.foreign(what, why, "choose another `link_group` in [network]");
        }
    }

    fn refuse_without_tun(&mut self, before: usize) {
        let makes_tap = self.add[before..].iter().any(|action| action.kind() == Kind::AddTaps);
        if makes_tap && self.facts.kernel.tun == Presence::Absent {
            self.problems.push(
                Problem::new(codes::KERNEL_LACKS, "taps cannot be made")
                    .because("there is no /dev/net/tun")
                    .fix("load the module `tun`, or set `taps = false` and `tuns = false` in [network] (no virtual machines then)"),
            );
        }
    }
}

/// Bridges come before what is joined to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Bridges,
    Ports,
}

impl Part {
    fn has(self, link: &LinkFact) -> bool {
        (link.kind == LinkKind::Bridge) == (self == Self::Bridges)
    }
}

impl LinkFact {
    /// This link as it must be seen. Where it says nothing of an MTU, that is `default`; if none can be seen, none is
    /// wanted.
    pub(super) fn on(&self, found: &Self, default: Option<u32>) -> Self {
        Self { mtu: self.mtu.or(default).filter(|_| self.mtu.is_some() || found.mtu.is_some()), ..self.clone() }
    }
}

pub(super) fn veth(thing: &Thing) -> Option<&str> {
    if let Thing::Namespace { veth, .. } = thing { Some(veth) } else { None }
}

fn lowered(link: &LinkFact) -> LinkFact {
    LinkFact { up: false, ..link.clone() }
}

fn removal(name: String, link: LinkFact) -> Action {
    Action::RemoveLink { name, link }
}

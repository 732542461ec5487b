//! Bridges and taps wanted × found.

use super::Planner;
use crate::action::{Action, Kind};
use crate::facts::{LinkFact, LinkKind, Presence};
use crate::thing::{Thing, Uplink};
use plat_model::problem::{Problem, codes};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What the kernel gives a link that is made, in bytes (`ETH_DATA_LEN`). A bridge with an uplink takes the smallest of its
/// ports'.
pub(super) const MTU: u32 = 1500;

impl Planner<'_> {
    pub(super) fn links(&mut self) {
        self.refuse_group_of_others();
        let gone = self.drop_links();
        let left: BTreeSet<&str> = gone.iter().map(|(name, _)| name.as_str()).collect();
        self.part(&gone, &left, Part::Bridges);
        self.part(&gone, &left, Part::Ports);
        self.addresses();
        self.raise_bridges();
    }

    /// A bridge that is made is raised last: while it is down, neither do ports cost anything where addresses are, nor
    /// addresses where ports are. With 1000 of each that is seconds.
    fn raise_bridges(&mut self) {
        let layout = self.layout;
        let made = layout.links.iter().filter(|(name, _)| !self.facts.links.contains_key(*name));
        for (name, wanted) in made.filter(|(_, wanted)| wanted.kind == LinkKind::Bridge && wanted.up) {
            self.add.push(Action::SetLink { name: name.clone(), from: lowered(wanted), to: wanted.clone() });
        }
    }

    /// The links of one part, removed, made, changed.
    fn part(&mut self, gone: &[(String, LinkFact)], left: &BTreeSet<&str>, part: Part) {
        for (name, found) in gone.iter().filter(|(_, found)| part.has(found)) {
            self.leaving.insert(name.clone());
            self.say_what_stands_alone(name);
            self.remove.push(removal(name.clone(), found.clone()));
        }
        let before = self.add.len();
        let layout = self.layout;
        for (name, wanted) in layout.links.iter().filter(|(_, wanted)| part.has(wanted)) {
            let leaves = self.facts.links.get(name).and_then(|found| found.bridge.as_deref());
            self.link(name, wanted, leaves.is_some_and(|bridge| left.contains(bridge)));
        }
        // Changes come after what they refer to: a port is joined to a bridge that is there.
        self.add[before..].sort_by_key(|action| matches!(action, Action::SetLink { .. }));
        self.refuse_without_tun(before);
    }

    /// What somebody else joined to a bridge that goes, or set on it: ports stay, addresses and routes do not.
    fn say_what_stands_alone(&mut self, bridge: &str) {
        let ours = |name: &str, link: &LinkFact| {
            let is_taken = |thing: &Thing| matches!(thing, Thing::Uplink(uplink) if uplink.link == name);
            let is_end = |thing: &Thing| veth(thing) == Some(name);
            link.thing(name).is_some_and(|thing| self.claims.has(&thing))
                || self.claims.iter().any(|thing| is_taken(thing) || is_end(thing))
        };
        let ports = self.facts.links.iter().filter(|(_, link)| link.bridge.as_deref() == Some(bridge));
        let others = ports.filter(|(name, link)| !ours(name, link));
        self.notes.extend(others.map(|(name, _)| {
            format!("{bridge} goes, and {name}, which node-format did not join to it, stands alone then")
        }));
        let uplinks: Vec<&Uplink> = self
            .claims
            .iter()
            .filter_map(|thing| if let Thing::Uplink(uplink) = thing { Some(uplink) } else { None })
            .collect();
        let returns = |address| uplinks.iter().any(|uplink| uplink.addresses.contains(address));
        let addresses = self.facts.addresses.iter().filter(|found| {
            let made = Thing::Address { link: found.link.clone(), address: found.address };
            let kernels = matches!(found.address.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local());
            found.link == bridge && !found.leased && !kernels && !returns(&found.address) && !self.claims.has(&made)
        });
        let addresses = addresses.map(|found| format!("the address {}", found.address));
        let routes = self.facts.routes.iter().filter(|route| {
            let all = uplinks.iter().flat_map(|uplink| &uplink.routes);
            let returns = all.into_iter().any(|one| (one.destination, one.via) == (route.destination, route.via));
            route.link == bridge && !returns && !self.claims.has(&Thing::Route((*route).clone()))
        });
        let routes = routes.map(|route| format!("the route to {}", route.destination));
        let gone = addresses.chain(routes);
        self.notes
            .extend(gone.map(|what| format!("{bridge} goes, and with it {what}, which node-format did not make")));
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

    /// `leaves`: the bridge that it is a port of goes. The kernel would let it go by itself, and nothing would be there to
    /// undo; so it leaves in a step of its own, before.
    fn link(&mut self, name: &str, wanted: &LinkFact, leaves: bool) {
        let link = if wanted.kind == LinkKind::Bridge { lowered(wanted) } else { wanted.clone() };
        let addition = || Action::AddLink { name: name.into(), link: link.clone() };
        let Some(found) = self.facts.links.get(name) else { return self.add.push(addition()) };
        if !found.thing(name).is_some_and(|thing| self.claims.has(&thing)) {
            let what = format!("link {name} exists already");
            let fix = "choose another name in [network], or remove it (`ip link delete`)";
            return self.foreign(what, "node-format did not make it", fix);
        }
        let follows = wanted.kind == LinkKind::Bridge && self.layout.uplink.is_some();
        let wanted = wanted.on(found, if follows { found.mtu } else { Some(MTU) });
        if found.kind != wanted.kind {
            self.leaving.insert(name.into());
            self.remove.push(removal(name.into(), found.clone()));
            self.add.push(addition());
            return;
        }
        let mut from = found.clone();
        if leaves {
            let alone = LinkFact { bridge: None, isolated: false, ..found.clone() };
            self.remove.push(Action::SetLink { name: name.into(), from, to: alone.clone() });
            from = alone;
        }
        if from != wanted {
            self.add.push(Action::SetLink { name: name.into(), from, to: wanted });
        }
    }

    /// Taps are deleted by link group, so what else is in the group of the condemned would go with them.
    fn refuse_group_of_others(&mut self) {
        let Some(group) = self.layout.link_group.map(|group| group.wrapping_add(1)) else { return };
        let pairs: BTreeSet<&str> = self.claims.iter().filter_map(veth).collect();
        let ours = |name: &str, link: &LinkFact| {
            pairs.contains(name) || link.thing(name).is_some_and(|thing| self.claims.has(&thing))
        };
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

fn veth(thing: &Thing) -> Option<&str> {
    if let Thing::Namespace { veth, .. } = thing { Some(veth) } else { None }
}

fn lowered(link: &LinkFact) -> LinkFact {
    LinkFact { up: false, ..link.clone() }
}

fn removal(name: String, link: LinkFact) -> Action {
    Action::RemoveLink { name, link }
}

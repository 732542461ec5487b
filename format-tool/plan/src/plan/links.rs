//! Bridges and taps wanted × found.

use super::Planner;
use crate::action::Action;
use crate::facts::{LinkFact, LinkKind, Presence};
use crate::thing::Thing;
use plat_model::problem::{Problem, codes};
use std::collections::BTreeSet;

impl Planner<'_> {
    pub(super) fn links(&mut self) {
        self.refuse_group_of_others();
        let gone = self.drop_links();
        for (name, found) in &gone {
            self.remove.push(removal(name.clone(), found.clone()));
        }
        let left: BTreeSet<&str> = gone.iter().map(|(name, _)| name.as_str()).collect();
        let (bridges, others): (Vec<_>, Vec<_>) =
            self.layout.links.iter().partition(|(_, link)| link.kind == LinkKind::Bridge);
        let before = self.add.len();
        for (name, wanted) in bridges.into_iter().chain(others) {
            let leaves = self.facts.links.get(name).and_then(|found| found.bridge.as_deref());
            self.link(name, wanted, leaves.is_some_and(|bridge| left.contains(bridge)));
        }
        // Changes come after what they refer to: a port is joined to a bridge that is there.
        self.add[before..].sort_by_key(|action| matches!(action, Action::SetLink { .. }));
        self.refuse_without_tun(before);
        if let Some(name) = &self.layout.needs_link
            && !self.facts.links.contains_key(name)
        {
            self.problems.push(
                Problem::new(codes::BAD_CONFIG, format!("there is no interface {name}"))
                    .because("the network mode `interface` puts addresses on one that exists")
                    .fix("name one that `ip link` shows, or use `mode = \"bridge\"`")
                    .at("network.link"),
            );
        }
    }

    fn drop_links(&mut self) -> Vec<(String, LinkFact)> {
        let mut gone = Vec::new();
        for thing in self.claims.iter() {
            let (name, bridge) = match thing {
                Thing::Bridge { name } => (name, true),
                Thing::Tap { name } => (name, false),
                _ => continue,
            };
            match self.facts.links.get(name).filter(|found| is(found, bridge)) {
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
        let (bridge, thing) = match wanted.kind {
            LinkKind::Bridge => (true, Thing::Bridge { name: name.into() }),
            _ => (false, Thing::Tap { name: name.into() }),
        };
        let addition = || match bridge {
            true => Action::AddBridge { name: name.into(), link: wanted.clone() },
            false => Action::AddTap { name: name.into(), link: wanted.clone() },
        };
        let Some(found) = self.facts.links.get(name) else { return self.add.push(addition()) };
        if !self.claims.has(&thing) || !is(found, bridge) {
            let what = format!("link {name} exists already");
            let fix = "choose another name in [network], or remove it (`ip link delete`)";
            return self.foreign(what, "node-format did not make it", fix);
        }
        if found.kind != wanted.kind {
            self.remove.push(removal(name.into(), found.clone()));
            self.add.push(addition());
            return;
        }
        let mut from = found.clone();
        if leaves {
            let alone = LinkFact { bridge: None, ..found.clone() };
            self.remove.push(Action::SetLink { name: name.into(), from, to: alone.clone() });
            from = alone;
        }
        if from != *wanted {
            self.add.push(Action::SetLink { name: name.into(), from, to: wanted.clone() });
        }
    }

    /// Taps are deleted by link group, so what else is in the group of the condemned would go with them.
    fn refuse_group_of_others(&mut self) {
        let Some(group) = self.layout.link_group.map(|group| group.wrapping_add(1)) else { return };
        let ours = |name: &str| self.claims.has(&Thing::Tap { name: name.into() });
        let others: Vec<_> =
            self.facts.links.iter().filter(|(name, link)| link.group == group && !ours(name)).collect();
        if let Some((name, _)) = others.first() {
            let what = format!("link group {group} is used by link {name}");
            let why = "node-format deletes taps through this group, and would delete that link too";
            self.foreign(what, why, "choose another `link_group` in [network]");
        }
    }

    fn refuse_without_tun(&mut self, before: usize) {
        let makes_tap = self.add[before..].iter().any(|action| matches!(action, Action::AddTap { .. }));
        if makes_tap && self.facts.kernel.tun == Presence::Absent {
            self.problems.push(
                Problem::new(codes::KERNEL_LACKS, "taps cannot be made")
                    .because("there is no /dev/net/tun")
                    .fix("load the module `tun`, or set `taps = false` in [network] (no virtual machines then)"),
            );
        }
    }
}

fn is(link: &LinkFact, bridge: bool) -> bool {
    match link.kind {
        LinkKind::Bridge => bridge,
        LinkKind::Tap(_) => !bridge,
        LinkKind::Other(_) => false,
    }
}

fn removal(name: String, link: LinkFact) -> Action {
    match link.kind {
        LinkKind::Bridge => Action::RemoveBridge { name, link },
        _ => Action::RemoveTap { name, link },
    }
}

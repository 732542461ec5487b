//! Network namespaces wanted × found, each with the pair of links that joins it to the bridge.

mod others;

use super::Planner;
use crate::action::{Action, Change, Namespace};
use crate::facts::MTU;
use crate::facts::{LinkFact, LinkKind, NamespaceFact};
use crate::thing::Thing;
use others::Gateways;
use plat_model::problem::{Problem, codes};
use std::collections::BTreeMap;

impl Planner<'_> {
    pub(super) fn namespaces(&mut self) {
        let gateways = Gateways::of(self.claims);
        for thing in self.claims.iter() {
            let Thing::Namespace { name, veth } = thing else { continue };
            let found = self.found_namespace(name, veth);
            if let Some(what) = self.facts.not_namespaces.get(name) {
                match &found.outside {
                    None => self.forget.push(thing.clone()),
                    // Ours lives on somewhere, and its pair with it.
                    Some(_) if !self.layout.namespaces.contains_key(name) => self.problems.push(
                        Problem::new(codes::STILL_USED, format!("namespace {name} cannot be removed"))
                            .because(format!("/run/netns/{name} is {what}, and {veth} is still there"))
                            .fix(format!("remove what is there, and run `ip link delete {veth}`")),
                    ),
                    Some(_) => {}
                }
                continue;
            }
            let wanted = self.layout.namespaces.get(name).is_some_and(|wanted| wanted.veth == *veth);
            if found == Namespace::default() && wanted {
                self.forget.push(thing.clone());
            } else if !wanted {
                // Of one that is not there a killed run may have left the file it was to be mounted on.
                self.leaving.insert(veth.clone());
                self.say_what_stands_alone(veth);
                self.say_what_goes_with_namespace((name, veth), found.inside.as_ref(), &gateways);
                if self.facts.mounted_again.contains(name) {
                    self.notes.push(format!(
                        "namespace {name} is mounted a second time, out of sight, as `ip netns add` does it: it stays there without \
                         its link, and so does the empty file /run/netns/{name}, until the machine is started again"
                    ));
                }
                if let Some((process, program)) = self.facts.entered.get(name) {
                    self.notes.push(format!(
                        "namespace {name} loses its name and its link, and stays, with all else that is in it, for as long as \
                         somebody runs in it: process {process} ({program}) does"
                    ));
                }
                self.remove.push(set(name, veth, found, Namespace::default()));
            }
        }
        for (name, wanted) in &self.layout.namespaces {
            let veth = &wanted.veth;
            let found = self.found_namespace(name, veth);
            let ours = self.claims.has(&Thing::Namespace { name: name.clone(), veth: veth.clone() });
            let other = self.facts.links.get(veth).filter(|link| link.kind != LinkKind::Veth);
            if other.is_some() {
                let fix = "remove it (`ip link delete`), or choose another base name in format.toml";
                self.foreign(format!("link {veth} exists already"), "it is no end of a pair", fix);
            } else if let Some(what) = self.facts.not_namespaces.get(name) {
                let fix = "remove it, or choose another base name in format.toml";
                self.foreign(format!("/run/netns/{name} is in the way"), format!("it is {what}, not a namespace"), fix);
            } else if let Some(before) = self.other_veth(name, veth).filter(|_| found.inside.is_some()) {
                self.problems.push(
                    Problem::new(codes::STILL_USED, format!("namespace {name} keeps its link {before}"))
                        .because(format!(
                            "{veth} is wanted now, but the namespace was made with the other one, and may be in use"
                        ))
                        .fix("put the old `veth_base_name` back, or run `node-format reset` first")
                        .at("network.veth_base_name"),
                );
            } else if found != Namespace::default() && !ours {
                let there = if found.inside.is_some() { format!("namespace {name}") } else { format!("link {veth}") };
                let fix = "choose another name in format.toml, or remove it (`ip netns delete`, `ip link delete`)";
                self.foreign(format!("{there} exists already"), "node-format did not make it", fix);
            } else if let Some(far) = self.far_end_of_others(name, veth) {
                let whose = if far.is_empty() { "another link".to_owned() } else { format!("the link {far}") };
                let note = format!(
                    "namespace {name} is not made as it must be: it has a link eth0 that is one pair with {whose}, not with {veth}, which \
                     node-format did not make so; remove it, or call it otherwise (`ip -n {name} link set eth0 name NAME`)"
                );
                self.left.push(note.clone());
                self.notes.push(note);
            } else {
                let wanted = completed(&wanted.state, &found);
                if found != wanted {
                    self.say_what_is_taken_from_namespace((name, veth), (&found, &wanted), &gateways);
                    self.say_lesser_mtu_of_pair((name, veth), &found, &wanted);
                    if let (Some(from), Some(to)) = (&found.inside, &wanted.inside) {
                        self.say_what_goes_with_addresses_inside(name, from, to);
                    }
                    self.add.push(set(name, veth, found, wanted));
                }
            }
        }
    }

    /// The link that a namespace of ours was made with, if that is another one.
    fn other_veth(&self, name: &str, veth: &str) -> Option<&String> {
        self.claims.iter().find_map(|thing| match thing {
            Thing::Namespace { name: made, veth: before } if made == name && before != veth => Some(before),
            _ => None,
        })
    }

    /// A link of another kind is somebody else's, and so is an `eth0` that is no pair with ours.
    fn found_namespace(&self, name: &str, veth: &str) -> Namespace {
        let outside = self.facts.links.get(veth).filter(|link| link.kind == LinkKind::Veth).cloned();
        let inside = self.facts.namespaces.get(name).cloned().map(|inside| match self.far_end_of_others(name, veth) {
            None => inside,
            Some(_) => NamespaceFact {
                lo_up: inside.lo_up,
                local_routes: inside.local_routes,
                sysctls: inside.sysctls,
                ..NamespaceFact::default()
            },
        });
        Namespace { outside, inside }
    }

    /// If the `eth0` in a namespace is no pair with this link, the one that it is a pair with (empty: none of the machine's).
    pub(super) fn far_end_of_others(&self, name: &str, veth: &str) -> Option<&str> {
        let inside = self.facts.namespaces.get(name).filter(|inside| inside.link.is_some())?;
        let far = inside.outside.as_deref().unwrap_or_default();
        (far != veth).then_some(far)
    }
}

fn set(name: &str, veth: &str, from: Namespace, to: Namespace) -> Action {
    Action::SetNamespace { name: name.into(), veth: veth.into(), state: Box::new(Change { from, to }) }
}

/// What is wanted, with an MTU where nothing is said of it.
fn completed(wanted: &Namespace, found: &Namespace) -> Namespace {
    let link = |wanted: &Option<LinkFact>, found: Option<&LinkFact>| {
        wanted.as_ref().map(|wanted| found.map_or_else(|| wanted.clone(), |found| wanted.on(found, Some(MTU))))
    };
    let inside = wanted.inside.as_ref().map(|inside| NamespaceFact {
        link: link(&inside.link, found.inside.as_ref().and_then(|found| found.link.as_ref())),
        sysctls: inside.sysctls.clone().into_iter().chain(kept(inside, found.inside.as_ref())).collect(),
        ..inside.clone()
    });
    Namespace { outside: link(&wanted.outside, found.outside.as_ref()), inside }
}

/// Whoever has no use for IPv6 in there may have switched it off.
fn kept(wanted: &NamespaceFact, found: Option<&NamespaceFact>) -> BTreeMap<String, String> {
    let is_needed = wanted.addresses.iter().any(|address| address.addr().is_ipv6());
    let found = found.filter(|_| !is_needed).into_iter().flat_map(|found| &found.sysctls);
    let off = found.filter(|(key, _)| key.ends_with(".disable_ipv6"));
    off.map(|(key, value)| (key.clone(), value.clone())).collect()
}

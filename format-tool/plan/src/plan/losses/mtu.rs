//! What goes with the MTU of a link, or takes smaller packets with it.

use super::super::Planner;
use crate::action::Namespace;
use crate::facts::{About, HostFacts, LinkFact, LinkKind, MTU, Odd};
use crate::undo::listed;
use std::collections::{BTreeMap, BTreeSet};

impl Planner<'_> {
    /// A bridge takes no larger packets than all its ports do.
    pub(in crate::plan) fn say_lesser_mtu(&mut self, port: &LinkFact) {
        let Some(bridge) = port.bridge.as_ref().filter(|bridge| !self.layout.links.contains_key(*bridge)) else {
            return;
        };
        let Some(whole) = self.facts.links.get(bridge).and_then(|link| link.mtu) else { return };
        let mtu = port.mtu.unwrap_or(MTU);
        let is_alone = !self.facts.links.values().any(|link| link.bridge.as_ref() == Some(bridge));
        if is_alone || mtu < whole {
            self.say_what_goes_with_its_mtu(bridge, whole, mtu);
        }
        let above = larger_above(self.facts, bridge, mtu);
        let above = if mtu < whole && !above.is_empty() { format!(": {}", listed(&above)) } else { String::new() };
        let note = match is_alone {
            true if mtu == whole && whole == MTU => return,
            true => {
                let note = format!(
                    "{bridge}, which takes packets of {whole} bytes, has no other port: unless that was set with `ip link set`, it takes {mtu} while taps are its ports, and {MTU} afterwards"
                );
                let keeps =
                    if above.is_empty() { "" } else { "; what stands on it takes no more then either, and keeps that" };
                format!("{note}{keeps}{above}")
            }
            false if mtu < whole => format!(
                "{bridge}, which takes packets of {whole} bytes, takes {mtu} while taps of this `mtu` are its ports; so does what stands on it, afterwards too{above}"
            ),
            false => return,
        };
        match above.is_empty() {
            _ if self.notes.contains(&note) => {}
            true => self.notes.push(note),
            false => self.lose(vec![note]),
        }
    }

    /// As of other links, of both ends of a pair.
    pub(in crate::plan) fn say_lesser_mtu_of_pair(
        &mut self,
        (name, veth): (&str, &str),
        found: &Namespace,
        wanted: &Namespace,
    ) {
        if let Some((from, to)) = found.outside.as_ref().zip(wanted.outside.as_ref()) {
            self.say_what_another_mtu_does(veth, from, to);
        }
        let inner = |namespace: &Namespace| namespace.inside.as_ref()?.link.as_ref()?.mtu;
        let Some((was, mtu)) = inner(found).zip(inner(wanted)).filter(|(was, mtu)| mtu != was) else { return };
        let odd = self.facts.others_inside.get(name).and_then(|others| others.odd.get("eth0"));
        self.say_what_is_forgotten(&format!("eth0 in namespace {name}"), odd, was, mtu);
        if mtu > was {
            return;
        }
        let above = self.facts.others_inside.get(name).into_iter().flat_map(|others| &others.above);
        let above: Vec<&str> = above.filter(|(_, its)| **its > mtu).map(|(link, _)| link.as_str()).collect();
        if !above.is_empty() {
            let note = format!(
                "eth0 in namespace {name} takes packets of {mtu} bytes instead of {was}; so does what stands on it, afterwards too: {}",
                listed(&above)
            );
            self.lose(vec![note]);
        }
    }

    /// What goes with another MTU; and what stands on a link takes no larger packets than that does, also when that takes larger
    /// ones again.
    pub(in crate::plan) fn say_what_another_mtu_does(&mut self, link: &str, from: &LinkFact, to: &LinkFact) {
        let Some((was, mtu)) = from.mtu.zip(to.mtu).filter(|(was, mtu)| mtu != was) else { return };
        self.say_what_goes_with_its_mtu(link, was, mtu);
        let above = larger_above(self.facts, link, mtu);
        if mtu < was && !above.is_empty() {
            let note = format!(
                "{link} takes packets of {mtu} bytes instead of {was}; so does what stands on it, afterwards too: {}",
                listed(&above)
            );
            self.lose(vec![note]);
        }
    }

    /// What somebody set of IPv6 on a link that gets another MTU, and on what stands on it and gets that too. `was` may be the same:
    /// then it is another one in between.
    pub(in crate::plan) fn say_what_goes_with_its_mtu(&mut self, link: &str, was: u32, mtu: u32) {
        let facts = self.facts;
        let above = lowered_above(&facts.links, &facts.stacked, link).into_iter().filter(|(_, its)| *its > mtu);
        for (link, was) in above.chain([(link.to_owned(), was)]) {
            self.say_what_is_forgotten(&link, facts.odd.get(&link), was, mtu);
        }
    }

    /// With an MTU the kernel sets anew how large packets of IPv6 may be there, and by those routes that say more than it, or the same
    /// as was said of the link.
    fn say_what_is_forgotten(&mut self, link: &str, odd: Option<&BTreeSet<Odd>>, was: u32, mtu: u32) {
        let odd = || odd.into_iter().flatten();
        let of_link = odd().find_map(|odd| if let About::Mtu(its) = odd.about { Some(its) } else { None });
        for odd in odd() {
            let (what, goes, goes_back) = match odd.about {
                About::Mtu(its) => (odd.what.clone(), its != mtu, true),
                About::MtuOfRoute(its) => {
                    let is_as_the_link = its == of_link.unwrap_or(was);
                    let goes = its != mtu && (its > mtu || is_as_the_link);
                    (format!("the mtu {its} of {}", odd.what), goes, is_as_the_link || its >= was.min(mtu))
                }
                _ => continue,
            };
            let how = match was == mtu {
                true => format!("{link} is given its MTU anew"),
                false => format!("{link} takes packets of {mtu} bytes instead of {was}"),
            };
            let note = format!("{how}, and with that goes {what}, which node-format did not set");
            match goes {
                _ if self.lost.contains(&note) => {}
                true => self.lose(vec![note]),
                // If all is done nobody misses it.
                false if goes_back => self.lost.push(note),
                false => {}
            }
        }
    }
}

/// Kinds of links that the kernel gives a lesser MTU with the link that they stand on, and no greater one. (An ipvlan has what
/// its link has; tunnels have their own.)
const LOWERED: [&str; 4] = ["vlan", "macvlan", "macvtap", "macsec"];

/// Links on top of this one that take larger packets than these, and no more once it does not.
fn larger_above(facts: &HostFacts, link: &str, mtu: u32) -> Vec<String> {
    let above = lowered_above(&facts.links, &facts.stacked, link);
    above.into_iter().filter(|(_, its)| *its > mtu).map(|(name, _)| name).collect()
}

/// Links on top of this one that take no larger packets than it does, and what each takes. `stacked`: by link, those that stand on
/// it.
pub fn lowered_above(
    links: &BTreeMap<String, LinkFact>,
    stacked: &BTreeMap<String, BTreeSet<String>>,
    link: &str,
) -> BTreeMap<String, u32> {
    let lowered = |name: &String| match links.get(name) {
        Some(LinkFact { kind: LinkKind::Other(kind), mtu, .. }) if LOWERED.contains(&kind.as_str()) => *mtu,
        _ => None,
    };
    let (mut all, mut below) = (BTreeMap::new(), vec![link.to_owned()]);
    while let Some(link) = below.pop() {
        for name in stacked.get(&link).into_iter().flatten() {
            if let Some(mtu) = lowered(name).filter(|_| !all.contains_key(name)) {
                all.insert(name.clone(), mtu);
                below.push(name.clone());
            }
        }
    }
    all
}

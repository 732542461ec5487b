//! How large packets a bridge with an uplink takes: what the smallest of its ports does, and no more than `mtu`. The kernel sees to
//! that by itself, but for a bridge whose MTU was ever set. So it is set last, when all ports are what they must be: where the
//! kernel has seen to it there is nothing left to set, and it goes on seeing to it.

use crate::action::Action;
use crate::facts::{LEAST_OF_IPV6, LinkFact, MTU};
use crate::plan::Planner;
use crate::plan::links::veth;

impl Planner<'_> {
    pub(in crate::plan) fn bridge_of_uplink(&mut self) {
        let (layout, facts) = (self.layout, self.facts);
        let Some(uplink) = &layout.uplink else { return };
        let bridge = &uplink.bridge;
        let Some(wanted) = layout.links.get(bridge) else { return };
        let Some((smallest, port)) = self.smallest_port(&uplink.link, bridge) else { return };
        let mtu = wanted.mtu.map_or(smallest, |mtu| mtu.min(smallest));
        let found = facts.links.get(bridge).filter(|found| found.kind == wanted.kind);
        let is_taken = self.add.iter().any(|action| action.takes().is_some());
        if mtu < LEAST_OF_IPV6 {
            // It would lose IPv6, and the machine its addresses there.
            let was = found.and_then(|found| found.mtu).filter(|was| !is_taken && *was > mtu);
            self.notes.extend(was.map(|was| {
                format!(
                    "{bridge} goes on taking packets of {was} bytes, and its port {port} takes {mtu}: with less than {LEAST_OF_IPV6} the bridge would have no IPv6"
                )
            }));
            return;
        }
        let set = |from: Option<u32>| {
            let from = LinkFact { mtu: from, ..wanted.clone() };
            Action::SetLink { name: bridge.clone(), to: LinkFact { mtu: Some(mtu), ..from.clone() }, from }
        };
        match found.map(|found| found.mtu) {
            Some(None) => {}
            Some(Some(was)) if was != mtu => {
                let action = set(Some(was));
                if let Action::SetLink { from, to, .. } = &action {
                    self.say_what_another_mtu_does(bridge, from, to);
                }
                if !is_taken && mtu < was {
                    self.say_lesser_mtu_than_uplink(uplink);
                }
                self.add.push(action);
            }
            // No port of its keeps it from taking what the uplink does, once those that go are gone.
            found if mtu < smallest && (found.is_none() || is_taken || self.lets_go(bridge, mtu)) => {
                self.say_what_goes_with_its_mtu(bridge, mtu, mtu);
                self.lost.push(format!("{bridge} keeps its MTU from now on, and follows its ports no more"));
                self.add.push(set(None));
            }
            _ => {}
        }
    }

    /// Whether a port of ours leaves the bridge that keeps it from taking more than this.
    fn lets_go(&self, bridge: &str, mtu: u32) -> bool {
        let is_port = |link: &LinkFact| link.bridge.as_deref() == Some(bridge);
        let pairs =
            || self.layout.namespaces.values().filter(|wanted| wanted.state.outside.as_ref().is_some_and(is_port));
        let stays =
            |name: &str| self.layout.links.get(name).is_some_and(is_port) || pairs().any(|wanted| wanted.veth == name);
        let small = self.facts.links.iter().filter(|(_, link)| is_port(link) && link.mtu.is_some_and(|its| its <= mtu));
        let is_ours = |name: &str, link: &LinkFact| {
            self.claims.has_link(name, link) || self.claims.iter().any(|thing| veth(thing) == Some(name))
        };
        small.into_iter().any(|(name, link)| !stays(name) && is_ours(name, link))
    }

    /// What the smallest of its ports takes, and which that is. `None`: of no port is it known.
    pub(super) fn smallest_port<'b>(&'b self, uplink: &'b str, bridge: &str) -> Option<(u32, &'b str)> {
        let is_port = |link: &&LinkFact| link.bridge.as_deref() == Some(bridge);
        let ports = self.layout.links.iter().filter(|(_, link)| is_port(link));
        let ports = ports.map(|(name, link)| (name.as_str(), Some(link.mtu.unwrap_or(MTU))));
        let pairs = self.layout.namespaces.iter().filter_map(|(name, wanted)| {
            let outside = wanted.state.outside.as_ref().filter(is_port)?;
            let mtu = match self.far_end_of_others(name, &wanted.veth) {
                None => Some(outside.mtu.unwrap_or(MTU)),
                // It is left as it is.
                Some(_) => self.facts.links.get(&wanted.veth).filter(is_port)?.mtu,
            };
            Some((wanted.veth.as_str(), mtu))
        });
        let others = self.facts.links.iter().filter(|(_, link)| is_port(link));
        let others =
            others.filter(|(name, link)| !self.layout.links.contains_key(*name) && !self.is_our_port(name, link));
        let others = others.map(|(name, link)| (name.as_str(), link.mtu));
        let own = self.facts.links.get(uplink).map(|link| (uplink, link.mtu));
        let all = own.into_iter().chain(ports).chain(others).chain(pairs);
        all.filter_map(|(name, mtu)| Some((mtu?, name))).min_by_key(|(mtu, _)| *mtu)
    }
}

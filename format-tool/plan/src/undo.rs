//! What was done, taken back.

use crate::action::Action;
use crate::facts::LinkFact;
use std::collections::BTreeSet;

/// The actions that take these back, last first. A link that comes back is told what it had been told of routers while it is
/// down: what went with it was said long before it went, and whoever is behind it may be waiting.
pub fn undoing(done: &[Action]) -> Vec<Action> {
    let back = done.iter().rev().filter_map(Action::inverse);
    let (told, mut back): (Vec<_>, Vec<_>) = back.partition(is_told_anew);
    let links: BTreeSet<String> = told.iter().filter_map(Action::link).collect();
    let mut raised = Vec::new();
    let mut at = 0;
    for (n, action) in back.iter_mut().enumerate() {
        let Action::AddLink { name, link } = action else { continue };
        if links.contains(name) {
            at = n + 1;
            let lowered = LinkFact { up: false, ..link.clone() };
            let to = std::mem::replace(link, lowered.clone());
            let raise = Action::SetLink { name: name.clone(), from: lowered, to: to.clone() };
            raised.extend(to.up.then_some(raise));
        }
    }
    back.splice(at..at, told.into_iter().chain(raised));
    back
}

/// Of a link that is not there yet, whether it listens to routers.
fn is_told_anew(action: &Action) -> bool {
    matches!(action, Action::SetSysctl { key, from, .. } if from.is_empty() && key.ends_with(".accept_ra"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::Change;
    use crate::describe;
    use crate::facts::{LinkKind, Route};
    use std::collections::BTreeMap;

    #[test]
    fn a_link_that_comes_back_hears_no_router_before_it_is_told_to_hear_none() {
        let gone = |link: &str| {
            let [was, from, to] = ["1", "0", ""].map(String::from);
            let key = format!("net.ipv6.conf.{link}.accept_ra");
            Action::SetSysctl { key, was, from, to, along: BTreeMap::new(), last: Change::default() }
        };
        let remove = |name: &str, kind: LinkKind, up: bool| {
            let link = LinkFact { kind, up, bridge: None, group: 0, mac: [0; 6], mtu: None, isolated: false };
            Action::RemoveLink { name: name.into(), link }
        };
        let destination = "10.9.0.0/24".parse().unwrap();
        let route = Route { destination, link: "part0".into(), via: None, metric: 0, source: None, onlink: false };
        let tap = LinkKind::Tap(Some(20_000));
        let done = [
            gone("part0"),
            gone("part1"),
            Action::RemoveRoute(route),
            remove("part0", tap.clone(), true),
            remove("part1", tap, false),
            remove("plat0", LinkKind::Bridge, true),
        ];
        let back: Vec<String> = undoing(&done).iter().map(describe).collect();
        let order = [
            "+ bridge plat0 up",
            "+ tap part1 down owner 20000",
            "+ tap part0 down owner 20000",
            "~ kernel setting net.ipv6.conf.part1.accept_ra default -> 0",
            "~ kernel setting net.ipv6.conf.part0.accept_ra default -> 0",
            "~ link part0 down owner 20000 -> up owner 20000",
            "+ route 10.9.0.0/24 on part0",
        ];
        assert_eq!(back, order);
        // What was not removed was not told otherwise.
        assert_eq!(undoing(&done[..2]), done[..2].iter().rev().filter_map(Action::inverse).collect::<Vec<_>>());
    }
}

//! An uplink that has another name by now, or whose name another interface has.

use super::{carried, place};
use crate::facts::{HostFacts, LinkFact};
use crate::thing::{Claims, Uplink};
use plat_model::problem::{Problem, codes};

/// What is on the bridge came from the one that has another name by now, as did its settings: all goes by the name.
pub(super) fn refusal(uplink: &Uplink, other: &str) -> Problem {
    let Uplink { link, bridge, .. } = uplink;
    let problem = Problem::new(codes::UPLINK, format!("{link} is another interface by now, or has another name"));
    let fix =
        format!("give it its name back (`ip link set {other} name {link}`, once no other has that), and run it again");
    problem
        .because(format!("the port of {bridge} that node-format took by this name seems to be {other}"))
        .fix(fix)
        .at("network.uplink")
}

/// Whether another interface has the uplink's name.
pub(in super::super) fn is_another(uplink: &Uplink, facts: &HostFacts, claims: &Claims) -> bool {
    place(uplink, facts, claims).is_anothers()
}

/// Which one the uplink is, if that is still there, where it has another name by now or another interface has its own: by its
/// number, where the record has that. Else by its hardware address: it has another one, and is no port of the bridge, or not the
/// port that has the uplink's. That of a port may change, as a bond's does with those it is made of; a tap may have that of the
/// uplink, if its user gives it that, and the bridge does.
pub(super) fn exchanged<'a>(uplink: &Uplink, facts: &'a HostFacts, claims: &Claims) -> Option<Option<&'a str>> {
    if let Some(index) = uplink.index.filter(|_| !facts.indexes.is_empty()) {
        let it = facts.indexes.iter().find(|(_, other)| **other == index).map(|(name, _)| name.as_str());
        return match it {
            Some(name) => (name != uplink.link).then_some(Some(name)),
            None => facts.links.contains_key(&uplink.link).then_some(None),
        };
    }
    let bridge = facts.links.get(&uplink.bridge);
    let found = facts.links.get(&uplink.link)?;
    let is_port = |link: &LinkFact| link.bridge.as_ref() == Some(&uplink.bridge);
    let mac = uplink.mac.or(bridge.map(|bridge| bridge.mac)).filter(|mac| *mac != found.mac)?;
    let is_it = |(name, link): &(&'a String, &LinkFact)| {
        link.mac == mac && **name != uplink.bridge && **name != uplink.link && !claims.has_link(name, link)
    };
    let like: Vec<_> = facts.links.iter().filter(is_it).collect();
    // What stands on it may have its address too.
    let port = like.iter().find(|(_, link)| is_port(link));
    if port.is_none() && is_port(found) {
        return None;
    }
    match (port.or(like.first()), uplink.mac) {
        (Some((name, link)), known) => (known.is_some() || is_port(link)).then_some(Some(name.as_str())),
        (None, known) => known.map(|_| None),
    }
}

pub(super) fn is_gone(uplink: &Uplink) -> String {
    format!(
        "{} is another interface by now, and gets nothing of the one that node-format took, which is not there: {}",
        uplink.link,
        carried(uplink)
    )
}

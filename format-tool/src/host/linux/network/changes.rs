//! Changes of links that are there: each is made whole, or not at all. The kernel does what one request says step by step, and
//! stays where it refuses one: the MTU is another one by then, when a bridge does not take the port.

use super::connection::{Connection, Request};
use super::links::{self, Link};
use super::near::{Followed, Near};
use super::{addresses, by_name, call, refusals};
use crate::host::Outcome;
use crate::host::linux::{failed, told_together};
use nix::errno::Errno;
use node_format_plan::Action;
use node_format_plan::facts::LinkFact;
use plat_model::problem::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// `followed`: so far, of links that get another hardware address while they are up.
pub(in crate::host::linux) fn set_links(batch: &[Action], followed: &mut Followed) -> Outcome {
    let changed = change(batch, followed);
    Outcome { problem: changed.problem(batch, |_| false), done: changed.done }
}

/// What came of changes.
#[derive(Default)]
pub(super) struct Changed {
    /// As of an [`Outcome`].
    pub done: Vec<bool>,
    /// Why the kernel refused those that it did, in whole or in part.
    why: Vec<Option<Errno>>,
    /// Why it could not be asked for the rest.
    broken: Option<io::Error>,
}

impl Changed {
    /// But for those that are told of elsewhere, by their place in the batch.
    pub fn problem(&self, batch: &[Action], is_told: impl Fn(usize) -> bool) -> Option<Problem> {
        let why: Vec<Option<Errno>> = self.why.iter().enumerate().map(|(n, why)| why.filter(|_| !is_told(n))).collect();
        let broken = self.broken.as_ref().map(|e| failed("the network cannot be changed", e));
        told_together(refusals(batch, &why).into_iter().chain(broken))
    }
}

/// As [`set_links`].
pub(super) fn change(batch: &[Action], followed: &mut Followed) -> Changed {
    let mut changed = Changed::default();
    let mut connection = match Connection::open() {
        Ok(connection) => connection,
        Err(e) => return Changed { done: vec![false; batch.len()], broken: Some(e), ..changed },
    };
    let mut rest = batch;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(each_once(rest));
        let mut sent = false;
        match set_each(&mut connection, now, followed, &mut sent) {
            Ok((done, why)) => {
                changed.done.extend(done);
                changed.why.extend(why);
            }
            Err(e) => {
                // What was sent may have been done.
                changed.done.extend(rest.iter().map(|_| false).filter(|_| !sent));
                return Changed { broken: Some(e), ..changed };
            }
        }
        rest = later;
    }
    changed
}

/// One link of the current namespace.
pub(super) fn set_one(name: &str, from: &LinkFact, to: &LinkFact, followed: &mut Followed) -> io::Result<()> {
    let action = Action::SetLink { name: name.into(), from: from.clone(), to: to.clone() };
    let (_, why) = set_each(&mut Connection::open_within()?, &[action], followed, &mut false)?;
    why.into_iter().flatten().next().map_or(Ok(()), |why| Err(why.into()))
}

/// How many of these, from the first on, are each about another link.
fn each_once(batch: &[Action]) -> usize {
    let mut names = BTreeSet::new();
    batch.iter().take_while(|action| action.link().is_none_or(|name| names.insert(name))).count()
}

/// Changes links, one action for each of them: step by step for all at once.
fn set_each(
    connection: &mut Connection,
    batch: &[Action],
    followed: &mut Followed,
    sent: &mut bool,
) -> io::Result<(Vec<bool>, Vec<Option<Errno>>)> {
    let all = links::all(connection)?;
    let near = match batch.iter().any(|action| new_mac(action).is_some()) {
        true => Near::new(&all, &addresses::all(connection)?),
        false => Near::default(),
    };
    let links = by_name(all);
    let mut why: Vec<Option<Errno>> = vec![None; batch.len()];
    for step in [before_its_mac, with_its_mac] {
        let steps = batch.iter().enumerate().filter(|(n, _)| why[*n].is_none());
        let steps = steps.filter_map(|(n, action)| Some((n, step(action)?)));
        let (of, actions): (Vec<usize>, Vec<Action>) = steps.unzip();
        for (n, refusal) in of.into_iter().zip(call(connection, &links, &actions, sent)?) {
            why[n] = refusal;
        }
    }
    let mut done: Vec<bool> = why.iter().map(Option::is_none).collect();
    let (mut requests, mut of): (Vec<Request>, Vec<usize>) = Default::default();
    for (n, action) in batch.iter().enumerate().filter(|(n, _)| done[*n]) {
        let (Some(mac), Some(name)) = (new_mac(action), action.link()) else { continue };
        let Some(link) = links.get(&name) else { continue };
        let follow = followed.follow(&connection.handle, (&name, link.index), &near, mac);
        requests.extend(follow.inspect(|_| of.push(n)));
    }
    for (n, result) in of.into_iter().zip(connection.call(requests)?) {
        // The link itself is as it must be: undoing takes that back, if it has not gone.
        done[n] &= result != Err(Errno::ENODEV);
        why[n] = why[n].or(result.err());
    }
    take_back(connection, batch, &links, &mut done, sent)?;
    Ok((done, why))
}

/// The hardware address that a link gets while it is up.
fn new_mac(action: &Action) -> Option<[u8; 6]> {
    match action {
        Action::SetLink { from, to, .. } if from.up && to.up && from.mac != to.mac => Some(to.mac),
        _ => None,
    }
}

/// Nothing is known of one that was only just made.
const UNKNOWN: [u8; 6] = [0; 6];

/// The link with its old hardware address, and as it must be else: what may be refused comes before what takes neighbours and
/// routes along. It is raised afterwards, for the link-local address follows from the new one.
fn midway(from: &LinkFact, to: &LinkFact) -> Option<LinkFact> {
    let changes = from.mac != to.mac && from.mac != UNKNOWN;
    changes.then(|| LinkFact { mac: from.mac, up: from.up, ..to.clone() })
}

fn before_its_mac(action: &Action) -> Option<Action> {
    let Action::SetLink { name, from, to } = action else { return None };
    match midway(from, to) {
        None => Some(action.clone()),
        Some(to) => (to != *from).then(|| Action::SetLink { name: name.clone(), from: from.clone(), to }),
    }
}

fn with_its_mac(action: &Action) -> Option<Action> {
    let Action::SetLink { name, from, to } = action else { return None };
    Some(Action::SetLink { name: name.clone(), from: midway(from, to)?, to: to.clone() })
}

/// Of what was refused the kernel may have done the half. What does not go back counts as done: undoing tries it again.
fn take_back(
    connection: &mut Connection,
    batch: &[Action],
    before: &BTreeMap<String, Link>,
    done: &mut [bool],
    sent: &mut bool,
) -> io::Result<()> {
    if done.iter().all(|done| *done) {
        return Ok(());
    }
    let now = links::all(connection)?;
    let names: BTreeMap<u32, String> = now.iter().map(|link| (link.index, link.name.clone())).collect();
    let now = by_name(now);
    let back = batch.iter().enumerate().filter(|(n, _)| !done[*n]).filter_map(|(n, action)| {
        let Action::SetLink { name, from, to } = action else { return None };
        let link = now.get(name).filter(|link| before.get(name).is_some_and(|before| before.index == link.index))?;
        let bridge = link.master.and_then(|master| names.get(&master).cloned());
        let found = LinkFact { bridge, ..link.fact.clone() };
        let to = without(&found, from, to).filter(|to| *to != found)?;
        Some((n, Action::SetLink { name: name.clone(), from: found, to }))
    });
    let (of, actions): (Vec<usize>, Vec<Action>) = back.unzip();
    if actions.is_empty() {
        return Ok(());
    }
    for (n, refusal) in of.into_iter().zip(call(connection, &now, &actions, sent)?) {
        done[n] = refusal.is_some_and(|why| why != Errno::ENODEV);
    }
    Ok(())
}

/// What was found, but for what a change brought about.
fn without(found: &LinkFact, from: &LinkFact, to: &LinkFact) -> Option<LinkFact> {
    fn back<T: Clone + PartialEq>(found: &T, from: &T, to: &T) -> T {
        if found == to { from.clone() } else { found.clone() }
    }
    let bridge = back(&found.bridge, &from.bridge, &to.bridge);
    let returns = bridge != found.bridge;
    (from.mac != UNKNOWN).then(|| LinkFact {
        kind: found.kind.clone(),
        up: back(&found.up, &from.up, &to.up),
        group: back(&found.group, &from.group, &to.group),
        mac: back(&found.mac, &from.mac, &to.mac),
        mtu: back(&found.mtu, &from.mtu, &to.mtu),
        isolated: if returns { from.isolated } else { back(&found.isolated, &from.isolated, &to.isolated) },
        bridge,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use node_format_plan::facts::LinkKind;

    fn tap() -> LinkFact {
        let (kind, mac) = (LinkKind::Tap(Some(20_000)), [2, 0, 0, 0, 0, 1]);
        LinkFact { kind, up: true, bridge: None, group: 0, mac, mtu: Some(1300), isolated: false }
    }

    fn joined() -> LinkFact {
        LinkFact { bridge: Some("br0".into()), mac: [2; 6], mtu: Some(1500), isolated: true, ..tap() }
    }

    fn set(name: &str, from: LinkFact, to: LinkFact) -> Action {
        Action::SetLink { name: name.into(), from, to }
    }

    #[test]
    fn what_may_be_refused_is_asked_for_before_the_hardware_address() {
        let lowered = LinkFact { up: false, ..tap() };
        let midway = LinkFact { mac: lowered.mac, up: false, ..joined() };
        let whole = set("tap0", lowered.clone(), joined());
        assert_eq!(before_its_mac(&whole), Some(set("tap0", lowered, midway.clone())));
        assert_eq!(with_its_mac(&whole), Some(set("tap0", midway, joined())));
        let alone = set("tap0", tap(), LinkFact { mac: [2; 6], ..tap() });
        assert_eq!((before_its_mac(&alone), with_its_mac(&alone)), (None, Some(alone.clone())));
        let same = set("tap0", tap(), LinkFact { mtu: None, ..tap() });
        assert_eq!((before_its_mac(&same), with_its_mac(&same)), (Some(same.clone()), None));
        // Of one that was only just made nothing is to be kept.
        let new = set("tap0", LinkFact { mac: UNKNOWN, ..tap() }, joined());
        assert_eq!((before_its_mac(&new), with_its_mac(&new)), (Some(new.clone()), None));
    }

    #[test]
    fn what_a_change_brought_about_goes_and_what_somebody_else_did_stays() {
        let half = LinkFact { mtu: Some(1500), ..tap() };
        assert_eq!(without(&half, &tap(), &joined()), Some(tap()));
        let his = LinkFact { mac: [6; 6], up: false, ..half };
        assert_eq!(without(&his, &tap(), &joined()), Some(LinkFact { mtu: Some(1300), ..his }));
        // A port is isolated anew where it joins.
        let elsewhere = LinkFact { bridge: Some("br1".into()), ..joined() };
        let found = LinkFact { isolated: false, ..elsewhere.clone() };
        assert_eq!(without(&found, &joined(), &elsewhere), Some(joined()));
    }

    #[test]
    fn what_a_link_that_is_gone_was_refused_hides_no_other_refusal() {
        let batch = [set("tap0", tap(), joined()), set("tap1", tap(), joined())];
        // As where the link-local address of the one did not follow.
        let (done, why) = (vec![true, false], vec![Some(Errno::ENOBUFS), Some(Errno::ENODEV)]);
        let changed = Changed { done, why, broken: None };
        let problem = changed.problem(&batch, |n| n == 1).unwrap();
        assert!(problem.what.contains("link tap0") && !problem.one_line().contains("tap1"), "{}", problem.one_line());
        assert!(changed.problem(&batch, |_| false).unwrap().one_line().contains("tap1"));
        assert_eq!(changed.problem(&batch, |_| true), None);
        let broken = Changed { broken: Some(Errno::ENOBUFS.into()), ..changed };
        assert!(broken.problem(&batch, |_| true).unwrap().what.contains("cannot be changed"));
    }

    #[test]
    fn a_link_is_changed_step_by_step() {
        let [one, two] = ["tap0", "tap1"].map(|name| set(name, tap(), joined()));
        assert_eq!(each_once(&[one.clone(), two.clone(), one.clone(), two.clone()]), 2);
        assert_eq!(each_once(&[one.clone(), one]), 1);
        assert_eq!(each_once(&[two]), 1);
    }
}

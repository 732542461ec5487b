//! Taps, tuns and pairs, many at once.

use super::connection::Connection;
use super::{links, perform, see};
use crate::host::Outcome;
use crate::host::linux::{failed, tap};
use nix::errno::Errno;
use node_format_plan::Action;
use node_format_plan::facts::{LinkFact, LinkKind};
use plat_model::problem::{Problem, codes};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Makes taps by ioctl, then joins them to their bridge and raises them with pipelined requests. Besides, what a user of one kept
/// from that.
pub(in crate::host::linux) fn add_taps(batch: &[Action]) -> (Outcome, Option<Problem>) {
    let mut done = vec![false; batch.len()];
    for (n, action) in batch.iter().enumerate() {
        let Action::AddLink { name, link } = action else { continue };
        let made = match link.kind {
            LinkKind::Tap(owner) => tap::make(name, tap::Mode::Tap, owner),
            LinkKind::Tun(owner) => tap::make(name, tap::Mode::Tun, owner),
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        if let Err(e) = made {
            return (Outcome { done, problem: Some(failed(format!("cannot make {name}"), e)) }, None);
        }
        done[n] = true; // It exists, so it must be undone if what follows fails.
    }
    let joins: Vec<Action> = batch.iter().filter_map(join).collect();
    let joined = perform(&joins);
    let Some(problem) = joined.problem else { return (Outcome { done, problem: None }, None) };
    let refused: Vec<&Action> = not_done(&joins, &joined.done).collect();
    match Connection::open().and_then(|mut connection| see(&mut connection)) {
        Ok(seen) if refused.iter().all(|action| is_his_doing(action, &seen.links)) => {
            let there = refused.iter().filter_map(|action| action.link()).filter(|name| seen.links.contains_key(name));
            (Outcome { done, problem: None }, spoiled(&there.collect::<Vec<_>>(), &problem))
        }
        _ => (Outcome { done, problem: Some(problem) }, None),
    }
}

/// Whether a partition's user keeps his tap from being joined: he let it go, or it is not what was made. The next run makes it anew.
fn is_his_doing(join: &Action, there: &BTreeMap<String, LinkFact>) -> bool {
    let Action::SetLink { name, to, .. } = join else { return false };
    there.get(name).is_none_or(|found| to.is_tenants() && found.kind != to.kind)
}

fn spoiled(names: &[String], refusal: &Problem) -> Option<Problem> {
    let what = || format!("not joined to the network: {}", names.join(", "));
    let why = || format!("somebody who may open it has made something else of it; {}", refusal.one_line());
    (!names.is_empty())
        .then(|| Problem::new(codes::FOREIGN, what()).because(why()).fix("the next `apply` makes it anew"))
}

/// From a tap as the kernel makes it to a tap as it must be.
fn join(action: &Action) -> Option<Action> {
    let Action::AddLink { name, link } = action else { return None };
    let kind = link.kind.clone();
    let from = LinkFact { kind, up: false, bridge: None, group: 0, mac: [0; 6], mtu: None, isolated: false };
    Some(Action::SetLink { name: name.clone(), from, to: link.clone() })
}

/// Deletes taps, tuns or pairs: all are moved into the link group after their own, then the group is deleted with one
/// request. Deleted one by one, each waits for the kernel's grace period: 9 s for 500. If anybody else is in that group,
/// none is deleted.
pub(in crate::host::linux) fn remove_taps(batch: &[Action]) -> Outcome {
    let group = batch.iter().find_map(|action| match action {
        Action::RemoveLink { link, .. } => Some(link.group.wrapping_add(1)),
        _ => None,
    });
    let Some(group) = group.filter(|group| *group > 1) else { return perform(batch) };
    let there = match Connection::open().and_then(|mut connection| see(&mut connection)) {
        Ok(seen) => seen.links,
        Err(e) => return Outcome::first(0, batch.len(), Some(failed("cannot look at the taps", e))),
    };
    // Whoever may open a tap can let it go: one that is gone is removed, and what has its name by then is somebody else's.
    let condemn = batch.iter().filter_map(|action| {
        let Action::RemoveLink { name, link } = action else { return None };
        there.get(name).filter(|found| links::is_still(found, link))?;
        let to = LinkFact { group, ..link.clone() };
        Some(Action::SetLink { name: name.clone(), from: link.clone(), to })
    });
    let condemn: Vec<Action> = condemn.collect();
    let outcome = perform(&condemn);
    if outcome.problem.is_some() && any_is_there(&condemn, &outcome.done) {
        let done = condemn.iter().zip(&outcome.done).filter(|(_, done)| **done);
        let back = done.filter_map(|(action, _)| action.inverse());
        perform(&back.collect::<Vec<_>>());
        return Outcome { done: vec![false; batch.len()], problem: outcome.problem };
    }
    match remove_group(group, &condemn.iter().filter_map(Action::link).collect()) {
        Ok(()) => Outcome { done: vec![true; batch.len()], problem: None },
        Err(e) => {
            perform(&condemn.iter().filter_map(Action::inverse).collect::<Vec<_>>());
            Outcome { done: vec![false; batch.len()], problem: Some(failed("cannot delete the taps", e)) }
        }
    }
}

/// Whether a link is there that one of these was not done to. Whoever may open a tap can let it go at any moment, and the
/// next run makes it anew.
fn any_is_there(actions: &[Action], done: &[bool]) -> bool {
    let undone: BTreeSet<String> = not_done(actions, done).filter_map(Action::link).collect();
    let there = Connection::open().and_then(|mut connection| links::all(&mut connection));
    there.map_or(true, |there| there.iter().any(|link| undone.contains(&link.name)))
}

fn not_done<'a>(actions: &'a [Action], done: &'a [bool]) -> impl Iterator<Item = &'a Action> {
    let done = done.iter().chain(std::iter::repeat(&false));
    actions.iter().zip(done).filter(|(_, done)| !**done).map(|(action, _)| action)
}

fn remove_group(group: u32, ours: &BTreeSet<String>) -> io::Result<()> {
    let mut connection = Connection::open()?;
    let seen = see(&mut connection)?;
    let mut members = seen.links.iter().filter(|(_, link)| link.group == group);
    if let Some((name, _)) = members.find(|(name, _)| !ours.contains(*name)) {
        return Err(io::Error::other(format!("link {name} came into link group {group} meanwhile")));
    }
    let request = links::remove_group(&connection.handle, group);
    connection.call(vec![request])?.into_iter().try_for_each(|result| match result {
        Err(Errno::ENODEV) => Ok(()), // Nobody is in it: all of them are gone already.
        other => other.map_err(io::Error::from),
    })
}

//! What a node's report changes. A node speaks of itself: of its own facts, of releases, and of the instances that are
//! placed on it. Whatever else it says is refused, one by one, and the rest is taken.

use crate::change::Change;
use crate::leave;
use crate::record::{Key, Record};
use crate::state::State;
use plat_model::id::{NodeId, PartitionName, PartitionRef, ServiceName};
use plat_model::instance::{InstanceState, InstanceStatus, ServiceKind, Wish};
use plat_model::node::{Inventory, Node, NodeReport, PARTITIONS_MAX, PartitionOffer, TROUBLES_MAX};
use plat_model::problem::{Problem, codes};
use plat_model::release::{InstallState, Installation};
use plat_model::run::RUNS_MAX;
use plat_model::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// Longest free text in a report, in bytes.
pub const TEXT_MAX: usize = 4096;
/// Most services, and most promises, in one status.
pub const PARTS_MAX: usize = 1000;
/// Most addresses of one partition.
pub const ADDRESSES_MAX: usize = 64;

/// What a report comes to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Absorbed {
    pub changes: Vec<Change>,
    /// What of the node's own row is among the changes.
    pub own: Option<Own>,
    pub read: Vec<Key>,
    /// What was not taken, and why.
    pub refused: Vec<Problem>,
}

/// What changes of a node itself: either is written with all that is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// What it is and offers: somebody's act.
    Shape,
    /// What is wrong with it, which comes and goes, and is nobody's doing.
    Troubles,
}

/// Takes in a report of `node`. What is known already changes nothing, so the same report may come again.
///
/// A status about a generation older than the newest that was reported is refused. One about an older generation than
/// the instance's present one, that is not older than what was reported, is taken: it is how the instance is now, and
/// its generation says of which wish. Only `Destroyed` must be about the present one, for it removes the instance.
pub fn absorb(state: &State, node: &NodeId, report: &NodeReport, now: Timestamp) -> Absorbed {
    let mut absorbed = Absorbed::default();
    let Some(row) = state.nodes.get(node).filter(|row| !row.revoked) else {
        absorbed.refused.push(
            Problem::new(codes::REVOKED, format!("node `{node}` is not accepted any more"))
                .fix("ask an operator for a new token"),
        );
        return absorbed;
    };
    if let Some(inventory) = &report.inventory {
        take_inventory(state, row, inventory, &mut absorbed);
    }
    for installation in &report.installations {
        take_installation(state, node, installation, &mut absorbed);
    }
    let mut seen = BTreeSet::new();
    for status in &report.instances {
        if !seen.insert(&status.id) {
            absorbed.refused.push(refuse(codes::BAD_VALUE, node, status, "it is in one report twice"));
            continue;
        }
        if let Err(problem) = take_status(state, node, status, now, &mut absorbed) {
            absorbed.refused.push(problem);
        }
    }
    absorbed
}

fn take_inventory(state: &State, row: &Node, told: &Inventory, absorbed: &mut Absorbed) {
    let names: BTreeSet<_> = told.partitions.iter().map(|offer| &offer.name).collect();
    let wrong = if told.partitions.len() > PARTITIONS_MAX {
        Some(format!("{} partitions; {PARTITIONS_MAX} are allowed", told.partitions.len()))
    } else if names.len() != told.partitions.len() {
        Some("two partitions have the same name".into())
    } else if told.partitions.iter().any(|offer| offer.addresses.len() > ADDRESSES_MAX) {
        Some(format!("a partition has more than {ADDRESSES_MAX} addresses"))
    } else if told.troubles.len() > TROUBLES_MAX || told.troubles.iter().any(is_large) {
        Some("it has too much trouble to tell".into())
    } else {
        None
    };
    if let Some(why) = wrong {
        absorbed.refused.push(
            Problem::new(codes::BAD_VALUE, format!("the inventory of `{}` cannot be used", row.id))
                .because(why)
                .fix("run `node-format verify` on the node"),
        );
        return;
    }
    let mut inventory = told.clone();
    for offer in row.inventory.partitions.iter().filter(|offer| !names.contains(&offer.name)) {
        let partition = PartitionRef { node: row.id.clone(), partition: offer.name.clone() };
        // Whether or not somebody is in it: a placement that comes first must make this be decided again.
        absorbed.read.push(Key::Seat(partition.clone()));
        let Some(occupant) = state.seats.get(&partition).and_then(|seat| seat.instance.as_ref()) else { continue };
        // It is kept, so that nobody else is put there before its instance is gone.
        inventory.partitions.push(offer.clone());
        let who = state.instances.get(occupant).map_or(occupant.to_string(), |i| format!("{}/{}", i.project, i.name));
        absorbed.refused.push(
            Problem::new(codes::IN_USE, format!("partition `{partition}` cannot go yet"))
                .because(format!("`{who}` is in it"))
                .fix("destroy the instance first, or format the node with this partition again"),
        );
    }
    // What is kept comes last, so the order may differ though nothing has changed.
    let by_name = |inventory: &Inventory| -> BTreeMap<PartitionName, PartitionOffer> {
        inventory.partitions.iter().map(|offer| (offer.name.clone(), offer.clone())).collect()
    };
    let as_whole = |inventory: &Inventory| {
        let Inventory { capacity, enforced, runtime, does_once, troubles: _, partitions: _ } = inventory.clone();
        (capacity, enforced, runtime, does_once)
    };
    let is_same = as_whole(&inventory) == as_whole(&row.inventory) && by_name(&inventory) == by_name(&row.inventory);
    absorbed.own = match (is_same, inventory.troubles == row.inventory.troubles) {
        (false, _) => Some(Own::Shape),
        (true, false) => Some(Own::Troubles),
        (true, true) => None,
    };
    if absorbed.own.is_some() {
        absorbed.changes.push(Change::put(Record::Node(Node { inventory, ..row.clone() })));
    }
}

fn take_installation(state: &State, node: &NodeId, told: &Installation, absorbed: &mut Absorbed) {
    let key = (node.clone(), told.digest.clone());
    let known = state.installations.get(&key);
    if told.state == InstallState::Absent && told.problem.is_none() {
        if known.is_some() {
            absorbed.changes.push(Change::Delete(Key::Installation(key.0, key.1)));
        }
        return;
    }
    if !state.releases.contains_key(&told.digest) {
        absorbed.refused.push(
            Problem::new(codes::NOT_FOUND, format!("node `{node}` has a release that the grid does not know"))
                .because(format!("digest {}", told.digest))
                .fix("add the release again, or let the node remove it"),
        );
        return;
    }
    if told.progress.len() > TEXT_MAX || told.problem.as_ref().is_some_and(is_large) {
        absorbed.refused.push(Problem::new(
            codes::TOO_LARGE,
            format!("the report on release {} is too large", told.digest.short()),
        ));
        return;
    }
    if known != Some(told) {
        absorbed.changes.push(Change::put(Record::Installation { node: key.0, installation: told.clone() }));
    }
}

fn is_large(problem: &Problem) -> bool {
    // A failed build brings the last lines of its log.
    [&problem.what, &problem.why, &problem.todo, &problem.at].iter().any(|text| text.len() > 16 * TEXT_MAX)
}

fn refuse(code: plat_model::problem::Code, node: &NodeId, status: &InstanceStatus, why: &str) -> Problem {
    Problem::new(code, format!("what `{node}` reported of instance {} is refused", status.id)).because(why)
}

fn take_status(
    state: &State,
    node: &NodeId,
    told: &InstanceStatus,
    now: Timestamp,
    absorbed: &mut Absorbed,
) -> Result<(), Problem> {
    let Some(instance) = state.instances.get(&told.id) else {
        // The answer to this last word got lost, and it is said again.
        let gone = told.state == InstanceState::Destroyed && state.sums_of(&told.id).any(|s| s.nodes.contains(node));
        return if gone { Ok(()) } else { Err(refuse(codes::NOT_YOURS, node, told, "it is not on this node")) };
    };
    if instance.placement.as_ref().is_none_or(|place| &place.node != node) {
        return Err(refuse(codes::NOT_YOURS, node, told, "it is not on this node"));
    }
    let known = state.statuses.get(&told.id);
    if told.generation > instance.generation {
        let why = format!("generation {} does not exist yet; it is at {}", told.generation, instance.generation);
        return Err(refuse(codes::BAD_VALUE, node, told, &why));
    }
    if let Some(known) = known.filter(|known| told.generation < known.generation) {
        let why = format!("it is about generation {}, and {} has been reported", told.generation, known.generation);
        return Err(refuse(codes::STALE_REPORT, node, told, &why));
    }
    let parts = told.services.len().max(told.promises.len());
    let said = told.services.iter().flat_map(|service| [&service.last_exit, &service.schedule]);
    let texts = told.promises.iter().map(|promise| &promise.message).chain(said).chain([&told.detail]);
    let texts = texts.chain(told.ran.iter().flat_map(|run| run.tail.iter().chain([&run.how])));
    if parts > PARTS_MAX
        || told.ran.len() > RUNS_MAX
        || texts.map(String::len).any(|l| l > TEXT_MAX)
        || told.problem.as_ref().is_some_and(is_large)
    {
        return Err(refuse(codes::TOO_LARGE, node, told, "it is larger than a status may be"));
    }
    absorbed.read.push(Key::Instance(told.id.clone()));
    if told.state == InstanceState::Destroyed {
        if instance.wish != Wish::Destroyed || told.generation != instance.generation {
            return Err(refuse(codes::STALE_REPORT, node, told, "it is not to be destroyed"));
        }
        absorbed.changes.extend(leave::leave(state, instance, now));
    } else {
        let told = with_since(known, told, instance.created, now);
        if known != Some(&told) {
            absorbed.changes.push(Change::put(Record::Status(told)));
        }
    }
    Ok(())
}

/// What is told, with since when it is so. An agent that was started anew knows only since when it has looked: as long as nothing
/// is another, what was told before goes on. A service of which another process runs may have been away meanwhile. What a
/// wrong clock says, from before the instance was or from what is to come, is not taken either.
fn with_since(
    known: Option<&InstanceStatus>,
    told: &InstanceStatus,
    created: Timestamp,
    now: Timestamp,
) -> InstanceStatus {
    let mut told = told.clone();
    let can_be = |since: &Timestamp| (created..=now.max(created)).contains(since);
    let bounded = |since: Timestamp| since.min(now).max(created);
    let same = |known: &&InstanceStatus| {
        known.generation == told.generation && known.state == told.state && processes(known).eq(processes(&told))
    };
    let before = known.filter(same).map(|known| known.since).filter(can_be);
    if std::mem::take(&mut told.found) || !can_be(&told.since) {
        told.since = before.unwrap_or_else(|| bounded(told.since));
    }
    for promise in &mut told.promises {
        let mut before = known.iter().flat_map(|known| &known.promises);
        let before = before.find(|before| before.name == promise.name && before.holds == promise.holds);
        let before = before.and_then(|before| before.since).filter(can_be);
        let since = promise.since.filter(can_be).or(before);
        promise.since = Some(since.unwrap_or_else(|| bounded(promise.since.unwrap_or(promise.checked))));
    }
    told
}

/// The processes of services that are to run all the time.
fn processes(status: &InstanceStatus) -> impl Iterator<Item = (&ServiceName, Option<u32>)> {
    let services = status.services.iter().filter(|service| service.kind == ServiceKind::Service);
    services.map(|service| (&service.name, service.pid))
}

//! Which partition an instance gets. The instances that wait are taken oldest first; each gets the best node that fits:
//! one where its release is installed, then the one with the fewest instances, then the first by name.

use crate::change::Change;
use crate::record::{Key, Record, Seat};
use crate::request::more_taken;
use crate::state::State;
use candidates::{Candidates, Shape};
use plat_model::id::{InstanceId, NodeId, PartitionRef};
use plat_model::instance::{Instance, Wish};
use plat_model::time::Timestamp;
use plat_model::waiting::Waiting;
use std::collections::{BTreeMap, BTreeSet};

mod candidates;
mod verdict;

pub use verdict::{Verdict, explain};
pub(crate) use verdict::{rules_against, why_unplaced};

/// Most placements of one round: a commit stays small, and the next round goes on.
pub const PLACEMENTS_MAX: usize = 1000;

/// What a round decided.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Allocation {
    pub changes: Vec<Change>,
    pub read: Vec<Key>,
    /// Every instance that fits nowhere now, with the reasons of each node.
    pub waiting: BTreeMap<InstanceId, Waiting>,
    /// Whether it ended at [`PLACEMENTS_MAX`]: another round is to follow at once.
    pub more: bool,
}

/// Places what waits for a partition. `online` are the nodes that can be told now.
///
/// The work grows with the instances that wait and, for each different need among them, with the nodes.
pub fn allocate(state: &State, online: &BTreeSet<NodeId>, now: Timestamp) -> Allocation {
    let mut waiting: Vec<&Instance> = state
        .unplaced
        .iter()
        .filter_map(|id| state.instances.get(id))
        .map(|i| &**i)
        .filter(|i| i.wish != Wish::Destroyed)
        .collect();
    waiting.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
    let mut round = Allocation::default();
    let mut candidates = Candidates::new(state, online);
    let mut reasons: BTreeMap<Shape<'_>, (String, String)> = BTreeMap::new();
    let mut filled = BTreeSet::new();
    let mut placed = 0;
    for instance in waiting {
        let shape = Shape::of(instance);
        if let Some((on, todo)) = reasons.get(&shape) {
            round.waiting.insert(instance.id.clone(), verdict::waiting(instance, on.clone(), todo.clone()));
            continue;
        }
        if placed == PLACEMENTS_MAX {
            round.more = true;
            break;
        }
        let Some(partition) = candidates.take_best(&shape) else {
            let verdicts = candidates.verdicts(&shape);
            let (on, todo) = (verdict::nowhere(&verdicts), verdict::todo(state, &verdicts, &shape));
            round.waiting.insert(instance.id.clone(), verdict::waiting(instance, on.clone(), todo.clone()));
            reasons.insert(shape, (on, todo));
            continue;
        };
        placed += 1;
        let node = partition.node.clone();
        round.read.push(Key::Supply(instance.release.clone(), None));
        round.read.push(Key::Supply(instance.release.clone(), Some(node.clone())));
        round.changes.extend(place(instance, partition, now));
        filled.insert(node);
    }
    for node in filled {
        round.changes.push(more_taken(state, &node));
        round.read.push(Key::Node(node));
    }
    round.read.sort();
    round.read.dedup();
    round
}

fn place(instance: &Instance, partition: PartitionRef, now: Timestamp) -> [Change; 2] {
    let seat = Seat { partition: partition.clone(), instance: Some(instance.id.clone()) };
    let generation = instance.generation.next();
    let placed = Instance { placement: Some(partition), generation, changed: now, ..instance.clone() };
    [Change::put(Record::Seat(seat)), Change::put(Record::Instance(placed))]
}

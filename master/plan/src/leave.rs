//! How an instance leaves the grid: its rows go, its partition is free, and whose it was is kept for late usage.

use crate::change::Change;
use crate::record::{Key, Record, Seat, Sum};
use crate::state::State;
use plat_model::instance::Instance;
use plat_model::time::{Period, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Removes an instance of which nothing is left on any node.
///
/// Its last usage may be reported after this. So that it is still known whose that is, there is always a [`Sum`] that
/// names the instance and its node: an empty one of the present period if nothing was booked before.
pub(crate) fn leave(state: &State, instance: &Instance, now: Timestamp) -> Vec<Change> {
    let mut changes = vec![
        Change::Delete(Key::Instance(instance.id.clone())),
        Change::Delete(Key::Status(instance.id.clone())),
        Change::Delete(Key::Name(instance.project.clone(), instance.name.clone())),
    ];
    if let Some(partition) = instance.placement.clone() {
        if !state.sums_of(&instance.id).any(|sum| sum.nodes.contains(&partition.node)) {
            let period = Period::of(now);
            let key = (instance.project.clone(), period);
            let before = state.sums.get(&key).and_then(|sums| sums.get(&instance.id)).cloned();
            let mut sum = before.unwrap_or_else(|| Sum {
                project: instance.project.clone(),
                period,
                instance: instance.id.clone(),
                name: instance.name.clone(),
                nodes: BTreeSet::new(),
                read: BTreeMap::new(),
                meters: BTreeMap::new(),
            });
            sum.nodes.insert(partition.node.clone());
            changes.push(Change::put(Record::Sum(sum)));
        }
        changes.push(Change::put(Record::Seat(Seat { partition, instance: None })));
    }
    changes
}

//! What there is to tell the master: only what has changed since it last took a report in.

use plat_model::Problem;
use plat_model::id::{Digest, InstanceId};
use plat_model::instance::InstanceStatus;
use plat_model::node::{Inventory, NodeReport};
use plat_model::release::{InstallState, Installation};
use plat_wire::limits::bytes_of;
use plat_wire::v1;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;

/// Shared by the workers, who write, and the master's client, who sends.
#[derive(Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Grows with every change.
    revision: u64,
    inventory: Option<(u64, Inventory)>,
    troubles: BTreeMap<Trouble, Problem>,
    instances: BTreeMap<InstanceId, (u64, InstanceStatus)>,
    installations: BTreeMap<Digest, (u64, Installation)>,
    /// All up to this one have been taken in by the master.
    taken: u64,
}

/// What can be wrong with the whole node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// What the master says cannot be kept.
    Word,
    /// Nothing is begun that takes room.
    Room,
    Clock,
}

enum News<'a> {
    Inventory(&'a Inventory),
    Instance(&'a InstanceStatus),
    Installation(&'a Installation),
}

impl News<'_> {
    /// Its size on the wire.
    fn bytes(&self) -> usize {
        match self {
            Self::Inventory(one) => bytes_of(&v1::Inventory::from(*one)),
            Self::Instance(one) => bytes_of(&v1::InstanceStatus::from(*one)),
            Self::Installation(one) => bytes_of(&v1::Installation::from(*one)),
        }
    }
}

impl Board {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn inventory(&self, inventory: Inventory) {
        let new = self.with(|state| {
            let inventory = Inventory { troubles: state.troubles.values().cloned().collect(), ..inventory };
            let new = state.inventory.as_ref().is_none_or(|(_, old)| *old != inventory);
            if new {
                state.revision += 1;
                state.inventory = Some((state.revision, inventory));
            }
            new
        });
        self.wake(new);
    }

    /// `None`: not any more.
    pub fn trouble(&self, what: Trouble, problem: Option<Problem>) {
        let new = self.with(|state| {
            let before = match problem.clone() {
                Some(problem) => state.troubles.insert(what, problem),
                None => state.troubles.remove(&what),
            };
            if before == problem {
                return false;
            }
            // Before the node knows what it has, it is told together with that.
            let Some((revision, inventory)) = &mut state.inventory else { return false };
            state.revision += 1;
            (*revision, inventory.troubles) = (state.revision, state.troubles.values().cloned().collect());
            true
        });
        self.wake(new);
    }

    pub fn instance(&self, status: InstanceStatus) {
        let new = self.with(|state| {
            let old = state.instances.get(&status.id).map(|(revision, old)| (*revision, same(old, &status)));
            let new = !matches!(old, Some((_, true)));
            state.revision += u64::from(new);
            let revision = if new { state.revision } else { old.map_or(state.revision, |(revision, _)| revision) };
            state.instances.insert(status.id.clone(), (revision, status));
            new
        });
        self.wake(new);
    }

    pub fn installation(&self, one: Installation) {
        let new = self.with(|state| {
            let new = state.installations.get(&one.digest).is_none_or(|(_, old)| *old != one);
            if new {
                state.revision += 1;
                state.installations.insert(one.digest.clone(), (state.revision, one));
            }
            new
        });
        self.wake(new);
    }

    fn wake(&self, new: bool) {
        if new {
            self.changed.notify_one();
        }
    }

    /// What was said last of an instance.
    pub fn said(&self, id: &InstanceId) -> Option<InstanceStatus> {
        self.with(|state| state.instances.get(id).map(|(_, status)| status.clone()))
    }

    /// What the master does not know yet, oldest first, at most `max` of it and as much as fits in `room` bytes, and the
    /// mark to give back once it does. `None` if it knows all.
    pub fn news(&self, max: usize, mut room: usize) -> Option<(NodeReport, u64)> {
        self.with(|state| {
            let mut new: Vec<(u64, News)> = Vec::new();
            new.extend(state.inventory.iter().map(|(n, one)| (*n, News::Inventory(one))));
            new.extend(state.instances.values().map(|(n, one)| (*n, News::Instance(one))));
            new.extend(state.installations.values().map(|(n, one)| (*n, News::Installation(one))));
            new.retain(|(n, _)| *n > state.taken);
            new.sort_unstable_by_key(|(n, _)| *n);
            let (mut report, mut mark) = (NodeReport::default(), None);
            for (revision, one) in new.into_iter().take(max) {
                let bytes = one.bytes();
                if mark.is_some() && bytes > room {
                    break;
                }
                (room, mark) = (room.saturating_sub(bytes), Some(revision));
                match one {
                    News::Inventory(one) => report.inventory = Some(one.clone()),
                    News::Instance(one) => report.instances.push(one.clone()),
                    News::Installation(one) => report.installations.push(one.clone()),
                }
            }
            Some((report, mark?))
        })
    }

    /// The master took in everything up to `mark`. What it has been told is gone and no longer desired is forgotten.
    pub fn taken(&self, mark: u64, desired: impl Fn(&InstanceId) -> bool) {
        self.with(|state| {
            state.taken = state.taken.max(mark);
            state.instances.retain(|id, (revision, _)| *revision > mark || desired(id));
            state.installations.retain(|_, (revision, one)| *revision > mark || one.state != InstallState::Absent);
        });
    }

    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// When a promise was checked is no news by itself: else every check of every promise would travel.
fn same(old: &InstanceStatus, new: &InstanceStatus) -> bool {
    let mut old = old.clone();
    if old.promises.len() == new.promises.len() {
        for (old, new) in old.promises.iter_mut().zip(&new.promises) {
            old.checked = new.checked;
        }
    }
    old == *new
}

#[cfg(test)]
mod tests;

//! What all of a build is held to in sum: by control groups, where the kernel has them.

use crate::config::BuildLimits;
use crate::host::linux::cgroup::{Cgroups, Groups};
use plat_model::resources::Resources;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Beside those of partitions, and no partition's name.
const NAME: &str = ".builds";

/// The groups of this node's builds.
pub struct BuildGroup {
    groups: Cgroups,
    /// Of builds that others run beside.
    taken: Mutex<BTreeSet<usize>>,
}

/// Who else builds while a release is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beside {
    /// None that has the same group: what is in it may be killed.
    Nobody,
    /// Others: each has a group of its own, and so all of its limits.
    Others,
}

/// A build's groups, its own while this is held. There are only as many as builds were ever under way at once.
pub struct Held<'a> {
    of: &'a BuildGroup,
    slot: Option<usize>,
    pub groups: Groups,
    /// What groups do not hold it to here, a line each.
    pub missing: Vec<String>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.of.taken().remove(&slot);
        }
    }
}

impl BuildGroup {
    /// In the groups of the agent whose state is in `state`.
    pub fn open(state: &Path) -> Self {
        Self { groups: Cgroups::open(state), taken: Mutex::default() }
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, BTreeSet<usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The groups that a build's programs belong in, held to its limits.
    pub fn hold(&self, limits: &BuildLimits, beside: Beside) -> Held<'_> {
        let memory_mib = u32::try_from(limits.memory >> 20).ok();
        let asked = Resources { memory_mib, processes: Some(limits.processes), ..Resources::default() };
        let slot = (beside == Beside::Others).then(|| {
            let mut taken = self.taken();
            let free = (0..).find(|slot| !taken.contains(slot)).unwrap_or(0);
            taken.insert(free);
            free
        });
        let name = slot.map_or_else(|| NAME.to_owned(), |slot| format!("{NAME}-{slot}"));
        let (held, why) = match self.groups.limit(&name, asked) {
            Ok(held) => (held, "no control group limits it".to_owned()),
            Err((file, why)) => (Resources::default(), format!("{}: {why}", file.display())),
        };
        let lacks = |what: &str| format!("{what} of all its processes together ({why})");
        let memory = held.memory_mib.is_none().then(|| lacks("memory"));
        let processes = held.processes.is_none().then(|| lacks("the number"));
        let missing = memory.into_iter().chain(processes).collect();
        Held { of: self, slot, groups: self.groups.make(&name, "build"), missing }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_beside_each_other_have_no_group_in_common_and_the_next_takes_what_is_free() {
        let folder = tempfile::tempdir().unwrap();
        let groups = BuildGroup::open(folder.path());
        let hold = |beside| groups.hold(&BuildLimits::default(), beside);
        let (alone, first, second) = (hold(Beside::Nobody), hold(Beside::Others), hold(Beside::Others));
        assert_eq!([&alone, &first, &second].map(|held| held.slot), [None, Some(0), Some(1)]);
        let own = |held: &Held<'_>| held.groups.unified.iter().chain(&held.groups.others).cloned().collect();
        let all: [BTreeSet<_>; 3] = [&alone, &first, &second].map(own);
        assert!(all[0].is_disjoint(&all[1]) && all[0].is_disjoint(&all[2]) && all[1].is_disjoint(&all[2]));
        drop(first);
        assert_eq!(hold(Beside::Others).slot, Some(0));
        for name in [NAME.to_owned(), format!("{NAME}-0"), format!("{NAME}-1")] {
            groups.groups.remove(&name);
        }
        groups.groups.base().map(std::fs::remove_dir);
    }
}

//! What all of a build is held to in sum: by control groups, where the kernel has them.

use crate::config::BuildLimits;
use crate::host::linux::cgroup::{Cgroups, Groups};
use plat_model::resources::Resources;
use std::path::Path;

/// Beside those of partitions, and no partition's name.
const NAME: &str = ".builds";

/// The groups of this node's builds. Where they have a user of their own, one is built at a time.
pub struct BuildGroup(Cgroups);

impl BuildGroup {
    /// In the groups of the agent whose state is in `state`.
    pub fn open(state: &Path) -> Self {
        Self(Cgroups::open(state))
    }

    /// The groups that a build's programs belong in, held to its limits; and what groups do not hold it to here, a line each.
    pub fn hold(&self, limits: &BuildLimits) -> (Groups, Vec<String>) {
        let memory_mib = u32::try_from(limits.memory >> 20).ok();
        let asked = Resources { memory_mib, processes: Some(limits.processes), ..Resources::default() };
        let (held, why) = match self.0.limit(NAME, asked) {
            Ok(held) => (held, "no control group limits it".to_owned()),
            Err((file, why)) => (Resources::default(), format!("{}: {why}", file.display())),
        };
        let lacks = |what: &str| format!("{what} of all its processes together ({why})");
        let memory = held.memory_mib.is_none().then(|| lacks("memory"));
        let processes = held.processes.is_none().then(|| lacks("the number"));
        (self.0.make(NAME, "build"), memory.into_iter().chain(processes).collect())
    }
}

//! What services have used: the slice's group counts all of a partition, what has ended included.

use super::inner::Inner;
use crate::host::linux::process::{boot_id, memory_of};
use crate::host::linux::runtime::{Memory, RunState, RunUsage, Usage};
use crate::host::linux::shim;
use crate::host::linux::shim::tree::Phase;
use plat_model::Problem;
use plat_model::id::{PartitionName, ServiceName};
use std::fs;
use std::path::{Path, PathBuf};

impl Inner {
    pub fn group(&self, partition: &PartitionName) -> Option<PathBuf> {
        self.slices.folder(&self.names.group(partition))
    }

    pub fn usage(&self, partition: &PartitionName, memory: Memory) -> Result<Usage, Problem> {
        let group = self.slices.read(partition.as_str(), &self.names.group(partition));
        let (boot, counted) = (boot_id(), self.slices.counted());
        let count = |(service, record): (ServiceName, shim::RunState)| {
            let state = match record.is_attended(&boot) {
                true => RunState::Live { memory: Some(0) },
                false if record.phase == Phase::Ended => RunState::Ended,
                false => RunState::Lost,
            };
            let (started, ended) = (record.start(&boot), record.ended.map(|_| record.end(&boot)));
            let shim::RunState { run, instance, used, .. } = record;
            // Nobody else counts it for systemd.
            let io_hidden = !counted.io;
            RunUsage { service, run, instance, started, ended, used, counted, io_hidden, state }
        };
        let mut runs: Vec<_> = self.held.records.runs(partition)?.into_iter().map(count).collect();
        // What its processes hold is all of the partition's: it is told once.
        let mut live = runs.iter_mut().filter_map(|run| match &mut run.state {
            RunState::Live { memory } => Some(memory),
            _ => None,
        });
        if let Some(held) = live.next().filter(|_| !counted.memory) {
            *held = match memory {
                Memory::Asked => self.group(partition).as_deref().and_then(memory_in),
                Memory::NotAsked => None,
            };
        }
        runs.sort_by_key(|run| run.started.wall);
        Ok(Usage { group, runs })
    }

    pub fn memory(&self, partition: &PartitionName) -> Option<u64> {
        let counted = self.slices.memory(partition.as_str(), &self.names.group(partition));
        counted.or_else(|| memory_in(&self.group(partition)?))
    }
}

/// What all processes of a group and below it hold; `None` if that may not be read.
fn memory_in(folder: &Path) -> Option<u64> {
    processes(folder).into_iter().try_fold(0, |sum, pid| Some(sum + memory_of(pid)?))
}

/// All processes in a group and below it.
fn processes(folder: &Path) -> Vec<u32> {
    let own = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<u32> = own.lines().filter_map(|pid| pid.parse().ok()).collect();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(processes(&entry.path()));
        }
    }
    all
}

//! What the shims' services have used: the groups' sum where they count, the shims' own records and /proc where not.

use super::inner::Inner;
use super::live::Live;
use super::runs::Seen;
use crate::host::linux::process::boot_id;
use crate::host::linux::runtime::{Counted, Memory, RunState, RunUsage, Usage};
use crate::host::linux::shim::tree::Phase;
use plat_model::Problem;
use plat_model::id::{InstanceId, PartitionName};

impl Inner {
    pub fn usage(&self, partition: &PartitionName, memory: Memory) -> Result<Usage, Problem> {
        let group = self.cgroups.read(partition.as_str());
        let seen = self.runs.of(&self.held.records, partition)?;
        let is_old = |seen: &Seen| {
            seen.attended && self.counted(seen) != Counted::ALL && seen.is_old(&self.held.records, partition)
        };
        if !seen.iter().any(is_old) {
            let used: Option<Vec<_>> = seen.iter().map(|seen| self.used(seen, memory)).collect();
            if let Some(runs) = used {
                return Ok(Usage { group, runs });
            }
        }
        // A shim has written something since, or is gone: what it wrote last says how far it came.
        self.runs.changed(partition);
        let seen = self.runs.of(&self.held.records, partition)?;
        let runs = seen.iter().map(|seen| self.used(seen, memory).unwrap_or_else(|| self.run(seen, None))).collect();
        Ok(Usage { group, runs })
    }

    fn counted(&self, seen: &Seen) -> Counted {
        let of_older = || seen.record.cgroup.as_ref().map(|_| self.cgroups.counted_by_unified());
        seen.record.counted.or_else(of_older).unwrap_or_default()
    }

    /// `None` if its shim was there and is not any more.
    fn used(&self, seen: &Seen, memory: Memory) -> Option<RunUsage> {
        match seen.attended {
            true => {
                Live::read(&seen.record, self.counted(seen), memory, &seen.open).map(|live| self.run(seen, Some(live)))
            }
            false => Some(self.run(seen, None)),
        }
    }

    fn run(&self, seen: &Seen, live: Option<Live>) -> RunUsage {
        let (record, boot) = (&seen.record, boot_id());
        let state = match &live {
            Some(live) => RunState::Live { memory: live.memory },
            None if record.phase == Phase::Ended => RunState::Ended,
            None => RunState::Lost,
        };
        RunUsage {
            service: seen.service.clone(),
            run: record.run.clone(),
            instance: record.instance.clone(),
            started: record.start(&boot),
            ended: record.ended.map(|_| record.end(&boot)),
            io_hidden: live.as_ref().is_some_and(|live| live.io_hidden),
            used: live.map_or(record.used, |live| live.used),
            counted: self.counted(seen),
            state,
        }
    }

    /// The level of memory alone.
    pub fn memory(&self, partition: &PartitionName, instance: &InstanceId) -> Result<Option<u64>, Problem> {
        let grouped = self.cgroups.memory(partition.as_str());
        let seen = self.runs.of(&self.held.records, partition)?;
        let mut live = seen.iter().filter(|seen| seen.attended && &seen.record.instance == instance);
        let sum = live.try_fold(grouped.unwrap_or(0), |sum, seen| match self.counted(seen).memory {
            // All of them hold it together.
            true => grouped.map(|_| sum),
            false => Some(sum + Live::memory(&seen.record)?),
        });
        Ok(sum)
    }
}

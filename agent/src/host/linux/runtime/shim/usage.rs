//! What the shims' services have used: the control group's sum where there is one, the shims' own records, and /proc.

use super::live::Live;
use crate::host::linux::cgroup::Cgroups;
use crate::host::linux::process::boot_id;
use crate::host::linux::runtime::{Records, RunState, RunUsage, Usage};
use crate::host::linux::shim::RunState as Record;
use crate::host::linux::shim::tree::Phase;
use plat_model::Problem;
use plat_model::id::{InstanceId, PartitionName, ServiceName};

pub fn usage(records: &Records, cgroups: &Cgroups, partition: &PartitionName) -> Result<Usage, Problem> {
    let group = cgroups.read(partition.as_str());
    let counts_all = group.as_ref().is_some_and(|group| group.io_bytes.is_some() && group.memory_bytes.is_some());
    let boot = boot_id();
    let mut runs: Vec<_> =
        records.runs(partition)?.into_iter().map(|(service, record)| run(service, record, counts_all, &boot)).collect();
    runs.sort_by_key(|run| run.started);
    Ok(Usage { group, runs })
}

fn run(service: ServiceName, record: Record, counts_all: bool, boot: &str) -> RunUsage {
    let in_group = record.cgroup.is_some();
    let live = match record.is_attended(boot) {
        true if counts_all && in_group => Some(Live::counted(&record)),
        true => Live::read(&record),
        false => None,
    };
    let state = match &live {
        Some(live) => RunState::Live { memory: live.memory },
        None if record.phase == Phase::Ended => RunState::Ended,
        None => RunState::Lost,
    };
    RunUsage {
        service,
        run: record.run,
        instance: record.instance,
        started: record.started,
        ended: record.ended,
        io_hidden: live.as_ref().is_some_and(|live| live.io_hidden),
        used: live.map_or(record.used, |live| live.used),
        in_group,
        state,
    }
}

/// The level of memory alone.
pub fn memory(
    records: &Records,
    cgroups: &Cgroups,
    partition: &PartitionName,
    instance: &InstanceId,
) -> Result<Option<u64>, Problem> {
    if let Some(memory) = cgroups.memory(partition.as_str()) {
        return Ok(Some(memory));
    }
    let boot = boot_id();
    let runs = records.runs(partition)?;
    let live = runs.values().filter(|record| &record.instance == instance && record.is_attended(&boot));
    Ok(live.map(Live::memory).try_fold(0, |sum, one| Some(sum + one?)))
}

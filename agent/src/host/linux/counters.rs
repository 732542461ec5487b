//! What a partition has used.
//!
//! CPU: where there are control groups, the kernel's own sum for the partition's group (`cpu.stat`, exact, with all
//! that has ended). Where not, for each service what the shim's ended descendants used (rusage, exact) and what the
//! live ones have used (/proc, to a clock tick each). A child whose parent ignores SIGCHLD is then not counted: the
//! kernel adds it to nobody. I/O likewise (`io.stat`, else rusage and /proc/PID/io). Memory is the group's, else the
//! sum of each process's proportional share. Totals are kept as sums of differences, written down before they are told,
//! so neither a restart of the agent nor a new control group counts anything twice.

mod disk_level;

pub use disk_level::DiskLevels;

use super::cgroup::{Cgroups, Reading};
use super::disk::{self, Durability, Stored, now, private_folder};
use super::process::{boot_id, descendants, stat, tick_micros};
use super::runtime::Records;
use super::shim::RunState;
use super::shim::tree::{Phase, Used};
use crate::host::Counters;
use plat_model::id::{InstanceId, PartitionName, ServiceName};
use plat_model::usage::{Amount, Meter};
use plat_model::{Problem, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// On disk: the totals, and up to where everything has been added to them.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Totals {
    version: u32,
    epoch: u64,
    instance: InstanceId,
    cpu_micros: u64,
    io_bytes: u64,
    wall_millis: u64,
    /// Wall time before this has been counted.
    wall_until: Timestamp,
    /// The control group's last reading: which one, CPU, I/O.
    group: Option<(String, u64, u64)>,
    /// Each service's last run and what of it has been added.
    runs: BTreeMap<ServiceName, (String, Used)>,
}

pub struct Meters {
    records: Records,
    cgroups: Arc<Cgroups>,
    /// One at a time reads and adds.
    lock: Mutex<()>,
}

impl Meters {
    pub fn new(records: Records, cgroups: Arc<Cgroups>) -> Self {
        Self { records, cgroups, lock: Mutex::new(()) }
    }

    fn path(&self, partition: &PartitionName) -> std::path::PathBuf {
        self.records.partition(partition).join("counters.json")
    }

    fn load(&self, partition: &PartitionName) -> Result<Option<Totals>, Problem> {
        Ok(match disk::read_json::<Totals>(&self.path(partition))? {
            Stored::Value(totals) => Some(totals),
            Stored::Absent | Stored::Corrupt(_) => None,
        })
    }

    /// Counts for `instance` from zero, unless it is counted already.
    pub fn begin(&self, partition: &PartitionName, instance: &InstanceId) -> Result<(), Problem> {
        let _held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.load(partition)?.is_some_and(|totals| &totals.instance == instance) {
            return Ok(());
        }
        // What an earlier occupant used of a group that could not be removed is not this one's.
        let _ = self.cgroups.make(partition.as_str(), "run");
        let group = self.cgroups.read(partition.as_str()).map(|r| (r.identity, r.cpu_micros, r.io_bytes.unwrap_or(0)));
        let mut raw = [0; 8];
        getrandom::fill(&mut raw).map_err(|e| {
            Problem::new(plat_model::problem::codes::INTERNAL, "the kernel gives no random numbers").because(e)
        })?;
        let totals = Totals {
            version: 1,
            // Whoever keeps it may keep it as a signed number.
            epoch: u64::from_le_bytes(raw) >> 1,
            instance: instance.clone(),
            cpu_micros: 0,
            io_bytes: 0,
            wall_millis: 0,
            wall_until: now(),
            group,
            runs: BTreeMap::new(),
        };
        private_folder(&self.records.partition(partition))?;
        disk::replace_json(&self.path(partition), &totals, Durability::Power)
    }

    /// Adds what a hook or a check used, where no control group counts it.
    pub fn add(&self, partition: &PartitionName, used: Used) -> Result<(), Problem> {
        if self.cgroups.base().is_some() {
            return Ok(());
        }
        let _held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut totals) = self.load(partition)? else { return Ok(()) };
        totals.cpu_micros += used.cpu_micros;
        totals.io_bytes += used.io_bytes;
        disk::replace_json(&self.path(partition), &totals, Durability::Process)
    }

    /// Brings the totals up to now, for a run that has just ended.
    pub fn settle(&self, partition: &PartitionName) {
        if let Err(problem) = self.update(partition, Durability::Process) {
            tracing::warn!(%partition, problem = problem.one_line(), "cannot count a run that ended");
        }
    }

    fn update(&self, partition: &PartitionName, durability: Durability) -> Result<Option<(Totals, Level)>, Problem> {
        let _held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut totals) = self.load(partition)? else { return Ok(None) };
        let group = self.cgroups.read(partition.as_str());
        let mut level = Level { memory: Some(0), ..Level::default() };
        if let Some(reading) = &group {
            totals.add_group(reading);
        }
        let by_group = group.as_ref().is_some_and(|g| g.io_bytes.is_some());
        let boot = boot_id();
        let mut runs: Vec<_> = self.records.runs(partition)?.into_iter().collect();
        runs.sort_by_key(|(_, state)| state.started);
        runs.retain(|(_, state)| state.instance == totals.instance);
        for (service, state) in runs {
            let live = live(&state, &boot);
            if live.is_none() && state.phase != Phase::Ended {
                level.missing = Some("a service's supervisor has been lost".into());
            }
            let reading = live.as_ref().map_or(state.used, |live| live.used);
            if state.cgroup.is_some() && group.is_none() {
                level.missing = Some("the partition's control group cannot be read".into());
            }
            totals.add_run(&service, &state, reading, !by_group);
            totals.add_wall(state.started, state.ended.unwrap_or_else(now));
            if let Some(live) = live {
                level.io_hidden |= live.io_hidden;
                level.memory = level.memory.zip(live.memory).map(|(a, b)| a + b);
            }
        }
        if let Some(memory) = group.as_ref().and_then(|g| g.memory_bytes) {
            level.memory = Some(memory);
        }
        level.io_hidden &= !by_group;
        disk::replace_json(&self.path(partition), &totals, durability)?;
        Ok(Some((totals, level)))
    }

    /// `None` if nobody holds the partition.
    pub fn read(&self, partition: &PartitionName, disk: Amount) -> Option<Counters> {
        let (totals, level) = match self.update(partition, Durability::Power) {
            Ok(found) => found?,
            Err(problem) => {
                tracing::warn!(%partition, problem = problem.one_line(), "counters cannot be read");
                return None;
            }
        };
        let network = "nothing on this host counts one partition's traffic apart from the others'";
        let known = |total: u64| level.missing.clone().map_or(Amount::Known(total), Amount::Unknown);
        let hidden = || Amount::Unknown("the I/O of some of its processes may not be read".into());
        let readings = BTreeMap::from([
            (Meter::CpuMicros, known(totals.cpu_micros)),
            (Meter::WallMillis, Amount::Known(totals.wall_millis)),
            (Meter::IoBytes, if level.io_hidden { hidden() } else { known(totals.io_bytes) }),
            (
                Meter::MemoryByteSeconds,
                level
                    .memory
                    .map_or_else(|| Amount::Unknown("a process's memory may not be read".into()), Amount::Known),
            ),
            (Meter::DiskByteSeconds, disk),
            (Meter::NetworkBytes, Amount::Unknown(network.into())),
        ]);
        Some(Counters { instance: totals.instance, epoch: totals.epoch, taken: now(), readings })
    }
}

impl Totals {
    fn add_group(&mut self, now: &Reading) {
        let (cpu, io) = match &self.group {
            Some((identity, cpu, io)) if *identity == now.identity => (*cpu, *io),
            _ => (0, 0),
        };
        let io_now = now.io_bytes.unwrap_or(io);
        self.cpu_micros += now.cpu_micros.saturating_sub(cpu);
        self.io_bytes += io_now.saturating_sub(io);
        self.group = Some((now.identity.clone(), now.cpu_micros.max(cpu), io_now.max(io)));
    }

    fn add_run(&mut self, service: &ServiceName, state: &RunState, reading: Used, count_io: bool) {
        let seen = match self.runs.get(service) {
            Some((run, seen)) if *run == state.run => *seen,
            _ => Used::default(),
        };
        if state.cgroup.is_none() {
            self.cpu_micros += reading.cpu_micros.saturating_sub(seen.cpu_micros);
        }
        if count_io {
            self.io_bytes += reading.io_bytes.saturating_sub(seen.io_bytes);
        }
        let seen =
            Used { cpu_micros: reading.cpu_micros.max(seen.cpu_micros), io_bytes: reading.io_bytes.max(seen.io_bytes) };
        self.runs.insert(service.clone(), (state.run.clone(), seen));
    }

    /// Adds what of the stretch has not been counted: two services at once are one instance's time.
    fn add_wall(&mut self, start: Timestamp, end: Timestamp) {
        self.wall_millis += end.since(start.max(self.wall_until)).as_millis() as u64;
        self.wall_until = self.wall_until.max(end);
    }
}

#[derive(Default)]
struct Level {
    memory: Option<u64>,
    io_hidden: bool,
    missing: Option<String>,
}

/// What a run that goes on has used so far, and holds now.
struct Live {
    used: Used,
    io_hidden: bool,
    memory: Option<u64>,
}

/// Parents are read before their children: a child that ends meanwhile is missed until the next reading, and none is
/// counted twice.
fn live(state: &RunState, boot: &str) -> Option<Live> {
    if !state.is_attended(boot) {
        return None;
    }
    let mut ticks = stat(state.shim.pid).ok()?.children;
    let (mut io, mut io_hidden, mut memory) = (state.used.io_bytes, false, Some(0));
    for pid in descendants(state.shim.pid) {
        let Ok(stat) = stat(pid) else { continue };
        ticks += stat.own + stat.children;
        match io_of(pid) {
            Ok(bytes) => io += bytes,
            Err(e) => io_hidden |= e.kind() == std::io::ErrorKind::PermissionDenied,
        }
        memory = memory.and_then(|sum| Some(sum + memory_of(pid)?));
    }
    Some(Live {
        used: Used { cpu_micros: (ticks * tick_micros()).max(state.used.cpu_micros), io_bytes: io },
        io_hidden,
        memory,
    })
}

fn io_of(pid: u32) -> std::io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0);
    Ok(field("read_bytes:") + field("write_bytes:"))
}

/// The proportional share, so that pages of several processes count once; where that is hidden, all it has in memory.
fn memory_of(pid: u32) -> Option<u64> {
    let share = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok().and_then(|text| {
        let kib: u64 =
            text.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kib * 1024)
    });
    share.or_else(|| {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/statm")) else { return Some(0) };
        Some(text.split(' ').nth(1)?.parse::<u64>().ok()? * rustix::param::page_size() as u64)
    })
}

#[cfg(test)]
mod tests;

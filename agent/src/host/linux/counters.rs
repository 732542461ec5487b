//! What a partition has used.
//!
//! Each thing is read where it is counted best: by the partition's control group of version 2; what that has no controller
//! for by its group of version 1, but for I/O, of which version 1 misses what goes through the page cache; the rest by its
//! processes: for each service what the shim's ended descendants used (rusage, exact) and what the live ones have used and
//! hold (/proc; CPU time to a clock tick each, memory as each process's proportional share). A child whose parent ignores
//! SIGCHLD is then not counted: the kernel adds it to nobody. What of a program its groups count is noted with its run.
//!
//! In each window everything is read of every partition, and hardly anything has changed: files of groups stay open, the
//! last run of each service is remembered until something starts or ends, all totals are one write, and what must walk or
//! ask a disk does so elsewhere.
//!
//! # Why nothing is lost or counted twice, whenever the agent is killed
//!
//! The kernel's counters start again with a new group, a new process, a new boot. So the agent keeps totals: to each it
//! adds the difference between two readings of one kernel counter, and remembers the last reading and which counter it
//! was of. Totals and readings change together, in memory, under the partition's lock; readings of one partition are so
//! in order, and no old one is taken for that of a new counter.
//!
//! Three things are kept apart: the kernel's counters (K), the totals in the [`journal`] (J), and what the outbox has
//! counted in its reports (B).
//! - B never is ahead of J: totals are told for a report only after one write has made those of all partitions durable
//!   ([`Meters::read`]). Without that order a power loss could leave a total smaller than what was reported of it, which
//!   would be taken for a counter that began again, and billed twice.
//! - Killed between reading K and writing J: K still has it, the next reading counts it. Killed between J and B: J still
//!   has it, the next report counts it. Killed while J is written: half a line never counted, so this is one of the two.
//! - K may begin again only after J has what it had. A group goes when the partition is freed, after the last report. A
//!   service's record is written over by its next run, so the totals are brought up to date before ([`Meters::settle`]),
//!   in a write that survives the agent's end and is made durable with the next report's. A power loss in between loses
//!   what that run used since the report before; the boot then is another, all K begin again, and B is not ahead of J.
//! - In between samples only levels are wanted (memory, disk). They are K's own and nothing is written for them.
//!
//! Where J has no totals of an occupant, or another's (it was damaged, or the power failed before a new occupant's first
//! line was durable), what was used so far is not known. Then a new epoch begins, from K's present readings, that says
//! so ([`Counters::lost`]): the report that bridges the two epochs tells the loss instead of a number. So it does where
//! somebody has taken a group away: with it went what it had counted since it was read last.

mod disk_level;
mod journal;
mod network;
mod totals;

pub use disk_level::{DiskLevels, Place as DiskPlace, Walk};
pub use network::Way;

use super::Network;
use super::disk::{self, Durability, Stored};
use super::runtime::{Memory, Records, RunState, Runtime, Usage, Used};
use crate::clock::Clock;
use crate::host::{Counters, Wanted};
use journal::{Journal, encode};
use network::NetworkMeter;
use plat_model::Problem;
use plat_model::id::{InstanceId, PartitionName};
use plat_model::node::{NodeFile, NodePartition};
use plat_model::usage::{Amount, Meter};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use totals::Totals;

/// The totals of one partition, and whether the journal has them.
struct Slot {
    totals: Totals,
    is_kept: bool,
}

pub struct Meters {
    runtime: Arc<dyn Runtime>,
    clock: Arc<dyn Clock>,
    network: NetworkMeter,
    all: Mutex<BTreeMap<PartitionName, Arc<Mutex<Slot>>>>,
    /// Locked before `all` and the slots, never after.
    journal: Mutex<Journal>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Meters {
    /// Opens the totals in the host's folder. `machine` is the network that partitions share; `holders`
    /// are those that are held, and by whom.
    ///
    /// # Errors
    /// BAD_STATE_FILE if they cannot be read.
    pub fn open(
        state: &Path,
        runtime: Arc<dyn Runtime>,
        clock: Arc<dyn Clock>,
        machine: Network,
        holders: BTreeMap<PartitionName, InstanceId>,
    ) -> Result<Self, Problem> {
        let (journal, kept) = Journal::open(state.join("counters"))?;
        let mut totals = kept.totals;
        if let Some(problem) = &kept.damage {
            tracing::error!(problem = problem.one_line(), "counters set aside, usage of before is unknown");
        }
        // Until 0.1 each partition had a file of its own.
        let folders = Records::new(state);
        let before = |partition: &PartitionName| folders.partition(partition).join("counters.json");
        if kept.is_new {
            for partition in holders.keys() {
                if let Ok(Stored::Value(found)) = disk::read_json::<Totals>(&before(partition)) {
                    totals.insert(partition.clone(), found);
                }
            }
        }
        totals.retain(|partition, totals| holders.get(partition) == Some(&totals.instance));
        let slot = |totals| Arc::new(Mutex::new(Slot { totals, is_kept: false }));
        let all = totals.into_iter().map(|(partition, totals)| (partition, slot(totals))).collect();
        let (network, all, journal) = (NetworkMeter::new(machine), Mutex::new(all), Mutex::new(journal));
        let this = Self { runtime, clock, network, all, journal };
        if let Some(group) = holders.keys().next().and_then(|partition| this.runtime.group_folder(partition)) {
            this.network.begin(&group);
        }
        for (partition, instance) in holders.iter().filter(|(partition, _)| this.slot(partition).is_none()) {
            match this.counted_late(partition, instance, "the record of what had been counted was lost") {
                Ok(totals) => drop(lock(&this.all).insert(partition.clone(), slot(totals))),
                Err(problem) => {
                    tracing::error!(%partition, problem = problem.one_line(), "it cannot be metered until the next start");
                }
            }
        }
        match this.keep(&[], Durability::Power) {
            Ok(()) => holders.keys().for_each(|partition| drop(std::fs::remove_file(before(partition)))),
            // All of it is in memory, and written when there is room.
            Err(problem) => tracing::warn!(problem = problem.one_line(), "counters cannot be kept yet"),
        }
        Ok(this)
    }

    /// The control group, or why there is none.
    fn or_why<'a>(&'a self, group: Option<&'a Path>) -> Result<&'a Path, &'a str> {
        group.ok_or_else(|| self.runtime.without_groups().unwrap_or("it could not be made"))
    }

    fn slot(&self, partition: &PartitionName) -> Option<Arc<Mutex<Slot>>> {
        lock(&self.all).get(partition).cloned()
    }

    fn epoch() -> Result<u64, Problem> {
        let mut raw = [0; 8];
        getrandom::fill(&mut raw).map_err(|e| {
            Problem::new(plat_model::problem::codes::INTERNAL, "the kernel gives no random numbers").because(e)
        })?;
        // Whoever keeps it may keep it as a signed number.
        Ok(u64::from_le_bytes(raw) >> 1)
    }

    /// Totals of an instance that has used nobody knows what.
    fn counted_late(&self, partition: &PartitionName, instance: &InstanceId, why: &str) -> Result<Totals, Problem> {
        let Usage { group, runs } = self.runtime.usage(partition, Memory::NotAsked)?;
        let mut totals = Totals::new(Self::epoch()?, instance.clone(), self.clock.moment(), group.as_ref());
        runs.iter().for_each(|run| totals.pass_run(run));
        totals.lost = Some(why.into());
        Ok(totals)
    }

    /// Counts for `instance` from zero, unless it is counted already; its traffic goes this way.
    pub fn begin(&self, partition: &PartitionName, instance: &InstanceId, way: &Way) -> Result<(), Problem> {
        if self.slot(partition).is_some_and(|slot| &lock(&slot).totals.instance == instance) {
            return Ok(());
        }
        // What an earlier occupant used of a group that could not be removed is not this one's.
        let folder = self.runtime.group(partition);
        let group = self.runtime.usage(partition, Memory::NotAsked)?.group;
        let mut totals = Totals::new(Self::epoch()?, instance.clone(), self.clock.moment(), group.as_ref());
        let links = self.network.glance().read(partition, way, self.or_why(folder.as_deref()));
        totals.traffic = links.ok().map(network::Traffic::from_here);
        lock(&self.all).insert(partition.clone(), Arc::new(Mutex::new(Slot { totals, is_kept: false })));
        self.keep(std::slice::from_ref(partition), Durability::Process)
    }

    /// The partition is free: its totals go.
    pub fn forget(&self, partition: &PartitionName) -> Result<(), Problem> {
        let mut journal = lock(&self.journal);
        lock(&self.all).remove(partition);
        self.network.forget(partition);
        match journal.needs_rewrite() {
            true => self.rewrite(&mut journal),
            false => journal.append(&encode(partition, None)).map(drop),
        }
    }

    /// Adds what a hook or a check used that no control group has counted.
    pub fn add(&self, partition: &PartitionName, used: Used) -> Result<(), Problem> {
        if used == Used::default() {
            return Ok(());
        }
        let Some(slot) = self.slot(partition) else { return Ok(()) };
        {
            let mut slot = lock(&slot);
            slot.totals.cpu_micros += used.cpu_micros;
            slot.totals.io_bytes += used.io_bytes;
            slot.is_kept = false;
        }
        self.keep(std::slice::from_ref(partition), Durability::Process)
    }

    /// Brings the totals up to now, for a run that has just ended or is about to be followed by another.
    pub fn settle(&self, partition: &PartitionName) {
        let settled = match self.slot(partition) {
            Some(slot) => self.update(partition, &mut lock(&slot), Memory::NotAsked).map(drop),
            None => return,
        };
        let kept = settled.and_then(|()| self.keep(std::slice::from_ref(partition), Durability::Process));
        if let Err(problem) = kept {
            tracing::warn!(%partition, problem = problem.one_line(), "cannot count a run that ended");
        }
    }

    /// Writes down the totals of these partitions that the journal does not have yet.
    fn keep(&self, partitions: &[PartitionName], durability: Durability) -> Result<(), Problem> {
        let mut journal = lock(&self.journal);
        // It waits for the disk, so not for those who do not.
        if journal.needs_rewrite() || (durability == Durability::Power && journal.is_long()) {
            return self.rewrite(&mut journal);
        }
        let (mut lines, mut written) = (Vec::new(), Vec::new());
        for partition in partitions {
            let Some(slot) = self.slot(partition) else { continue };
            let mut held = lock(&slot);
            if !held.is_kept {
                lines.extend(encode(partition, Some(&held.totals)));
                held.is_kept = true;
                drop(held);
                written.push(slot);
            }
        }
        let appended = journal.append(&lines);
        // Whoever settles a run does not wait for the disk.
        drop(journal);
        let kept = match durability {
            // Also without a line of its own: what was only appended before becomes durable now.
            Durability::Power => appended.and_then(|appended| appended.sync()),
            Durability::Process => appended.map(drop),
        };
        if kept.is_err() {
            lock(&self.journal).doubt();
            written.iter().for_each(|slot| lock(slot).is_kept = false);
        }
        kept
    }

    fn rewrite(&self, journal: &mut Journal) -> Result<(), Problem> {
        let all = lock(&self.all).clone();
        let mut lines = Vec::new();
        for (partition, slot) in &all {
            let mut slot = lock(slot);
            lines.extend(encode(partition, Some(&slot.totals)));
            slot.is_kept = true;
        }
        let kept = journal.rewrite(&lines);
        if kept.is_err() {
            all.values().for_each(|slot| lock(slot).is_kept = false);
        }
        kept
    }

    fn update(&self, partition: &PartitionName, slot: &mut Slot, memory: Memory) -> Result<Level, Problem> {
        let Usage { group, runs } = self.runtime.usage(partition, memory)?;
        let mut level = Level { memory: Some(0), ..Level::default() };
        let totals = &mut slot.totals;
        if group.as_ref().is_some_and(|reading| totals.is_another_group(reading)) {
            *totals = totals.anew(Self::epoch()?, "the partition's control group was taken away");
        }
        if let Some(reading) = &group {
            totals.add_group(reading);
        }
        for run in runs.iter().filter(|run| run.instance == totals.instance).collect::<Vec<_>>() {
            if run.counted.cpu && group.is_none() {
                level.missing = Some("the partition's control group cannot be read".into());
            }
            level.io_hidden |= run.io_hidden;
            match run.state {
                RunState::Live { memory } => {
                    level.memory = level.memory.zip(memory).map(|(a, b)| a + b);
                }
                RunState::Ended => {}
                RunState::Lost => level.missing = Some("a service's supervisor has been lost".into()),
            }
            totals.add_run(run);
            totals.add_wall(run.started, run.ended.unwrap_or_else(|| self.clock.moment()));
        }
        if let Some(memory) = group.as_ref().and_then(|g| g.memory_bytes) {
            level.memory = level.memory.map(|beside| beside + memory);
        }
        slot.is_kept = false;
        Ok(level)
    }

    /// Reads partitions; `place` tells of each the level of its disk, and which way its traffic goes. Those that nobody
    /// holds are left out.
    pub fn read(
        &self,
        partitions: &[PartitionName],
        wanted: Wanted,
        place: impl Fn(&PartitionName) -> (Amount, Way),
    ) -> Vec<(PartitionName, Result<Counters, Problem>)> {
        let (mut read, mut look) = (Vec::with_capacity(partitions.len()), self.network.look());
        for partition in partitions {
            let Some(slot) = self.slot(partition) else { continue };
            let mut slot = lock(&slot);
            let (disk, way) = place(partition);
            let readings = match wanted {
                Wanted::Levels => {
                    let memory = self.runtime.memory(partition, &slot.totals.instance);
                    memory.map(|memory| levels(memory, disk))
                }
                Wanted::All => self.update(partition, &mut slot, Memory::Asked).map(|level| {
                    let group = self.runtime.group_folder(partition);
                    let links = look.read(partition, &way, self.or_why(group.as_deref()));
                    let traffic = links.and_then(|links| {
                        let counted = slot.totals.add_traffic(links);
                        counted.ok_or_else(|| "it is counted only from now on".into())
                    });
                    let mut readings = levels(level.memory, disk);
                    readings.extend(sums(&slot.totals, &level, traffic));
                    readings
                }),
            };
            let Totals { instance, epoch, lost, .. } = &slot.totals;
            let (instance, epoch, lost) = (instance.clone(), *epoch, lost.clone());
            let counters =
                readings.map(|readings| Counters { instance, epoch, taken: self.clock.moment(), readings, lost });
            read.push((partition.clone(), counters));
        }
        if wanted == Wanted::All
            && !read.is_empty()
            && let Err(problem) = self.keep(partitions, Durability::Power)
        {
            read.iter_mut().for_each(|(_, counters)| *counters = Err(problem.clone()));
        }
        read
    }
}

/// Where the files of each of these partitions are, and which way its traffic goes.
pub fn places(node: &NodeFile, of: &[PartitionName]) -> BTreeMap<PartitionName, (DiskPlace, Way)> {
    let of: BTreeSet<&PartitionName> = of.iter().collect();
    let place = |partition: &NodePartition| DiskPlace {
        directory: node.root.join(partition.name.as_str()),
        // node-format gives each partition the project of its user's number.
        limited: partition.account.as_ref().map(|account| account.uid).filter(|_| node.skeleton.limited),
        storage: partition.storage.clone(),
    };
    let all = node.partitions.iter().filter(|partition| of.contains(&partition.name));
    all.map(|partition| (partition.name.clone(), (place(partition), Way::of(partition)))).collect()
}

fn levels(memory: Option<u64>, disk: Amount) -> BTreeMap<Meter, Amount> {
    let hidden = || Amount::Unknown("a process's memory may not be read".into());
    let memory = memory.map_or_else(hidden, Amount::Known);
    BTreeMap::from([(Meter::MemoryByteSeconds, memory), (Meter::DiskByteSeconds, disk)])
}

fn sums(totals: &Totals, level: &Level, traffic: Result<(u64, u64), String>) -> BTreeMap<Meter, Amount> {
    let known = |total: u64| level.missing.clone().map_or(Amount::Known(total), Amount::Unknown);
    let hidden = || Amount::Unknown("the I/O of some of its processes may not be read".into());
    let bytes = |of: fn((u64, u64)) -> u64| traffic.clone().map(of).map_or_else(Amount::Unknown, Amount::Known);
    BTreeMap::from([
        (Meter::CpuMicros, known(totals.cpu_micros)),
        (Meter::WallMillis, Amount::Known(totals.wall_millis)),
        (Meter::IoBytes, if level.io_hidden { hidden() } else { known(totals.io_bytes) }),
        (Meter::NetworkBytes, bytes(|(received, sent)| received + sent)),
        (Meter::NetworkReceivedBytes, bytes(|(received, _)| received)),
        (Meter::NetworkSentBytes, bytes(|(_, sent)| sent)),
    ])
}

#[derive(Default)]
struct Level {
    memory: Option<u64>,
    io_hidden: bool,
    missing: Option<String>,
}

#[cfg(test)]
mod tests;

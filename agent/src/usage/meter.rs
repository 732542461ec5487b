//! When counters are read and reports are taken.

use super::count::{Baseline, Levels, Taking, count, says_something};
use crate::clock::Clock;
use crate::host::{Counters, Host, Wanted};
use crate::outbox::Outbox;
use crate::together::Together;
use plat_agent_plan::{Moment, Steady};
use plat_model::id::{InstanceId, PartitionName};
use plat_model::time::Window;
use plat_model::usage::{Amount, UsageReport};
use plat_model::{Problem, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tracing::{error, warn};

/// How an instance came to be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// It has just been given its partition: its counters begin.
    New,
    /// It was there when the agent started.
    Found,
}

/// What becomes of an instance after it was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    GoesOn,
    /// It is gone.
    Ends,
}

/// The meters of a node.
pub struct Metering {
    host: Arc<dyn Host>,
    clock: Arc<dyn Clock>,
    window: Duration,
    state: Mutex<State>,
    /// Those that are gone.
    settling: Together<PartitionName, Result<(), Problem>>,
    /// Something waits to be pushed.
    pub(crate) waiting: Notify,
    /// A partition is followed.
    arrived: Notify,
}

struct State {
    outbox: Outbox,
    partitions: BTreeMap<PartitionName, Followed>,
    /// When the reading was taken that each was counted by last.
    counted: BTreeMap<PartitionName, Steady>,
}

/// One partition with an instance in it.
struct Followed {
    instance: InstanceId,
    arrival: Arrival,
    /// When it came, or when the agent first saw it.
    since: Moment,
    levels: Levels,
}

impl Metering {
    /// Goes on from the outbox in this file.
    ///
    /// # Errors
    /// BAD_STATE_FILE if it cannot be read.
    pub fn open(host: Arc<dyn Host>, clock: Arc<dyn Clock>, window: Duration, outbox: &Path) -> Result<Self, Problem> {
        Ok(Self::new(host, clock, window, Outbox::open(outbox, u64::MAX)?.0))
    }

    pub(crate) fn new(host: Arc<dyn Host>, clock: Arc<dyn Clock>, window: Duration, outbox: Outbox) -> Self {
        let state = Mutex::new(State { outbox, partitions: BTreeMap::new(), counted: BTreeMap::new() });
        let settling = Together::new();
        Self { host, clock, window, state, settling, waiting: Notify::new(), arrived: Notify::new() }
    }

    /// Between samples of levels: six in a window, within 1 s and 10 s.
    fn step(&self) -> Duration {
        (self.window / 6).clamp(Duration::from_secs(1), Duration::from_secs(10)).min(self.window)
    }

    /// A partition has an instance: from now on it is followed.
    pub async fn follow(&self, partition: &PartitionName, instance: &InstanceId, arrival: Arrival) {
        let since = self.clock.moment();
        let mut state = self.state.lock().await;
        if state.partitions.get(partition).is_some_and(|followed| &followed.instance == instance) {
            return;
        }
        let baseline = state.outbox.baselines().get(partition).filter(|baseline| &baseline.instance == instance);
        let levels = match (arrival, baseline) {
            (Arrival::New, _) => Levels::of_new(since),
            (Arrival::Found, baseline) => baseline.map(Levels::after).unwrap_or_default(),
        };
        let followed = Followed { instance: instance.clone(), arrival, since, levels };
        state.partitions.insert(partition.clone(), followed);
        self.arrived.notify_one();
    }

    /// Over longer than this without a sample levels are unknown.
    fn gap_max(&self) -> Duration {
        self.step() * 3
    }

    /// Counts what is left of an instance that is gone. Durable when it returns; to be called before the partition is
    /// freed. A second call finds nothing more. Those that go at the same time are counted together.
    ///
    /// # Errors
    /// What the host says of its counters, or the outbox of the disk: what was used stays and can be counted later.
    pub async fn settle(&self, partition: &PartitionName) -> Result<(), Problem> {
        self.settling.ask(partition.clone(), |partitions| self.settle_all(partitions)).await
    }

    async fn settle_all(&self, partitions: Vec<PartitionName>) -> Vec<Result<(), Problem>> {
        let asked: BTreeSet<&PartitionName> = partitions.iter().collect();
        let asked: Vec<PartitionName> = asked.into_iter().cloned().collect();
        let (mut readings, mut failed) = (Vec::new(), BTreeMap::new());
        for (partition, read) in self.host.counters(&asked, Wanted::All).await {
            match read {
                Ok(counters) => readings.push((partition, counters)),
                Err(problem) => drop(failed.insert(partition, problem)),
            }
        }
        let mut state = self.state.lock().await;
        readings.retain(|(partition, counters)| {
            let before = state.outbox.baselines().get(partition);
            !before.is_some_and(|before| {
                before.ended && before.instance == counters.instance && before.epoch == counters.epoch
            })
        });
        state.sample(&readings, self.gap_max());
        if let Err(problem) = state.take(&readings, self.clock.now(), None, Then::Ends) {
            failed.extend(readings.into_iter().map(|(partition, _)| (partition, problem.clone())));
        }
        for partition in asked.iter().filter(|partition| !failed.contains_key(*partition)) {
            state.partitions.remove(partition);
        }
        drop(state);
        self.waiting.notify_one();
        partitions.iter().map(|partition| failed.get(partition).cloned().map_or(Ok(()), Err)).collect()
    }

    /// Samples and takes for ever. Nothing wakes it up while no partition is held.
    pub async fn run(&self) {
        loop {
            if self.state.lock().await.partitions.is_empty() {
                self.arrived.notified().await;
                continue;
            }
            let now = self.clock.now();
            let (window, step) = (Window::aligned(now, self.window), Window::aligned(now, self.step()));
            let next = window.end.min(step.end);
            tokio::time::sleep(next.since(now).max(Duration::from_millis(1))).await;
            let now = self.clock.now();
            let ends = now >= window.end;
            // Not long after its end the window is still that one.
            let end = (ends && now.since(window.end) < self.step()).then_some(window.end);
            self.pass(if ends { Wanted::All } else { Wanted::Levels }, end).await;
        }
    }

    /// Reads once; what is read of all is taken, and whatever else there is as soon as a gap shows.
    pub async fn pass(&self, wanted: Wanted, end: Option<Timestamp>) {
        let mut readings = self.read(wanted).await;
        let mut state = self.state.lock().await;
        state.sample(&readings, self.gap_max());
        if wanted == Wanted::Levels {
            if state.outbox.is_full() || !state.partitions.values().any(|followed| followed.levels.has_gap()) {
                return;
            }
            drop(state);
            readings = self.read(Wanted::All).await;
            state = self.state.lock().await;
            state.sample(&readings, self.gap_max());
        }
        if state.outbox.is_full() {
            let bytes = state.outbox.size();
            warn!(bytes, "outbox is full, usage stays in the counters until the master books");
            return;
        }
        match state.take(&readings, self.clock.now(), end, Then::GoesOn) {
            Ok(()) => self.waiting.notify_one(),
            Err(problem) => error!(problem = problem.one_line(), "usage could not be taken"),
        }
    }

    async fn read(&self, wanted: Wanted) -> Vec<(PartitionName, Counters)> {
        let followed: Vec<PartitionName> = self.state.lock().await.partitions.keys().cloned().collect();
        let read = self.host.counters(&followed, wanted).await.into_iter();
        read.filter_map(|(partition, read)| match read {
            Ok(counters) => Some((partition, counters)),
            Err(problem) => {
                warn!(%partition, problem = problem.one_line(), "counters cannot be read");
                None
            }
        })
        .collect()
    }

    /// See [`Outbox::to_send`].
    pub async fn to_send(&self, count: usize) -> Option<Vec<UsageReport>> {
        self.state.lock().await.outbox.to_send(count)
    }

    pub async fn booked(&self, number: u64) -> Result<(), Problem> {
        self.state.lock().await.outbox.booked(number)
    }
}

impl State {
    fn sample(&mut self, readings: &[(PartitionName, Counters)], gap_max: Duration) {
        for (partition, counters) in readings {
            if let Some(followed) = self.partitions.get_mut(partition).filter(|f| f.instance == counters.instance) {
                followed.levels.sample(counters, gap_max);
            }
        }
    }

    /// `end`: where the window ends that these were read for; else it ends when each was read.
    fn take(
        &mut self,
        readings: &[(PartitionName, Counters)],
        now: Timestamp,
        end: Option<Timestamp>,
        then: Then,
    ) -> Result<(), Problem> {
        let (mut records, mut baselines) = (Vec::new(), BTreeMap::new());
        let none = Levels::default();
        for (partition, counters) in readings {
            // One that was read later was counted already.
            if self.counted.get(partition).is_some_and(|counted| *counted >= counters.taken.steady) {
                continue;
            }
            let before = self.outbox.baselines().get(partition);
            let followed = self.partitions.get(partition).filter(|followed| followed.instance == counters.instance);
            let since = followed.map_or(counters.taken, |followed| followed.since);
            let levels = followed.map_or(&none, |followed| &followed.levels);
            let first = before.is_none_or(|before| before.instance != counters.instance);
            let end = end.unwrap_or(counters.taken.wall);
            let (mut told, mut after) = count(&Taking { partition, counters, before, since, levels, end });
            // In a log that knows of a loss the first record tells what came since from what was there before.
            let lost = first && self.outbox.lost();
            if lost && followed.is_none_or(|followed| followed.arrival == Arrival::Found) {
                let why = "the record of what had been counted was damaged";
                let amounts = told.iter_mut().flat_map(|record| record.amounts.values_mut());
                amounts.for_each(|amount| *amount = Amount::Unknown(why.into()));
            }
            after.ended = then == Then::Ends;
            if lost || after.ended || told.iter().any(says_something) {
                records.extend(told);
                baselines.insert(partition.clone(), Some(after));
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let taken = |(partition, after): (&PartitionName, &Option<Baseline>)| {
            Some((partition.clone(), after.as_ref()?.read?.steady))
        };
        let counted: Vec<(PartitionName, Steady)> = baselines.iter().filter_map(taken).collect();
        self.outbox.take(now, records, baselines)?;
        for (partition, read) in counted {
            if let Some(followed) = self.partitions.get_mut(&partition) {
                followed.levels.counted();
            }
            self.counted.insert(partition, read);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;

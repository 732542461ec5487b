//! What the runtimes have in common: the records of runs and what is told of them, what each partition is held to, and who has
//! to do with which service now.

use super::{Confinement, Place, Records, Setting, beside};
use crate::host::linux::process::{Process, boot_id};
use crate::host::linux::shim::RunState;
use crate::host::linux::shim::tree::Phase;
use plat_agent_plan::facts::{ServiceFact, ServiceRun};
use plat_document::release::ReloadSignal;
use plat_model::Problem;
use plat_model::id::{PartitionName, ServiceName};
use plat_model::problem::codes;
use plat_model::resources::{Enforced, Resources};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Held while one service is started, stopped or looked after.
type ServiceLock = Arc<tokio::sync::Mutex<()>>;

/// The locks of services, as long as anybody has one.
#[derive(Default)]
struct Locks {
    all: BTreeMap<(PartitionName, ServiceName), ServiceLock>,
    /// From so many on those that nobody has are looked for.
    enough: usize,
}

impl Locks {
    fn of(&mut self, service: (PartitionName, ServiceName)) -> ServiceLock {
        if self.all.len() >= self.enough.max(1024) {
            self.all.retain(|_, lock| Arc::strong_count(lock) > 1);
            self.enough = self.all.len() * 2;
        }
        self.all.entry(service).or_default().clone()
    }
}

pub struct Held {
    pub setting: Setting,
    pub records: Records,
    locks: Mutex<Locks>,
    /// What each partition is held to.
    limits: Mutex<BTreeMap<PartitionName, Limited>>,
}

/// What a partition was told to be held to, and the groups that hold it: the number of each, `None` while it is not made yet.
struct Limited {
    to: Resources,
    by: Vec<Option<u64>>,
}

impl Held {
    pub fn new(setting: Setting) -> Self {
        let records = Records::new(&setting.state);
        Self { setting, records, locks: Mutex::default(), limits: Mutex::default() }
    }

    pub fn lock(&self, partition: &PartitionName, service: &ServiceName) -> ServiceLock {
        self.locks.lock().unwrap_or_else(PoisonError::into_inner).of((partition.clone(), service.clone()))
    }

    /// What the partition is held to, if it was told so.
    pub fn limits(&self, partition: &PartitionName) -> Option<Resources> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).get(partition).map(|limited| limited.to)
    }

    /// The partition is held to these amounts from now on, by these groups.
    pub fn set_limits(&self, partition: &PartitionName, to: Resources, by: Vec<Option<u64>>) {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).insert(partition.clone(), Limited { to, by });
    }

    /// The partition is held to what node.json says.
    pub fn forget_limits(&self, partition: &PartitionName) {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).remove(partition);
    }

    /// Whether the groups that hold the partition are still those that were told so; `now` are those that there are. One that
    /// was made since is the first.
    pub fn keeps_limits(&self, partition: &PartitionName, now: &[Option<u64>]) -> bool {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(limited) = limits.get_mut(partition) else { return true };
        let keeps = limited.by.iter().zip(now).all(|(told, now)| told.is_none() || told == now);
        if keeps {
            limited.by = now.to_vec();
        }
        keeps
    }

    /// What holds the partition's programs in now, besides its groups, which enforce so much.
    pub fn confinement(&self, place: &Place, by_groups: Enforced) -> Confinement {
        let asked = self.limits(&place.partition.name).unwrap_or(place.partition.limits);
        let processes = asked.processes.filter(|_| !by_groups.processes);
        Confinement::of(place, Resources { processes, ..asked }, &self.setting.state)
    }

    /// As [`Records::run`].
    pub async fn last_run(
        &self,
        partition: &PartitionName,
        service: &ServiceName,
    ) -> Result<Option<RunState>, Problem> {
        let (records, partition, service) = (self.records.clone(), partition.clone(), service.clone());
        beside(move || records.run(&partition, &service)).await
    }

    pub async fn write(
        &self,
        partition: &PartitionName,
        service: &ServiceName,
        state: &RunState,
    ) -> Result<(), Problem> {
        let (records, of, state) = (self.records.clone(), (partition.clone(), service.clone()), state.clone());
        beside(move || records.write(&of.0, &of.1, &state)).await
    }

    /// As [`super::Runtime::observe`].
    pub async fn observe(&self, partition: &PartitionName) -> Result<BTreeMap<ServiceName, ServiceFact>, Problem> {
        let (records, partition) = (self.records.clone(), partition.clone());
        let facts = beside(move || {
            let boot = boot_id();
            let runs = records.runs(&partition)?;
            Ok(runs.into_iter().map(|(name, state)| (name, fact(&state, &boot))).collect())
        });
        facts.await
    }
}

/// Tells the first process of a service to reload. One that is gone meanwhile reads its files when it is started again.
pub fn signal_main(main: Option<Process>, service: &ServiceName, signal: ReloadSignal) -> Result<(), Problem> {
    let signal = match signal {
        ReloadSignal::Hup => rustix::process::Signal::HUP,
        ReloadSignal::Usr1 => rustix::process::Signal::USR1,
        ReloadSignal::Usr2 => rustix::process::Signal::USR2,
    };
    let Some(handle) = main.and_then(Process::handle) else { return Ok(()) };
    rustix::process::pidfd_send_signal(&handle, signal).or_else(gone).map_err(|e| {
        Problem::new(codes::SERVICE_START, format!("service {service} cannot be told to reload")).because(e)
    })
}

/// What is told of a service whose last run this is.
fn fact(state: &RunState, boot: &str) -> ServiceFact {
    let pid = state.main.unwrap_or(state.shim).pid;
    let run = match state.phase {
        Phase::Ended => ServiceRun::Ended { at: state.end(boot), how: state.ending() },
        Phase::Running if state.is_attended(boot) => ServiceRun::Running { pid, since: state.start(boot) },
        // Also when the shim is gone and what it left is being cleared up: nothing may be started yet.
        _ => ServiceRun::Stopping { pid, since: state.start(boot) },
    };
    ServiceFact {
        fingerprint: state.fingerprint.clone(),
        run: state.run.clone(),
        loaded: state.loaded.clone(),
        state: run,
        restarts: state.restarts(),
        short_runs: state.short_runs(),
        last_exit: state.last_exit(),
        last_lines: state.tail.clone(),
        refused: state.refused.clone(),
    }
}

fn gone(error: rustix::io::Errno) -> Result<(), rustix::io::Errno> {
    if error == rustix::io::Errno::SRCH { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_that_nobody_has_do_not_pile_up_and_one_that_somebody_has_stays_the_same() {
        let mut locks = Locks::default();
        let of = |n: usize| (PartitionName::parse("part0").unwrap(), ServiceName::parse(&format!("s{n}")).unwrap());
        let kept = locks.of(of(0));
        for n in 1..10_000 {
            drop(locks.of(of(n)));
        }
        assert!(locks.all.len() <= 1024, "{}", locks.all.len());
        assert!(Arc::ptr_eq(&kept, &locks.of(of(0))));
    }
}

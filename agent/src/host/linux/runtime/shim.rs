//! The shim runtime, on the agent's side: has shims forked, watches them by their pidfd, finds them again after a
//! restart of the agent, and clears up after one that was killed.

use super::{Place, Records, Runtime};
use crate::clock::Clock;
use crate::host::Event;
use crate::host::linux::cgroup::{self, Cgroups};
use crate::host::linux::disk::{self, private_folder};
use crate::host::linux::posix::watched;
use crate::host::linux::process::{Process, boot_id, marked};
use crate::host::linux::shim::launch::Program;
use crate::host::linux::shim::tree::{KILL, Phase, STOP};
use crate::host::linux::shim::{RunState, ServiceTask};
use crate::host::linux::spawner::Spawner;
use crate::host::linux::task::{Answer, Task};
use async_trait::async_trait;
use nix::sys::signal::Signal;
use plat_agent_plan::action::ServiceSpec;
use plat_agent_plan::facts::{ServiceFact, ServiceRun};
use plat_document::release::{ReloadSignal, StopSignal};
use plat_model::Problem;
use plat_model::id::{PartitionName, ServiceName};
use plat_model::problem::codes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// Called when a run has ended, before anybody is told: its last counters are taken then.
pub type Settle = Arc<dyn Fn(&PartitionName) + Send + Sync>;

/// Held while one service is started, stopped or cleared up after.
type ServiceLock = Arc<tokio::sync::Mutex<()>>;

pub struct ShimRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    records: Records,
    spawner: Arc<Spawner>,
    cgroups: Arc<Cgroups>,
    /// Starts the mark of every process of this agent's.
    mark: String,
    events: mpsc::Sender<Event>,
    settle: Settle,
    clock: Arc<dyn Clock>,
    locks: Mutex<BTreeMap<(PartitionName, ServiceName), ServiceLock>>,
    watched: Mutex<BTreeSet<String>>,
}

impl ShimRuntime {
    /// Finds the services that run, and watches them again. Within a tokio runtime.
    pub fn open(
        records: Records,
        spawner: Arc<Spawner>,
        cgroups: Arc<Cgroups>,
        mark: String,
        events: mpsc::Sender<Event>,
        settle: Settle,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (locks, watched) = (Mutex::default(), Mutex::default());
        let inner = Arc::new(Inner { records, spawner, cgroups, mark, events, settle, clock, locks, watched });
        for partition in inner.records.partitions() {
            for service in inner.records.services(&partition) {
                if let Ok(Some(state)) = inner.records.run(&partition, &service) {
                    Inner::watch(&inner, partition.clone(), service, state);
                }
            }
        }
        Self { inner }
    }
}

impl Inner {
    fn lock(&self, partition: &PartitionName, service: &ServiceName) -> ServiceLock {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry((partition.clone(), service.clone())).or_default().clone()
    }

    /// Tells when the run ends; ends what is left of one whose shim is gone.
    fn watch(this: &Arc<Self>, partition: PartitionName, service: ServiceName, state: RunState) {
        if state.phase == Phase::Ended
            || !this.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(state.run.clone())
        {
            return;
        }
        let inner = this.clone();
        // Opened now, and looked at again afterwards: the id may have become another's in between.
        let handle = state.shim.handle().filter(|_| state.is_attended(&boot_id()));
        tokio::spawn(async move {
            if let Some(handle) = handle.and_then(|fd| watched(fd).ok()) {
                let _ = handle.readable().await;
            }
            let lock = inner.lock(&partition, &service);
            {
                let _held = lock.lock().await;
                if let Err(problem) = inner.recover(&partition, &service).await {
                    tracing::warn!(%partition, %service, problem = problem.one_line(), "cannot clear up after a shim");
                }
            }
            inner.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(&state.run);
            (inner.settle)(&partition);
            let _ = inner.events.send(Event::Partition(partition)).await;
        });
    }

    /// If the last run's shim is gone without having written how it ended: ends all that is left, and writes that.
    async fn recover(&self, partition: &PartitionName, service: &ServiceName) -> Result<Option<RunState>, Problem> {
        let Some(mut state) = self.records.run(partition, service)? else { return Ok(None) };
        let boot = boot_id();
        if state.phase == Phase::Ended || state.is_attended(&boot) {
            return Ok(Some(state));
        }
        if state.boot == boot {
            self.end_leftovers(partition, service, state.uid, state.main, state.cgroup.clone()).await?;
            state.error = "its supervisor was killed".into();
        } else {
            state.error = "the machine was restarted".into();
        }
        state.ends(self.clock.moment(), &boot);
        self.records.write(partition, service, &state)?;
        Ok(Some(state))
    }

    /// Kills every process of the service that can be found: by control group, by process, by mark among those of the
    /// user that it ran as.
    async fn end_leftovers(
        &self,
        partition: &PartitionName,
        service: &ServiceName,
        uid: Option<u32>,
        main: Option<Process>,
        group: Option<PathBuf>,
    ) -> Result<(), Problem> {
        let mark = format!("{}.{partition}.{service}.", self.mark);
        let ended = tokio::task::spawn_blocking(move || {
            if let Some(group) = group.filter(|group| group.exists()) {
                cgroup::kill(&group);
            }
            let until = Instant::now() + Duration::from_secs(10);
            loop {
                let mut left = marked(&mark, uid);
                left.extend(main.filter(|main| main.is_alive()));
                if left.is_empty() {
                    return true;
                }
                left.into_iter().for_each(Process::kill);
                if Instant::now() > until {
                    return false;
                }
                std::thread::park_timeout(Duration::from_millis(5));
            }
        });
        match ended.await {
            Ok(true) => Ok(()),
            _ => Err(Problem::new(codes::SERVICE_START, format!("processes of service {service} do not end"))
                .fix("find out what holds them; the machine may have to be restarted")),
        }
    }

    async fn end(&self, partition: &PartitionName, service: &ServiceName, how: Signal) -> Result<(), Problem> {
        while let Some(state) = self.recover(partition, service).await? {
            if state.phase == Phase::Ended {
                return Ok(());
            }
            if let Some(handle) = state.shim.handle() {
                let signal = if how == KILL { rustix::process::Signal::INT } else { rustix::process::Signal::TERM };
                let _ = rustix::process::pidfd_send_signal(&handle, signal);
                if let Ok(handle) = watched(handle) {
                    let _ = handle.readable().await;
                }
            }
        }
        Ok(())
    }

    async fn launch(
        this: &Arc<Self>,
        place: &Place,
        spec: &ServiceSpec,
        before: Option<RunState>,
    ) -> Result<(), Problem> {
        let (partition, service) = (&place.partition.name, &spec.name);
        let folder = this.records.service(partition, service);
        private_folder(&folder)?;
        let run = disk::random_hex(8)?;
        let before = before.filter(|state| state.fingerprint == spec.fingerprint);
        let cgroup = this.cgroups.make(partition.as_str(), service.as_str());
        let task = Task::Service(Box::new(ServiceTask {
            program: Program {
                command: spec.command.clone(),
                environment: spec.environment.clone(),
                directory: place.directory.clone(),
                within: spec.directory.clone(),
                account: place.partition.account.clone(),
                namespace: place.partition.namespace.clone(),
                cgroup_is_own: cgroup.is_some(),
                cgroup,
                processes: place.partition.limits.processes,
                mark: format!("{}.{partition}.{service}.{run}", this.mark),
            },
            stop_signal: number(spec.stop_signal) as i32,
            stop_timeout_seconds: spec.stop_timeout_seconds,
            folder,
            run,
            instance: spec.instance.clone(),
            fingerprint: spec.fingerprint.clone(),
            loaded: spec.reload.as_ref().map(|reload| reload.files.clone()).unwrap_or_default(),
            restarts: before.as_ref().map_or(0, RunState::restarts),
            last_exit: before.as_ref().map_or_else(String::new, RunState::last_exit),
            short_runs: before.as_ref().map_or(0, RunState::short_runs),
        }));
        let started = this.spawner.perform(&task).await;
        match this.records.run(partition, service)? {
            Some(state) if state.phase == Phase::Ended => (this.settle)(partition),
            Some(state) => Self::watch(this, partition.clone(), service.clone(), state),
            None => {}
        }
        let _ = this.events.send(Event::Partition(partition.clone())).await;
        match started? {
            Answer::Started { .. } => Ok(()),
            other => Err(Problem::new(codes::INTERNAL, format!("a shim answered {other:?}"))),
        }
    }
}

#[async_trait]
impl Runtime for ShimRuntime {
    async fn start(&self, place: &Place, spec: &ServiceSpec) -> Result<(), Problem> {
        let (inner, place, spec) = (self.inner.clone(), place.clone(), spec.clone());
        // A task of its own: whoever asked may stop waiting, and the run must be watched all the same.
        let started = tokio::spawn(async move {
            let (partition, service) = (&place.partition.name, &spec.name);
            let lock = inner.lock(partition, service);
            let _held = lock.lock().await;
            let mut before = inner.recover(partition, service).await?;
            match &before {
                Some(state) if state.phase == Phase::Running && state.fingerprint == spec.fingerprint => return Ok(()),
                Some(state) if state.phase != Phase::Ended => {
                    inner.end(partition, service, STOP).await?;
                    before = inner.records.run(partition, service)?;
                }
                Some(_) => {}
                // Its state was lost, but something was begun once.
                None if inner.records.service(partition, service).exists() => {
                    let uid = place.partition.account.as_ref().map(|account| account.uid);
                    inner.end_leftovers(partition, service, uid, None, None).await?;
                }
                None => {}
            }
            (inner.settle)(partition);
            Inner::launch(&inner, &place, &spec, before).await
        });
        joined(started.await)
    }

    async fn stop(&self, partition: &PartitionName, service: &ServiceName) -> Result<(), Problem> {
        let lock = self.inner.lock(partition, service);
        let _held = lock.lock().await;
        self.inner.end(partition, service, STOP).await?;
        if let Some(mut state) = self.inner.records.run(partition, service)?
            && state.short_runs() > 0
        {
            (state.told, state.short_runs) = (true, 0);
            self.inner.records.write(partition, service, &state)?;
        }
        (self.inner.settle)(partition);
        Ok(())
    }

    async fn signal(
        &self,
        partition: &PartitionName,
        service: &ServiceName,
        run: &str,
        signal: ReloadSignal,
    ) -> Result<(), Problem> {
        let lock = self.inner.lock(partition, service);
        let _held = lock.lock().await;
        let state = self.inner.records.run(partition, service)?.filter(|state| state.run == run);
        let main = state.filter(|state| state.is_attended(&boot_id())).and_then(|state| state.main);
        let signal = match signal {
            ReloadSignal::Hup => rustix::process::Signal::HUP,
            ReloadSignal::Usr1 => rustix::process::Signal::USR1,
            ReloadSignal::Usr2 => rustix::process::Signal::USR2,
        };
        // One that is gone meanwhile reads its files when it is started again.
        if let Some(handle) = main.and_then(Process::handle) {
            rustix::process::pidfd_send_signal(&handle, signal).or_else(gone).map_err(|e| {
                Problem::new(codes::SERVICE_START, format!("service {service} cannot be told to reload")).because(e)
            })?;
        }
        Ok(())
    }

    async fn clear(&self, place: &Place) -> Result<(), Problem> {
        let partition = &place.partition.name;
        let services = self.inner.records.services(partition);
        let ends = services.iter().map(|service| async move {
            let lock = self.inner.lock(partition, service);
            let _held = lock.lock().await;
            self.inner.end(partition, service, KILL).await
        });
        for ended in futures_util::future::join_all(ends).await {
            ended?;
        }
        (self.inner.settle)(partition);
        let group = self.inner.cgroups.of_partition(partition.as_str());
        if let Some(group) = group.filter(|group| group.exists()) {
            let _ = tokio::task::spawn_blocking(move || cgroup::kill(&group)).await;
        }
        for service in &services {
            self.inner.records.forget(&self.inner.records.service(partition, service))?;
        }
        Ok(())
    }

    async fn observe(&self, partition: &PartitionName) -> Result<BTreeMap<ServiceName, ServiceFact>, Problem> {
        let boot = boot_id();
        let runs = self.inner.records.runs(partition)?;
        Ok(runs.into_iter().map(|(name, state)| (name, fact(&state, &boot))).collect())
    }
}

fn fact(state: &RunState, boot: &str) -> ServiceFact {
    let pid = state.main.unwrap_or(state.shim).pid;
    let run = match state.phase {
        Phase::Ended => ServiceRun::Ended { at: state.end(boot) },
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
    }
}

fn gone(error: rustix::io::Errno) -> Result<(), rustix::io::Errno> {
    if error == rustix::io::Errno::SRCH { Ok(()) } else { Err(error) }
}

fn number(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Term => Signal::SIGTERM,
        StopSignal::Int => Signal::SIGINT,
        StopSignal::Quit => Signal::SIGQUIT,
        StopSignal::Hup => Signal::SIGHUP,
        StopSignal::Usr1 => Signal::SIGUSR1,
        StopSignal::Usr2 => Signal::SIGUSR2,
    }
}

/// The result of a task; a task that panicked is a problem.
pub fn joined<T>(result: Result<Result<T, Problem>, tokio::task::JoinError>) -> Result<T, Problem> {
    result.unwrap_or_else(|e| Err(Problem::new(codes::INTERNAL, "a task of the agent failed").because(e)))
}

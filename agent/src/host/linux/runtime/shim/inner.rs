//! One service's shim, on the agent's side: forked, watched by its pidfd, found again after a restart of the agent, and
//! cleared up after when it was killed.

use super::runs::Runs;
use crate::host::Event;
use crate::host::linux::cgroup::{self, Cgroups};
use crate::host::linux::disk::{self, private_folder};
use crate::host::linux::posix::watched;
use crate::host::linux::process::{Process, boot_id, marked};
use crate::host::linux::runtime::{Confinement, Held, Place, Setting, beside, stop_signal};
use crate::host::linux::shim::launch::Program;
use crate::host::linux::shim::tree::{KILL, Phase};
use crate::host::linux::shim::{RunState, ServiceTask};
use crate::host::linux::task::{Answer, Task};
use nix::sys::signal::Signal;
use plat_agent_plan::action::ServiceSpec;
use plat_model::Problem;
use plat_model::id::{PartitionName, ServiceName};
use plat_model::problem::codes;
use sha2::Digest as _;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// How long after its time a shim may take to end what it stands by, and itself.
const LATE: Duration = Duration::from_secs(15);
/// The time of one that did not note it: longer than almost any service is given.
const UNSAID: Duration = Duration::from_secs(3600);

fn stuck(service: &ServiceName) -> Problem {
    Problem::new(codes::SERVICE_START, format!("processes of service {service} do not end"))
        .fix("find out what holds them; the machine may have to be restarted")
}

pub struct Inner {
    pub held: Held,
    pub runs: Runs,
    pub cgroups: Cgroups,
    /// Starts the mark of every process of this agent's.
    pub mark: String,
    watched: Mutex<BTreeSet<String>>,
}

impl Inner {
    pub fn new(setting: Setting) -> Self {
        let cgroups = Cgroups::open(&setting.state);
        let hash = sha2::Sha256::digest(setting.state.as_os_str().as_encoded_bytes());
        let mark = hash.iter().take(8).map(|b| format!("{b:02x}")).collect();
        let held = Held::new(setting);
        Self { held, runs: Runs::new(), cgroups, mark, watched: Mutex::default() }
    }

    /// What holds the partition's programs in now, besides its groups.
    pub fn confinement(&self, place: &Place) -> Confinement {
        self.held.confinement(place, self.cgroups.limits())
    }

    /// Tells when the run ends; ends what is left of one whose shim is gone.
    pub fn watch(this: &Arc<Self>, partition: PartitionName, service: ServiceName, state: RunState) {
        if state.phase == Phase::Ended
            || !this.watched.lock().unwrap_or_else(PoisonError::into_inner).insert(state.run.clone())
        {
            return;
        }
        let inner = this.clone();
        inner.runs.changed(&partition);
        // Opened now, and looked at again afterwards: the id may have become another's in between.
        let handle = state.shim.handle().filter(|_| state.is_attended(&boot_id()));
        let run = state.run;
        tokio::spawn(async move {
            if let Some(handle) = handle.and_then(|fd| watched(fd).ok()) {
                let _ = handle.readable().await;
            }
            // While it runs, no memory is held for what is done when it has ended.
            Box::pin(inner.has_ended(partition, &service, &run)).await;
        });
    }

    async fn has_ended(&self, partition: PartitionName, service: &ServiceName, run: &str) {
        let lock = self.held.lock(&partition, service);
        {
            let _turn = lock.lock().await;
            if let Err(problem) = self.recover(&partition, service).await {
                tracing::warn!(%partition, %service, problem = problem.one_line(), "cannot clear up after a shim");
            }
        }
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).remove(run);
        self.held.setting.settle(&partition).await;
        let _ = self.held.setting.events.send(Event::Partition(partition)).await;
    }

    /// If the last run's shim is gone without having written how it ended: ends all that is left, and writes that.
    pub async fn recover(&self, partition: &PartitionName, service: &ServiceName) -> Result<Option<RunState>, Problem> {
        let Some(mut state) = self.held.last_run(partition, service).await? else { return Ok(None) };
        let boot = boot_id();
        if state.phase != Phase::Ended && state.is_attended(&boot) {
            return Ok(Some(state));
        }
        if state.phase == Phase::Ended {
            self.runs.changed(partition);
            return Ok(Some(state));
        }
        if state.boot == boot {
            self.end_leftovers(partition, service, state.uid, state.main, state.cgroup.clone()).await?;
            state.error = "its supervisor was killed".into();
        } else {
            state.error = "the machine was restarted".into();
        }
        state.lost = true;
        state.ends(self.held.setting.clock.moment(), &boot);
        self.held.write(partition, service, &state).await?;
        self.runs.changed(partition);
        Ok(Some(state))
    }

    /// Kills every process of the service that can be found: by control group, by process, by mark among those of the
    /// user that it ran as.
    pub async fn end_leftovers(
        &self,
        partition: &PartitionName,
        service: &ServiceName,
        uid: Option<u32>,
        main: Option<Process>,
        group: Option<PathBuf>,
    ) -> Result<(), Problem> {
        if let Some(group) = group {
            cgroup::kill(&group).await;
        }
        let mark: Arc<str> = format!("{}.{partition}.{service}.", self.mark).into();
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let mark = mark.clone();
            let left = beside(move || {
                let mut left = marked(&mark, uid);
                left.extend(main.filter(|main| main.is_alive()));
                let is_empty = left.is_empty();
                left.into_iter().for_each(Process::kill);
                Ok(!is_empty)
            });
            if !left.await? {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(stuck(service));
            }
            // Between the looks no thread is held.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends whatever is left in the partition's group.
    pub async fn empty_group(&self, partition: &PartitionName) {
        if let Some(group) = self.cgroups.of_partition(partition.as_str()) {
            cgroup::kill(&group).await;
        }
    }

    /// Tells the shim to end the service, and waits: no longer than for as long as that may take. Then the shim is killed, and
    /// what it leaves is ended as after any other that was.
    pub async fn end(&self, partition: &PartitionName, service: &ServiceName, how: Signal) -> Result<(), Problem> {
        while let Some(state) = self.recover(partition, service).await? {
            if state.phase == Phase::Ended {
                return Ok(());
            }
            if let Some(handle) = state.shim.handle() {
                let signal = if how == KILL { rustix::process::Signal::INT } else { rustix::process::Signal::TERM };
                let _ = rustix::process::pidfd_send_signal(&handle, signal);
                let patience = if how == KILL { LATE } else { state.stop_timeout().unwrap_or(UNSAID) + LATE };
                if let Ok(handle) = watched(handle)
                    && timeout(patience, handle.readable()).await.is_err()
                {
                    tracing::warn!(%partition, %service, waited_s = patience.as_secs(), "a shim that does not end is killed");
                    let _ = rustix::process::pidfd_send_signal(handle.get_ref(), rustix::process::Signal::KILL);
                    timeout(LATE, handle.readable()).await.map_err(|_| stuck(service))?.ok();
                }
            }
        }
        Ok(())
    }

    pub async fn launch(
        this: &Arc<Self>,
        place: &Place,
        spec: &ServiceSpec,
        before: Option<RunState>,
    ) -> Result<(), Problem> {
        let (partition, service) = (&place.partition.name, &spec.name);
        let folder = this.held.records.service(partition, service);
        let run = disk::random_hex(8)?;
        let before = before.filter(|state| state.fingerprint == spec.fingerprint);
        let (inner, made, of) = (this.clone(), folder.clone(), (partition.clone(), service.clone()));
        let made = beside(move || {
            private_folder(&made)?;
            Ok(inner.cgroups.make(of.0.as_str(), of.1.as_str()))
        });
        let groups = made.await?;
        let task = Task::Service(Box::new(ServiceTask {
            program: Program {
                command: spec.command.clone(),
                environment: spec.environment.clone(),
                directory: place.directory.clone(),
                within: spec.directory.clone(),
                confinement: this.confinement(place),
                group_is_own: groups.unified.is_some(),
                groups,
                mark: format!("{}.{partition}.{service}.{run}", this.mark),
            },
            stop_signal: stop_signal(spec.stop_signal) as i32,
            stop_timeout_seconds: spec.stop_timeout_seconds,
            folder,
            run,
            instance: spec.instance.clone(),
            fingerprint: spec.fingerprint.clone(),
            loaded: spec.reload.as_ref().map(|reload| reload.files.clone()).unwrap_or_default(),
            restarts: before.as_ref().map_or(0, RunState::restarts),
            last_exit: before.as_ref().map_or_else(String::new, RunState::last_exit),
            short_runs: before.as_ref().map_or(0, RunState::short_runs),
            watchdog_seconds: spec.watchdog_seconds,
        }));
        let started = this.held.setting.spawner.perform(&task).await;
        this.runs.changed(partition);
        match this.held.last_run(partition, service).await? {
            Some(state) if state.phase == Phase::Ended => this.held.setting.settle(partition).await,
            Some(state) => Self::watch(this, partition.clone(), service.clone(), state),
            None => {}
        }
        let _ = this.held.setting.events.send(Event::Partition(partition.clone())).await;
        match started? {
            Answer::Started { .. } => Ok(()),
            other => Err(Problem::new(codes::INTERNAL, format!("a shim answered {other:?}"))),
        }
    }
}

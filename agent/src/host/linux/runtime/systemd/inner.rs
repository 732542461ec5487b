//! One service's unit: made, heard of, found again after a restart of the agent, and taken away when it has ended.

use super::bus::{Bus, EXISTS, Wrong};
use super::journal;
use super::names::Names;
use super::seen::{Seen, bring_up};
use super::tmp::{Places, Shown};
use super::unit::{Around, COUNTED, Property, limits_of, unit_of, variables};
use crate::host::Event;
use crate::host::linux::account::refuse_root;
use crate::host::linux::cgroup::{self, Slices};
use crate::host::linux::disk::{self, Durability, private_folder};
use crate::host::linux::process::{Process, boot_id};
use crate::host::linux::runtime::{Adopted, Confinement, Held, Place, Setting, beside};
use crate::host::linux::shim::launch::open_within;
use crate::host::linux::shim::tree::{Phase, Used};
use crate::host::linux::shim::{BySystemd, RunState};
use crate::host::linux::turns::Turn;
use futures_util::future::try_join_all;
use plat_agent_plan::action::ServiceSpec;
use plat_model::Problem;
use plat_model::id::{PartitionName, ServiceName};
use plat_model::problem::{Code, codes};
use plat_model::resources::Resources;
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// How a service is made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Stop,
    Kill,
}

pub struct Inner {
    pub held: Held,
    pub slices: Slices,
    pub names: Names,
    pub bus: Bus,
    pub tmp: Arc<Places>,
    pub version: u32,
    /// Partitions whose slices have been told to count.
    counting: Mutex<BTreeSet<PartitionName>>,
    over: Mutex<Option<mpsc::UnboundedReceiver<String>>>,
}

/// What kind of failure a step is at which systemd could not execute a program.
pub fn code_of(step: i32) -> Code {
    // As systemd.exec(5) numbers them.
    if step == 225 { codes::NO_NAMESPACE } else { codes::SERVICE_START }
}

/// Whether systemd is the machine's first process and this one may have it keep services.
pub fn lives_here() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/run/systemd/system").is_dir()
}

pub fn cannot_start(command: &[String]) -> String {
    format!("cannot start {}", command.first().map_or("", String::as_str))
}

fn lost(what: &str) -> impl FnOnce(Wrong) -> Problem {
    move |wrong| wrong.problem(what)
}

impl Inner {
    pub async fn connect(setting: Setting) -> Result<Arc<Self>, Problem> {
        let unusable = |why: &str| {
            Problem::new(codes::PREREQUISITE, "systemd cannot keep the services")
                .because(why)
                .fix("set `runtime = \"auto\"` or `runtime = \"shim\"` in agent.toml")
        };
        if !lives_here() {
            return Err(unusable("it is not this machine's first process, or the agent is not root"));
        }
        let (names, (send, over)) = (Names::of(&setting.state), mpsc::unbounded_channel());
        let connected = async {
            let bus = Bus::connect(names.clone(), send).await?;
            let version = bus.version().await?;
            Ok::<_, Wrong>((bus, version))
        };
        let (bus, version) = connected.await.map_err(|wrong| unusable(&wrong.problem("").why))?;
        let (held, slices, over) = (Held::new(setting), Slices::open(), Mutex::new(Some(over)));
        let tmp = Places::new(names.clone());
        Ok(Arc::new(Self { held, slices, names, bus, tmp, version, counting: Mutex::default(), over }))
    }

    /// Finds what runs, and hears from now on of what ends.
    pub async fn adopt(self: &Arc<Self>) -> Result<Vec<Adopted>, Problem> {
        let wrong = || lost("it cannot be found out what runs");
        let records = self.held.records.clone();
        let all = beside(move || {
            let mut all = BTreeMap::new();
            for partition in records.partitions()? {
                for service in records.services(&partition)? {
                    let run = records.run(&partition, &service)?.filter(|state| state.phase != Phase::Ended);
                    all.extend(run.map(|state| ((partition.clone(), service), state)));
                }
            }
            Ok(all)
        });
        let all = all.await?;
        for (unit, _) in self.own_units(&self.names.all_services()).await? {
            if !self.names.parse(&unit).is_some_and(|of| all.contains_key(&of)) {
                // A program without the agent that ran it, a service whose record is lost, or one whose end was written down
                // by an agent that did not come to taking the unit away: systemd would start it again.
                self.release(&unit).await.map_err(wrong())?;
            }
        }
        let (mut adopted, mut starting) = (Vec::new(), BTreeSet::new());
        for ((partition, service), mut state) in all {
            let seen = self.bus.seen(&self.names.service(&partition, &service)).unwrap_or_default();
            starting.extend(seen.is_starting().then(|| partition.clone()));
            self.note(&partition, &service, &mut state, &seen).await?;
            adopted.push(Adopted { partition, service, run: state.run });
        }
        // Nothing that failed is left to systemd to start again.
        let tmp = self.tmp.clone();
        beside(move || {
            tmp.take_over(&starting);
            Ok(())
        })
        .await?;
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut over) = over {
            let inner = Arc::downgrade(self);
            tokio::spawn(async move {
                while let Some(unit) = over.recv().await {
                    let Some(inner) = inner.upgrade() else { return };
                    tokio::spawn(async move { inner.look_after(&unit).await });
                }
                if inner.upgrade().is_some() {
                    // Nothing is known any more, and who supervises the agent starts it again.
                    tracing::error!("the connection to systemd over its bus is lost; the agent ends");
                    std::process::exit(1);
                }
            });
        }
        Ok(adopted)
    }

    async fn look_after(self: Arc<Self>, unit: &str) {
        let Some((partition, service)) = self.names.parse(unit) else { return };
        let lock = self.held.lock(&partition, &service);
        {
            let _turn = lock.lock().await;
            if let Err(problem) = self.recover(&partition, &service).await {
                tracing::warn!(%partition, %service, problem = problem.one_line(), "a service's end cannot be written down");
            }
        }
        self.held.setting.settle(&partition).await;
        let _ = self.held.setting.events.send(Event::Partition(partition)).await;
    }

    /// Brings the record of a service up to what is seen of its unit, and takes away the unit of one that has ended.
    pub async fn recover(&self, partition: &PartitionName, service: &ServiceName) -> Result<Option<RunState>, Problem> {
        let Some(mut state) = self.held.last_run(partition, service).await? else { return Ok(None) };
        if state.phase == Phase::Ended {
            return Ok(Some(state));
        }
        let unit = self.names.service(partition, service);
        let seen = self.bus.seen(&unit).unwrap_or_default();
        self.note(partition, service, &mut state, &seen).await?;
        Ok(Some(state))
    }

    /// Writes down what is seen of a run's unit.
    async fn note(
        &self,
        partition: &PartitionName,
        service: &ServiceName,
        state: &mut RunState,
        seen: &Seen,
    ) -> Result<(), Problem> {
        let unit = self.names.service(partition, service);
        let mut changed = bring_up(state, seen, self.held.setting.clock.moment(), monotonic(), &boot_id());
        if state.main.is_none() && seen.main > 0 {
            // One that is gone already is known by its id alone.
            let main = Process::of(seen.main).unwrap_or(Process { pid: seen.main, start: 0 });
            (state.main, state.shim, changed) = (Some(main), main, true);
        }
        // Nobody asks why one ended that was told to, and the journal takes its time: it is written out first.
        if state.phase == Phase::Ended && (!state.told || seen.failed_step().is_some()) {
            let (of, run, failed) = (unit.clone(), state.clone(), seen.failed_step().is_some());
            let (tail, failure) = beside(move || Ok(journal::end(&of, &run, failed))).await?;
            state.tail = tail;
            if let Some(step) = seen.failed_step() {
                state.exit = None;
                state.error = failure.unwrap_or_else(|| format!("systemd could not execute it (status {step})"));
            }
        }
        if changed {
            self.held.write(partition, service, state).await?;
        }
        if state.phase == Phase::Ended {
            let wrong = |why: Wrong| why.problem(format!("what is left of service {service} cannot be ended"));
            // One that was never seen in the partition's slice may be somebody else's.
            let slice = self.names.slice(partition);
            let is_own = seen.slice == slice || {
                let slice_now = self.bus.read(&unit).await.map_err(wrong)?.slice;
                slice_now.is_empty() || slice_now == slice
            };
            match is_own {
                true => self.release(&unit).await.map_err(wrong)?,
                false => self.bus.leave(&unit),
            }
        }
        Ok(())
    }

    /// Ends what is left of a unit, and has systemd forget it.
    async fn release(&self, unit: &str) -> Result<(), Wrong> {
        self.bus.stop(unit).await?;
        self.bus.reset(unit).await?;
        self.bus.leave(unit);
        Ok(())
    }

    /// Loaded units of this agent's partitions among those that match, read and heard of from now on.
    async fn own_units(&self, pattern: &str) -> Result<Vec<(String, PartitionName)>, Problem> {
        let wrong = || lost("it cannot be found out what runs");
        let listed = self.bus.list(pattern).await.map_err(wrong())?;
        let named = listed.into_iter().filter_map(|unit| self.names.partition_of(&unit).map(|of| (unit, of)));
        let read = named.map(|(unit, partition)| async move {
            let is_own = self.bus.read(&unit).await?.slice == self.names.slice(&partition);
            if !is_own {
                self.bus.leave(&unit);
            }
            Ok::<_, Wrong>(is_own.then_some((unit, partition)))
        });
        let own = try_join_all(read).await.map_err(wrong())?;
        Ok(own.into_iter().flatten().collect())
    }

    /// Ends all units that are left in a partition.
    pub async fn end_strays(&self, partition: &PartitionName) -> Result<(), Problem> {
        let wrong = || lost("what is left of a partition cannot be ended");
        for (unit, of) in self.own_units(&self.names.services_of(partition)).await? {
            if of == *partition {
                self.bus.kill(&unit).await.map_err(wrong())?;
                self.release(&unit).await.map_err(wrong())?;
            }
        }
        Ok(())
    }

    /// Returns when nothing of the service is left; its last run then.
    pub async fn end(
        &self,
        partition: &PartitionName,
        service: &ServiceName,
        how: Ending,
    ) -> Result<Option<RunState>, Problem> {
        let Some(mut state) = self.recover(partition, service).await? else { return Ok(None) };
        if state.phase == Phase::Ended {
            return Ok(Some(state));
        }
        let unit = self.names.service(partition, service);
        state.told = true;
        state.phase = if how == Ending::Kill { Phase::Killing } else { Phase::Stopping };
        self.held.write(partition, service, &state).await?;
        let wrong = || lost("a service cannot be stopped");
        let time = Duration::from_secs(state.systemd.map_or(0, |by| by.stop_seconds).into());
        if how == Ending::Kill || !self.bus.stop_within(&unit, time).await.map_err(wrong())? {
            self.bus.kill(&unit).await.map_err(wrong())?;
            self.bus.stop(&unit).await.map_err(wrong())?;
        }
        let seen = self.bus.seen(&unit).unwrap_or_default();
        self.note(partition, service, &mut state, &seen).await?;
        Ok(Some(state))
    }

    /// What holds the partition's programs in now.
    pub fn confinement(&self, place: &Place) -> Result<Confinement, Problem> {
        place.partition.account.as_ref().map_or(Ok(()), refuse_root)?;
        Ok(self.held.confinement(place, self.slices.enforces()))
    }

    pub async fn launch(&self, place: &Place, spec: &ServiceSpec, before: Option<RunState>) -> Result<(), Problem> {
        let (partition, service, boot) = (&place.partition.name, &spec.name, boot_id());
        let cannot = || cannot_start(&spec.command);
        let (unit, slice) = (self.names.service(partition, service), self.names.slice(partition));
        let folder = self.held.records.service(partition, service);
        // Whoever clears the partition meanwhile finds the service by it, and waits for this.
        let listed = folder.clone();
        beside(move || private_folder(&listed)).await?;
        let turn = self.bus.turn_to_start(&unit).await.map_err(|wrong| wrong.problem(cannot()))?;
        let (confinement, now) = (self.confinement(place)?, self.held.setting.clock.moment());
        let before = before.filter(|state| state.fingerprint == spec.fingerprint);
        let by =
            BySystemd { restarts: 0, watchdog_seconds: spec.watchdog_seconds, stop_seconds: spec.stop_timeout_seconds };
        let nobody = Process { pid: 0, start: 0 };
        let mut state = RunState {
            version: RunState::VERSION,
            run: String::new(),
            boot,
            shim: nobody,
            main: None,
            instance: spec.instance.clone(),
            fingerprint: spec.fingerprint.clone(),
            loaded: spec.reload.as_ref().map(|reload| reload.files.clone()).unwrap_or_default(),
            phase: Phase::Running,
            started: now.wall,
            ended: None,
            began: Some(now.steady),
            finished: None,
            exit: None,
            error: String::new(),
            refused: None,
            restarts: before.as_ref().map_or(0, RunState::restarts),
            last_exit: before.as_ref().map_or_else(String::new, RunState::last_exit),
            short_runs: before.as_ref().map_or(0, RunState::short_runs),
            told: false,
            unheard: None,
            lost: false,
            cgroup: self.group(partition),
            counted: Some(self.slices.counted()),
            uid: place.partition.account.as_ref().map(|account| account.uid),
            used: Used::default(),
            tail: Vec::new(),
            stop_seconds: None,
            systemd: Some(by),
        };
        let (file, text) = (folder.join("environment"), variables(&spec.environment));
        let (records, of, first) = (self.held.records.clone(), (partition.clone(), service.clone()), state.clone());
        let path = file.clone();
        let (top, within) = (place.directory.clone(), spec.directory.clone());
        let (tmp, bounds) = (self.tmp.clone(), confinement.bounds.clone());
        let written = beside(move || {
            disk::replace(&path, text.as_bytes(), Durability::Process)?;
            // Before there is a unit: one without a record is nobody's.
            records.write(&of.0, &of.1, &first)?;
            Ok(open_within(&top, &within).and_then(|_| bounds.map_or(Ok(None), |bounds| tmp.show(&of.0, &bounds))))
        });
        let started = match written.await? {
            Ok(tmp) => {
                let path = tmp.as_ref().map(Shown::path);
                let around = Around { slice: &slice, environment: &file, tmp: path.as_deref(), version: self.version };
                let properties = unit_of(place, spec, &confinement, around);
                let begun = match self.count(partition).await {
                    Ok(()) => self.begin(&turn, &unit, &slice, &properties).await,
                    Err(wrong) => Err(wrong),
                };
                begun.map_err(|wrong| wrong.problem(cannot()))
            }
            Err(why) => Err(Problem::new(codes::SERVICE_START, cannot()).because(why)),
        };
        drop(turn);
        let went = match started {
            Ok(seen) => {
                self.note(partition, service, &mut state, &seen).await?;
                match seen.failed_step() {
                    Some(step) => {
                        let problem = Problem::new(code_of(step), cannot()).because(&state.error);
                        state.refused = Some(problem.clone());
                        self.held.write(partition, service, &state).await?;
                        Err(problem)
                    }
                    None => Ok(()),
                }
            }
            Err(problem) => {
                (state.error, state.refused) = (problem.one_line(), Some(problem.clone()));
                state.ends(self.held.setting.clock.moment(), &state.boot.clone());
                self.held.write(partition, service, &state).await?;
                Err(problem)
            }
        };
        if state.phase == Phase::Ended {
            self.held.setting.settle(partition).await;
        }
        let _ = self.held.setting.events.send(Event::Partition(partition.clone())).await;
        went
    }

    /// Starts a unit in that slice. What is left of an earlier one there goes, and of this one if it never began.
    async fn begin(&self, turn: &Turn<'_>, unit: &str, slice: &str, properties: &[Property]) -> Result<Seen, Wrong> {
        let mut started = self.bus.start(turn, unit, properties, None).await;
        if started.as_ref().is_err_and(|wrong| wrong.is(EXISTS)) {
            if self.bus.read(unit).await?.slice != slice {
                self.bus.leave(unit);
                return started;
            }
            // It is given no time to end: whoever else wants to start something waits for that.
            self.bus.kill(unit).await?;
            self.release(unit).await?;
            started = self.bus.start(turn, unit, properties, None).await;
        }
        if matches!(started, Err(Wrong::Held)) {
            // systemd would start it again.
            self.release(unit).await?;
        }
        started
    }

    /// Holds the partition's slice to these amounts.
    pub async fn limit(&self, name: &PartitionName, asked: Resources) -> Result<(), Problem> {
        if self.held.limits(name) == Some(asked) && self.keeps_limits(name) {
            return Ok(());
        }
        let set = self.bus.set(&self.names.slice(name), &limits_of(asked)).await;
        set.map_err(|why| why.problem(format!("the limits of partition {name} cannot be set")))?;
        self.held.set_limits(name, asked, self.holders(name));
        Ok(())
    }

    /// Has the partition's slice count all that is in it, before anything is; systemd remembers it until the machine's next start.
    pub async fn count(&self, name: &PartitionName) -> Result<(), Wrong> {
        let counting = || self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        if !counting().contains(name) {
            self.bus.set(&self.names.slice(name), &COUNTED).await?;
            counting().insert(name.clone());
        }
        Ok(())
    }

    pub fn keeps_limits(&self, name: &PartitionName) -> bool {
        self.held.keeps_limits(name, &self.holders(name))
    }

    /// The number of the slice's group, if systemd has made it.
    fn holders(&self, name: &PartitionName) -> Vec<Option<u64>> {
        vec![self.group(name).and_then(|group| cgroup::number(&group))]
    }
}

/// systemd's clock, in microseconds.
fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000
}

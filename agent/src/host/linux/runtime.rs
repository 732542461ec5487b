//! What keeps services running while the agent is away, and what all else of a partition runs in. The shim is one
//! implementer; another is the init system.

mod choice;
mod confinement;
mod held;
mod record;
pub mod shim;
mod systemd;

pub use super::cgroup::{Counted, Reading};
pub use super::shim::tree::{Exit, Used};
pub use super::task::Ran;
pub use choice::choose;
pub use confinement::Confinement;
use held::{Held, signal_main};
pub use record::Records;
use shim::ShimRuntime;
use systemd::SystemdRuntime;
pub use systemd::mount_all;

use super::spawner::Spawner;
use crate::clock::Clock;
use crate::host::Event;
use async_trait::async_trait;
use nix::sys::signal::Signal;
use plat_agent_plan::Moment;
use plat_agent_plan::action::{Run, ServiceSpec};
use plat_agent_plan::facts::ServiceFact;
use plat_document::release::{ReloadSignal, StopSignal};
use plat_model::Problem;
use plat_model::id::{InstanceId, PartitionName, ServiceName};
use plat_model::node::NodePartition;
use plat_model::problem::codes;
use plat_model::resources::{Enforced, Resources};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::mpsc;

/// A partition with where it is.
#[derive(Debug, Clone)]
pub struct Place {
    pub partition: NodePartition,
    /// The partition's directory.
    pub directory: PathBuf,
    /// Where releases are published.
    pub releases: PathBuf,
}

/// What a runtime is given.
#[derive(Clone)]
pub struct Setting {
    /// The host's folder of the agent's state.
    pub state: PathBuf,
    pub spawner: Arc<Spawner>,
    /// A service was started or has ended; after [`Setting::settle`].
    pub events: mpsc::Sender<Event>,
    /// Brings the totals of a partition up to what [`Runtime::usage`] says. May wait for a disk.
    pub settle: Arc<dyn Fn(&PartitionName) + Send + Sync>,
    pub clock: Arc<dyn Clock>,
}

impl Setting {
    /// To be called when a run has ended, and before anything that its usage is read from is another run's.
    pub async fn settle(&self, partition: &PartitionName) {
        let (settle, partition) = (self.settle.clone(), partition.clone());
        let _ = tokio::task::spawn_blocking(move || settle(&partition)).await;
    }
}

/// A service that was found running, or whose end was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adopted {
    pub partition: PartitionName,
    pub service: ServiceName,
    /// As [`ServiceFact::run`].
    pub run: String,
}

/// What a partition has used, as far as the runtime can tell it now.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    /// The kernel's sum for the whole partition, where there is one.
    pub group: Option<Reading>,
    /// The last run of each service, the earliest first.
    pub runs: Vec<RunUsage>,
}

/// What one run of a service has used.
#[derive(Debug, Clone)]
pub struct RunUsage {
    pub service: ServiceName,
    pub run: String,
    pub instance: InstanceId,
    /// What was in another boot of the machine was at its start, by the steady clock.
    pub started: Moment,
    pub ended: Option<Moment>,
    /// Until now, or in all. Never less than what was said of this run before.
    pub used: Used,
    /// What of it the group counts.
    pub counted: Counted,
    /// Some of its I/O cannot be told, except by the group.
    pub io_hidden: bool,
    pub state: RunState,
}

/// Whether what processes hold is asked too: where no group counts it, it is dear to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    Asked,
    NotAsked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    Live {
        /// What it holds, in bytes, where the group does not count it; `None`: that may not be read, or was not asked.
        memory: Option<u64>,
    },
    /// What it used is all that it used.
    Ended,
    /// It goes on, or left something behind, and nobody knows what that used.
    Lost,
}

/// Lines of services' logs, read on and on.
pub trait LogLines: Send {
    /// Lines that were written since the last call, in milliseconds with their service; the first call: all that are
    /// kept. May wait for a disk.
    fn fresh(&mut self) -> Vec<(i64, ServiceName, String)>;
}

/// Runs services that outlive the agent, and programs that do not, each in its partition's group and confinement.
///
/// # What holds of each
/// - There is at most one run of a service at any time, whoever was killed meanwhile: shim, agent, or both.
/// - A run goes on when the agent ends, in whatever way, and is found again by the next one.
/// - When a run ends, it ends with all that it started; then [`Setting::settle`], then an [`Event::Partition`].
/// - What runs in a partition is held in by all of its [`Confinement`], and inherits nothing of the agent.
/// - [`Runtime::usage`] loses nothing: what a run has used can be read until another run of the service is started, or the
///   services are cleared, which is settled before.
/// - Calls about different services may run at once; about one they take turns. One that nobody waits for any more goes on
///   to its end, or leaves the service so that the same can be asked again; a program of [`Runtime::run`] is ended.
/// - A service with a watchdog is told of a socket that it can reach, in `NOTIFY_SOCKET`. When nobody of its user has said
///   `WATCHDOG=1` there for as long as its specification says, all of it is sent SIGABRT, and killed after the time of a
///   stop. `last_exit` says so; it has then failed, and was not told to end.
/// - Nothing here is decided: which service runs when, and again after which pause, is the plan's.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Which one it is, in a word.
    fn kind(&self) -> &'static str;

    /// Why there are no control groups: then usage is counted by processes, and not all of it can be told.
    fn without_groups(&self) -> Option<&str>;

    /// Takes over what runs; events are told from now on. Called once, within a tokio runtime, before all that follows.
    ///
    /// # Errors
    /// BAD_STATE_FILE if the records of runs cannot be read; SERVICE_START if who keeps the services does not say what runs.
    async fn open(&self) -> Result<Vec<Adopted>, Problem>;

    /// Makes each of these services run as its specification says, all at once; one that runs with the same fingerprint is
    /// left alone, one with another is stopped first. How each went, in their order.
    ///
    /// # Errors
    /// SERVICE_START if the program could not be started, NO_NAMESPACE if the partition's network could not be entered,
    /// PRIVILEGE if its user is root. That it ends later is not an error of this.
    async fn start(&self, place: &Place, specs: &[ServiceSpec]) -> Vec<Result<(), Problem>>;

    /// Returns when no process of the service is left: told to stop as its specification says, killed when that took too
    /// long. One that does not run is stopped already. Its short runs are forgotten, and from now on it counts as told to
    /// end ([`plat_agent_plan::facts::Ending::Told`]), also if it had ended by itself.
    async fn stop(&self, partition: &PartitionName, service: &ServiceName) -> Result<(), Problem>;

    /// Sends a signal to the first process of one run of a service; none if that run has ended.
    async fn reload(
        &self,
        partition: &PartitionName,
        service: &ServiceName,
        run: &str,
        signal: ReloadSignal,
    ) -> Result<(), Problem>;

    /// Kills all of the partition at once, and forgets its services with their logs. What it used can still be read where
    /// a group says it.
    async fn clear(&self, place: &Place) -> Result<(), Problem>;

    /// Of a partition that was cleared: its group goes too, and all that was written down of it.
    async fn forget(&self, partition: &PartitionName) -> Result<(), Problem>;

    /// Holds the partition to these amounts, from now on and until it is told others, also for what runs already where it
    /// can. Says which are enforced: an amount that is not said is not.
    ///
    /// # Errors
    /// SERVICE_START if what could enforce them did not take them.
    async fn limit(&self, place: &Place, asked: Resources) -> Result<Resources, Problem>;

    /// Whether what was told last by [`Runtime::limit`] holds still: not if somebody has taken away the groups that hold the
    /// partition to it. True if nothing was told.
    fn keeps_limits(&self, partition: &PartitionName) -> bool;

    /// What of a confinement cannot be kept on this machine, a line each: services run without that.
    ///
    /// # Errors
    /// If it cannot be found out.
    async fn unconfined(&self) -> Result<Vec<String>, Problem>;

    /// Which amounts it can enforce here, whoever's the partition is.
    fn enforces(&self) -> Enforced;

    /// Runs a program to its end. Dropping this ends it with all that it started.
    ///
    /// # Errors
    /// SERVICE_START or NO_NAMESPACE if it never began; with any other, nobody knows how far it came. That it failed is an
    /// answer.
    async fn run(&self, place: &Place, run: &Run) -> Result<Ran, Problem>;

    /// The services that it knows of, running or not.
    async fn observe(&self, partition: &PartitionName) -> Result<BTreeMap<ServiceName, ServiceFact>, Problem>;

    /// May wait for a disk.
    fn usage(&self, partition: &PartitionName, memory: Memory) -> Result<Usage, Problem>;

    /// What the instance's processes hold in memory, in bytes; `None` if that may not be read. May wait for a disk.
    fn memory(&self, partition: &PartitionName, instance: &InstanceId) -> Result<Option<u64>, Problem>;

    /// The control group that all of the partition is in; it is made if it is not there. `None` where there are none.
    fn group(&self, partition: &PartitionName) -> Option<PathBuf>;

    /// Where that group is, whether it is there or not.
    fn group_folder(&self, partition: &PartitionName) -> Option<PathBuf>;

    /// Of one service, or of all that there are when it is looked.
    fn logs(&self, partition: &PartitionName, service: Option<&ServiceName>) -> Box<dyn LogLines>;
}

/// Work that may wait for a disk: not on the agent's only thread.
pub async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    joined(tokio::task::spawn_blocking(work).await)
}

/// The result of a task; a task that panicked is a problem.
fn joined<T>(result: Result<Result<T, Problem>, tokio::task::JoinError>) -> Result<T, Problem> {
    result.unwrap_or_else(|e| Err(Problem::new(codes::INTERNAL, "a task of the agent failed").because(e)))
}

fn stop_signal(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Term => Signal::SIGTERM,
        StopSignal::Int => Signal::SIGINT,
        StopSignal::Quit => Signal::SIGQUIT,
        StopSignal::Hup => Signal::SIGHUP,
        StopSignal::Usr1 => Signal::SIGUSR1,
        StopSignal::Usr2 => Signal::SIGUSR2,
    }
}

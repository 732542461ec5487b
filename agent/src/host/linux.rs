//! The Linux host. Start at [`LinuxHost`]; each action goes to the module that does it.
//!
//! The agent itself holds records and sockets. What touches a partition or builds a release is done by small processes
//! that a [`spawner`] forks (see [`task`]), each of which becomes the partition's user, or the builder, before it does
//! anything.

mod account;
mod asked;
mod cgroup;
mod confine;
mod counters;
mod disk;
mod door;
mod journal;
mod logs;
mod namespace;
mod node_file;
mod partition;
mod posix;
mod probe;
mod process;
mod refused;
mod release;
pub mod runtime;
mod shim;
pub mod spawner;
mod task;
mod turns;

pub use account::assume;
pub use namespace::Network;
pub(crate) use posix::watched;
pub use release::share;

use super::{Counters, Event, Host, LogsAsked, Wanted, unread};
use crate::aside::Reached;
use crate::clock::Clock;
use crate::config::{ReleaseSettings, Runtime as Wish};
use crate::pace::Sparing;
use async_trait::async_trait;
use counters::{DiskLevels, Meters, Way};
use node_file::NodeFiles;
use partition::Occupants;
use partition::erase::EraseTask;
use partition::files::{FillTask, Secrets, WriteTask};
use partition::volumes::VolumesTask;
use plat_agent_plan::action::{ReloadHow, Run};
use plat_agent_plan::{Action, Disk, PartitionFact, ReleaseFact, StoreFacts, promise_log};
use plat_document::release::Check;
use plat_model::Problem;
use plat_model::id::{Digest, PartitionName, ServiceName};
use plat_model::node::{NodeFile, NodePartition};
use plat_model::problem::codes;
use plat_model::resources::{Enforced, Resources};
use plat_model::usage::Amount;
use probe::{MESSAGE_MAX, ProbeTask, Question};
use release::Releases;
use runtime::{Exit, Place, Ran, Records, Runtime, Setting, beside};
use spawner::Spawner;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use task::{Answer, Task};
use tokio::sync::mpsc;

/// The hidden subcommand of the agent's binary under which it is the spawner.
pub const SUBCOMMAND: &str = "shim";

/// For the very start of `main`, before there is a thread: if this process was started as one of the agent's own small
/// ones, does its work and says how to exit.
pub fn subcommand() -> Option<ExitCode> {
    (std::env::args_os().nth(1)? == SUBCOMMAND).then(spawner::main)
}

/// Where things are.
#[derive(Clone)]
pub struct LinuxConfig {
    /// The agent's own folder, 0700; the host's part of it is in `host/`.
    pub state: PathBuf,
    pub node_file: PathBuf,
    /// The agent's binary: `/proc/self/exe`, which stays the same one when its file is replaced.
    pub executable: PathBuf,
    /// Where all that it starts has its network.
    pub network: Network,
    /// What time it is. Shims, which outlive the agent, read the machine's.
    pub clock: Arc<dyn Clock>,
    /// What is to keep the services running.
    pub runtime: Wish,
}

/// This machine.
pub struct LinuxHost {
    state: PathBuf,
    node: NodeFiles,
    spawner: Arc<Spawner>,
    runtime: Arc<dyn Runtime>,
    occupants: Occupants,
    records: Records,
    refusals: Sparing,
    meters: Arc<Meters>,
    disks: DiskLevels,
    releases: Arc<Releases>,
    clock: Arc<dyn Clock>,
    /// What each partition was told to keep to, since the agent was started.
    limits: Mutex<BTreeMap<PartitionName, Resources>>,
    events: Mutex<Option<mpsc::Receiver<Event>>>,
    /// What runs in partitions is held in by all of its confinement.
    is_confining: bool,
}

impl LinuxHost {
    /// Opens the host's part of the agent's state, and finds the services that run. Within a tokio runtime.
    ///
    /// # Errors
    /// If the state's folder cannot be made. A node.json that is missing is told when it is needed.
    pub async fn open(config: LinuxConfig) -> Result<Self, Problem> {
        Self::open_with(config, &ReleaseSettings::default()).await
    }

    /// The same, with what `agent.toml` says about releases.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with(config: LinuxConfig, settings: &ReleaseSettings) -> Result<Self, Problem> {
        let state = config.state.join("host");
        disk::private_folder(&state)?;
        let state = state
            .canonicalize()
            .map_err(|e| disk::io_problem(codes::BAD_STATE_FILE, format!("cannot use {}", state.display()), &e))?;
        let (send, events) = mpsc::channel(256);
        let spawner = Arc::new(Spawner::new(config.executable, config.network.clone()));
        // The runtime has runs counted, and what counts asks the runtime.
        let counts: Arc<OnceLock<Weak<Meters>>> = Arc::default();
        let settle = {
            let counts = counts.clone();
            move |partition: &PartitionName| {
                if let Some(meters) = counts.get().and_then(Weak::upgrade) {
                    meters.settle(partition);
                }
            }
        };
        let setting = Setting {
            state: state.clone(),
            spawner: spawner.clone(),
            events: send.clone(),
            settle: Arc::new(settle),
            clock: config.clock.clone(),
        };
        let runtime = runtime::choose(config.runtime, setting).await?;
        if let Some(why) = runtime.without_groups() {
            tracing::info!(why, "without control groups: services are killed and counted by their processes");
        }
        let unconfined = runtime.unconfined().await?;
        if !unconfined.is_empty() {
            tracing::warn!(
                missing = unconfined.join("; "),
                "this machine does not let services be shut in as they should be"
            );
        }
        let records = Records::new(&state);
        let occupants = Occupants::open(&state, &records)?;
        let adopted = runtime.open().await?;
        tracing::info!(runtime = runtime.kind(), services = adopted.len(), "services taken over");
        // What has ended until here is read with the rest: nobody starts another run yet.
        let holders = occupants.holders().all();
        let meters = Arc::new(Meters::open(&state, runtime.clone(), config.clock.clone(), config.network, holders)?);
        let _ = counts.set(Arc::downgrade(&meters));
        let node = NodeFiles::new(config.node_file);
        if let Err(e) = node.watch(send.clone()) {
            tracing::warn!(why = %e, "node.json cannot be watched: a change is seen when it is next read");
        }
        if let Ok(file) = node.read() {
            Releases::clear_up(&file.releases);
        }
        Ok(Self {
            node,
            records,
            refusals: refused::sparingly(),
            occupants,
            disks: DiskLevels::default(),
            releases: Arc::new(Releases::new(spawner.clone(), &state, settings.clone(), send)),
            events: Mutex::new(Some(events)),
            state,
            spawner,
            runtime,
            meters,
            clock: config.clock,
            limits: Mutex::default(),
            is_confining: unconfined.is_empty(),
        })
    }

    /// Why the kernel's control groups are not used, if they are not.
    pub fn without_cgroups(&self) -> Option<&str> {
        self.runtime.without_groups()
    }

    /// The runtime that keeps the services.
    pub fn runtime(&self) -> &dyn Runtime {
        &*self.runtime
    }

    fn place(&self, name: &PartitionName) -> Result<Place, Problem> {
        let node = self.node.read()?;
        let partition = node.partition(name).cloned().ok_or_else(|| {
            Problem::new(codes::NO_NODE_FILE, format!("this node has no partition {name}"))
                .because("it is not in node.json")
                .fix("run `node-format plan` to see what would have to change")
        })?;
        Ok(Place { directory: node.root.join(name.as_str()), releases: node.releases.clone(), partition })
    }

    /// For a process that becomes their owner's.
    fn secrets(&self, partition: &PartitionName) -> Result<Secrets, Problem> {
        Ok(Secrets::of(&self.occupants.observe(partition)?.secrets))
    }

    fn held_to(&self) -> MutexGuard<'_, BTreeMap<PartitionName, Resources>> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn limit(&self, name: &PartitionName, asked: Resources) -> Result<(), Problem> {
        let enforced = self.runtime.limit(&self.place(name)?, asked).await?;
        if enforced != asked {
            tracing::info!(partition = %name, ?asked, ?enforced, "not all limits are enforced here");
        }
        self.held_to().insert(name.clone(), asked);
        Ok(())
    }

    /// Runs a program in the partition to its end.
    async fn run(&self, name: &PartitionName, run: &Run) -> Result<Ran, Problem> {
        let ran = self.runtime.run(&self.place(name)?, run).await?;
        let (meters, partition, used) = (self.meters.clone(), name.clone(), ran.used);
        // How it ended is what it is, whatever becomes of the count.
        if let Err(problem) = beside(move || meters.add(&partition, used)).await {
            tracing::warn!(partition = %name, problem = problem.one_line(), "what a program used is not written down yet");
        }
        Ok(ran)
    }

    /// Runs a program in the partition that has to succeed.
    async fn hook(&self, partition: &PartitionName, run: &Run, kind: &str) -> Result<(), Problem> {
        let ran = self.run(partition, run).await?;
        if !ran.timed_out && ran.exit == Exit::Code(0) {
            return Ok(());
        }
        let mut problem = release::build::failed(&format!("the {} {kind} failed", run.name), &ran, run.timeout_seconds);
        if problem.code != codes::DISK_FULL {
            problem.code = codes::HOOK_FAILED;
        }
        Err(problem)
    }

    async fn check(&self, name: &PartitionName, run: Run, check: &Check) -> Result<(bool, String), Problem> {
        let question = match check {
            Check::Exec(_) => {
                let timeout = run.timeout_seconds;
                let ran = self.run(name, &run).await?;
                let last = ran.tail.last().cloned().unwrap_or_default();
                let message = match (ran.timed_out, ran.exit) {
                    (true, _) => format!("it did not end within {timeout} s"),
                    (false, Exit::Code(0)) => last,
                    (false, exit) => format!("{exit}: {last}"),
                };
                return Ok((!ran.timed_out && ran.exit == Exit::Code(0), message.chars().take(MESSAGE_MAX).collect()));
            }
            Check::Http(http) => Question::Http(http.clone()),
            Check::Tcp(tcp) => Question::Tcp(tcp.clone()),
        };
        let NodePartition { account, namespace, .. } = self.place(name)?.partition;
        let task = Task::Probe(ProbeTask { question, timeout_seconds: run.timeout_seconds, account, namespace });
        match self.spawner.perform(&task).await? {
            Answer::Probed { holds, message } => Ok((holds, message)),
            other => Err(Problem::new(codes::INTERNAL, format!("a check answered {other:?}"))),
        }
    }

    async fn erase(&self, name: &PartitionName) -> Result<(), Problem> {
        let place = self.place(name)?;
        self.runtime.clear(&place).await?;
        let task = EraseTask {
            directory: place.directory,
            skeleton: self.node.read()?.skeleton.clone(),
            storage: place.partition.storage,
            account: place.partition.account,
        };
        self.spawner.perform(&Task::Erase(task)).await?;
        self.disks.forget(name);
        self.occupants.erased(name).await
    }

    async fn free(&self, name: &PartitionName) -> Result<(), Problem> {
        self.runtime.forget(name).await?;
        self.held_to().remove(name);
        let (meters, partition) = (self.meters.clone(), name.clone());
        beside(move || meters.forget(&partition)).await?;
        // The occupant last: while it is there, freeing is tried again.
        self.occupants.freed(name).await
    }
}

#[async_trait]
impl Host for LinuxHost {
    async fn node(&self) -> Result<NodeFile, Problem> {
        Ok((*self.node.read()?).clone())
    }

    fn runtime_name(&self) -> String {
        self.runtime.kind().into()
    }

    fn enforces(&self) -> Enforced {
        let node = self.node.read();
        let by_user = node.as_ref().is_ok_and(|node| node.partitions.iter().all(|one| one.account.is_some()));
        let disk = node.is_ok_and(|node| node.limits_disk());
        let here = self.runtime.enforces();
        Enforced { processes: here.processes || by_user, disk, confinement: self.is_confining, ..here }
    }

    async fn observe_release(&self, digest: &Digest) -> ReleaseFact {
        match self.node.read() {
            Ok(node) => self.releases.observe(&node, digest),
            Err(_) => ReleaseFact::Absent,
        }
    }

    async fn observe_releases(&self) -> Result<Vec<Digest>, Problem> {
        self.releases.list(&*self.node.read()?)
    }

    async fn observe_disks(&self) -> Result<BTreeMap<u64, Disk>, Problem> {
        self.releases.disks(&*self.node.read()?)
    }

    async fn observe_store(&self) -> Result<StoreFacts, Problem> {
        let (node, releases) = (self.node.read()?, self.releases.clone());
        beside(move || releases.stored(&node)).await
    }

    async fn observe_partition(&self, partition: &PartitionName) -> Result<PartitionFact, Problem> {
        let memory = self.occupants.observe(partition)?;
        let limits = self.held_to().get(partition).copied().filter(|_| self.runtime.keeps_limits(partition));
        Ok(PartitionFact {
            occupant: memory.occupant.clone(),
            limits,
            services: self.runtime.observe(partition).await?,
            promises: memory.promises.clone(),
            failures: Vec::new(),
        })
    }

    async fn perform(&self, action: &Action) -> Result<(), Problem> {
        self.permit(action)?;
        match action {
            Action::InstallRelease { digest, document } => {
                let node = self.node.read()?;
                self.releases.install(&node, digest, document).await
            }
            Action::RemoveRelease { digest } => {
                let node = self.node.read()?;
                self.releases.remove(&node, digest).await
            }
            Action::NoteUnused { digest, since } => {
                let node = self.node.read()?;
                self.releases.note_unused(&node, digest, *since)
            }
            Action::NoteUsed { digest } => self.releases.note_used(digest),
            Action::RemoveContent { path } => self.releases.remove_content(path),
            Action::Occupy { partition, instance, secrets } => {
                let way = Way::of(&self.place(partition)?.partition);
                let is_new = self.occupants.observe(partition)?.occupant.is_none();
                self.occupants.occupy(partition, instance, secrets).await?;
                if is_new {
                    self.held_to().insert(partition.clone(), Resources::default());
                }
                let (meters, partition, instance) = (self.meters.clone(), partition.clone(), instance.clone());
                beside(move || meters.begin(&partition, &instance, &way)).await
            }
            Action::Limit { partition, resources } => self.limit(partition, *resources).await,
            Action::PrepareVolumes { partition, volumes } => {
                let Place { directory, partition, .. } = self.place(partition)?;
                let task = VolumesTask { directory, account: partition.account, volumes: volumes.clone() };
                self.spawner.perform(&Task::Volumes(task)).await.map(drop)
            }
            // No process for nothing.
            Action::WriteFiles { files, .. } if files.is_empty() => Ok(()),
            Action::WriteFiles { partition, files } => {
                let place = self.place(partition)?;
                let (directory, account) = (place.directory, place.partition.account);
                let (files, secrets) = (files.clone(), self.secrets(partition)?);
                self.spawner.perform(&Task::Write(WriteTask { directory, account, files, secrets })).await.map(drop)
            }
            Action::Publish { partition, publication } => {
                // No process for what is known.
                if let Some(connection) = publication.constant() {
                    return self.occupants.published(partition, connection?, &publication.fingerprint).await;
                }
                let (account, secrets) = (self.place(partition)?.partition.account, self.secrets(partition)?);
                let task = FillTask { account, publication: publication.clone(), secrets };
                match self.spawner.perform(&Task::Fill(task)).await? {
                    Answer::Filled(connection) => {
                        self.occupants.published(partition, connection, &publication.fingerprint).await
                    }
                    other => Err(Problem::new(codes::INTERNAL, format!("filling in answered {other:?}"))),
                }
            }
            Action::Note { partition, note } => self.occupants.note(partition, note).await,
            Action::RunHook { partition, run } => self.hook(partition, run, "hook").await,
            Action::RunAsked { partition, number, run } => self.run_asked(partition, *number, run).await,
            Action::Reload { partition, service, run, how: ReloadHow::Signal(signal) } => {
                self.runtime.reload(partition, service, run, *signal).await
            }
            Action::Reload { partition, how: ReloadHow::Command(run), .. } => {
                self.hook(partition, run, "command").await
            }
            Action::StartService { partition, spec } => {
                let started = self.runtime.start(&self.place(partition)?, std::slice::from_ref(spec)).await;
                started.into_iter().collect()
            }
            Action::StopService { partition, service } => self.runtime.stop(partition, service).await,
            Action::CheckPromise { partition, promise, of, check, timeout_seconds, environment } => {
                let command = if let Check::Exec(command) = check { command.clone() } else { Vec::new() };
                let run = Run {
                    name: promise_log(promise),
                    command,
                    environment: environment.clone(),
                    directory: String::new(),
                    timeout_seconds: *timeout_seconds,
                };
                let said = match self.check(partition, run, check).await {
                    Err(problem) if [codes::SERVICE_START, codes::STALLED].contains(&problem.code) => {
                        (false, problem.one_line().chars().take(MESSAGE_MAX).collect())
                    }
                    other => other?,
                };
                self.occupants.checked(partition, promise, of, said, self.clock.moment()).await
            }
            Action::Erase { partition } => self.erase(partition).await,
            Action::Free { partition } => self.free(partition).await,
        }
    }

    async fn counters(
        &self,
        partitions: &[PartitionName],
        wanted: Wanted,
    ) -> Vec<(PartitionName, Result<Counters, Problem>)> {
        let (node, meters, disks) = (self.node.read(), self.meters.clone(), self.disks.clone());
        let (asked, partitions) = (partitions, partitions.to_vec());
        // Files of /proc and of control groups for each of them, and a sync: not on the agent's only thread.
        let read = tokio::task::spawn_blocking(move || {
            let places = node.as_ref().map(|node| counters::places(node, &partitions));
            let unknown = |why: String| (Amount::Unknown(why.clone()), Way::Unknown(why));
            let place = |partition: &PartitionName| match places.as_ref().map(|places| places.get(partition)) {
                Ok(Some((place, way))) => (disks.read(partition, place), way.clone()),
                Ok(None) => unknown("node.json has the partition no more".into()),
                Err(problem) => unknown(problem.one_line()),
            };
            meters.read(&partitions, wanted, place)
        });
        read.await.unwrap_or_else(|why| {
            let problem = Problem::new(codes::INTERNAL, "counters cannot be read").because(why);
            unread(asked, &problem)
        })
    }

    async fn logs(&self, asked: &LogsAsked) -> Result<mpsc::Receiver<(ServiceName, String)>, Problem> {
        logs::open(self, asked)
    }

    async fn door(&self, partition: &PartitionName) -> Result<Option<Reached>, Problem> {
        let place = self.place(partition)?;
        beside(move || door::open(place.directory, place.partition.account).map(Some)).await
    }

    fn events(&self) -> mpsc::Receiver<Event> {
        let taken = self.events.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Taken once: a second receiver hears nothing.
        taken.unwrap_or_else(|| mpsc::channel(1).1)
    }
}

impl std::fmt::Debug for LinuxHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LinuxHost({})", self.state.display())
    }
}

//! What a host is told to do. Every choice is made: names, paths, arguments and users are in the action, and the
//! executor may do it or fail, never decide. All effects of the agent on its host are one of these.

use crate::asked::Begun;
use crate::fingerprint;
use crate::render::Upkeep;
use crate::timers::Timer;
use plat_document::release::{Check, ReloadSignal, Restart, ServiceKind, StopSignal, VolumeKind};
use plat_document::template::Prepared;
use plat_model::id::{Digest, InstanceId, PartitionName, PromiseName, ServiceName};
use plat_model::parameters::{Parameters, Secret};
use plat_model::resources::Resources;
use plat_model::run::RunResult;
use plat_model::schedule::Schedule;
use plat_model::tree::Said;
use plat_model::{Problem, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// How the names of steps begin that check a promise.
pub(crate) const CHECK: &str = "check promise ";

/// One effect on the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Fetches, builds and publishes a release.
    InstallRelease {
        digest: Digest,
        document: String,
    },
    RemoveRelease {
        digest: Digest,
    },
    /// Writes down that nothing on the node needs a release any more, and since when.
    NoteUnused {
        digest: Digest,
        since: Timestamp,
    },
    NoteUsed {
        digest: Digest,
    },
    /// Removes a file of the cache, by its path within it, unless somebody is about to use it.
    RemoveContent {
        path: String,
    },
    /// Writes down who holds the partition, and makes those of its secrets (name → length) that it lacks. Refused
    /// while another instance holds it. For a new instance all else of the [`crate::facts::Occupant`] is empty.
    Occupy {
        partition: PartitionName,
        instance: InstanceId,
        secrets: BTreeMap<String, u32>,
    },
    /// Holds all of the partition together to these amounts, also what runs already; an amount that is not said is free. What
    /// the host cannot enforce it leaves, for the node says which those are.
    Limit {
        partition: PartitionName,
        resources: Resources,
    },
    /// Makes the directories [`crate::VOLUMES`]`/NAME` that are missing, its user's and nobody else's, and empties those that
    /// are scratch. Nothing of the instance runs.
    PrepareVolumes {
        partition: PartitionName,
        volumes: BTreeMap<String, VolumeKind>,
    },
    /// Fills in files beneath the partition's directory, as its user.
    WriteFiles {
        partition: PartitionName,
        files: Vec<FileTemplate>,
    },
    /// Writes down how far the instance has come.
    Note {
        partition: PartitionName,
        note: Note,
    },
    /// Fills in what the instance tells of itself, now that every ready promise has held. Sets `ready`, `connection` and
    /// `published`.
    Publish {
        partition: PartitionName,
        publication: Publication,
    },
    RunHook {
        partition: PartitionName,
        run: Run,
    },
    /// Runs a hook that somebody asked for. That it begins is written down before, and how it ended afterwards; that it fails
    /// is a result, not a failure. A number that has begun is never begun again.
    RunAsked {
        partition: PartitionName,
        number: u64,
        run: Run,
    },
    /// Starts a service, or keeps it running; it outlives the agent. When it has ended, nothing but the next of these
    /// starts it again.
    StartService {
        partition: PartitionName,
        spec: ServiceSpec,
    },
    /// Tells a service to stop, waits for it as long as its specification says, then kills what is left of it. Clears
    /// its `short_runs`; from now on it counts as told to end, also if it had ended by itself.
    StopService {
        partition: PartitionName,
        service: ServiceName,
    },
    /// Makes a service read its files again. Nothing to do once that run has ended: the next one reads them anyway.
    Reload {
        partition: PartitionName,
        service: ServiceName,
        run: String,
        how: ReloadHow,
    },
    /// Makes one check. That it does not hold is a result, not a failure: it goes into the facts.
    CheckPromise {
        partition: PartitionName,
        promise: PromiseName,
        /// What it is asked of: kept with the result, as its [`crate::PromiseFact::of`].
        of: String,
        check: Check,
        timeout_seconds: u32,
        environment: BTreeMap<String, String>,
    },
    /// Ends every process of the partition, and removes everything in it. Its occupant stays written down, as
    /// `erased`, without secrets, and its counters can still be read.
    Erase {
        partition: PartitionName,
    },
    /// Forgets the occupant: the partition is free.
    Free {
        partition: PartitionName,
    },
}

impl Action {
    /// The partition that it is about; `None` for releases.
    pub fn partition(&self) -> Option<&PartitionName> {
        match self {
            Self::InstallRelease { .. }
            | Self::RemoveRelease { .. }
            | Self::NoteUnused { .. }
            | Self::NoteUsed { .. }
            | Self::RemoveContent { .. } => None,
            Self::Occupy { partition, .. }
            | Self::Limit { partition, .. }
            | Self::PrepareVolumes { partition, .. }
            | Self::WriteFiles { partition, .. }
            | Self::Note { partition, .. }
            | Self::Publish { partition, .. }
            | Self::RunHook { partition, .. }
            | Self::RunAsked { partition, .. }
            | Self::StartService { partition, .. }
            | Self::StopService { partition, .. }
            | Self::Reload { partition, .. }
            | Self::CheckPromise { partition, .. }
            | Self::Erase { partition }
            | Self::Free { partition } => Some(partition),
        }
    }

    /// What it is, in a few words, for failures and logs: `run hook init`, `start service db`. Two actions of one
    /// partition with the same words are attempts at the same step.
    pub fn step(&self) -> String {
        match self {
            Self::InstallRelease { digest, .. } => format!("install release {}", digest.short()),
            Self::RemoveRelease { digest } => format!("remove release {}", digest.short()),
            Self::NoteUnused { digest, .. } => format!("note unused {}", digest.short()),
            Self::NoteUsed { digest } => format!("note used {}", digest.short()),
            Self::RemoveContent { path } => format!("remove content {path}"),
            Self::Occupy { .. } => "occupy".into(),
            Self::Limit { .. } => "limit".into(),
            Self::PrepareVolumes { .. } => "prepare volumes".into(),
            Self::WriteFiles { .. } => "write files".into(),
            Self::Note { .. } => "note".into(),
            Self::Publish { .. } => "publish".into(),
            Self::RunHook { run, .. } => format!("run hook {}", run.name),
            Self::RunAsked { number, run, .. } => format!("run hook {} as run {number}", run.name),
            Self::StartService { spec, .. } => format!("start service {}", spec.name),
            Self::StopService { service, .. } => format!("stop service {service}"),
            Self::Reload { service, .. } => format!("reload service {service}"),
            Self::CheckPromise { promise, .. } => format!("{CHECK}{promise}"),
            Self::Erase { .. } => "erase".into(),
            Self::Free { .. } => "free".into(),
        }
    }
}

/// How far an instance has come; kept on the agent's disk in this form, so a variant goes on meaning what it means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Note {
    /// Sets `initialised`.
    Initialised,
    /// With the fingerprint of what was applied. Sets `initialised`, `configured` and `upkeep`; the instance has to become
    /// ready anew.
    Configured { fingerprint: String, upkeep: Box<Upkeep> },
    /// Parameters that no file and no hook reads are others. Sets `upkeep`.
    KeptUp(Box<Upkeep>),
    /// Sets `started`.
    Started,
    /// Written by older agents, where now [`Action::Publish`] is performed. Sets `ready`, `connection` and `published`.
    Published(Parameters),
    /// The stop hook has run, or there was nothing to run it for: the start hook runs again after the next start.
    /// Clears `started`, `ready` and `prepared`, keeps `connection`.
    Stopped,
    /// The services are about to be restarted for a promise, for so many times in a row; 0: they have lasted. Sets
    /// `revivals`.
    Revived { times: u32 },
    /// A run of a service has read its files again. Adds to `reloaded`.
    Reloaded { service: ServiceName, loaded: Loaded },
    /// A one-shot with this fingerprint has succeeded. Sets `done`.
    Done { service: ServiceName, fingerprint: String },
    /// A service with a schedule is about to run, was passed over, or is waited for from now on. Sets `timers`.
    Timed { service: ServiceName, timer: Timer },
    /// Nothing is waited for any more: what comes due from now on is not missed. Clears `timers`.
    Untimed,
    /// What the instance says over its socket. Sets `spoken` and `said`, if it is still the one that is here.
    Told { instance: InstanceId, spoken: Parameters, said: Option<Said> },
    /// The clean hook has run. Sets `cleaned`.
    Cleaned,
    /// Its volumes are as they should be at a start. Sets `prepared`.
    Prepared { volumes: String },
    /// A run that was asked for is about to begin. Sets what of `asked` has begun.
    RunBegun(Begun),
    /// It is over, or will never begin. Adds to what of `asked` is over.
    RunOver(RunResult),
}

/// A file's path within the partition, and what its contents are made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileTemplate {
    /// Relative, without `..`.
    pub path: String,
    /// Permission bits, at most 0o750.
    pub mode: u32,
    pub template: Prepared,
}

/// What an instance tells whoever requested it, before it is filled in.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "PublicationForm")]
pub struct Publication {
    pub values: BTreeMap<String, Prepared>,
    /// Changes when what is filled in does.
    pub fingerprint: String,
}

/// As it is in a journal.
#[derive(Deserialize)]
#[serde(untagged)]
enum PublicationForm {
    Templates {
        values: BTreeMap<String, Prepared>,
        fingerprint: String,
    },
    /// Filled in already, by an older agent.
    Texts(BTreeMap<String, String>),
}

impl From<PublicationForm> for Publication {
    fn from(form: PublicationForm) -> Self {
        match form {
            PublicationForm::Templates { values, fingerprint } => Self { values, fingerprint },
            PublicationForm::Texts(texts) => Self {
                fingerprint: fingerprint::of(&texts),
                values: texts.into_iter().map(|(key, text)| (key, Prepared::verbatim(text))).collect(),
            },
        }
    }
}

impl Publication {
    /// What is published, with these secrets.
    ///
    /// # Errors
    /// As [`Prepared::fill`], with its key; TOO_LARGE.
    pub fn fill(&self, secrets: &BTreeMap<String, Secret>) -> Result<Parameters, Problem> {
        let filled = self.values.iter().map(|(key, template)| {
            let text = template.fill(secrets).map_err(|problem| problem.at(format!("publish.{key}")))?;
            Ok((key.clone(), Value::String(text)))
        });
        Parameters::new(filled.collect::<Result<_, Problem>>()?)
    }

    /// The same of one that is only texts, which no template has to be filled in for; `None` of any other.
    pub fn constant(&self) -> Option<Result<Parameters, Problem>> {
        let one = |(key, value): (&String, &Prepared)| Some((key.clone(), Value::String(value.constant()?.to_owned())));
        Some(Parameters::new(self.values.iter().map(one).collect::<Option<_>>()?))
    }
}

/// One program run to its end, as the partition's user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What it is, e.g. `init`; names its log.
    pub name: String,
    /// The first is an absolute path.
    pub command: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub environment: BTreeMap<String, String>,
    /// Relative to the partition's directory; empty: its top.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub directory: String,
    pub timeout_seconds: u32,
}

/// One service, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    pub name: ServiceName,
    pub instance: InstanceId,
    /// The first is an absolute path.
    pub command: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub environment: BTreeMap<String, String>,
    /// Relative to the partition's directory; empty: its top.
    pub directory: String,
    pub stop_signal: StopSignal,
    pub stop_timeout_seconds: u32,
    #[serde(default, skip_serializing_if = "ServiceKind::is_default")]
    pub kind: ServiceKind,
    /// It is given a socket in `NOTIFY_SOCKET` and ended by SIGABRT, then killed, when it does not say `WATCHDOG=1` there
    /// for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog_seconds: Option<u32>,
    /// Changes when anything above does, or a file that takes a restart.
    pub fingerprint: String,
    /// How files that changed are taken in without one; an older agent wrote none down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<ReloadSpec>,
    /// What the plan does when it has ended by itself. A host may do the same while there is no agent.
    #[serde(default, skip_serializing_if = "Restart::is_default")]
    pub restart: Restart,
    /// The times at which the plan has a one-shot run; `None`: once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

impl ServiceSpec {
    /// One with nothing but what it runs.
    pub fn bare(name: ServiceName, instance: InstanceId, command: Vec<String>) -> Self {
        Self {
            fingerprint: fingerprint::of(&command),
            name,
            instance,
            command,
            environment: BTreeMap::new(),
            directory: String::new(),
            stop_signal: StopSignal::Term,
            stop_timeout_seconds: 5,
            kind: ServiceKind::Service,
            watchdog_seconds: None,
            reload: None,
            restart: Restart::Always,
            schedule: None,
        }
    }

    /// Whether it is to run for as long as the instance does.
    pub(crate) fn stays(&self) -> bool {
        self.kind == ServiceKind::Service
    }
}

/// How a service takes in files that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadSpec {
    pub how: ReloadHow,
    /// Fingerprint of what it reads when it starts, and again when it reloads.
    pub files: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReloadHow {
    /// To its first process.
    Signal(ReloadSignal),
    Command(Run),
}

/// What a run of a service has read by a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loaded {
    pub run: String,
    /// As [`ReloadSpec::files`].
    pub files: String,
}

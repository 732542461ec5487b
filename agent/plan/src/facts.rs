//! What is there, as the host observed it. "Unknown" is an observation: what could not be read is looked at again, not
//! made anew.

use crate::action::{CHECK, Loaded, Note, ServiceSpec};
use crate::asked::Asked;
use crate::fingerprint;
use crate::moment::Moment;
use crate::render::Upkeep;
use crate::results::PromiseFact;
use crate::timers::Timer;
use plat_model::Problem;
use plat_model::id::{InstanceId, PromiseName, ServiceName};
use plat_model::parameters::Parameters;
use plat_model::resources::Resources;
use plat_model::tree::Said;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One release on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReleaseFact {
    Absent,
    /// Being built now; what it is doing.
    Building(String),
    /// Published under its digest, read-only.
    Installed,
    /// The last attempt failed. The daemon remembers that, not the host: after a restart it is tried at once.
    Failed {
        attempts: u32,
        at: Moment,
        problem: Problem,
    },
}

/// One partition of this node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct PartitionFact {
    /// Who it was given to. Survives restarts of the agent.
    pub occupant: Option<Occupant>,
    /// What it is held to; `None`: this agent has not told it yet. A new occupant begins with nothing.
    pub limits: Option<Resources>,
    /// Services that the runtime knows of, running or not.
    pub services: BTreeMap<ServiceName, ServiceFact>,
    /// What is known of each promise. Survives restarts of the agent.
    pub promises: BTreeMap<PromiseName, PromiseFact>,
    /// The steps that failed, each until it succeeds. The daemon remembers that; a host leaves it empty.
    pub failures: Vec<Failure>,
}

impl PartitionFact {
    /// How this step failed, if it did.
    pub fn failure(&self, step: &str) -> Option<&Failure> {
        self.failures.iter().find(|failure| failure.step == step)
    }

    /// What runs now, and with which configuration: another text after every start of a service, and after everything
    /// that was configured anew. A check is a check of that, whatever the clocks say. One-shots come and go beside it.
    pub fn runs(&self) -> String {
        let configured = self.occupant.as_ref().map(|occupant| occupant.configured.as_str());
        let upkeep = self.occupant.as_ref().and_then(|occupant| occupant.upkeep.as_ref());
        let stays = |name: &ServiceName| upkeep.and_then(|upkeep| upkeep.service(name)).is_none_or(ServiceSpec::stays);
        let running = self.services.iter().filter(|(_, fact)| matches!(fact.state, ServiceRun::Running { .. }));
        let runs: Vec<&str> = running.filter(|(name, _)| stays(name)).map(|(_, fact)| fact.run.as_str()).collect();
        fingerprint::of(&(configured, runs))
    }

    /// What the services are started from: another text after everything that was configured anew.
    pub fn built(&self) -> String {
        fingerprint::of(&("built", self.occupant.as_ref().map(|occupant| occupant.configured.as_str())))
    }
}

/// What the agent wrote down about the instance in a partition. [`crate::action::Note`] says what changes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Occupant {
    pub instance: InstanceId,
    /// Names of those that were generated for it. What they are stays on the host.
    pub secrets: BTreeSet<String>,
    /// The `init` hook has succeeded.
    pub initialised: bool,
    /// Fingerprint of the files, configure hook and release that were last applied whole; empty: never.
    pub configured: String,
    /// What was rendered last, to go on with while what is desired cannot be had. `None`: nothing, or an older agent did
    /// not write it down.
    pub upkeep: Option<Box<Upkeep>>,
    /// Fingerprint of the volumes that were made ready for this start; empty: none.
    pub prepared: String,
    /// The `start` hook has succeeded since the services were started.
    pub started: bool,
    /// Every ready promise has held since it was last configured and started.
    pub ready: bool,
    /// How often in a row the services were restarted for a promise, since they last lasted.
    pub revivals: u32,
    /// What runs of services have read since they were started.
    pub reloaded: BTreeMap<ServiceName, Loaded>,
    /// Fingerprints that one-shots have succeeded with last.
    pub done: BTreeMap<ServiceName, String>,
    /// From when on the next times of services with a schedule are counted.
    pub timers: BTreeMap<ServiceName, Timer>,
    /// What it published last; empty if it never did.
    pub connection: Parameters,
    /// Fingerprint of the [`crate::action::Publication`] that `connection` was filled in from.
    pub published: String,
    /// What it published itself, over its socket: laid over `connection`.
    pub spoken: Parameters,
    /// What it said of itself.
    pub said: Option<Said>,
    /// What became of the runs of hooks that were asked for.
    pub asked: Asked,
    /// The `clean` hook has run.
    pub cleaned: bool,
    /// Nothing of the instance is left but this record.
    pub erased: bool,
}

impl Occupant {
    /// An instance that has just been given a partition, without secrets yet.
    pub fn new(instance: InstanceId) -> Self {
        Self {
            instance,
            secrets: BTreeSet::new(),
            initialised: false,
            configured: String::new(),
            upkeep: None,
            prepared: String::new(),
            started: false,
            ready: false,
            revivals: 0,
            reloaded: BTreeMap::new(),
            done: BTreeMap::new(),
            timers: BTreeMap::new(),
            connection: Parameters::default(),
            published: String::new(),
            spoken: Parameters::default(),
            said: None,
            asked: Asked::default(),
            cleaned: false,
            erased: false,
        }
    }

    /// What publishing changes.
    pub fn published(&mut self, connection: Parameters, fingerprint: String) {
        (self.ready, self.connection, self.published) = (true, connection, fingerprint);
    }

    /// What a note changes.
    pub fn note(&mut self, note: &Note) {
        match note {
            Note::Initialised => self.initialised = true,
            Note::Configured { fingerprint, upkeep } => {
                self.initialised = true;
                self.configured.clone_from(fingerprint);
                self.done.retain(|name, _| upkeep.service(name).is_some());
                self.timers.retain(|name, _| upkeep.service(name).is_some());
                // A bang changes nothing that could help.
                if self.upkeep.as_ref() != Some(upkeep) {
                    self.revivals = 0;
                }
                self.upkeep = Some(upkeep.clone());
                self.ready = false;
            }
            Note::KeptUp(upkeep) => self.upkeep = Some(upkeep.clone()),
            Note::Started => self.started = true,
            // Without secrets the same is published from the same texts.
            Note::Published(connection) => self.published(connection.clone(), fingerprint::of(connection)),
            Note::Stopped => {
                (self.started, self.ready) = (false, false);
                self.prepared.clear();
            }
            Note::Prepared { volumes } => self.prepared.clone_from(volumes),
            Note::Revived { times } => self.revivals = *times,
            Note::Reloaded { service, loaded } => drop(self.reloaded.insert(service.clone(), loaded.clone())),
            Note::Done { service, fingerprint } => drop(self.done.insert(service.clone(), fingerprint.clone())),
            Note::Timed { service, timer } => drop(self.timers.insert(service.clone(), timer.clone())),
            Note::Untimed => self.timers.clear(),
            Note::Told { instance, spoken, said } if instance == &self.instance => {
                self.spoken = spoken.clone();
                self.said.clone_from(said);
            }
            // It came late: the partition is another's now.
            Note::Told { .. } => {}
            Note::Cleaned => self.cleaned = true,
            Note::RunBegun(begun) => self.asked.begin(begun),
            Note::RunOver(result) => self.asked.end(result),
        }
    }
}

/// A run that ends by itself when it is younger than this counts as short.
pub const STABLE_SECONDS: u32 = 60;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFact {
    /// Fingerprint of the [`crate::action::ServiceSpec`] that it was started with.
    pub fingerprint: String,
    /// Another one for each start; empty if it was never started.
    pub run: String,
    /// What it read when it was started, as [`crate::action::ReloadSpec::files`]; empty if nothing is reloaded.
    pub loaded: String,
    pub state: ServiceRun,
    /// Runs that ended since the service was first started with this fingerprint.
    pub restarts: u32,
    /// Runs in a row that ended by themselves before they were [`STABLE_SECONDS`] old. 0 after one that lasted, and
    /// after it was stopped on purpose.
    pub short_runs: u32,
    /// How the last run ended: `exit code 1`, `signal 9 (SIGKILL)`; empty if none ended yet.
    pub last_exit: String,
    /// Its last log lines, when it has just ended; at most 10, bounded.
    pub last_lines: Vec<String>,
    /// Why the last run could not begin at all, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Problem>,
}

impl ServiceFact {
    /// The first run of a service that was started with a specification of this fingerprint.
    pub fn started(fingerprint: String, run: String, state: ServiceRun) -> Self {
        Self {
            fingerprint,
            run,
            loaded: String::new(),
            state,
            restarts: 0,
            short_runs: 0,
            last_exit: String::new(),
            last_lines: Vec::new(),
            refused: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceRun {
    Running {
        pid: u32,
        since: Moment,
    },
    /// Told to stop and not gone yet.
    Stopping {
        pid: u32,
        since: Moment,
    },
    /// Not running: it ended, was stopped, or its runtime is gone. Nothing but `StartService` starts it again.
    Ended {
        at: Moment,
        how: Ending,
    },
    /// Could not be observed.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It exited with 0.
    Success,
    /// It exited with something else, was killed, or could not be started.
    Failure,
    /// It was told to, or went with its supervisor or its machine: that says nothing of the program.
    Told,
}

/// A step of a partition that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Name of the step, as [`crate::Action::step`] gives it.
    pub step: String,
    pub problem: Problem,
    /// In a row.
    pub attempts: u32,
    pub at: Moment,
}

impl Failure {
    /// Whether it counts also when nothing is left to do: what is asked again and again is not planned until it is due.
    pub fn outlasts_rest(&self) -> bool {
        self.step.starts_with(CHECK)
    }
}

//! What is there, as the host observed it. "Unknown" is an observation: what could not be read is looked at again, not
//! made anew.

use crate::action::{Loaded, Note};
use crate::fingerprint;
use crate::moment::Moment;
use crate::render::Upkeep;
use crate::results::PromiseFact;
use plat_model::Problem;
use plat_model::id::{InstanceId, PromiseName, ServiceName};
use plat_model::parameters::{Parameters, Secret};
use plat_model::resources::Resources;
use std::collections::BTreeMap;

/// One release on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PartitionFact {
    /// Who it was given to. Survives restarts of the agent.
    pub occupant: Option<Occupant>,
    /// What it is held to; `None`: this agent has not told it yet. A new occupant begins with nothing.
    pub limits: Option<Resources>,
    /// Services that the runtime knows of, running or not.
    pub services: BTreeMap<ServiceName, ServiceFact>,
    /// What is known of each promise. Survives restarts of the agent.
    pub promises: BTreeMap<PromiseName, PromiseFact>,
    /// The last step that failed, until it succeeds. The daemon remembers that; a host leaves it empty.
    pub failure: Option<Failure>,
}

impl PartitionFact {
    /// What runs now, and with which configuration: another text after every start of a service, and after everything
    /// that was configured anew. A check is a check of that, whatever the clocks say.
    pub fn runs(&self) -> String {
        let configured = self.occupant.as_ref().map(|occupant| occupant.configured.as_str());
        let running = |fact: &&ServiceFact| matches!(fact.state, ServiceRun::Running { .. });
        let runs: Vec<&str> = self.services.values().filter(running).map(|fact| fact.run.as_str()).collect();
        fingerprint::of(&(configured, runs))
    }

    /// What the services are started from: another text after everything that was configured anew.
    pub fn built(&self) -> String {
        fingerprint::of(&("built", self.occupant.as_ref().map(|occupant| occupant.configured.as_str())))
    }
}

/// What the agent wrote down about the instance in a partition. [`crate::action::Note`] says what changes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Occupant {
    pub instance: InstanceId,
    /// Generated once; rendered into files, never into arguments or environments.
    pub secrets: BTreeMap<String, Secret>,
    /// The `init` hook has succeeded.
    pub initialised: bool,
    /// Fingerprint of the files, configure hook and release that were last applied whole; empty: never.
    pub configured: String,
    /// What was rendered last, to go on with while what is desired cannot be had. `None`: nothing, or an older agent did
    /// not write it down.
    pub upkeep: Option<Box<Upkeep>>,
    /// The `start` hook has succeeded since the services were started.
    pub started: bool,
    /// Every ready promise has held since it was last configured and started.
    pub ready: bool,
    /// How often in a row the services were restarted for a promise, since they last lasted.
    pub revivals: u32,
    /// What runs of services have read since they were started.
    pub reloaded: BTreeMap<ServiceName, Loaded>,
    /// What it published last; empty if it never did.
    pub connection: Parameters,
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
            secrets: BTreeMap::new(),
            initialised: false,
            configured: String::new(),
            upkeep: None,
            started: false,
            ready: false,
            revivals: 0,
            reloaded: BTreeMap::new(),
            connection: Parameters::default(),
            cleaned: false,
            erased: false,
        }
    }

    /// What a note changes.
    pub fn note(&mut self, note: &Note) {
        match note {
            Note::Initialised => self.initialised = true,
            Note::Configured { fingerprint, upkeep } => {
                self.initialised = true;
                self.configured.clone_from(fingerprint);
                self.upkeep = Some(upkeep.clone());
                (self.ready, self.revivals) = (false, 0);
            }
            Note::KeptUp(upkeep) => self.upkeep = Some(upkeep.clone()),
            Note::Started => self.started = true,
            Note::Published(connection) => {
                self.ready = true;
                self.connection = connection.clone();
            }
            Note::Stopped => (self.started, self.ready) = (false, false),
            Note::Revived { times } => self.revivals = *times,
            Note::Reloaded { service, loaded } => drop(self.reloaded.insert(service.clone(), loaded.clone())),
            Note::Cleaned => self.cleaned = true,
        }
    }
}

/// A run that ends by itself when it is younger than this counts as short.
pub const STABLE_SECONDS: u32 = 60;

#[derive(Debug, Clone, PartialEq, Eq)]
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
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    },
    /// Could not be observed.
    Unknown,
}

/// A step of a partition that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Name of the step, as [`crate::Action::step`] gives it.
    pub step: String,
    pub problem: Problem,
    /// In a row.
    pub attempts: u32,
    pub at: Moment,
}

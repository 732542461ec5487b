//! What is written down of an occupant, whole.

use plat_agent_plan::action::{Loaded, Note};
use plat_agent_plan::facts::Occupant;
use plat_agent_plan::{Asked, Timer, Upkeep};
use plat_model::id::{InstanceId, ServiceName};
use plat_model::parameters::{Parameters, Secret};
use plat_model::tree::Said;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// In a file that only the agent may read.
#[derive(Clone, Serialize, Deserialize)]
pub struct Record {
    pub version: u32,
    instance: InstanceId,
    secrets: BTreeMap<String, String>,
    initialised: bool,
    configured: String,
    #[serde(default)]
    upkeep: Option<Box<Upkeep>>,
    #[serde(default)]
    prepared: String,
    started: bool,
    ready: bool,
    connection: Parameters,
    #[serde(default)]
    published: Option<String>,
    #[serde(default)]
    spoken: Parameters,
    #[serde(default)]
    said: Option<Said>,
    #[serde(default)]
    revivals: u32,
    #[serde(default)]
    reloaded: BTreeMap<ServiceName, Loaded>,
    #[serde(default)]
    done: BTreeMap<ServiceName, String>,
    #[serde(default)]
    timers: BTreeMap<ServiceName, Timer>,
    #[serde(default)]
    asked: Asked,
    cleaned: bool,
    erased: bool,
}

impl Record {
    pub const VERSION: u32 = 1;
}

impl Record {
    /// The occupant, and its secrets.
    pub fn take(self) -> (Occupant, BTreeMap<String, Secret>) {
        let mut occupant = Occupant {
            instance: self.instance,
            secrets: self.secrets.keys().cloned().collect(),
            initialised: self.initialised,
            configured: self.configured,
            upkeep: self.upkeep,
            prepared: self.prepared,
            started: self.started,
            ready: self.ready,
            revivals: self.revivals,
            reloaded: self.reloaded,
            done: self.done,
            timers: self.timers,
            connection: Parameters::default(),
            published: String::new(),
            spoken: self.spoken,
            said: self.said,
            asked: self.asked,
            cleaned: self.cleaned,
            erased: self.erased,
        };
        match self.published {
            Some(fingerprint) => (occupant.connection, occupant.published) = (self.connection, fingerprint),
            // An older agent's.
            None if occupant.ready => occupant.note(&Note::Published(self.connection)),
            None => occupant.connection = self.connection,
        }
        (occupant, self.secrets.into_iter().map(|(name, text)| (name, Secret::new(text))).collect())
    }

    pub fn of(occupant: &Occupant, secrets: &BTreeMap<String, Secret>) -> Self {
        let secrets = secrets.iter().map(|(name, secret)| (name.clone(), secret.reveal().to_owned()));
        Self {
            version: Self::VERSION,
            instance: occupant.instance.clone(),
            secrets: secrets.collect(),
            initialised: occupant.initialised,
            configured: occupant.configured.clone(),
            upkeep: occupant.upkeep.clone(),
            prepared: occupant.prepared.clone(),
            started: occupant.started,
            ready: occupant.ready,
            revivals: occupant.revivals,
            reloaded: occupant.reloaded.clone(),
            done: occupant.done.clone(),
            timers: occupant.timers.clone(),
            connection: occupant.connection.clone(),
            published: Some(occupant.published.clone()),
            spoken: occupant.spoken.clone(),
            said: occupant.said.clone(),
            asked: occupant.asked.clone(),
            cleaned: occupant.cleaned,
            erased: occupant.erased,
        }
    }
}

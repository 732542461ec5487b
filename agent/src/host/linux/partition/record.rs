//! What is written down of an occupant, whole.

use plat_agent_plan::Upkeep;
use plat_agent_plan::action::Loaded;
use plat_agent_plan::facts::Occupant;
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
    started: bool,
    ready: bool,
    connection: Parameters,
    #[serde(default)]
    spoken: Parameters,
    #[serde(default)]
    said: Option<Said>,
    #[serde(default)]
    revivals: u32,
    #[serde(default)]
    reloaded: BTreeMap<ServiceName, Loaded>,
    cleaned: bool,
    erased: bool,
}

impl Record {
    pub const VERSION: u32 = 1;
}

impl From<Record> for Occupant {
    fn from(record: Record) -> Self {
        Self {
            instance: record.instance,
            secrets: record.secrets.into_iter().map(|(name, text)| (name, Secret::new(text))).collect(),
            initialised: record.initialised,
            configured: record.configured,
            upkeep: record.upkeep,
            started: record.started,
            ready: record.ready,
            revivals: record.revivals,
            reloaded: record.reloaded,
            connection: record.connection,
            spoken: record.spoken,
            said: record.said,
            cleaned: record.cleaned,
            erased: record.erased,
        }
    }
}

impl From<&Occupant> for Record {
    fn from(occupant: &Occupant) -> Self {
        let secrets = occupant.secrets.iter().map(|(name, secret)| (name.clone(), secret.reveal().to_owned()));
        Self {
            version: Self::VERSION,
            instance: occupant.instance.clone(),
            secrets: secrets.collect(),
            initialised: occupant.initialised,
            configured: occupant.configured.clone(),
            upkeep: occupant.upkeep.clone(),
            started: occupant.started,
            ready: occupant.ready,
            revivals: occupant.revivals,
            reloaded: occupant.reloaded.clone(),
            connection: occupant.connection.clone(),
            spoken: occupant.spoken.clone(),
            said: occupant.said.clone(),
            cleaned: occupant.cleaned,
            erased: occupant.erased,
        }
    }
}

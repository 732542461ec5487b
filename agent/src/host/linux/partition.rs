//! Who holds a partition, and how far they have come: the agent's own record, durable before anything depends on it.

pub mod empty;
pub mod erase;
pub mod files;
mod leftovers;

use super::disk::{self, Durability, Stored, private_folder};
use super::runtime::Records;
use plat_agent_plan::action::Note;
use plat_agent_plan::facts::Occupant;
use plat_model::Problem;
use plat_model::id::{InstanceId, PartitionName};
use plat_model::parameters::{Parameters, Secret};
use plat_model::problem::codes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The record as it is on disk, 0600 in a folder of the agent's.
#[derive(Clone, Serialize, Deserialize)]
struct Record {
    version: u32,
    instance: InstanceId,
    secrets: BTreeMap<String, String>,
    initialised: bool,
    configured: String,
    started: bool,
    ready: bool,
    connection: Parameters,
    cleaned: bool,
    erased: bool,
}

impl Record {
    const VERSION: u32 = 1;
}

#[derive(Clone)]
pub struct Occupants {
    records: Records,
}

impl Occupants {
    pub fn new(records: Records) -> Self {
        Self { records }
    }

    fn path(&self, partition: &PartitionName) -> std::path::PathBuf {
        self.records.partition(partition).join("occupant.json")
    }

    fn read(&self, partition: &PartitionName) -> Result<Option<Record>, Problem> {
        let path = self.path(partition);
        let wrong = |why: String| {
            Problem::new(codes::BAD_STATE_FILE, format!("{} cannot be used", path.display()))
                .because(why)
                .fix("restore it from a backup, or remove it to give the partition up: its secrets are lost then")
        };
        match disk::read_json::<Record>(&path)? {
            Stored::Absent => Ok(None),
            Stored::Corrupt(why) => Err(wrong(why)),
            Stored::Value(record) if record.version != Record::VERSION => {
                Err(wrong(format!("it is of version {}, this agent reads version {}", record.version, Record::VERSION)))
            }
            Stored::Value(record) => Ok(Some(record)),
        }
    }

    fn write(&self, partition: &PartitionName, record: &Record) -> Result<(), Problem> {
        private_folder(&self.records.partition(partition))?;
        disk::replace_json(&self.path(partition), record, Durability::Power)
    }

    pub fn observe(&self, partition: &PartitionName) -> Result<Option<Occupant>, Problem> {
        Ok(self.read(partition)?.map(|r| Occupant {
            instance: r.instance,
            secrets: r.secrets.into_iter().map(|(name, text)| (name, Secret::new(text))).collect(),
            initialised: r.initialised,
            configured: r.configured,
            started: r.started,
            ready: r.ready,
            connection: r.connection,
            cleaned: r.cleaned,
            erased: r.erased,
        }))
    }

    /// Whether it is a new occupant.
    pub fn occupy(
        &self,
        partition: &PartitionName,
        instance: &InstanceId,
        secrets: &BTreeMap<String, u32>,
    ) -> Result<bool, Problem> {
        let held = self.read(partition)?;
        if let Some(other) = held.as_ref().filter(|record| &record.instance != instance) {
            return Err(Problem::new(codes::CONFLICT, format!("partition {partition} is held by another instance"))
                .because(format!("instance {} is in it", other.instance))
                .fix("wait until it has been destroyed"));
        }
        let fresh = held.is_none();
        let mut record = held.unwrap_or(Record {
            version: Record::VERSION,
            instance: instance.clone(),
            secrets: BTreeMap::new(),
            initialised: false,
            configured: String::new(),
            started: false,
            ready: false,
            connection: Parameters::default(),
            cleaned: false,
            erased: false,
        });
        let missing: Vec<_> = secrets.iter().filter(|(name, _)| !record.secrets.contains_key(*name)).collect();
        if fresh || !missing.is_empty() {
            for (name, length) in missing {
                record.secrets.insert(name.clone(), generate(*length)?);
            }
            self.write(partition, &record)?;
        }
        Ok(fresh)
    }

    pub fn note(&self, partition: &PartitionName, note: &Note) -> Result<(), Problem> {
        self.change(partition, |record| match note {
            Note::Initialised => record.initialised = true,
            Note::Configured(fingerprint) => {
                record.configured.clone_from(fingerprint);
                record.ready = false;
            }
            Note::Started => record.started = true,
            Note::Published(connection) => {
                record.ready = true;
                record.connection = connection.clone();
            }
            Note::Stopped => (record.started, record.ready) = (false, false),
            Note::Cleaned => record.cleaned = true,
        })
    }

    /// Nothing of the instance is left; its secrets go too.
    pub fn erased(&self, partition: &PartitionName) -> Result<(), Problem> {
        if self.read(partition)?.is_none() {
            return Ok(());
        }
        self.change(partition, |record| {
            record.erased = true;
            record.secrets.clear();
        })
    }

    fn change(&self, partition: &PartitionName, what: impl FnOnce(&mut Record)) -> Result<(), Problem> {
        let Some(mut record) = self.read(partition)? else {
            return Err(Problem::new(codes::BAD_STATE_FILE, format!("nobody holds partition {partition}")));
        };
        what(&mut record);
        self.write(partition, &record)
    }
}

/// Random letters and digits, each equally likely.
fn generate(length: u32) -> Result<String, Problem> {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let length = length.clamp(8, 128) as usize;
    let mut secret = String::new();
    while secret.len() < length {
        let mut raw = [0; 64];
        getrandom::fill(&mut raw)
            .map_err(|e| Problem::new(codes::INTERNAL, "the kernel gives no random numbers").because(e))?;
        // 248 is the largest multiple of 62 that a byte can hold; what is above would favour the first letters.
        let kept = raw.iter().filter(|b| **b < 248).map(|b| char::from(LETTERS[usize::from(*b) % 62]));
        secret.extend(kept.take(length - secret.len()));
    }
    Ok(secret)
}

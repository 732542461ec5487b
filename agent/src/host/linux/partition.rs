//! Who holds a partition, and how far they have come: the agent's own record, durable before anything depends on it.

pub mod empty;
pub mod erase;
pub mod files;
mod leftovers;

use super::disk::{self, Durability, Stored, private_folder};
use super::runtime::Records;
use plat_agent_plan::Upkeep;
use plat_agent_plan::action::{Loaded, Note};
use plat_agent_plan::facts::Occupant;
use plat_model::Problem;
use plat_model::id::{InstanceId, PartitionName, ServiceName};
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
    #[serde(default)]
    upkeep: Option<Box<Upkeep>>,
    started: bool,
    ready: bool,
    connection: Parameters,
    #[serde(default)]
    revivals: u32,
    #[serde(default)]
    reloaded: BTreeMap<ServiceName, Loaded>,
    cleaned: bool,
    erased: bool,
}

impl Record {
    const VERSION: u32 = 1;
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
            cleaned: occupant.cleaned,
            erased: occupant.erased,
        }
    }
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

    pub fn observe(&self, partition: &PartitionName) -> Result<Option<Occupant>, Problem> {
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
            Stored::Value(record) => Ok(Some(record.into())),
        }
    }

    /// The partitions that are held, and by whom. One whose record cannot be used is told of when it is observed.
    pub fn holders(&self) -> BTreeMap<PartitionName, InstanceId> {
        let all = self.records.partitions().into_iter();
        all.filter_map(|partition| {
            let occupant = self.observe(&partition).ok()??;
            Some((partition, occupant.instance))
        })
        .collect()
    }

    fn write(&self, partition: &PartitionName, occupant: &Occupant) -> Result<(), Problem> {
        private_folder(&self.records.partition(partition))?;
        disk::replace_json(&self.path(partition), &Record::from(occupant), Durability::Power)
    }

    /// Whether it is a new occupant.
    pub fn occupy(
        &self,
        partition: &PartitionName,
        instance: &InstanceId,
        secrets: &BTreeMap<String, u32>,
    ) -> Result<bool, Problem> {
        let held = self.observe(partition)?;
        if let Some(other) = held.as_ref().filter(|occupant| &occupant.instance != instance) {
            return Err(Problem::new(codes::CONFLICT, format!("partition {partition} is held by another instance"))
                .because(format!("instance {} is in it", other.instance))
                .fix("wait until it has been destroyed"));
        }
        let fresh = held.is_none();
        let mut occupant = held.unwrap_or_else(|| Occupant::new(instance.clone()));
        let missing: Vec<_> = secrets.iter().filter(|(name, _)| !occupant.secrets.contains_key(*name)).collect();
        if fresh || !missing.is_empty() {
            for (name, length) in missing {
                occupant.secrets.insert(name.clone(), Secret::new(generate(*length)?));
            }
            self.write(partition, &occupant)?;
        }
        Ok(fresh)
    }

    pub fn note(&self, partition: &PartitionName, note: &Note) -> Result<(), Problem> {
        self.change(partition, |occupant| occupant.note(note))
    }

    /// Nothing of the instance is left; its secrets go too.
    pub fn erased(&self, partition: &PartitionName) -> Result<(), Problem> {
        if self.observe(partition)?.is_none() {
            return Ok(());
        }
        self.change(partition, |occupant| {
            occupant.erased = true;
            occupant.secrets.clear();
        })
    }

    fn change(&self, partition: &PartitionName, what: impl FnOnce(&mut Occupant)) -> Result<(), Problem> {
        let Some(mut occupant) = self.observe(partition)? else {
            return Err(Problem::new(codes::BAD_STATE_FILE, format!("nobody holds partition {partition}")));
        };
        what(&mut occupant);
        self.write(partition, &occupant)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_before_there_were_reloads_and_revivals_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::new(folder.path());
        let partition = PartitionName::parse("part0").unwrap();
        private_folder(&records.partition(&partition)).unwrap();
        let text = r#"{"version": 1, "instance": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "secrets": {}, "initialised": true,
            "configured": "", "started": true, "ready": true, "connection": {}, "cleaned": false, "erased": false}"#;
        std::fs::write(records.partition(&partition).join("occupant.json"), text).unwrap();
        let occupant = Occupants::new(records).observe(&partition).unwrap().unwrap();
        assert!(occupant.ready && occupant.revivals == 0 && occupant.reloaded.is_empty());
    }

    #[test]
    fn what_is_written_down_of_an_occupant_is_read_back_whole() {
        let folder = tempfile::tempdir().unwrap();
        let occupants = Occupants::new(Records::new(folder.path()));
        let partition = PartitionName::parse("part0").unwrap();
        let instance = InstanceId::parse(&"a".repeat(32)).unwrap();
        occupants.occupy(&partition, &instance, &[("key".into(), 12)].into()).unwrap();
        let mut expected = occupants.observe(&partition).unwrap().unwrap();
        assert_eq!(expected.secrets["key"].reveal().len(), 12);
        let connection = Parameters::parse_json(r#"{"url": "here"}"#).unwrap();
        let upkeep = Box::new(Upkeep { environment: [("KEY".into(), "value".into())].into(), ..Upkeep::default() });
        let loaded = Loaded { run: "run1".into(), files: "files".into() };
        let reloaded = Note::Reloaded { service: ServiceName::parse("web").unwrap(), loaded };
        let configured = Note::Configured { fingerprint: "release/files".into(), upkeep };
        for note in [
            Note::Initialised,
            configured,
            Note::Started,
            Note::Published(connection),
            Note::Revived { times: 2 },
            reloaded,
            Note::Cleaned,
        ] {
            occupants.note(&partition, &note).unwrap();
            expected.note(&note);
            assert_eq!(occupants.observe(&partition).unwrap().as_ref(), Some(&expected));
        }
    }
}

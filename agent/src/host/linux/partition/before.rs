//! What agents until 0.1 wrote down of partitions: two files in a folder for each.

use super::record::Record;
use super::state::Memory;
use crate::host::linux::disk::{self, Stored};
use crate::host::linux::runtime::Records;
use plat_agent_plan::{PromiseFact, Steady};
use plat_model::Problem;
use plat_model::id::{PartitionName, PromiseName};
use plat_model::problem::codes;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(Deserialize)]
struct Results {
    version: u32,
    /// In which boot of the machine its steady times are.
    boot: String,
    results: BTreeMap<PromiseName, PromiseFact>,
}

fn occupant(records: &Records, partition: &PartitionName) -> PathBuf {
    records.partition(partition).join("occupant.json")
}

fn promises(records: &Records, partition: &PartitionName) -> PathBuf {
    records.partition(partition).join("promises.json")
}

/// `None` if there is nothing of before.
///
/// # Errors
/// BAD_STATE_FILE if nobody can tell who holds the partition.
pub fn read(records: &Records, partition: &PartitionName, boot: &str) -> Result<Option<Memory>, Problem> {
    let path = occupant(records, partition);
    let wrong = |why: String| {
        Problem::new(codes::BAD_STATE_FILE, format!("{} cannot be used", path.display()))
            .because(why)
            .fix("restore it from a backup, or remove it to give the partition up: its secrets are lost then")
    };
    let record = match disk::read_json::<Record>(&path)? {
        Stored::Absent => return Ok(None),
        Stored::Corrupt(why) => return Err(wrong(why)),
        Stored::Value(record) if record.version != Record::VERSION => {
            return Err(wrong(format!(
                "it is of version {}, this agent reads version {}",
                record.version,
                Record::VERSION
            )));
        }
        Stored::Value(record) => record,
    };
    let (occupant, secrets) = record.take();
    Ok(Some(Memory { occupant: Some(occupant), secrets, promises: results(records, partition, boot) }))
}

/// What makes no sense is asked anew.
fn results(records: &Records, partition: &PartitionName, boot: &str) -> BTreeMap<PromiseName, PromiseFact> {
    let mut kept = match disk::read_json::<Results>(&promises(records, partition)) {
        Ok(Stored::Value(kept)) if kept.version == 1 => kept,
        Ok(Stored::Absent) => return BTreeMap::new(),
        Ok(Stored::Value(_) | Stored::Corrupt(_)) | Err(_) => {
            tracing::warn!(%partition, "results of promises cannot be read; they are asked anew");
            return BTreeMap::new();
        }
    };
    if kept.boot != boot {
        kept.results.values_mut().for_each(|fact| fact.checked.steady = Steady::ZERO);
    }
    kept.results
}

/// Once what they say is in the journal.
pub fn remove(records: &Records, partition: &PartitionName) {
    for path in [promises(records, partition), occupant(records, partition)] {
        let _ = std::fs::remove_file(path);
    }
}

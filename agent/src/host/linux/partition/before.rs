//! What agents until 0.1 wrote down of partitions: two files in a folder for each. Whoever goes back to such an agent and
//! forward again has both: the files, and a journal that knew nothing of them.

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
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

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

/// What the files say, if an older agent wrote them after the journal, which knows this of the partition, was last written.
/// What says the same is removed, what is older is set aside.
///
/// # Errors
/// As [`read`]; also if the files were written first and say something else, and cannot be set aside.
pub fn newer(
    records: &Records,
    partition: &PartitionName,
    boot: &str,
    known: &Memory,
    written: Option<SystemTime>,
) -> Result<Option<Memory>, Problem> {
    let path = occupant(records, partition);
    let is_newer = modified(&path) > written;
    let Some(memory) = read(records, partition, boot).or_else(|problem| match is_newer {
        true => Err(problem),
        // Nobody needs to understand it.
        false => aside(&path).map(|()| None),
    })?
    else {
        return Ok(None);
    };
    if memory.occupant == known.occupant {
        remove(records, partition);
    } else if is_newer {
        return Ok(Some(memory));
    } else {
        aside(&path)?;
    }
    Ok(None)
}

/// When a file was last written; `None` if there is none.
pub fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|file| file.modified()).ok()
}

/// Clocks may be wrong, so it stays as long as the partition is held.
fn aside(path: &Path) -> Result<(), Problem> {
    let kept = path.with_extension("json.older");
    fs::rename(path, &kept)
        .map_err(|e| disk::io_problem(codes::BAD_STATE_FILE, format!("cannot set {} aside", path.display()), &e))?;
    tracing::warn!(file = %kept.display(), "an older agent's record of a partition is set aside for this one's newer one");
    Ok(())
}

/// Once what they say is in the journal.
pub fn remove(records: &Records, partition: &PartitionName) {
    for path in [promises(records, partition), occupant(records, partition)] {
        let _ = fs::remove_file(path);
    }
}

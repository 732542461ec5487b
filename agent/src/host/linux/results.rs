//! What promises have said, kept beside the record of who holds the partition: an agent that is started again goes on
//! asking where the last one stopped, and a ready instance is ready still.
//!
//! Results survive the end of the agent, not a loss of power: then every service is another run, of which nothing has been
//! asked yet, and a disk that is synced for each check would be busy with nothing else.

use super::disk::{self, Durability, Stored, private_folder};
use super::process::boot_id;
use super::runtime::Records;
use plat_agent_plan::{PromiseFact, Steady};
use plat_model::Problem;
use plat_model::id::{PartitionName, PromiseName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Promises of one partition that are remembered: as many as a release may have.
const PROMISES_MAX: usize = 64;

type Facts = BTreeMap<PromiseName, PromiseFact>;

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// In which boot of the machine its steady times are.
    boot: String,
    results: Facts,
}

const VERSION: u32 = 1;

/// The results of all partitions.
pub struct Results {
    records: Records,
    boot: String,
    /// Those that have been read.
    known: Mutex<BTreeMap<PartitionName, Facts>>,
}

impl Results {
    pub fn new(records: Records) -> Self {
        Self { records, boot: boot_id(), known: Mutex::default() }
    }

    fn path(&self, partition: &PartitionName) -> PathBuf {
        self.records.partition(partition).join("promises.json")
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PartitionName, Facts>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is not there, or makes no sense, is asked anew.
    fn read(&self, partition: &PartitionName) -> Facts {
        let kept = match disk::read_json::<Kept>(&self.path(partition)) {
            Ok(Stored::Value(kept)) if kept.version == VERSION => kept,
            Ok(Stored::Absent) => return Facts::new(),
            Ok(Stored::Value(_) | Stored::Corrupt(_)) | Err(_) => {
                tracing::warn!(%partition, "results of promises cannot be read; they are asked anew");
                return Facts::new();
            }
        };
        let mut results = kept.results;
        if kept.boot != self.boot {
            results.values_mut().for_each(|fact| fact.checked.steady = Steady::ZERO);
        }
        results
    }

    pub fn observe(&self, partition: &PartitionName) -> Facts {
        self.lock().entry(partition.clone()).or_insert_with(|| self.read(partition)).clone()
    }

    /// Keeps what a promise has said, after what it said before.
    ///
    /// # Errors
    /// If it cannot be written down; this agent knows it all the same.
    pub fn keep(
        &self,
        partition: &PartitionName,
        promise: &PromiseName,
        after: impl FnOnce(Option<&PromiseFact>) -> PromiseFact,
    ) -> Result<(), Problem> {
        let mut known = self.lock();
        let results = known.entry(partition.clone()).or_insert_with(|| self.read(partition));
        let fact = after(results.get(promise));
        results.insert(promise.clone(), fact);
        while results.len() > PROMISES_MAX {
            let oldest = results.iter().min_by_key(|(_, fact)| fact.checked.steady).map(|(name, _)| name.clone());
            oldest.map(|name| results.remove(&name));
        }
        private_folder(&self.records.partition(partition))?;
        let kept = Kept { version: VERSION, boot: self.boot.clone(), results: results.clone() };
        disk::replace_json(&self.path(partition), &kept, Durability::Process)
    }

    pub fn forget(&self, partition: &PartitionName) {
        let mut known = self.lock();
        known.remove(partition);
        let _ = std::fs::remove_file(self.path(partition));
    }
}

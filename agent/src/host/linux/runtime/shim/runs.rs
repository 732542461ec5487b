//! The last run of each service, as its shim has written it down, remembered until something starts or ends: in each
//! window all of them are asked for, and hardly any has changed.

use super::open::{Open, Room};
use crate::host::linux::process::boot_id;
use crate::host::linux::runtime::Records;
use crate::host::linux::shim::RunState;
use plat_model::Problem;
use plat_model::id::{PartitionName, ServiceName};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

/// What tells one writing of a record from another: each is a new file.
type Version = (u64, i64, i64);

/// One run.
pub struct Seen {
    pub service: ServiceName,
    pub record: RunState,
    /// Its shim was there, and has not been found to be gone since.
    pub attended: bool,
    version: Option<Version>,
    /// What is read of it again and again.
    pub open: Open,
}

impl Seen {
    /// Whether its shim has written something since.
    pub fn is_old(&self, records: &Records, partition: &PartitionName) -> bool {
        self.version != version(records, partition, &self.service)
    }
}

fn version(records: &Records, partition: &PartitionName, service: &ServiceName) -> Option<Version> {
    let meta = fs::metadata(records.state(partition, service)).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec()))
}

/// The runs of one partition, the earliest first, and how often they had changed when that was looked up.
type Known = (u64, Option<Arc<Vec<Seen>>>);

pub struct Runs {
    known: Mutex<BTreeMap<PartitionName, Known>>,
    room: Arc<Room>,
}

impl Runs {
    pub fn new() -> Self {
        Self { known: Mutex::default(), room: Room::new() }
    }

    /// To be called when a run begins, or has been found to have ended: before anything relies on that.
    pub fn changed(&self, partition: &PartitionName) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (changes, runs) = known.entry(partition.clone()).or_default();
        (*changes, *runs) = (*changes + 1, None);
    }

    /// Of a partition that is freed.
    pub fn forget(&self, partition: &PartitionName) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(partition);
    }

    pub fn of(&self, records: &Records, partition: &PartitionName) -> Result<Arc<Vec<Seen>>, Problem> {
        let before = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            match known.get(partition) {
                Some((_, Some(runs))) => return Ok(runs.clone()),
                other => other.map_or(0, |(changes, _)| *changes),
            }
        };
        let runs = Arc::new(self.look_up(records, partition)?);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (changes, kept) = known.entry(partition.clone()).or_default();
        // What changed meanwhile is looked up by whoever asks next.
        if *changes == before {
            *kept = Some(runs.clone());
        }
        Ok(runs)
    }

    fn look_up(&self, records: &Records, partition: &PartitionName) -> Result<Vec<Seen>, Problem> {
        let boot = boot_id();
        let mut runs = Vec::new();
        for service in records.services(partition)? {
            // First: what is written from here on is another version.
            let version = version(records, partition, &service);
            if let Some(record) = records.run(partition, &service)? {
                let attended = record.is_attended(&boot);
                runs.push(Seen { service, record, attended, version, open: Open::new(self.room.clone()) });
            }
        }
        runs.sort_by_key(|seen| seen.record.started);
        // They stay for as long as nothing starts or ends.
        runs.shrink_to_fit();
        Ok(runs)
    }
}

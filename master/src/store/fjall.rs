//! fjall as the engine: every write is appended to a journal, under a checksum, and synced; a thread of its own moves
//! what has been journalled into sorted files that are never written over.

use super::folder::{cannot_open, sync_path};
use super::group::{Engine, Rows, Visit};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use plat_model::Problem;
use plat_model::problem::codes;
use std::ops::ControlFlow;
use std::path::Path;

const KEYSPACE: &str = "records";
/// The state is in memory already; what is read from here is the ledger and the audit log.
const CACHE_BYTES: u64 = 8 << 20;
/// What is journalled and not yet in a sorted file, at most: bounds memory, and the journal that a start reads again.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// The least that fjall allows.
const JOURNAL_BYTES: u64 = 64 << 20;

pub(super) struct FjallEngine {
    database: Database,
    rows: Keyspace,
}

impl FjallEngine {
    pub fn open(folder: &Path) -> Result<Self, Problem> {
        let failed = |cause: fjall::Error| {
            cannot_open(folder).because(cause).fix("check the room on its disk; if it is damaged, restore a backup")
        };
        let (home, fresh) = (folder.join("fjall"), folder.join("fjall.new"));
        if !home.is_dir() {
            // What a power loss left half made must not be taken for a store: it gets its name when it is whole.
            make(folder, &fresh, &home).map_err(failed)?;
        }
        connect(&home).map_err(failed)
    }
}

fn make(folder: &Path, fresh: &Path, home: &Path) -> fjall::Result<()> {
    if fresh.is_dir() {
        std::fs::remove_dir_all(fresh)?;
    }
    let engine = connect(fresh)?;
    engine.database.persist(PersistMode::SyncAll)?;
    drop(engine);
    std::fs::rename(fresh, home)?;
    sync_path(folder)?;
    Ok(())
}

fn connect(home: &Path) -> fjall::Result<FjallEngine> {
    let database =
        Database::builder(home).cache_size(CACHE_BYTES).worker_threads(1).max_journaling_size(JOURNAL_BYTES).open()?;
    let rows = database.keyspace(KEYSPACE, || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES))?;
    Ok(FjallEngine { database, rows })
}

impl Engine for FjallEngine {
    fn write(&self, rows: &Rows) -> Result<(), Problem> {
        let mut batch = self.database.batch().durability(Some(PersistMode::SyncData));
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(&self.rows, &key[..], &value[..]),
                None => batch.remove(&self.rows, &key[..]),
            }
        }
        batch.commit().map_err(|cause| {
            Problem::new(codes::STORE_FAILED, "cannot write to the store")
                .because(cause)
                .fix("make room on the disk or mend it, then start the master again")
        })
    }

    fn scan(&self, range: (&[u8], &[u8]), visit: Visit<'_>) -> Result<(), Problem> {
        for row in self.rows.range(range.0..range.1) {
            let (key, value) = row.into_inner().map_err(unreadable)?;
            if visit(&key, &value)? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
        Ok(self.rows.get(key).map_err(unreadable)?.map(|value| value.to_vec()))
    }

    fn last(&self, range: (&[u8], &[u8])) -> Result<Option<Vec<u8>>, Problem> {
        let row = self.rows.range(range.0..range.1).next_back();
        row.map(|row| row.key().map(|key| key.to_vec())).transpose().map_err(unreadable)
    }
}

fn unreadable(cause: fjall::Error) -> Problem {
    Problem::new(codes::STORE_FAILED, "cannot read the store")
        .because(cause)
        .fix("check the disk; if it is damaged, restore the store's folder from a backup")
}

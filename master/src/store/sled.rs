//! sled 0.34 as the engine. Its `flush` ends in `sync_file_range`, which promises nothing over power loss, and it
//! syncs neither `conf` nor the blobs that it puts beside its log; so its files are synced here before a write
//! returns. That is enough for what it appends, and not for what it writes over: see the decision record on the store.

use super::folder::{cannot_open, sync_path};
use super::group::{Engine, Rows, Visit};
use plat_model::Problem;
use plat_model::problem::codes;
use sled::{Batch, Db};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const CACHE_BYTES: u64 = 16 << 20;
const UNLOCK_WAIT: Duration = Duration::from_secs(5);

pub(super) struct SledEngine {
    database: Db,
    log: File,
    blobs: PathBuf,
    /// Blobs that are durable. A blob is written once.
    synced: Mutex<BTreeSet<OsString>>,
}

impl SledEngine {
    pub fn open(folder: &Path) -> Result<Self, Problem> {
        let failed = |cause: String| {
            cannot_open(folder).because(cause).fix("check the room on its disk; if it is damaged, restore a backup")
        };
        let home = folder.join("sled");
        if !home.is_dir() {
            make(folder, &home).map_err(failed)?;
        }
        remove_unfinished(&home).map_err(|cause| failed(cause.to_string()))?;
        let database = open_released(&home).map_err(|cause| failed(cause.to_string()))?;
        let log =
            sync_all(&home).and_then(|()| File::open(home.join("db"))).map_err(|cause| failed(cause.to_string()))?;
        let engine = Self { database, log, blobs: home.join("blobs"), synced: Mutex::default() };
        engine.write(&Rows::new())?;
        Ok(engine)
    }

    /// Makes durable what sled wrote, blobs before the log that points to them.
    fn sync(&self) -> io::Result<()> {
        let mut synced = self.synced.lock().unwrap_or_else(PoisonError::into_inner);
        let mut present = BTreeSet::new();
        let mut fresh = false;
        for entry in std::fs::read_dir(&self.blobs)? {
            let name = entry?.file_name();
            if !synced.contains(&name) {
                match sync_path(&self.blobs.join(&name)) {
                    Ok(()) => fresh = true,
                    // sled has removed it meanwhile.
                    Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
                    Err(cause) => return Err(cause),
                }
            }
            present.insert(name);
        }
        if fresh {
            sync_path(&self.blobs)?;
        }
        *synced = present;
        self.log.sync_data()
    }
}

/// An empty database gets its name when all of it is durable: sled syncs none of what it makes.
fn make(folder: &Path, home: &Path) -> Result<(), String> {
    let fresh = folder.join("sled.new");
    if fresh.is_dir() {
        std::fs::remove_dir_all(&fresh).map_err(|cause| cause.to_string())?;
    }
    let database = open_released(&fresh).map_err(|cause| cause.to_string())?;
    database.flush().map_err(|cause| cause.to_string())?;
    drop(database);
    let name = || {
        sync_all(&fresh)?;
        std::fs::rename(&fresh, home)?;
        sync_path(folder)
    };
    name().map_err(|cause: io::Error| cause.to_string())
}

/// A snapshot that sled had not finished when it died. sled means to pass over it, looks for another ending, takes it for
/// the newest one and does not open. A snapshot only shortens the reading of the log.
fn remove_unfinished(home: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(home)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "generating") {
            std::fs::remove_file(path)?;
        }
    }
    sync_path(home)
}

/// conf, db, snapshots, the folder of blobs, and the names of them.
fn sync_all(home: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(home)? {
        match sync_path(&entry?.path()) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
    }
    sync_path(home)
}

/// sled unlocks its file some time after its last handle is dropped. The folder is locked by us, so a lock on the file
/// can only be such a rest of this process, and goes away.
fn open_released(home: &Path) -> sled::Result<Db> {
    // Without its own flusher: only the commit thread flushes, so there is never more than one at a time.
    let config = sled::Config::new().path(home).flush_every_ms(None).cache_capacity(CACHE_BYTES);
    let deadline = Instant::now() + UNLOCK_WAIT;
    loop {
        match config.open() {
            Err(sled::Error::Io(cause)) if cause.to_string().contains("lock") && Instant::now() < deadline => {
                std::thread::park_timeout(Duration::from_millis(2));
            }
            result => return result,
        }
    }
}

impl Engine for SledEngine {
    fn write(&self, rows: &Rows) -> Result<(), Problem> {
        let failed = |cause: String| {
            Problem::new(codes::STORE_FAILED, "cannot write to the store")
                .because(cause)
                .fix("make room on the disk or mend it, then start the master again")
        };
        let mut batch = Batch::default();
        for (key, value) in rows {
            match value {
                Some(value) => batch.insert(&key[..], &value[..]),
                None => batch.remove(&key[..]),
            }
        }
        self.database.apply_batch(batch).map_err(|cause| failed(cause.to_string()))?;
        self.database.flush().map_err(|cause| failed(cause.to_string()))?;
        self.sync().map_err(|cause| failed(cause.to_string()))
    }

    fn scan(&self, range: (&[u8], &[u8]), visit: Visit<'_>) -> Result<(), Problem> {
        for row in self.database.range(range.0..range.1) {
            let (key, value) = row.map_err(unreadable)?;
            if visit(&key, &value)? == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Problem> {
        Ok(self.database.get(key).map_err(unreadable)?.map(|value| value.to_vec()))
    }

    fn last(&self, range: (&[u8], &[u8])) -> Result<Option<Vec<u8>>, Problem> {
        let row = self.database.range(range.0..range.1).next_back();
        Ok(row.transpose().map_err(unreadable)?.map(|(key, _)| key.to_vec()))
    }
}

fn unreadable(cause: sled::Error) -> Problem {
    Problem::new(codes::STORE_FAILED, "cannot read the store")
        .because(cause)
        .fix("check the disk; if it is damaged, restore the store's folder from a backup")
}

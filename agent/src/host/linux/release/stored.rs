//! What releases and the cache take of the disk, and since when nothing uses it.

use super::cache::store::{OFFER, PARTIAL};
use super::{Doing, LOGS_MAX, Releases, is_whole};
use crate::host::linux::disk::{self, Durability, Stored as File, io_problem};
use plat_agent_plan::{Disk, ReleaseFact, StoreFacts, Stored, StoredFact};
use plat_model::id::Digest;
use plat_model::node::NodeFile;
use plat_model::problem::codes;
use plat_model::{Problem, Timestamp};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{SystemTime, UNIX_EPOCH};

impl Releases {
    /// The disks that releases and the cache are on.
    pub fn disks(&self, node: &NodeFile) -> Result<BTreeMap<u64, Disk>, Problem> {
        let mut disks = BTreeMap::new();
        for place in [node.releases.as_path(), self.cache.folder()] {
            let (id, free) = disk_of(place).map_err(|e| {
                io_problem(codes::BAD_STATE_FILE, format!("cannot look at the disk of {}", place.display()), &e)
            })?;
            let disk = || Disk { place: place.display().to_string(), free, asked: Vec::new() };
            let disk = disks.entry(id).or_insert_with(disk);
            if place == self.cache.folder() {
                disk.asked = self.cache.room.asked();
            }
        }
        Ok(disks)
    }

    pub fn stored(&self, node: &NodeFile) -> Result<StoreFacts, Problem> {
        let disks = self.disks(node)?;
        let on = |place: &Path| disk_of(place).map_or(0, |(id, _)| id);
        let (releases_on, cache_on) = (on(&node.releases), on(self.cache.folder()));
        let releases = self.list(node)?.into_iter().map(|digest| StoredFact {
            unused_since: self.unused_since(&digest),
            what: Stored::Release(digest),
            disk: releases_on,
            bytes: None,
            busy: false,
        });
        let mut entries: Vec<StoredFact> = releases.collect();
        for folder in ["sha256", "sha512", PARTIAL] {
            let files = fs::read_dir(self.cache.folder().join(folder)).into_iter().flatten().flatten();
            entries.extend(files.filter_map(|file| {
                let path = format!("{folder}/{}", file.file_name().to_str()?);
                let about = file.metadata().ok()?;
                let used = about.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
                Some(StoredFact {
                    busy: self.cache.is_wanted(&path),
                    what: Stored::Content(path),
                    disk: cache_on,
                    bytes: Some(about.blocks() * 512),
                    unused_since: Some(Timestamp(i64::try_from(used.as_millis()).ok()?)),
                })
            }));
        }
        Ok(StoreFacts { entries, disks })
    }

    /// Nothing is remembered of a release that is not there.
    pub fn note_unused(&self, node: &NodeFile, digest: &Digest, since: Timestamp) -> Result<(), Problem> {
        if !is_whole(&node.releases.join(digest.as_str())) {
            return Ok(());
        }
        disk::private_folder(&self.logs)?;
        disk::replace_json(&self.unused_path(digest), &since, Durability::Process)
    }

    pub fn note_used(&self, digest: &Digest) -> Result<(), Problem> {
        let path = self.unused_path(digest);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(io_problem(codes::BAD_STATE_FILE, format!("cannot remove {}", path.display()), &e))
            }
            _ => Ok(()),
        }
    }

    pub fn log_path(&self, digest: &Digest) -> PathBuf {
        self.logs.join(format!("{digest}.log"))
    }

    /// Where the log of a release's builds is, and what tells whether one is under way.
    ///
    /// # Errors
    /// NOT_FOUND if none was begun here.
    pub fn log(&self, digest: &Digest) -> Result<(PathBuf, Doing), Problem> {
        let path = self.log_path(digest);
        if !path.exists() && !self.building.is_building(digest) {
            return Err(Problem::new(codes::NOT_FOUND, format!("release {} has no log on this node", digest.short()))
                .because("its build has not begun, or it was removed with its log"));
        }
        Ok((path, self.building.clone()))
    }

    /// Of releases that are not there, whose builds failed or were removed elsewhere, the newest logs stay.
    pub fn forget_old_logs(&self, node: &NodeFile) {
        let entries = fs::read_dir(&self.logs).into_iter().flatten().flatten();
        let mut old: Vec<(SystemTime, PathBuf)> = entries
            .filter_map(|entry| {
                let digest = Digest::parse(entry.file_name().to_str()?.get(..64)?).ok()?;
                let is_idle = self.observe(node, &digest) == ReleaseFact::Absent;
                Some((entry.metadata().ok()?.modified().ok()?, entry.path())).filter(|_| is_idle)
            })
            .collect();
        old.sort();
        let newest = old.len().saturating_sub(LOGS_MAX);
        old.iter().take(newest).for_each(|(_, path)| drop(fs::remove_file(path)));
    }

    fn unused_since(&self, digest: &Digest) -> Option<Timestamp> {
        match disk::read_json(&self.unused_path(digest)) {
            Ok(File::Value(since)) => Some(since),
            // Then it is from now on.
            _ => None,
        }
    }

    fn unused_path(&self, digest: &Digest) -> PathBuf {
        self.logs.join(format!("{digest}.unused"))
    }

    pub fn remove_content(&self, path: &str) -> Result<(), Problem> {
        // From here on nobody begins to want it until it is gone.
        let wanted = self.cache.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if super::cache::is_of(&wanted, path) {
            return Ok(());
        }
        let illegal = || Problem::new(codes::BAD_VALUE, "there is no such file in the cache").because(path);
        let (folder, name) = path.split_once('/').ok_or_else(illegal)?;
        let is_legal = !name.starts_with('.') || (folder == PARTIAL && name.starts_with(OFFER));
        if !["sha256", "sha512", PARTIAL].contains(&folder) || name.contains('/') || !is_legal {
            return Err(illegal());
        }
        let path = self.cache.folder().join(path);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(io_problem(codes::BAD_STATE_FILE, format!("cannot remove {}", path.display()), &e))
            }
            _ => {
                self.cache.room.freed();
                Ok(())
            }
        }
    }
}

/// The number of the disk of what is, or will be, at a place, and how many bytes are free on it.
pub fn disk_of(place: &Path) -> io::Result<(u64, u64)> {
    let mut here = place;
    let about = loop {
        match fs::metadata(here) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => here = here.parent().ok_or(e)?,
            other => break other?,
        }
    };
    let free = rustix::fs::statvfs(here)?;
    Ok((about.dev(), free.f_bavail * free.f_frsize))
}

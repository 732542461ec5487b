//! What a build writes, watched while it does: no limit of the kernel is of a folder.

use crate::host::linux::counters::Walk;
use crate::host::linux::shim::tree::Over;
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long it is counted at a time.
const SLICE: Duration = Duration::from_millis(50);

pub struct DiskUse {
    folder: PathBuf,
    most: u64,
    spare: u64,
    walk: RefCell<Option<Walk>>,
}

impl DiskUse {
    /// `most`: bytes that the folder may have. `spare`: bytes that must stay free on its disk.
    pub fn new(folder: &Path, most: u64, spare: u64) -> Self {
        Self { folder: folder.to_owned(), most, spare, walk: RefCell::default() }
    }

    /// Looks at the disk.
    pub fn full(&self) -> Option<Over> {
        let disk = rustix::fs::statvfs(&self.folder).ok()?;
        (disk.f_bavail * disk.f_frsize < self.spare).then_some(Over::Free(self.spare))
    }

    /// Goes on counting, and looks at the disk.
    pub fn over(&self) -> Option<Over> {
        if let Some(full) = self.full() {
            return Some(full);
        }
        let mut walk = self.walk.borrow_mut();
        if walk.is_none() {
            *walk = Walk::begin(&self.folder).ok();
        }
        match walk.as_mut().map(|walk| walk.go_on(Instant::now() + SLICE)) {
            Some(Ok(Some(bytes))) => {
                *walk = None;
                (bytes > self.most).then_some(Over::Written(self.most))
            }
            Some(Err(_)) => {
                *walk = None;
                None
            }
            Some(Ok(None)) | None => None,
        }
    }

    /// Counts all of it, when nobody writes to it any more.
    pub fn over_in_the_end(&self) -> Option<Over> {
        let mut walk = Walk::begin(&self.folder).ok()?;
        loop {
            match walk.go_on(Instant::now() + SLICE) {
                Ok(Some(bytes)) => return (bytes > self.most).then_some(Over::Written(self.most)),
                Ok(None) => {}
                Err(_) => return None,
            }
        }
    }
}

//! The cache on the disk: `sha256/DIGITS` and `sha512/DIGITS`, whole or not there, and `partial/` with what is being
//! fetched. Files are the agent's and nobody writes to them; whoever holds the folder may read them.

use super::pin::Pin;
use crate::host::linux::disk::io_problem;
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::fs::{
    FlockOperation, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, fchmod, flock, futimens, openat,
};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where what is not whole yet is.
pub const PARTIAL: &str = "partial";
/// There: what an offer is read into. It has no name but for a moment, unless its process is killed just then.
pub const OFFER: &str = ".offer-";

/// Of use to who fetches.
pub struct Store {
    folder: PathBuf,
}

/// What the cache holds of a content.
pub enum Held {
    Nothing,
    /// What was there was something else, and is gone.
    Damaged,
    /// Checked, at its beginning.
    Whole,
}

impl Store {
    /// Makes what is not there yet.
    pub fn open(folder: &Path) -> Result<Self, Problem> {
        let make = |path: &Path, mode: u32| {
            let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
            made.map_err(|e| io_problem(codes::SOURCE_FETCH, format!("cannot make {}", path.display()), &e))
        };
        make(folder, 0o755)?;
        make(&folder.join("sha256"), 0o755)?;
        make(&folder.join("sha512"), 0o755)?;
        make(&folder.join(PARTIAL), 0o700)?;
        Ok(Self { folder: folder.to_owned() })
    }

    /// Looks whether the content is there and what it is called. One that is was used now.
    pub fn check(&self, pin: &Pin) -> Result<Held, Problem> {
        let path = self.folder.join(pin.path());
        let wrong = |e: &io::Error| io_problem(codes::SOURCE_FETCH, format!("cannot use {}", path.display()), e);
        let mut file = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Held::Nothing),
            other => other.map_err(|e| wrong(&e))?,
        };
        if pin.measure(&mut file).is_ok_and(|found| &found == pin) {
            let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            let keep = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            let _ = futimens(&file, &Timestamps { last_access: keep, last_modification: now });
            return Ok(Held::Whole);
        }
        fs::remove_file(&path).map_err(|e| wrong(&e))?;
        Ok(Held::Damaged)
    }

    /// What was fetched of it so far, to be written at its end; nobody else gets it while it is open, and it is nobody
    /// else's content. `None`: another process has it open.
    pub fn partial(&self, pin: &Pin) -> Result<Option<File>, Problem> {
        let path = self.partial_path(pin);
        let wrong = |e: &io::Error| io_problem(codes::SOURCE_FETCH, format!("cannot use {}", path.display()), e);
        let mut options = File::options();
        loop {
            let mut file = options.read(true).append(true).create(true).open(&path).map_err(|e| wrong(&e))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Ok(None),
                locked => locked.map_err(|e| wrong(&e.into()))?,
            }
            // Who had it may have published it, or removed it, just before it was locked.
            let held = file.metadata().map_err(|e| wrong(&e))?;
            let is_it = |there: fs::Metadata| (there.dev(), there.ino()) == (held.dev(), held.ino());
            if fs::symlink_metadata(&path).is_ok_and(is_it) {
                file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(|e| wrong(&e))?;
                file.seek(io::SeekFrom::End(0)).map_err(|e| wrong(&e))?;
                return Ok(Some(file));
            }
        }
    }

    /// What was fetched of it in part is of no use any more.
    pub fn forget_partial(&self, pin: &Pin) {
        let _ = fs::remove_file(self.partial_path(pin));
        self.forget_origin(pin);
    }

    /// Makes what was fetched and checked the cache's, by one rename.
    pub fn publish(&self, pin: &Pin, whole: &File) -> Result<(), Problem> {
        let path = self.folder.join(pin.path());
        let done = (|| {
            fchmod(whole, Mode::from_raw_mode(0o444))?;
            whole.sync_all()?;
            fs::rename(self.partial_path(pin), &path)?;
            File::open(self.folder.join(pin.folder()))?.sync_all()
        })();
        self.forget_origin(pin);
        done.map_err(|e: io::Error| io_problem(codes::SOURCE_FETCH, format!("cannot publish {}", path.display()), &e))
    }

    fn partial_path(&self, pin: &Pin) -> PathBuf {
        self.folder.join(PARTIAL).join(pin.file_name())
    }

    fn origin_path(&self, pin: &Pin) -> PathBuf {
        self.folder.join(PARTIAL).join(format!("{}.from", pin.file_name()))
    }

    /// The URL that what is partial came from, and how its server told this version from others.
    pub fn origin(&self, pin: &Pin) -> Option<(String, String)> {
        let text = fs::read_to_string(self.origin_path(pin)).ok()?;
        let (url, tag) = text.split_once('\n')?;
        Some((url.to_owned(), tag.to_owned()))
    }

    pub fn note_origin(&self, pin: &Pin, url: &str, tag: &str) {
        // Without it a fetch goes on all the same: what is whole is checked.
        let _ = fs::write(self.origin_path(pin), format!("{url}\n{tag}"));
    }

    pub fn forget_origin(&self, pin: &Pin) {
        let _ = fs::remove_file(self.origin_path(pin));
    }
}

/// The cache to who may only read it: held open by a process before it became somebody who cannot reach it.
pub struct Shelf(OwnedFd);

impl Shelf {
    pub fn open(folder: &Path) -> Result<Self, Problem> {
        Store::open(folder)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let held = rustix::fs::open(folder, flags, Mode::empty());
        held.map(Self)
            .map_err(|e| io_problem(codes::SOURCE_FETCH, format!("cannot open {}", folder.display()), &e.into()))
    }

    pub fn folder(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// What is called so in the cache and is that, at its beginning.
    ///
    /// # Errors
    /// SOURCE_FETCH if it is not there, or is something else by now.
    pub fn checked(&self, pin: &Pin) -> Result<File, Problem> {
        let gone = |e: io::Error| io_problem(codes::SOURCE_FETCH, format!("{pin} is not in the cache any more"), &e);
        let mut file = self.get(pin).map_err(gone)?;
        if &pin.measure(&mut file).map_err(gone)? != pin {
            return Err(gone(io::Error::other("it is something else")));
        }
        file.rewind().map_err(gone)?;
        Ok(file)
    }

    /// # Errors
    /// If it is not there.
    pub fn get(&self, pin: &Pin) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.0, pin.path(), flags, Mode::empty())?))
    }
}

//! A partition's `tmp` where systemd can mount it from. systemd looks by its name for what it is told to mount and follows
//! links, and the tenant can make one there at any moment. So it is told of a place that is root's alone, at which the folder
//! is mounted that was found beneath the partition's own without following any.

use super::names::Names;
use crate::host::linux::confine::{Bounds, find_tmp};
use crate::host::linux::disk::private_folder;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use plat_model::Problem;
use plat_model::id::PartitionName;
use plat_model::problem::codes;
use rustix::mount::mount_bind;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The places of one agent's partitions. All of it may wait for a disk.
pub struct Places {
    names: Names,
    locks: Mutex<BTreeMap<PartitionName, Arc<Mutex<()>>>>,
}

impl Places {
    pub fn new(names: Names) -> Self {
        Self { names, locks: Mutex::default() }
    }

    /// Where the folder is found that the partition has now; `None` if it has none.
    ///
    /// # Errors
    /// Why it cannot be mounted there.
    pub fn show(&self, partition: &PartitionName, bounds: &Bounds) -> Result<Option<PathBuf>, String> {
        let wrong = |e: io::Error| format!("its tmp cannot be mounted: {e}");
        let Some(found) = find_tmp(bounds).map_err(wrong)? else { return Ok(None) };
        let place = self.names.tmp(partition);
        let lock = self.lock(partition);
        let _turn = lock.lock().unwrap_or_else(PoisonError::into_inner);
        private_folder(&place).map_err(|problem| problem.one_line())?;
        mount(&found, &place).map_err(wrong)?;
        Ok(Some(place))
    }

    /// Takes the place away, when nothing runs in the partition any more.
    pub fn leave(&self, partition: &PartitionName) -> Result<(), Problem> {
        let place = self.names.tmp(partition);
        let lock = self.lock(partition);
        let _turn = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = unmount(&place).and_then(|()| match fs::remove_dir(&place) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        });
        gone.map_err(|e| {
            Problem::new(codes::SERVICE_START, format!("{} cannot be taken away", place.display()))
                .because(e)
                .fix("unmount it and remove the folder; it is tried again")
        })
    }

    fn lock(&self, partition: &PartitionName) -> Arc<Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(partition.clone()).or_default().clone()
    }
}

/// Another than what is there, if that is another: the tenant may have made a new one.
fn mount(found: &OwnedFd, place: &Path) -> io::Result<()> {
    let (wanted, there) = (rustix::fs::fstat(found)?, fs::symlink_metadata(place)?);
    if (wanted.st_dev, wanted.st_ino) == (there.dev(), there.ino()) {
        return Ok(());
    }
    unmount(place)?;
    // What the kernel follows here is the handle, whatever its name has become.
    Ok(mount_bind(format!("/proc/self/fd/{}", found.as_raw_fd()), place)?)
}

/// All that is mounted there.
fn unmount(place: &Path) -> io::Result<()> {
    loop {
        match umount2(place, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Nothing is.
            Err(Errno::EINVAL | Errno::ENOENT) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}

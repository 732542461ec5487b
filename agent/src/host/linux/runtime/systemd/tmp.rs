//! A partition's `tmp` where systemd can mount it from. systemd looks by its name for what it is told to mount and follows
//! links, and the tenant can make one there at any moment. So it is told of a place that is root's alone, at which the folder
//! is mounted that was found beneath the partition's own without following any.
//!
//! All these places are in one mount that nobody's new namespace takes along ([`apart`]): for each program systemd goes through
//! all mounts that there are, again and again, and with those of 500 partitions none began within half a minute.

use super::names::{Names, TMP};
use crate::host::linux::confine::{Bounds, find_tmp};
use crate::host::linux::disk::private_folder;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, umount2};
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
    /// Whether they are apart.
    apart: Mutex<bool>,
}

impl Places {
    pub fn new(names: Names) -> Self {
        Self { names, locks: Mutex::default(), apart: Mutex::default() }
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
        self.make(&place).map_err(wrong)?;
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
        self.clear(&place);
        gone.map_err(|e| {
            Problem::new(codes::SERVICE_START, format!("{} cannot be taken away", place.display()))
                .because(e)
                .fix("unmount it and remove the folder; it is tried again")
        })
    }

    fn make(&self, place: &Path) -> io::Result<()> {
        let mut is_apart = self.apart.lock().unwrap_or_else(PoisonError::into_inner);
        if !*is_apart {
            apart(Path::new(TMP))?;
            *is_apart = true;
        }
        private_folder(place).map_err(|problem| io::Error::other(problem.one_line()))
    }

    /// With the last place goes what they are in, unless another agent has some there.
    fn clear(&self, place: &Path) {
        let mut is_apart = self.apart.lock().unwrap_or_else(PoisonError::into_inner);
        let all = Path::new(TMP);
        let is_last = place.parent().is_some_and(|own| fs::remove_dir(own).is_ok());
        if is_last && fs::read_dir(all).is_ok_and(|mut others| others.next().is_none()) && unmount(all).is_ok() {
            let _another_one_is_faster = fs::remove_dir(all);
            *is_apart = false;
        }
    }

    fn lock(&self, partition: &PartitionName) -> Arc<Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(partition.clone()).or_default().clone()
    }
}

/// Makes the folder a mount of its own, of whose places nobody is told, and which goes along with no copy of all mounts; each
/// of them can be mounted elsewhere still. What an older agent has mounted in it stays where it is.
fn apart(folder: &Path) -> io::Result<()> {
    let is_mounted = || -> io::Result<bool> {
        let all = fs::read_to_string("/proc/self/mountinfo")?;
        Ok(all.lines().any(|line| line.split(' ').nth(4).is_some_and(|place| Path::new(place) == folder)))
    };
    private_folder(folder).map_err(|problem| io::Error::other(problem.one_line()))?;
    let change = |from: Option<&Path>, flags| Ok(nix::mount::mount(from, folder, None::<&str>, flags, None::<&str>)?);
    if !is_mounted()? {
        change(Some(folder), MsFlags::MS_BIND | MsFlags::MS_REC)?;
    }
    change(None, MsFlags::MS_PRIVATE | MsFlags::MS_REC)?;
    change(None, MsFlags::MS_UNBINDABLE)
}

/// Another than what is there, if that is another: the tenant may have made a new one.
fn mount(found: &OwnedFd, place: &Path) -> io::Result<()> {
    let (wanted, there) = (rustix::fs::fstat(found)?, fs::symlink_metadata(place)?);
    if (wanted.st_dev, wanted.st_ino) == (there.dev(), there.ino()) {
        return Ok(());
    }
    unmount(place)?;
    // What the kernel follows here is the handle, whatever its name has become.
    mount_bind(format!("/proc/self/fd/{}", found.as_raw_fd()), place)?;
    Ok(nix::mount::mount(None::<&str>, place, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>)?)
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

//! Giving a partition back as it was formatted: nothing of its last occupant is left, neither files and processes nor
//! rights to the directory itself.
//!
//! Root does this, on directories that it holds: the occupant's user could be kept from it by its own processes, by
//! modes, and by what other users have put there.

use super::empty::{empty, enter, remove, thaw};
use super::leftovers;
use crate::host::linux::account::{assume, end_all_of};
use crate::host::linux::disk::io_problem;
use nix::unistd::geteuid;
use plat_model::node::{Account, Skeleton};
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Uid, chmodat, fchmod, fchown, flistxattr, fremovexattr, fsync, mkdirat, openat,
    renameat,
};
use rustix::io::{Errno, Result as Outcome};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize)]
pub struct EraseTask {
    pub directory: PathBuf,
    pub skeleton: Skeleton,
    /// Further directories of its own, which stay.
    pub storage: Vec<PathBuf>,
    pub account: Option<Account>,
}

impl EraseTask {
    /// Kills every process of the account, if the partition has one of its own, replaces the directory by a new one,
    /// and empties those on other storage; what its user has left elsewhere on the machine goes too. What an earlier
    /// attempt began is finished. All problems at once.
    pub fn perform(&self) -> Result<(), Problem> {
        let owner = self.account.as_ref().filter(|_| geteuid().is_root());
        match owner {
            Some(owner) => end_all_of(owner)?,
            None => assume(self.account.as_ref())?,
        }
        let mut problems = Problems::default();
        let wrong = |directory: &Path, e: Errno, todo: &str| {
            io_problem(codes::ERASE_FAILED, format!("cannot empty {}", directory.display()), &e.into()).fix(todo)
        };
        let renewed = renew(&self.directory, &self.skeleton, owner);
        problems.keep(renewed.map_err(|e| wrong(&self.directory, e, &todo(&self.directory, e))));
        for storage in &self.storage {
            // One that is not there now comes back with what is in it.
            let absent = "mount what it is on, or run `node-format apply` if it is gone for good";
            let todo = |e| if e == Errno::NOENT { absent.into() } else { todo(storage, e) };
            problems.keep(reset(storage, self.skeleton.mode, owner).map_err(|e| wrong(storage, e, &todo(e))));
        }
        if let Some(owner) = owner {
            problems.keep(leftovers::remove(owner.uid, &self.storage));
        }
        problems.none_or(()).map_err(Problems::into_one)
    }
}

/// What a person can do where the kernel lets nobody remove something.
fn todo(directory: &Path, e: Errno) -> String {
    let at = directory.display();
    match e {
        Errno::PERM => format!(
            "something in it is immutable or append-only, and the kernel does not let the agent change that: find it with \
             `lsattr -aR {at}` (the agent's new one is {at}, what it was is beside it as `.erased-…`), clear it with \
             `chattr -ia` as root with CAP_LINUX_IMMUTABLE; a swap file takes `swapoff` first"
        ),
        Errno::ROFS => "its file system may only be read: find out why, and mount it again for writing".into(),
        _ => "look for what is mounted in it, and unmount it".into(),
    }
}

/// The directory that a path's last name is in, held, and that name.
fn held(path: &Path) -> Outcome<(OwnedFd, CString)> {
    let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL) };
    let parent = openat(CWD, above, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    Ok((parent, CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?))
}

/// The directory goes aside, so that whoever holds it open holds nothing of the next occupant's, and is emptied there.
fn renew(directory: &Path, skeleton: &Skeleton, owner: Option<&Account>) -> Outcome<()> {
    let (parent, name) = held(directory)?;
    if skeleton.limited {
        // The limit is the directory's own: a new one would have none.
        drop(empty_in_place(&parent, &name)?);
        return make(&parent, &name, skeleton, owner);
    }
    let aside = CString::new([b".erased-", name.as_bytes()].concat()).map_err(|_| Errno::INVAL)?;
    // An agent that was killed may have left it, with or without a new one in its place.
    discard(&parent, &aside)?;
    // Neither may what is immutable be renamed.
    if let Ok(top) = open(&parent, &name) {
        thaw(&top)?;
    }
    match renameat(&parent, &name, &parent, &aside) {
        Ok(()) => discard(&parent, &aside)?,
        Err(Errno::NOENT) => {}
        // Something is mounted here, or what it is in is not the agent's: it stays, without what was said about it.
        Err(Errno::BUSY | Errno::ACCESS | Errno::PERM | Errno::XDEV) => drop(empty_in_place(&parent, &name)?),
        Err(e) => return Err(e),
    }
    make(&parent, &name, skeleton, owner)
}

/// A directory on other storage may be a mount, or in a directory where nothing else may be made: it stays.
fn reset(storage: &Path, mode: u32, owner: Option<&Account>) -> Outcome<()> {
    let (parent, name) = held(storage)?;
    let top = empty_in_place(&parent, &name)?;
    give(&top, mode, owner)?;
    fsync(&top)
}

/// Removes all that is in the directory, and what was said about it; it is left to this process alone.
fn empty_in_place(parent: &OwnedFd, name: &CString) -> Outcome<OwnedFd> {
    if !geteuid().is_root() {
        let _ = chmodat(parent, name, Mode::RWXU, AtFlags::empty());
    }
    let top = open(parent, name)?;
    empty(&top)?;
    strip(&top)?;
    Ok(top)
}

fn discard(parent: &OwnedFd, name: &CString) -> Outcome<()> {
    match enter(parent, name) {
        Ok(folder) => empty(&folder)?,
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e),
    }
    remove(parent, name, AtFlags::REMOVEDIR)
}

/// Removes access control lists, and whatever else its user has noted on the directory.
fn strip(folder: &OwnedFd) -> Outcome<()> {
    let mut list = vec![0; 64 * 1024];
    let length = match flistxattr(folder, &mut list[..]) {
        Err(Errno::NOTSUP) => return Ok(()),
        other => other?,
    };
    let names = list[..length].split(|b| *b == 0).filter(|name| !name.is_empty());
    for name in names.filter(|name| name.starts_with(b"system.posix_acl") || name.starts_with(b"user.")) {
        match fremovexattr(folder, name) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The directory with its folders. It is its user's when all of it is there.
fn make(parent: &OwnedFd, name: &CString, skeleton: &Skeleton, owner: Option<&Account>) -> Outcome<()> {
    let top = made(parent, name)?;
    for (name, mode) in &skeleton.directories {
        give(&made(&top, &CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?)?, *mode, owner)?;
    }
    give(&top, skeleton.mode, owner)?;
    // That the partition is empty is written down next, and must not survive what it says.
    fsync(&top)
}

fn made(parent: &OwnedFd, name: &CString) -> Outcome<OwnedFd> {
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => open(parent, name),
        Err(e) => Err(e),
    }
}

fn open(parent: &OwnedFd, name: &CString) -> Outcome<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn give(folder: &OwnedFd, mode: u32, owner: Option<&Account>) -> Outcome<()> {
    if let Some(owner) = owner {
        fchown(folder, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
    }
    fchmod(folder, Mode::from_raw_mode(mode))
}

//! Giving a partition back as it was formatted: nothing of its last occupant is left, neither files and processes nor
//! rights to the directory itself.
//!
//! Root does this, on directories that it holds: the occupant's user could be kept from it by its own processes, by
//! modes, and by what other users have put there.

use super::empty::{empty, enter};
use super::leftovers;
use crate::host::linux::account::{assume, end_all_of};
use crate::host::linux::disk::io_problem;
use nix::unistd::geteuid;
use plat_model::Problem;
use plat_model::node::Account;
use plat_model::problem::codes;
use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, Uid, chmodat, fchmod, fchown, flistxattr, fremovexattr, fsync, mkdirat, openat,
    renameat, unlinkat,
};
use rustix::io::{Errno, Result as Outcome};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The folders that every partition has.
pub const SKELETON: [&str; 6] = ["etc", "srv", "var", "run", "tmp", "log"];
/// Partitions' directories are its user's, and nobody else may enter.
const MODE: u32 = 0o750;

#[derive(Serialize, Deserialize)]
pub struct EraseTask {
    pub directory: PathBuf,
    pub account: Option<Account>,
}

impl EraseTask {
    /// Kills every process of the account, if the partition has one of its own, and replaces the directory by a new
    /// one; what its user has left elsewhere on the machine goes too. What an earlier attempt began is finished.
    pub fn perform(&self) -> Result<(), Problem> {
        let owner = self.account.as_ref().filter(|_| geteuid().is_root());
        match owner {
            Some(owner) => end_all_of(owner)?,
            None => assume(self.account.as_ref())?,
        }
        renew(&self.directory, owner).map_err(|e| {
            io_problem(codes::ERASE_FAILED, format!("cannot empty {}", self.directory.display()), &e.into())
                .fix("look for what is mounted in it, and unmount it")
        })?;
        owner.map_or(Ok(()), |owner| leftovers::remove(owner.uid))
    }
}

/// The directory goes aside, so that whoever holds it open holds nothing of the next occupant's, and is emptied there.
fn renew(directory: &Path, owner: Option<&Account>) -> Outcome<()> {
    let (Some(above), Some(name)) = (directory.parent(), directory.file_name()) else { return Err(Errno::INVAL) };
    let wrong = |_| Errno::INVAL;
    let aside = CString::new([b".erased-", name.as_bytes()].concat()).map_err(wrong)?;
    let name = CString::new(name.as_bytes()).map_err(wrong)?;
    let parent = openat(CWD, above, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // An agent that was killed may have left it, with or without a new one in its place.
    discard(&parent, &aside)?;
    match renameat(&parent, &name, &parent, &aside) {
        Ok(()) => discard(&parent, &aside)?,
        Err(Errno::NOENT) => {}
        // Something is mounted here, or what it is in is not the agent's: it stays, without what was said about it.
        Err(Errno::BUSY | Errno::ACCESS | Errno::PERM | Errno::XDEV) => {
            if !geteuid().is_root() {
                let _ = chmodat(&parent, &name, Mode::RWXU, AtFlags::empty());
            }
            let top = open(&parent, &name)?;
            empty(&top)?;
            strip(&top)?;
        }
        Err(e) => return Err(e),
    }
    make(&parent, &name, owner)
}

fn discard(parent: &OwnedFd, name: &CString) -> Outcome<()> {
    match enter(parent, name) {
        Ok(folder) => empty(&folder)?,
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(e),
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
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
fn make(parent: &OwnedFd, name: &CString, owner: Option<&Account>) -> Outcome<()> {
    let top = made(parent, name)?;
    for name in SKELETON {
        give(&made(&top, &CString::new(name).map_err(|_| Errno::INVAL)?)?, owner)?;
    }
    give(&top, owner)?;
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

fn give(folder: &OwnedFd, owner: Option<&Account>) -> Outcome<()> {
    if let Some(owner) = owner {
        fchown(folder, Some(Uid::from_raw(owner.uid)), Some(Gid::from_raw(owner.gid)))?;
    }
    fchmod(folder, Mode::from_raw_mode(MODE))
}

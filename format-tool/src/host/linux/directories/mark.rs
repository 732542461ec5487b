//! The mark of a partition's directory that is half-made: an extended attribute, which goes with it. Its user cannot set it.

use super::give;
use node_format_plan::action::UNFINISHED;
use node_format_plan::facts::Owner;
use rustix::fd::OwnedFd;
use rustix::fs::{XattrFlags, fgetxattr, fremovexattr, fsetxattr};
use rustix::io::Result;
use std::ffi::CStr;

/// Who is not root makes partitions without users of their own: there it is nobody else who may set it.
fn name() -> &'static CStr {
    if rustix::process::geteuid().is_root() { c"trusted.plat.begun" } else { c"user.plat.begun" }
}

pub(super) fn is_on(directory: &OwnedFd) -> bool {
    fgetxattr(directory, name(), &mut [0u8; 0]).is_ok()
}

/// Makes a directory root's, and known as one that is half-made. Where there can be no mark, it looks like one that root locked.
pub(super) fn set(directory: &OwnedFd) -> Result<()> {
    // Neither a file system without such attributes nor one without room keeps a partition from going.
    let _ = fsetxattr(directory, name(), b"", XattrFlags::empty());
    let root = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    give(directory, root, UNFINISHED)
}

/// Gives a directory to its owner, as what it is said to be.
pub(super) fn replace(directory: &OwnedFd, owner: Owner, mode: u32) -> Result<()> {
    give(directory, owner, mode)?;
    match is_on(directory) {
        true => fremovexattr(directory, name()),
        false => Ok(()),
    }
}

//! The marks of directories that are being made or emptied: extended attributes, which go with them. No user can set them.

use super::{errno, give, own, quota};
use node_format_plan::action::UNFINISHED;
use node_format_plan::facts::Owner;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, XattrFlags, fgetxattr, fremovexattr, fsetxattr};
use rustix::io::{Errno, Result};
use std::ffi::CStr;

/// Who is not root makes partitions without users of their own: there it is nobody else who may set it.
fn name() -> &'static CStr {
    if rustix::process::geteuid().is_root() { c"trusted.plat.begun" } else { c"user.plat.begun" }
}

pub(super) fn is_on(directory: &OwnedFd) -> bool {
    fgetxattr(directory, name(), &mut [0u8; 0]).is_ok()
}

/// Where it is kept whose a directory was that root has taken to empty it.
fn was() -> &'static CStr {
    if rustix::process::geteuid().is_root() { c"trusted.plat.was" } else { c"user.plat.was" }
}

/// Keeps whose a directory is that is about to be emptied, for whoever finds it after a run that was killed. Without such
/// attributes nobody knows.
pub(super) fn remember(directory: &OwnedFd, (owner, mode): (Owner, u32)) {
    let text = format!("{} {} {mode:o}", owner.uid, owner.gid);
    let _ = fsetxattr(directory, was(), text.as_bytes(), XattrFlags::empty());
}

/// Whose a directory was, if that was kept and root has it still: to whom it was given since, has it.
pub(super) fn recall(directory: &OwnedFd) -> Option<(Owner, u32)> {
    let found = super::owner_and_mode(&rustix::fs::fstat(directory).ok()?);
    let mut text = [0u8; 64];
    let length = fgetxattr(directory, was(), &mut text).ok().filter(|_| is_taken(found))?;
    let mut words = std::str::from_utf8(text.get(..length)?).ok()?.split(' ');
    let owner = Owner { uid: words.next()?.parse().ok()?, gid: words.next()?.parse().ok()? };
    Some((owner, u32::from_str_radix(words.next()?, 8).ok()?))
}

/// Once a directory is somebody's, nothing is kept.
pub(super) fn forget(directory: &OwnedFd) {
    let _ = fremovexattr(directory, was());
}

/// Whether a directory is as root takes one to empty it, or makes one.
pub(super) fn is_taken((owner, mode): (Owner, u32)) -> bool {
    owner.uid == rustix::process::geteuid().as_raw() && mode == UNFINISHED
}

/// How often a change is tried that its user keeps from being made by saying, again and again, that nobody may change it.
const TRIES: usize = 50;

/// Changes a directory although its user, of a subvolume of btrfs, may say at any moment that nobody may.
fn insist(directory: &OwnedFd, change: impl Fn() -> Result<()>) -> Result<()> {
    let mut result = change();
    for _ in 1..TRIES {
        if result != Err(Errno::ROFS) {
            break;
        }
        quota::thaw(directory).map_err(errno)?;
        result = change();
    }
    result
}

/// Makes a directory root's, and known as one that is half-made. Where there can be no mark, it looks like one that root locked.
pub(super) fn set(directory: &OwnedFd) -> Result<()> {
    // Neither a file system without such attributes nor one without room keeps a partition from going.
    let mark = || insist(directory, || fsetxattr(directory, name(), b"", XattrFlags::empty()));
    let marked = mark();
    let root = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    insist(directory, || own(directory, root))?;
    // By now its user has no say in it any more.
    let _ = marked.or_else(|_| mark());
    give(directory, root, UNFINISHED)
}

/// Gives a directory, which is root's, to its owner, as what it is said to be. Once it is his, only the mark is left to go.
pub(super) fn replace(directory: &OwnedFd, owner: Owner, mode: u32) -> Result<()> {
    rustix::fs::fchmod(directory, Mode::from_raw_mode(mode))?;
    own(directory, owner)?;
    match is_on(directory) {
        true => insist(directory, || fremovexattr(directory, name())),
        false => Ok(()),
    }
}

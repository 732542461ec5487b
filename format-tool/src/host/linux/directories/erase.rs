//! Emptying what a tenant has left: whatever was said of it, however deep it lies, and nothing that is not in it.

use super::{INNER, errno, give, is_dots, mark, mount_of, owner_and_mode, quota};
use crate::host::linux::place::{Place, place};
use node_format_plan::action::UNFINISHED;
use node_format_plan::facts::Owner;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::{Errno, Result};
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A directory on the way down, without a handle: there may be more of them than files that can be open.
struct Level {
    place: Place,
    /// The directory in it that is being emptied.
    entered: CString,
    /// Whose that was.
    was: (Owner, u32),
}

/// Removes all that is in a directory, of its mount only: what is mounted in it is not the partition's. Nothing is moved
/// to be removed: what is in another subvolume, or encrypted without its key, cannot be.
///
/// # Errors
/// With [`Errno::AGAIN`] a directory was moved elsewhere while it was being emptied: which, is said in `moved`. With
/// [`Errno::INTR`] it is to `stop`.
pub(super) fn erase(held: &OwnedFd, moved: &mut PathBuf, stop: &dyn Fn() -> bool) -> Result<()> {
    thaw(held)?;
    take(held);
    let mount = mount_of(held)?;
    let mut here = rustix::fs::openat(held, c".", INNER, Mode::empty())?;
    let mut way: Vec<Level> = Vec::new();
    loop {
        match erase_contents(&here, mount, stop) {
            Ok(Some((entered, inner))) => {
                let found = owner_and_mode(&rustix::fs::fstat(&inner)?);
                // One at the top may be somebody else's, and may have been entered before.
                let kept = if way.is_empty() { mark::recall(&inner) } else { None };
                if way.is_empty() && kept.is_none() {
                    mark::remember(&inner, found);
                }
                let was = kept.unwrap_or(found);
                way.push(Level { place: place(&here)?, entered, was });
                take(&inner);
                here = inner;
                continue;
            }
            Ok(None) => {}
            Err(e) => {
                give_back(here, way);
                return Err(e);
            }
        }
        let Some(above) = way.pop() else { return Ok(()) };
        here = rustix::fs::openat(&here, c"..", INNER, Mode::empty())?;
        if place(&here)? != above.place {
            let names = way.iter().chain([&above]).map(|level| OsStr::from_bytes(level.entered.to_bytes()));
            *moved = names.collect();
            return Err(Errno::AGAIN);
        }
        // One in which root makes something meanwhile is entered again.
        if let Err(e) = let_go(&here, &above.entered) {
            give_back(here, way);
            return Err(e);
        }
    }
}

/// Makes a directory nobody's but root's: whoever has it open makes nothing in it any more, and it can be emptied to the end.
fn take(directory: &OwnedFd) {
    let root = Owner { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() };
    // Where that cannot be it is emptied as it is.
    let _ = give(directory, root, UNFINISHED);
}

/// What is not erased after all is its user's again, as far up as it is where it was.
fn give_back(mut here: OwnedFd, mut way: Vec<Level>) {
    while let Some(level) = way.pop() {
        let _ = give(&here, level.was.0, level.was.1);
        mark::forget(&here);
        let above = rustix::fs::openat(&here, c"..", INNER, Mode::empty());
        match above.and_then(|above| Ok((place(&above)? == level.place, above))) {
            Ok((true, above)) => here = above,
            _ => return,
        }
    }
}

/// Removes an empty directory; false: it is not empty.
fn let_go(directory: &OwnedFd, name: &CStr) -> Result<bool> {
    match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(other) => Err(other),
    }
}

/// What a person can do where the kernel does not let root change something.
pub(super) fn frozen(path: &Path) -> String {
    let at = path.display();
    format!(
        "something there is immutable or append-only, and the kernel does not let this process change that: find it with \
         `lsattr -aR {at}` and clear it with `chattr -ia` as root with CAP_LINUX_IMMUTABLE; a swap file takes `swapoff` first"
    )
}

/// What a person can do where root said that nobody may change a directory: that is root's to take back.
pub(super) fn kept(path: &Path) -> String {
    let at = path.display();
    format!(
        "if it is immutable or append-only (`lsattr -d {at}`), `chattr -ia {at}` lets it be changed; then try again"
    )
}

/// What a person can do where a directory may not be changed because its subvolume, or all that it is on, is read-only.
pub(super) fn read_only(path: &Path) -> String {
    let at = path.display();
    format!(
        "if it is a subvolume of btrfs: `btrfs property set -t subvol {at} ro false`; else mount what it is on writable"
    )
}

/// What a person can do where something is mounted on a partition's directory, or in it.
pub(super) fn mounted(path: &Path) -> String {
    let at = path.display();
    format!("something is mounted there, which is left alone: find it with `findmnt -R {at}` and `umount` it")
}

/// What a person can do where somebody moves about what is to be removed.
pub(super) fn moved(path: &Path, inner: &Path) -> String {
    let (at, inner) = (path.display(), plat_model::id::shorten(&inner.to_string_lossy()));
    format!(
        "its directory `{inner}` was moved elsewhere while it was being emptied: find what still works there (`fuser -vm {at}`, \
         `lsof +D {at}`) and end it, then try again"
    )
}

/// Lets a file or directory be changed of which somebody said that nobody may (chattr +i, +a; a subvolume of btrfs that
/// may only be read). Others are left as they are.
///
/// # Errors
/// If it is such a one and stays so: clearing the flags takes CAP_LINUX_IMMUTABLE.
pub(super) fn thaw(held: &OwnedFd) -> Result<()> {
    let frozen = IFlags::IMMUTABLE | IFlags::APPEND;
    match ioctl_getflags(held) {
        Ok(flags) if flags.intersects(frozen) => ioctl_setflags(held, flags.difference(frozen))?,
        // Or its file system knows no such flags.
        _ => {}
    }
    quota::thaw(held).map_err(errno)
}

/// What is not there any more is removed.
fn gone(removed: Result<()>) -> Result<()> {
    if removed == Err(Errno::NOENT) { Ok(()) } else { removed }
}

/// Removes a name that is no directory's. Links, sockets, pipes and device files cannot be opened to be thawed.
fn remove(directory: &OwnedFd, name: &CStr) -> Result<()> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::PERM) => {
            let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
                return Err(Errno::PERM);
            }
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
            let before = ioctl_getflags(&file).ok();
            thaw(&file)?;
            let removed = rustix::fs::unlinkat(directory, name, AtFlags::empty());
            // By another name, outside of here, it is as it was.
            let stays = removed.is_err() || rustix::fs::fstat(&file)?.st_nlink > 0;
            if let Some(before) = before.filter(|_| stays) {
                ioctl_setflags(&file, before)?;
            }
            removed
        }
        removed => removed,
    }
}

/// Removes what is in a directory, up to the first directory that is not empty, which is returned.
fn erase_contents(directory: &OwnedFd, mount: u64, stop: &dyn Fn() -> bool) -> Result<Option<(CString, OwnedFd)>> {
    for entry in Dir::read_from(directory.as_fd())? {
        if stop() {
            return Err(Errno::INTR);
        }
        let entry = entry?;
        let name = entry.file_name();
        if is_dots(name) {
            continue;
        }
        match rustix::fs::openat(directory, name, INNER, Mode::empty()) {
            Ok(inner) => {
                if mount_of(&inner)? != mount {
                    return Err(Errno::XDEV);
                }
                thaw(&inner)?;
                if !let_go(directory, name)? {
                    return Ok(Some((name.to_owned(), inner)));
                }
            }
            Err(Errno::NOTDIR | Errno::LOOP) => gone(remove(directory, name))?,
            // Whoever works there still may remove something himself.
            Err(Errno::NOENT) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(None)
}

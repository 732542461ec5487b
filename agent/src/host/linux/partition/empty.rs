//! Emptying a directory that somebody hostile may have filled: any depth, any name, any mode, any owner; no link and no
//! mount is followed, and no name is used that others could have made lead elsewhere.
//!
//! What is immutable or append-only (chattr +i, +a), or on btrfs a subvolume that may only be read, is made changeable as
//! far as the kernel lets this process: root needs CAP_LINUX_IMMUTABLE for the former. Links, sockets, pipes and device
//! files have no way to be opened for that, and stay.
//!
//! Each directory is taken from its owner before anything in it is looked at. From then on only root (or, without root,
//! the agent's own user) can move what is in it, so the way down is the way back.

use crate::host::linux::posix::make_subvolume_writable;
use nix::unistd::{getegid, geteuid};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, IFlags, Mode, OFlags, ResolveFlags, Uid, chmodat, fchmod, fchown, fstat,
    ioctl_getflags, ioctl_setflags, openat, openat2, statat, unlinkat,
};
use rustix::io::{Errno, Result};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

/// Names of directories that are remembered at once, over all levels.
const NAMES: usize = 100_000;

/// A directory on the way down.
struct Level {
    /// Device and inode.
    id: (u64, u64),
    /// Directories in it that are still to be emptied.
    full: Vec<CString>,
    /// The one that is being emptied.
    entered: CString,
}

impl Level {
    /// Makes the directory this process's own.
    fn take(folder: &OwnedFd) -> Result<Self> {
        let take = || {
            if geteuid().is_root() {
                fchown(folder, Some(Uid::from_raw(0)), Some(Gid::from_raw(getegid().as_raw())))?;
            }
            // This also takes what an access control list gives to others.
            fchmod(folder, Mode::from_raw_mode(0o700))
        };
        match take() {
            Err(e) if is_frozen(e) => thaw(folder).and_then(|()| take())?,
            taken => taken?,
        }
        Ok(Self { id: id(folder)?, full: Vec::new(), entered: CString::default() })
    }
}

fn id(folder: &OwnedFd) -> Result<(u64, u64)> {
    let stat = fstat(folder)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// What the kernel says of a file or directory that nobody may change.
fn is_frozen(e: Errno) -> bool {
    matches!(e, Errno::PERM | Errno::ROFS)
}

/// Lets a file or directory be changed of which somebody said that nobody may. Others are left as they are.
///
/// # Errors
/// If it is such a one and stays so.
pub fn thaw(held: &OwnedFd) -> Result<()> {
    let frozen = IFlags::IMMUTABLE | IFlags::APPEND;
    match ioctl_getflags(held) {
        Ok(flags) if flags.intersects(frozen) => ioctl_setflags(held, flags.difference(frozen))?,
        // Or its file system knows no such flags.
        _ => {}
    }
    make_subvolume_writable(held).map_err(|e| Errno::from_raw_os_error(e as i32))
}

/// Removes one name, whatever was said of the file or the empty directory that it names.
pub fn remove(folder: &OwnedFd, name: &CStr, flags: AtFlags) -> Result<()> {
    match unlinkat(folder, name, flags) {
        Err(e) if is_frozen(e) => {
            let kind = FileType::from_raw_mode(statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
            // Opening one of the others may have effects.
            if !matches!(kind, FileType::RegularFile | FileType::Directory) {
                return Err(e);
            }
            let plain = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            let held = openat2(folder, name, plain, Mode::empty(), WITHIN)?;
            let before = ioctl_getflags(&held).ok();
            thaw(&held)?;
            let removed = unlinkat(folder, name, flags);
            // By another name, outside of here, a file is as it was.
            let stays = removed.is_err() || (kind == FileType::RegularFile && fstat(&held)?.st_nlink > 0);
            if let Some(before) = before.filter(|_| stays) {
                ioctl_setflags(&held, before)?;
            }
            removed
        }
        removed => removed,
    }
}

/// Removes all in `top`, which is left to this process alone (0700). Only one more directory is held at a time, so no
/// depth is too deep.
pub fn empty(top: &OwnedFd) -> Result<()> {
    let mut here = openat(top, c".", FOLDER, Mode::empty())?;
    let mut way = vec![Level::take(&here)?];
    let mut names = 0;
    while let Some(level) = way.last_mut() {
        if let Some(name) = level.full.pop() {
            names -= 1;
            match enter(&here, &name) {
                Ok(below) => {
                    level.entered = name;
                    way.push(Level::take(&below)?);
                    here = below;
                }
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            }
            continue;
        }
        let left = remove_plain(&here, NAMES.saturating_sub(names).max(1))?;
        if left.any {
            names += left.full.len();
            level.full = left.full;
            continue;
        }
        way.pop();
        if let Some(above) = way.last() {
            here = openat(&here, c"..", FOLDER, Mode::empty())?;
            if id(&here)? != above.id {
                return Err(Errno::AGAIN);
            }
            match remove(&here, &above.entered, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

const WITHIN: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// Opens a directory that is in `folder`, on the same mount, whatever its mode.
pub fn enter(folder: &OwnedFd, name: &CStr) -> Result<OwnedFd> {
    let open = || openat2(folder, name, FOLDER, Mode::empty(), WITHIN);
    match open() {
        // Root needs no leave. Another changes only what is its own, wherever the name leads.
        Err(Errno::ACCESS) if !geteuid().is_root() => {
            let _ = chmodat(folder, name, Mode::from_raw_mode(0o700), AtFlags::empty());
            open()
        }
        opened => opened,
    }
}

/// What one look at a directory left.
struct Left {
    /// There was something; look again.
    any: bool,
    /// Directories that are not empty.
    full: Vec<CString>,
}

/// Removes what can be removed from one directory; stops at `most` directories that are not empty.
fn remove_plain(folder: &OwnedFd, most: usize) -> Result<Left> {
    let mut left = Left { any: false, full: Vec::new() };
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        left.any = true;
        let as_folder = || remove(folder, name, AtFlags::REMOVEDIR);
        let removed = match entry.file_type() {
            FileType::Directory => as_folder(),
            _ => match remove(folder, name, AtFlags::empty()) {
                Err(Errno::ISDIR) => as_folder(),
                other => other,
            },
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                left.full.push(name.to_owned());
                if left.full.len() >= most {
                    break;
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(left)
}

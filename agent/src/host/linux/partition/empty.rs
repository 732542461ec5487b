//! Emptying a directory that somebody hostile may have filled: any depth, any name, any mode, any owner; no link and no
//! mount is followed, and no name is used that others could have made lead elsewhere.
//!
//! Each directory is taken from its owner before anything in it is looked at. From then on only root (or, without root,
//! the agent's own user) can move what is in it, so the way down is the way back.

use nix::unistd::{getegid, geteuid};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, chmodat, fchmod, fchown, fstat, openat, openat2,
    unlinkat,
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
        if geteuid().is_root() {
            fchown(folder, Some(Uid::from_raw(0)), Some(Gid::from_raw(getegid().as_raw())))?;
        }
        // This also takes what an access control list gives to others.
        fchmod(folder, Mode::from_raw_mode(0o700))?;
        Ok(Self { id: id(folder)?, full: Vec::new(), entered: CString::default() })
    }
}

fn id(folder: &OwnedFd) -> Result<(u64, u64)> {
    let stat = fstat(folder)?;
    Ok((stat.st_dev, stat.st_ino))
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
            match unlinkat(&here, above.entered.as_c_str(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a directory that is in `folder`, on the same mount, whatever its mode.
pub fn enter(folder: &OwnedFd, name: &CStr) -> Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let open = || openat2(folder, name, FOLDER, Mode::empty(), resolve);
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
        let as_folder = || unlinkat(folder, name, AtFlags::REMOVEDIR);
        let removed = match entry.file_type() {
            FileType::Directory => as_folder(),
            _ => match unlinkat(folder, name, AtFlags::empty()) {
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

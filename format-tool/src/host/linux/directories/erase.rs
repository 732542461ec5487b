//! Emptying what a tenant has left: whatever was said of it, however deep it lies, and nothing that is not in it.

use super::{INNER, errno, is_dots, mount_of, quota};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, IFlags, Mode, OFlags, ioctl_getflags, ioctl_setflags};
use rustix::io::{Errno, Result};
use std::ffi::CStr;
use std::path::Path;

/// How deep a tree is erased at once, with a handle for each level.
const DEPTH_MAX: usize = 200;

/// Removes all that is in a directory.
pub(super) fn erase(held: &OwnedFd) -> Result<()> {
    thaw(held)?;
    let mount = mount_of(held)?;
    // What lies too deep is brought up, and goes in the next round.
    let mut tried = 0;
    while !erase_contents(held, held, mount, DEPTH_MAX, &mut tried)? {}
    Ok(())
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

/// What a person can do where something is mounted on a partition's directory, or in it.
pub(super) fn mounted(path: &Path) -> String {
    let at = path.display();
    format!("something is mounted there, which is left alone: find it with `findmnt -R {at}` and `umount` it")
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

/// Moves a directory to the top, under a name that is free: what is there is its owner's choice. No name is tried
/// twice.
fn bring_up(directory: &OwnedFd, name: &CStr, top: &OwnedFd, tried: &mut u64) -> Result<()> {
    quota::open_to_all(top);
    let mut names = std::iter::repeat_with(|| {
        *tried += 1;
        format!(".deep-{tried}")
    });
    let moved = names.find_map(|aside| {
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(directory, name, top, aside, flags) {
            Err(Errno::EXIST) => None,
            outcome => Some(outcome),
        }
    });
    moved.unwrap_or(Err(Errno::EXIST))
}

/// Removes all that is in a directory, of its mount only: what is mounted in it is not the partition's.
/// False: some of it lay deeper than `depth`, and is in `top` now.
fn erase_contents(top: &OwnedFd, directory: &OwnedFd, mount: u64, depth: usize, tried: &mut u64) -> Result<bool> {
    let mut all = true;
    for entry in Dir::read_from(directory.as_fd())? {
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
                let Some(deeper) = depth.checked_sub(1) else {
                    bring_up(directory, name, top, tried)?;
                    all = false;
                    continue;
                };
                all &= erase_contents(top, &inner, mount, deeper, tried)?;
                rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)?;
            }
            Err(Errno::NOTDIR | Errno::LOOP) => remove(directory, name)?,
            Err(other) => return Err(other),
        }
    }
    Ok(all)
}

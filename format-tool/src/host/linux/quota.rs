//! Limits on the disk space of a directory and all beneath it: by subvolumes and their quota groups on btrfs, by project
//! quota on ext4, xfs and f2fs. Callers hand over directories and names in them, never paths: whoever owns what is inside
//! may put a link anywhere.
//!
//! A limit stops who writes too much by accident, and alone it stops nobody who means to get round it: on btrfs who may
//! make directories may make subvolumes, each with a quota group of its own; with project quota the owner of a file may
//! give it to another project, unless the process is in a user namespace other than the first.

mod btrfs;
mod calls;
mod project;
#[cfg(test)]
mod tests;

use nix::sys::statfs;
use node_format_plan::action::UNFINISHED;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsRawFd;

/// What a file system offers for limiting a directory and all beneath it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Means {
    /// A directory that is to be limited must be made as a subvolume. Beyond the limit, writing fails with EDQUOT.
    Btrfs,
    /// Any directory can be limited. Beyond the limit, writing fails with EDQUOT, on xfs with ENOSPC.
    Project,
}

/// What limits there can be on the file system of this directory.
///
/// # Errors
/// In words: what is missing, and how to get it.
pub(super) fn means(directory: BorrowedFd) -> Result<Means, String> {
    let kind = statfs::fstatfs(directory).map_err(|e| format!("its file system cannot be asked: {e}"))?;
    match kind.filesystem_type() {
        statfs::BTRFS_SUPER_MAGIC => btrfs::offered(directory).map(|()| Means::Btrfs),
        statfs::EXT4_SUPER_MAGIC | statfs::XFS_SUPER_MAGIC | statfs::F2FS_SUPER_MAGIC => {
            project::offered(directory).map(|()| Means::Project)
        }
        other => {
            let name = match other {
                statfs::TMPFS_MAGIC => "tmpfs".into(),
                statfs::OVERLAYFS_SUPER_MAGIC => "overlayfs".into(),
                statfs::NFS_SUPER_MAGIC => "nfs".into(),
                unknown => format!("a file system of type {:#x}", unknown.0),
            };
            Err(format!("{name} has no limits by directory: btrfs has, and ext4 and xfs with project quota"))
        }
    }
}

/// Makes an empty directory that can be limited, of the user who calls, for nobody else and marked as unfinished. `rmdir` removes it again, also
/// where it is a subvolume (since Linux 4.18; its quota group stays behind on older kernels, 6.1 for one, and is gone with
/// it on 6.18: numbers are not used again). It leaves nothing behind when it fails.
///
/// # Errors
/// If something of the name exists, or the directory cannot be made.
pub(super) fn make(means: Means, parent: BorrowedFd, name: &OsStr) -> io::Result<()> {
    let unfinished = Mode::from_raw_mode(UNFINISHED);
    match means {
        // The mode of a subvolume is what the umask leaves of 0777.
        Means::Btrfs => calls::make_subvolume(&opened(parent)?, name)?,
        Means::Project => rustix::fs::mkdirat(parent, name, unfinished)?,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let private =
        rustix::fs::openat(parent, name, flags, Mode::empty()).and_then(|made| rustix::fs::fchmod(&made, unfinished));
    if private.is_err() {
        rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
    }
    Ok(private?)
}

/// Whether this very directory can be limited.
///
/// # Errors
/// In words: why not.
pub(super) fn fits(means: Means, directory: BorrowedFd) -> Result<(), String> {
    match (means, rustix::fs::fstat(directory)) {
        (Means::Btrfs, Ok(found)) if found.st_ino != calls::TOP_INODE => {
            Err("it is a plain directory, and btrfs limits subvolumes only: destroy what is in the partition and remove the directory, `apply` then makes it as one".into())
        }
        _ => Ok(()),
    }
}

/// Bytes that the directory and all beneath it may take; `None` where there is no limit. `project` is the number of its
/// project (the partition's uid), without meaning on btrfs. Whether the directory counts into it, [`counts`] says.
///
/// # Errors
/// If the file system does not tell, for one because only root may ask.
pub(super) fn limit(means: Means, directory: BorrowedFd, project: u32) -> io::Result<Option<u64>> {
    let directory = opened(directory)?;
    match means {
        Means::Btrfs => btrfs::limit(&directory),
        Means::Project => project::limit(&directory, project),
    }
}

/// The limit that a directory would have which is made in this one: that of the project.
///
/// # Errors
/// As [`limit`].
pub(super) fn limit_to_be(means: Means, parent: BorrowedFd, project: u32) -> io::Result<Option<u64>> {
    match means {
        Means::Btrfs => Ok(None),
        Means::Project => project::limit(&opened(parent)?, project),
    }
}

/// Whether what is made in a directory counts into the limit. Its owner may have said that it does not.
///
/// # Errors
/// If the file system does not tell.
pub(super) fn counts(means: Means, directory: BorrowedFd, project: u32) -> io::Result<bool> {
    match means {
        Means::Btrfs => Ok(true),
        Means::Project => project::counts(&opened(directory)?, project),
    }
}

/// The project that a directory is of, if it is of any but that of all other files. None on btrfs.
///
/// # Errors
/// If the file system does not tell.
pub(super) fn project(means: Means, directory: BorrowedFd) -> io::Result<Option<u32>> {
    match means {
        Means::Btrfs => Ok(None),
        Means::Project => project::of(&opened(directory)?),
    }
}

/// What the file system is known by that has the limits of projects. None on btrfs: there a limit goes with the directory.
///
/// # Errors
/// If the file system does not tell.
pub(super) fn file_system(means: Means, directory: BorrowedFd) -> io::Result<Option<String>> {
    match means {
        Means::Btrfs => Ok(None),
        Means::Project => project::file_system(&opened(directory)?).map(Some),
    }
}

/// What a file system would be known by if it had the limits of projects.
///
/// # Errors
/// As [`file_system`].
pub(super) fn known_by(directory: BorrowedFd) -> io::Result<String> {
    project::file_system(&opened(directory)?)
}

/// Limits a directory, or takes its limit away. What is in it already counts, but for what its owner can keep from it:
/// that is returned in words. A limit below what is taken already is no
/// error: nothing more can be written. Project quota is kept in whole blocks of the file system (4 KiB as a rule), rounded
/// up: only a limit in such units is read back as it was set.
///
/// # Errors
/// If the limit is 0 bytes, if the directory on btrfs is no subvolume ([`fits`]), or if the file system refuses.
pub(super) fn set(
    means: Means,
    directory: BorrowedFd,
    project: u32,
    bytes: Option<u64>,
    is_first: bool,
) -> io::Result<Option<String>> {
    if bytes == Some(0) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a limit of 0 bytes is none"));
    }
    let directory = opened(directory)?;
    match means {
        Means::Btrfs => btrfs::set(&directory, bytes).map(|()| None),
        Means::Project => project::set(directory, project, bytes, is_first),
    }
}

/// Lets a directory be changed whose owner, on btrfs, said that nobody may. Others are left as they are.
///
/// # Errors
/// If it is such a one and stays so.
pub(super) fn thaw(directory: &OwnedFd) -> io::Result<()> {
    let found = rustix::fs::fstat(directory)?;
    let kind = statfs::fstatfs(directory)?.filesystem_type();
    match kind == statfs::BTRFS_SUPER_MAGIC && found.st_ino == calls::TOP_INODE {
        true => Ok(calls::make_writable(directory)?),
        false => Ok(()),
    }
}

/// A handle of the same directory that takes ioctls: one that only names the place (O_PATH) does not.
fn opened(directory: BorrowedFd) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, ".", flags, Mode::empty())?)
}

/// Where a directory is, for words only.
fn shown(directory: BorrowedFd) -> String {
    let link = format!("/proc/thread-self/fd/{}", directory.as_raw_fd());
    std::fs::read_link(link).map_or_else(|_| "PATH".into(), |path| path.display().to_string())
}

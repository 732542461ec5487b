//! Limits by project quota: each file carries the number of a project, a directory hands it on to what is made in it,
//! and the project has the limit.

use super::calls;
use nix::errno::Errno;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Dir, FileType, Mode, OFlags};
use std::io;

/// QIF_DQBLKSIZE of linux/quota.h: the unit of limits.
const UNIT: u64 = 1024;
/// FS_XFLAG_PROJINHERIT of linux/fs.h: what is made in the directory has its project.
const INHERIT: u32 = 0x200;
/// Deepest tree that is given to a project.
const DEPTH_MAX: usize = 200;

pub(super) fn offered(directory: BorrowedFd) -> Result<(), String> {
    /// FS_QUOTA_PDQ_ENFD of linux/dqblk_xfs.h.
    const ENFORCED: u16 = 1 << 5;
    match calls::quota_flags(directory) {
        Ok(flags) if flags & ENFORCED != 0 => Ok(()),
        Err(Errno::ENOSYS) if !calls::quota_known(directory) => {
            let takes = "it takes Linux 5.14 or later, built with CONFIG_QUOTA (for xfs: CONFIG_XFS_QUOTA)";
            Err(format!("the kernel has no project quota: {takes}"))
        }
        // ENOSYS also where the kernel has it and nothing is in force.
        Ok(_) | Err(Errno::ENOSYS | Errno::ESRCH) => Err(format!(
            "the file system of {} is mounted without prjquota: add this option in /etc/fstab and mount anew (ext4 takes \
             `tune2fs -O quota,project DEVICE` first, and a kernel with CONFIG_QFMT_V2)",
            super::shown(directory)
        )),
        Err(other) => Err(format!("the file system does not tell whether it has project quota: {other}")),
    }
}

/// Whether a directory is of the project, with what is made in it.
pub(super) fn counts(directory: &OwnedFd, project: u32) -> io::Result<bool> {
    let attributes = calls::attributes(directory)?;
    Ok(attributes.project == project && attributes.flags & INHERIT != 0)
}

/// The project's, on the file system of the directory.
pub(super) fn limit(directory: &OwnedFd, project: u32) -> io::Result<Option<u64>> {
    match calls::project_limit(directory, project) {
        Ok(kib) => Ok((kib != 0).then(|| kib.saturating_mul(UNIT))),
        // xfs, of a project that never had anything.
        Err(Errno::ENOENT) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

/// The limit is set last: where there is one, all that is in the directory is of the project, even if an earlier call
/// was killed half way.
pub(super) fn set(directory: OwnedFd, project: u32, bytes: Option<u64>) -> io::Result<()> {
    if project == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "project 0 is that of all other files"));
    }
    let before = limit(&directory, project)?;
    if bytes.is_some() && (before.is_none() || !counts(&directory, project)?) {
        calls::limit_project(&directory, project, 0)?;
        let device = rustix::fs::fstat(&directory)?.st_dev;
        if let Err(e) = give(directory.try_clone()?, project, device, DEPTH_MAX) {
            // What of it is the project's already is limited; what was limited before stays so.
            let bytes = before.and(bytes).map_or(0, |bytes| bytes.div_ceil(UNIT));
            calls::limit_project(&directory, project, bytes)?;
            return Err(e);
        }
    }
    Ok(calls::limit_project(&directory, project, bytes.map_or(0, |bytes| bytes.div_ceil(UNIT)))?)
}

/// Gives a directory and all beneath it to a project, from the top down: what is made in it meanwhile inherits, and
/// nothing can be moved in from a directory that is not yet of the project (EXDEV).
fn give(directory: OwnedFd, project: u32, device: u64, depth: usize) -> io::Result<()> {
    mark(&directory, project, INHERIT)?;
    for entry in Dir::read_from(directory.as_fd())? {
        let entry = entry?;
        let name = entry.file_name();
        // The others take no space to speak of, and opening them may have effects.
        let takes_space = matches!(entry.file_type(), FileType::Directory | FileType::RegularFile | FileType::Unknown);
        if !takes_space || matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&directory, name, flags, Mode::empty()) {
            Ok(file) => file,
            // Gone, or become a link or a socket, or kept from being opened by a lease of its owner's.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => continue,
            Err(rustix::io::Errno::AGAIN) => continue,
            Err(other) => return Err(other.into()),
        };
        let found = rustix::fs::fstat(&file)?;
        match FileType::from_raw_mode(found.st_mode) {
            // What is mounted here is another file system's.
            _ if found.st_dev != device => {}
            FileType::Directory => {
                give(file, project, device, depth.checked_sub(1).ok_or(rustix::io::Errno::NAMETOOLONG)?)?;
            }
            FileType::RegularFile => mark(&file, project, 0)?,
            _ => {}
        }
    }
    Ok(())
}

fn mark(file: &OwnedFd, project: u32, flags: u32) -> io::Result<()> {
    let mut attributes = calls::attributes(file)?;
    if attributes.project == project && attributes.flags & flags == flags {
        return Ok(());
    }
    attributes.project = project;
    attributes.flags |= flags;
    Ok(calls::set_attributes(file, &attributes)?)
}

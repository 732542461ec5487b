//! Limits by project quota: each file carries the number of a project, a directory hands it on to what is made in it,
//! and the project has the limit.

pub(super) mod take_in;

use super::calls;
use nix::errno::Errno;
use nix::sys::statfs;
use rustix::fd::{BorrowedFd, OwnedFd};
use std::io;

/// QIF_DQBLKSIZE of linux/quota.h: the unit of limits.
const UNIT: u64 = 1024;
/// FS_XFLAG_PROJINHERIT of linux/fs.h: what is made in the directory has its project.
const INHERIT: u32 = 0x200;

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

/// The project that a directory is of, but for 0.
pub(super) fn of(directory: &OwnedFd) -> io::Result<Option<u32>> {
    Ok(Some(calls::attributes(directory)?.project).filter(|project| *project != 0))
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

/// What the file system is known by after a reboot too: of its UUID. (f2fs makes it of the number of its device.)
pub(super) fn file_system(directory: &OwnedFd) -> io::Result<String> {
    if statfs::fstatfs(directory)?.filesystem_type() == statfs::XFS_SUPER_MAGIC {
        let uuid = u128::from_be_bytes(calls::xfs_uuid(directory)?);
        return Ok(format!("xfs-{uuid:032x}"));
    }
    Ok(format!("{:016x}", rustix::fs::fstatvfs(directory)?.f_fsid))
}

/// Most names that are looked at in a directory whose owner took it out of its project: he can do so again at any moment.
const AGAIN: usize = 100_000;

/// `is_first`: the directory has had none. Then the project's holds nobody until all that is in the directory is of it, also
/// when another directory of the project has it already: where there is one, all of both counts, even if an earlier call was
/// killed half way, but for what is returned. To one whose owner took it out of its project the limit holds all the while.
pub(super) fn set(directory: OwnedFd, project: u32, bytes: Option<u64>, is_first: bool) -> io::Result<Option<String>> {
    if project == 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "project 0 is that of all other files"));
    }
    let before = limit(&directory, project)?;
    let put = |bytes: Option<u64>| {
        calls::limit_project(&directory, project, bytes.map_or(0, |bytes| bytes.div_ceil(UNIT)))
            .map_err(io::Error::from)
    };
    let left = if bytes.is_none() || (before.is_some() && counts(&directory, project)?) {
        None
    } else if is_first {
        put(None)?;
        // What of it is the project's already is limited; what was limited before stays so.
        take_in::all(&directory, project, usize::MAX).inspect_err(|_| drop(put(before)))?
    } else {
        take_in::all(&directory, project, AGAIN)?
    };
    put(bytes)?;
    Ok(left)
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

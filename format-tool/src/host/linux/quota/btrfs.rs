//! Limits on btrfs: of the quota group that each subvolume has (0/ID), on all the bytes that it refers to.

use super::calls;
use nix::errno::Errno;
use rustix::fd::{BorrowedFd, OwnedFd};
use std::io;

/// BTRFS_QGROUP_STATUS_KEY and BTRFS_QGROUP_LIMIT_KEY of linux/btrfs_tree.h.
const STATUS: u32 = 240;
const LIMIT: u32 = 244;

pub(super) fn offered(directory: BorrowedFd) -> Result<(), String> {
    /// BTRFS_QGROUP_STATUS_FLAG_ON of linux/btrfs_tree.h.
    const ON: u64 = 1;
    let status = super::opened(directory).map(|opened| calls::quota_item(&opened, STATUS, 0));
    match status.map_err(|e| format!("it cannot be opened: {e}"))? {
        // `struct btrfs_qgroup_status_item`: version, generation, flags.
        Ok(Some(words)) if words.get(2).is_some_and(|flags| flags & ON != 0) => Ok(()),
        Ok(_) | Err(Errno::ENOENT) => {
            Err(format!("quota is not switched on: `btrfs quota enable {}`", super::shown(directory)))
        }
        Err(Errno::EPERM) => Err("only root may ask btrfs for its quota".into()),
        Err(other) => Err(format!("btrfs does not tell whether quota is on: {other}")),
    }
}

/// A plain directory is not limited.
pub(super) fn limit(directory: &OwnedFd) -> io::Result<Option<u64>> {
    if !is_subvolume(directory)? {
        return Ok(None);
    }
    let found = calls::quota_item(directory, LIMIT, calls::subvolume(directory)?)?;
    // `struct btrfs_qgroup_limit_item`: flags, max_rfer.
    let limit = found.as_deref().and_then(|words| match words {
        [flags, most, ..] => (flags & calls::MOST_REFERENCED != 0).then_some(*most),
        _ => None,
    });
    Ok(limit)
}

pub(super) fn set(directory: &OwnedFd, bytes: Option<u64>) -> io::Result<()> {
    // The kernel would limit the subvolume that the directory is in.
    if !is_subvolume(directory)? {
        let why = "it is a plain directory, and btrfs limits subvolumes only: move it away, it is then made anew";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(calls::limit_subvolume(directory, bytes.unwrap_or(u64::MAX))?)
}

fn is_subvolume(directory: &OwnedFd) -> io::Result<bool> {
    Ok(rustix::fs::fstat(directory)?.st_ino == calls::TOP_INODE)
}

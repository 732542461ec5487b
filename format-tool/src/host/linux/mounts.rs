//! Which mount something is on. Subvolumes of btrfs differ in their device, but not in this; what is mounted again elsewhere
//! (bind) differs in this, but not in its device.

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::{Errno, Result};

/// Its number.
pub(super) fn mount_of(held: impl AsFd) -> Result<u64> {
    // It is told without being asked for; who asks for anything is refused by a FUSE of somebody else's.
    let seen = rustix::fs::statx(held, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    // Before Linux 5.8 nobody can tell; better nothing is erased than what is mounted.
    if seen.stx_mask & StatxFlags::MNT_ID.bits() == 0 { Err(Errno::NOSYS) } else { Ok(seen.stx_mnt_id) }
}

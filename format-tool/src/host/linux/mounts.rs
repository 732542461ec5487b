//! Which mount something is on. Subvolumes of btrfs differ in their device, but not in this; what is mounted again elsewhere
//! (bind) differs in this, but not in its device.

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::{Errno, Result};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Every place that something is mounted on, as this process sees it.
pub(super) fn places() -> BTreeSet<PathBuf> {
    let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let fifth = |line: &[u8]| line.split(|byte| *byte == b' ').nth(4).map(unescaped);
    text.split(|byte| *byte == b'\n').filter_map(fifth).collect()
}

/// The kernel writes spaces and the like as three octal digits (proc(5)).
fn unescaped(text: &[u8]) -> PathBuf {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => (bytes.push(byte), rest = &behind[3..]).0,
            None => (bytes.push(*first), rest = behind).0,
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Its number.
pub(super) fn mount_of(held: impl AsFd) -> Result<u64> {
    // It is told without being asked for; who asks for anything is refused by a FUSE of somebody else's.
    let seen = rustix::fs::statx(held, c"", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    // Before Linux 5.8 nobody can tell; better nothing is erased than what is mounted.
    if seen.stx_mask & StatxFlags::MNT_ID.bits() == 0 { Err(Errno::NOSYS) } else { Ok(seen.stx_mnt_id) }
}

//! What a directory is known by to whoever comes back to it without a handle.

#![expect(unsafe_code, reason = "the generation of an inode is told by ioctl alone, a foreign call")]

use nix::libc::c_long;
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Result;
use std::os::fd::AsRawFd;

// FS_IOC_GETVERSION of linux/fs.h, into which file systems write an int.
nix::ioctl_read!(get_version, b'v', 1, c_long);

/// The number of a directory that is gone is another's soon, on ext4 at once. When it was made is another time, but for the
/// moment that the kernel's clock goes on by; its generation is drawn by lot. Not every file system knows these (ext4, xfs and
/// btrfs do).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    device: (u32, u32),
    inode: u64,
    /// Seconds and nanoseconds.
    made: Option<(i64, u32)>,
    generation: Option<c_long>,
}

pub(super) fn place(directory: impl AsFd) -> Result<Place> {
    let directory = directory.as_fd();
    let mut generation = 0;
    // SAFETY: the descriptor is open, and the kernel writes no more than an int to what is as large as a long.
    let told = unsafe { get_version(directory.as_raw_fd(), &mut generation) };
    let found = rustix::fs::statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::INO | StatxFlags::BTIME)?;
    let knows = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    Ok(Place {
        device: (found.stx_dev_major, found.stx_dev_minor),
        inode: found.stx_ino,
        made: knows.then_some((found.stx_btime.tv_sec, found.stx_btime.tv_nsec)),
        generation: told.is_ok().then_some(generation),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::path::Path;

    #[test]
    fn a_directory_is_not_another_that_has_its_number_now() {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let make = |path: &Path| {
            fs::create_dir(path).unwrap();
            place(File::open(path).unwrap()).unwrap()
        };
        let path = folder.path().join("b");
        let first = make(&path);
        assert_eq!(place(File::open(&path).unwrap()).unwrap(), first);
        if first.generation.is_none() {
            eprintln!("SKIPPED: the file system of /var/tmp knows no generations");
            return;
        }
        fs::remove_dir(&path).unwrap();
        // On ext4 the first one has its number already.
        let others: Vec<_> = (0..100).map(|n| make(&folder.path().join(n.to_string()))).collect();
        assert!(!others.contains(&first));
        let seen = others.iter().find(|other| other.inode == first.inode);
        eprintln!("its number was given again: {}", seen.is_some());
    }
}

//! What the file system itself counts in a directory that node-format has limited. See node-format's `quota`, which sets
//! the limits: the two must mean the same directory and the same project.
#![expect(unsafe_code, reason = "the counters are told by ioctl and quotactl_fd alone, which are foreign calls")]

use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, fstatfs};
use rustix::fs::{Mode, OFlags, fstat, open};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// BTRFS_FIRST_FREE_OBJECTID of linux/btrfs_tree.h: the inode of each subvolume's top directory.
const TOP_INODE: u64 = 256;
/// BTRFS_QUOTA_TREE_OBJECTID and BTRFS_QGROUP_INFO_KEY of linux/btrfs_tree.h.
const QUOTA_TREE: u64 = 8;
const INFO: u32 = 242;

/// `struct btrfs_ioctl_ino_lookup_args` of linux/btrfs.h.
#[repr(C)]
struct LookupArguments {
    tree: u64,
    object: u64,
    name: [u8; 4080],
}

/// `struct btrfs_ioctl_search_args` of linux/btrfs.h: a `btrfs_ioctl_search_key`, then room for what is found.
#[repr(C)]
struct SearchArguments {
    tree: u64,
    objects: [u64; 2],
    offsets: [u64; 2],
    transactions: [u64; 2],
    kinds: [u32; 2],
    items: u32,
    unused: u32,
    unused_more: [u64; 4],
    found: [u8; 3992],
}

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
struct Attributes {
    flags: u32,
    extent_size: u32,
    extents: u32,
    project: u32,
    copied_extent_size: u32,
    padding: [u8; 8],
}

const _: () = assert!(size_of::<LookupArguments>() == 4096 && size_of::<SearchArguments>() == 4096);
const _: () = assert!(size_of::<Attributes>() == 28);

nix::ioctl_readwrite!(tree_search, 0x94, 17, SearchArguments);
nix::ioctl_readwrite!(ino_lookup, 0x94, 18, LookupArguments);
// FS_IOC_FSGETXATTR of linux/fs.h.
nix::ioctl_read!(fs_get_xattr, b'X', 31, Attributes);

/// What the file system counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    pub bytes: u64,
    /// Whether files in the directory can be counted elsewhere: their owner may give them to another project.
    pub may_be_less: bool,
}

/// `None` where the file system does not count the directory, or tells nobody but root.
pub fn used(directory: &Path, project: u32) -> Option<Counted> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = open(directory, flags, Mode::empty()).ok()?;
    match fstatfs(&held).ok()?.filesystem_type() {
        BTRFS_SUPER_MAGIC => referenced(&held).map(|bytes| Counted { bytes, may_be_less: false }),
        _ => of_project(&held, project).map(|bytes| Counted { bytes, may_be_less: true }),
    }
}

/// What the subvolume refers to, shared with others or not: what its limit is about.
fn referenced(held: &OwnedFd) -> Option<u64> {
    if fstat(held).ok()?.st_ino != TOP_INODE {
        return None;
    }
    let mut lookup = LookupArguments { tree: 0, object: TOP_INODE, name: [0; 4080] };
    // SAFETY: the kernel reads and writes the whole structure, which is ours alone and lives across the call.
    unsafe { ino_lookup(held.as_raw_fd(), &mut lookup) }.ok()?;
    let mut search = SearchArguments {
        tree: QUOTA_TREE,
        objects: [0, 0],
        offsets: [lookup.tree, lookup.tree],
        transactions: [0, u64::MAX],
        kinds: [INFO, INFO],
        items: 1,
        unused: 0,
        unused_more: [0; 4],
        found: [0; 3992],
    };
    // SAFETY: the kernel reads and writes the whole structure, which is ours alone and lives across the call.
    unsafe { tree_search(held.as_raw_fd(), &mut search) }.ok()?;
    // A `btrfs_ioctl_search_header` of 32 bytes, then `struct btrfs_qgroup_info_item`: generation, referenced, …
    let referenced = search.found.get(40..48).filter(|_| search.items == 1)?;
    Some(u64::from_le_bytes(referenced.try_into().ok()?))
}

/// A directory that is not of the project is not counted by it.
fn of_project(held: &OwnedFd, project: u32) -> Option<u64> {
    /// FS_XFLAG_PROJINHERIT of linux/fs.h.
    const INHERIT: u32 = 0x200;
    let mut attributes =
        Attributes { flags: 0, extent_size: 0, extents: 0, project: 0, copied_extent_size: 0, padding: [0; 8] };
    // SAFETY: the kernel writes the whole structure, which is ours alone and lives across the call.
    unsafe { fs_get_xattr(held.as_raw_fd(), &mut attributes) }.ok()?;
    if project == 0 || attributes.project != project || attributes.flags & INHERIT == 0 {
        return None;
    }
    /// PRJQUOTA of linux/quota.h.
    const PROJECT: i32 = 2;
    // SAFETY: `struct if_dqblk` is numbers only, for which zero is a value.
    let mut found: libc::dqblk = unsafe { std::mem::zeroed() };
    let command = libc::QCMD(libc::Q_GETQUOTA, PROJECT);
    let (file, command, project) = (c_long::from(held.as_raw_fd()), c_long::from(command), c_long::from(project));
    // SAFETY: the command writes one `if_dqblk`, which is ours alone and lives across the call.
    let answer = unsafe { libc::syscall(libc::SYS_quotactl_fd, file, command, project, &raw mut found) };
    Errno::result(answer).ok().map(|_| found.dqb_curspace)
}

#[cfg(test)]
mod tests;

//! The kernel's calls for limits. All unsafe code of `quota` is here; what leaves this file is safe to call.

#![expect(unsafe_code, reason = "limits are set by ioctl and quotactl_fd alone, which are foreign calls")]

use nix::Result;
use nix::errno::Errno;
use nix::libc::{self, c_long};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// `struct btrfs_ioctl_vol_args` of linux/btrfs.h.
#[repr(C)]
struct VolumeArguments {
    fd: i64,
    name: [u8; 4088],
}

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

/// `struct btrfs_ioctl_qgroup_limit_args` of linux/btrfs.h.
#[repr(C)]
struct GroupLimitArguments {
    group: u64,
    flags: u64,
    most_referenced: u64,
    most_exclusive: u64,
    reserved: [u64; 2],
}

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
pub(super) struct Attributes {
    pub flags: u32,
    extent_size: u32,
    extents: u32,
    pub project: u32,
    copied_extent_size: u32,
    padding: [u8; 8],
}

/// `struct fs_quota_statv` of linux/dqblk_xfs.h.
#[repr(C)]
struct QuotaState {
    version: i8,
    padding: u8,
    flags: u16,
    /// The last eight are for what comes.
    unread: [u64; 19],
}

/// `struct xfs_fsop_geom_v1` of xfs/xfs_fs.h.
#[repr(C)]
struct Geometry {
    sizes: [u32; 8],
    blocks: [u64; 4],
    uuid: [u8; 16],
    unread: [u32; 8],
}

const _: () = assert!(size_of::<Geometry>() == 112);
const _: () = assert!(size_of::<VolumeArguments>() == 4096 && size_of::<LookupArguments>() == 4096);
const _: () = assert!(size_of::<SearchArguments>() == 4096 && size_of::<GroupLimitArguments>() == 48);
const _: () = assert!(size_of::<Attributes>() == 28 && size_of::<QuotaState>() == 160);

// BTRFS_IOCTL_MAGIC and the BTRFS_IOC_ numbers are those of linux/btrfs.h.
nix::ioctl_write_ptr!(subvol_create, 0x94, 14, VolumeArguments);
nix::ioctl_readwrite!(tree_search, 0x94, 17, SearchArguments);
nix::ioctl_read!(subvol_get_flags, 0x94, 25, u64);
nix::ioctl_write_ptr!(subvol_set_flags, 0x94, 26, u64);
nix::ioctl_readwrite!(ino_lookup, 0x94, 18, LookupArguments);
// Declared as if it were read; the kernel reads it and writes nothing.
nix::ioctl_read!(qgroup_limit, 0x94, 43, GroupLimitArguments);
// FS_IOC_FSGETXATTR and FS_IOC_FSSETXATTR of linux/fs.h.
nix::ioctl_read!(fs_get_xattr, b'X', 31, Attributes);
nix::ioctl_write_ptr!(fs_set_xattr, b'X', 32, Attributes);
// XFS_IOC_FSGEOMETRY_V1 of xfs/xfs_fs.h.
nix::ioctl_read!(xfs_geometry, b'X', 100, Geometry);

/// BTRFS_FIRST_FREE_OBJECTID of linux/btrfs_tree.h: the inode of each subvolume's top directory.
pub(super) const TOP_INODE: u64 = 256;
/// BTRFS_QUOTA_TREE_OBJECTID of linux/btrfs_tree.h.
const QUOTA_TREE: u64 = 8;
/// BTRFS_QGROUP_LIMIT_MAX_RFER of linux/btrfs.h: all that the subvolume refers to, shared with others or not.
pub(super) const MOST_REFERENCED: u64 = 1;

/// BTRFS_IOC_SUBVOL_CREATE. The kernel refuses names with a slash, `.` and `..`.
pub(super) fn make_subvolume(parent: &OwnedFd, name: &OsStr) -> Result<()> {
    let name = name.as_bytes();
    let mut arguments = VolumeArguments { fd: 0, name: [0; 4088] };
    // The last byte stays zero: the kernel reads up to it.
    if name.len() >= arguments.name.len() || name.contains(&0) {
        return Err(Errno::EINVAL);
    }
    arguments.name[..name.len()].copy_from_slice(name);
    // SAFETY: the kernel reads the whole structure, which lives across the call, and writes nothing.
    unsafe { subvol_create(parent.as_raw_fd(), &arguments) }.map(drop)
}

/// BTRFS_SUBVOL_RDONLY of linux/btrfs.h.
const READ_ONLY: u64 = 1 << 1;

/// BTRFS_IOC_SUBVOL_SETFLAGS: lets a subvolume be written to.
pub(super) fn make_writable(directory: &OwnedFd) -> Result<()> {
    let mut flags = 0;
    // SAFETY: the kernel writes one number, which is ours alone and lives across the call.
    unsafe { subvol_get_flags(directory.as_raw_fd(), &mut flags) }?;
    if flags & READ_ONLY == 0 {
        return Ok(());
    }
    // SAFETY: the kernel reads one number, which lives across the call.
    unsafe { subvol_set_flags(directory.as_raw_fd(), &(flags & !READ_ONLY)) }.map(drop)
}

/// BTRFS_IOC_INO_LOOKUP: the number of the subvolume that a directory is in.
pub(super) fn subvolume(directory: &OwnedFd) -> Result<u64> {
    let mut arguments = LookupArguments { tree: 0, object: TOP_INODE, name: [0; 4080] };
    // SAFETY: the kernel reads and writes the whole structure, which is ours alone and lives across the call.
    unsafe { ino_lookup(directory.as_raw_fd(), &mut arguments) }?;
    Ok(arguments.tree)
}

/// BTRFS_IOC_TREE_SEARCH for one item of the quota tree, of object 0: its little-endian words. `None`: there is no such
/// item; ENOENT: there is no quota tree.
pub(super) fn quota_item(directory: &OwnedFd, kind: u32, offset: u64) -> Result<Option<Vec<u64>>> {
    const HEADER: usize = 32;
    let mut arguments = SearchArguments {
        tree: QUOTA_TREE,
        objects: [0, 0],
        offsets: [offset, offset],
        transactions: [0, u64::MAX],
        kinds: [kind, kind],
        items: 1,
        unused: 0,
        unused_more: [0; 4],
        found: [0; 3992],
    };
    // SAFETY: the kernel reads and writes the whole structure, which is ours alone and lives across the call.
    unsafe { tree_search(directory.as_raw_fd(), &mut arguments) }?;
    if arguments.items == 0 {
        return Ok(None);
    }
    // A `btrfs_ioctl_search_header` ends in the item's length.
    let (header, item) = arguments.found.split_at(HEADER);
    let length = header.last_chunk().map_or(0, |length| u32::from_ne_bytes(*length) as usize);
    let words = item.get(..length).ok_or(Errno::EIO)?.as_chunks().0;
    Ok(Some(words.iter().map(|word| u64::from_le_bytes(*word)).collect()))
}

/// BTRFS_IOC_QGROUP_LIMIT on the quota group of the subvolume that the directory is in (group 0). `u64::MAX` takes the
/// limit away.
pub(super) fn limit_subvolume(directory: &OwnedFd, bytes: u64) -> Result<()> {
    let mut arguments = GroupLimitArguments {
        group: 0,
        flags: MOST_REFERENCED,
        most_referenced: bytes,
        most_exclusive: 0,
        reserved: [0; 2],
    };
    // SAFETY: the kernel reads the whole structure, which is ours alone and lives across the call.
    unsafe { qgroup_limit(directory.as_raw_fd(), &mut arguments) }.map(drop)
}

/// FS_IOC_FSGETXATTR.
pub(super) fn attributes(file: &OwnedFd) -> Result<Attributes> {
    let mut attributes =
        Attributes { flags: 0, extent_size: 0, extents: 0, project: 0, copied_extent_size: 0, padding: [0; 8] };
    // SAFETY: the kernel writes the whole structure, which is ours alone and lives across the call.
    unsafe { fs_get_xattr(file.as_raw_fd(), &mut attributes) }?;
    Ok(attributes)
}

/// FS_IOC_FSSETXATTR.
pub(super) fn set_attributes(file: &OwnedFd, attributes: &Attributes) -> Result<()> {
    // SAFETY: the kernel reads the whole structure, which lives across the call, and writes nothing.
    unsafe { fs_set_xattr(file.as_raw_fd(), attributes) }.map(drop)
}

/// XFS_IOC_FSGEOMETRY_V1: the UUID of an xfs.
pub(super) fn xfs_uuid(directory: &OwnedFd) -> Result<[u8; 16]> {
    let mut geometry = Geometry { sizes: [0; 8], blocks: [0; 4], uuid: [0; 16], unread: [0; 8] };
    // SAFETY: the kernel writes the whole structure, which is ours alone and lives across the call.
    unsafe { xfs_geometry(directory.as_raw_fd(), &mut geometry) }?;
    Ok(geometry.uuid)
}

/// Q_GETFMT: does this kernel know quota on the file system at all, in force or not? Without quotactl_fd (Linux 5.14), or
/// without quota in the file system's code, it answers ENOSYS.
pub(super) fn quota_known(directory: impl AsFd) -> bool {
    let mut format = 0_u32;
    // SAFETY: the command writes one number, which is ours alone and lives across the call.
    let answer = unsafe { quotactl(directory.as_fd().as_raw_fd(), libc::Q_GETFMT, 0, &mut format) };
    answer != Err(Errno::ENOSYS)
}

/// Q_XGETQSTATV: the FS_QUOTA_ flags of linux/dqblk_xfs.h.
pub(super) fn quota_flags(directory: impl AsFd) -> Result<u16> {
    const GET_STATE: i32 = ((b'X' as i32) << 8) + 8;
    // FS_QSTATV_VERSION1
    let mut state = QuotaState { version: 1, padding: 0, flags: 0, unread: [0; 19] };
    // SAFETY: the command reads and writes one `fs_quota_statv`, which is ours alone and lives across the call.
    unsafe { quotactl(directory.as_fd().as_raw_fd(), GET_STATE, 0, &mut state) }?;
    Ok(state.flags)
}

/// Q_GETQUOTA: the hard limit of a project in KiB (QIF_DQBLKSIZE), 0 for none. A soft one, which node-format never sets, counts
/// too: it is somebody else's.
pub(super) fn project_limit(directory: &OwnedFd, project: u32) -> Result<u64> {
    let mut found = blocks(0);
    // SAFETY: the command writes one `if_dqblk`, which is ours alone and lives across the call.
    unsafe { quotactl(directory.as_raw_fd(), libc::Q_GETQUOTA, project, &mut found) }?;
    Ok(found.dqb_bhardlimit.max(found.dqb_bsoftlimit))
}

/// Q_SETQUOTA: the hard limit of a project in KiB, 0 for none; no soft limit.
pub(super) fn limit_project(directory: &OwnedFd, project: u32, kib: u64) -> Result<()> {
    let mut wanted = blocks(kib);
    // SAFETY: the command reads one `if_dqblk`, which lives across the call, and writes nothing.
    unsafe { quotactl(directory.as_raw_fd(), libc::Q_SETQUOTA, project, &mut wanted) }
}

/// `struct if_dqblk` of linux/quota.h.
fn blocks(kib: u64) -> libc::dqblk {
    libc::dqblk {
        dqb_bhardlimit: kib,
        dqb_bsoftlimit: 0,
        dqb_curspace: 0,
        dqb_ihardlimit: 0,
        dqb_isoftlimit: 0,
        dqb_curinodes: 0,
        dqb_btime: 0,
        dqb_itime: 0,
        dqb_valid: libc::QIF_BLIMITS,
    }
}

/// quotactl_fd for projects, on the file system of an open file; ext4, xfs and f2fs take the same commands.
///
/// # Safety
/// `data` points to what the command reads and writes.
unsafe fn quotactl<T>(file: i32, command: i32, project: u32, data: *mut T) -> Result<()> {
    /// PRJQUOTA of linux/quota.h.
    const PROJECT: i32 = 2;
    let command = libc::QCMD(command, PROJECT);
    // SAFETY: the caller's promise; the other arguments are numbers.
    let answer = unsafe {
        libc::syscall(libc::SYS_quotactl_fd, c_long::from(file), c_long::from(command), c_long::from(project), data)
    };
    Errno::result(answer).map(drop)
}

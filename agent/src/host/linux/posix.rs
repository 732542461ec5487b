//! The few calls that Rust cannot check: fork, signal dispositions, handing a descriptor to the event loop, asking btrfs, and
//! what a mount forbids.
#![expect(unsafe_code, reason = "these calls have no safe form; each says why it is sound")]

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, Pid, fork};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use tokio::io::unix::AsyncFd;

/// Which of the two processes this is.
pub enum Side {
    Parent(Pid),
    Child,
}

/// Splits this process in two.
///
/// # Errors
/// If this process has more than one thread: the child would hold locks that nobody releases. Else as fork(2).
pub fn split() -> io::Result<Side> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!("a process of {threads} threads cannot be split")));
    }
    // SAFETY: this process has one thread, which was just checked, and only that thread could start another. So no
    // lock is held by a thread that the child lacks, and the child may go on like any process.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(child)),
        ForkResult::Child => Ok(Side::Child),
    }
}

/// Gives every signal its default effect, as a program expects when it starts.
pub fn default_signals() {
    for which in Signal::iterator().filter(|s| !matches!(s, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: SIG_DFL runs no code of this process.
        let _ = unsafe { signal(which, SigHandler::SigDfl) };
    }
}

/// Lets children vanish when they end, without being waited for.
pub fn ignore_children() {
    // SAFETY: SIG_IGN runs no code of this process.
    let _ = unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) };
}

/// The three kinds of objects that System V's interprocess communication leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipc {
    Memory,
    Semaphores,
    Queue,
}

/// Removes such an object by its id.
pub fn remove_ipc(kind: Ipc, id: i32) -> io::Result<()> {
    let command = nix::libc::IPC_RMID;
    // SAFETY: IPC_RMID reads and writes no memory of this process; the kernel ignores the pointer.
    let result = match kind {
        Ipc::Memory => unsafe { nix::libc::shmctl(id, command, std::ptr::null_mut()) },
        Ipc::Semaphores => unsafe { nix::libc::semctl(id, 0, command) },
        Ipc::Queue => unsafe { nix::libc::msgctl(id, command, std::ptr::null_mut()) },
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

// BTRFS_IOC_SUBVOL_GETFLAGS and BTRFS_IOC_SUBVOL_SETFLAGS of linux/btrfs.h.
nix::ioctl_read!(subvolume_flags, 0x94, 25, u64);
nix::ioctl_write_ptr!(set_subvolume_flags, 0x94, 26, u64);

/// Lets a subvolume be written to of which its owner said that nobody may. What is no top of a subvolume is left as it
/// is, whatever its file system.
pub fn make_subvolume_writable(held: &OwnedFd) -> nix::Result<()> {
    /// BTRFS_FIRST_FREE_OBJECTID: the inode of each subvolume's top directory.
    const TOP_INODE: u64 = 256;
    /// BTRFS_SUBVOL_RDONLY.
    const READ_ONLY: u64 = 1 << 1;
    let kind = nix::sys::statfs::fstatfs(held)?.filesystem_type();
    if kind != nix::sys::statfs::BTRFS_SUPER_MAGIC || nix::sys::stat::fstat(held)?.st_ino != TOP_INODE {
        return Ok(());
    }
    let mut flags = 0;
    // SAFETY: the kernel writes one number, which is ours alone and lives across the call.
    unsafe { subvolume_flags(held.as_raw_fd(), &mut flags) }?;
    if flags & READ_ONLY == 0 {
        return Ok(());
    }
    // SAFETY: the kernel reads one number, which lives across the call.
    unsafe { set_subvolume_flags(held.as_raw_fd(), &(flags & !READ_ONLY)) }.map(drop)
}

/// MOUNT_ATTR_RDONLY of linux/mount.h.
pub const READ_ONLY: u64 = 1;
/// MOUNT_ATTR_NOSUID of linux/mount.h.
pub const NO_SETUID: u64 = 2;

/// Adds attributes to the mount at a path, and to all that are mounted beneath it if so asked.
pub fn add_mount_attributes(path: &Path, attributes: u64, below: bool) -> io::Result<()> {
    /// `struct mount_attr`, as large as it was when it was made.
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        namespace: u64,
    }
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    let asked = Attributes { set: attributes, clear: 0, propagation: 0, namespace: 0 };
    let flags = if below { nix::libc::AT_RECURSIVE } else { 0 };
    let (call, here) = (nix::libc::SYS_mount_setattr, nix::libc::AT_FDCWD);
    // SAFETY: the kernel reads a path that ends with a zero byte and as many bytes of `asked` as it has; both live across
    // the call, and it writes no memory of this process.
    let result =
        unsafe { nix::libc::syscall(call, here, path.as_ptr(), flags, &raw const asked, size_of::<Attributes>()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Lets tokio tell when the descriptor is ready. Within a tokio runtime.
pub fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is one open descriptor until it is dropped, and the AsyncFd holds it until then.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

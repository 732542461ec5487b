//! A file system on a loop device, mounted for one thread.

use super::super::{Means, limit, make, means, set};
use super::{MIB, PROJECT};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, io};

/// A program that makes a file system, and the options to mount it with.
pub struct Kind {
    program: &'static str,
    arguments: &'static [&'static str],
    options: &'static str,
}

pub const BTRFS: Kind = Kind { program: "mkfs.btrfs", arguments: &["-q"], options: "loop" };
pub const EXT4: Kind = Kind { program: "mkfs.ext4", arguments: &["-q"], options: "loop" };
pub const EXT4_QUOTA: Kind =
    Kind { program: "mkfs.ext4", arguments: &["-q", "-O", "quota,project"], options: "loop,prjquota" };
pub const EXT4_COUNTED: Kind =
    Kind { program: "mkfs.ext4", arguments: &["-q", "-O", "quota,project"], options: "loop" };
pub const XFS: Kind = Kind { program: "mkfs.xfs", arguments: &["-q"], options: "loop" };
pub const XFS_QUOTA: Kind = Kind { program: "mkfs.xfs", arguments: &["-q"], options: "loop,prjquota" };

/// Where a file system is mounted.
pub struct Mounted {
    folder: tempfile::TempDir,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.top(), MntFlags::MNT_DETACH);
    }
}

impl Mounted {
    /// Mounts it for the calling thread alone.
    fn new(kind: Option<&Kind>) -> Self {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace of its own");
        let nothing = None::<&str>;
        mount(nothing, "/", nothing, MsFlags::MS_PRIVATE | MsFlags::MS_REC, nothing).unwrap();
        let mounted = Self { folder: tempfile::tempdir().unwrap() };
        fs::set_permissions(mounted.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(mounted.top()).unwrap();
        let Some(kind) = kind else {
            mount(Some("tmpfs"), &mounted.top(), Some("tmpfs"), MsFlags::empty(), nothing).unwrap();
            return mounted;
        };
        let image = mounted.image();
        fs::File::create(&image).unwrap().set_len(512 * MIB).unwrap();
        run(Command::new(kind.program).args(kind.arguments).arg(&image)).unwrap();
        run(Command::new("mount").args(["-o", kind.options]).arg(&image).arg(mounted.top())).unwrap();
        mounted
    }

    pub fn top(&self) -> PathBuf {
        self.folder.path().join("top")
    }

    pub fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// A program that another test is just starting holds, until it runs, whatever this one had open when it was forked.
    pub fn unmount(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(e) = umount2(&self.top(), MntFlags::empty()) {
            assert!(e == Errno::EBUSY && Instant::now() < deadline, "{e}");
            std::thread::yield_now();
        }
    }

    /// A handle that names a place only, as those of the callers may.
    pub fn at(&self, path: &str) -> OwnedFd {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(self.top().join(path), flags, Mode::empty()).unwrap()
    }

    pub fn means(&self) -> Result<Means, String> {
        means(self.at("").as_fd())
    }

    pub fn make(&self, name: &str) -> io::Result<()> {
        make(self.means().unwrap(), self.at("").as_fd(), OsStr::new(name))
    }

    pub fn limit(&self, path: &str) -> Option<u64> {
        limit(self.means().unwrap(), self.at(path).as_fd(), PROJECT).unwrap()
    }

    pub fn set(&self, path: &str, bytes: Option<u64>) -> io::Result<()> {
        let is_first = self.limit(path).is_none();
        set(self.means().unwrap(), self.at(path).as_fd(), PROJECT, bytes, is_first).map(|left| assert_eq!(left, None))
    }

    /// Writes a file as the partition's user: root need not keep to a limit everywhere.
    pub fn write(&self, path: &str, mib: u64) -> Result<(), String> {
        let to = format!("of={}", self.top().join(path).display());
        let count = format!("count={mib}");
        let mut command = Command::new("dd");
        command.args(["if=/dev/zero", "bs=1M", "conv=fsync", "status=none", &to, &count]);
        run(command.uid(PROJECT).gid(PROJECT))
    }
}

pub fn run(command: &mut Command) -> Result<(), String> {
    let output = command.env("LC_ALL", "C").output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {said}")) }
}

/// Runs a test in a thread, on a file system of its own; `None`: tmpfs.
pub fn on(kind: Option<Kind>, test: fn(&Mounted)) {
    let program = kind.as_ref().map_or("mount", |kind| kind.program);
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|folder| folder.join(program).exists());
    if !found || !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root and {program}, and CI must run it");
        eprintln!("SKIPPED: this test needs root and {program}");
        return;
    }
    let thread = std::thread::spawn(move || test(&Mounted::new(kind.as_ref())));
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

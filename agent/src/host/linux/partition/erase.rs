//! Emptying a directory that somebody hostile may have filled: any depth, any name, any mode, no link followed.

use super::files::open_top;
use crate::host::linux::account::assume;
use crate::host::linux::disk::io_problem;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plat_model::Problem;
use plat_model::node::Account;
use plat_model::problem::codes;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, chmodat, fchmod, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The folders that every partition has.
pub const SKELETON: [&str; 6] = ["etc", "srv", "var", "run", "tmp", "log"];

#[derive(Serialize, Deserialize)]
pub struct EraseTask {
    pub directory: PathBuf,
    pub account: Option<Account>,
}

impl EraseTask {
    /// Kills every process of the account, if the partition has one of its own, and empties the directory.
    pub fn perform(&self) -> Result<(), Problem> {
        assume(self.account.as_ref())?;
        if self.account.is_some()
            && !nix::unistd::geteuid().is_root()
            && nix::unistd::getuid() == nix::unistd::geteuid()
        {
            kill_all_of_user();
        }
        let failed = |e: Errno| {
            io_problem(codes::ERASE_FAILED, format!("cannot empty {}", self.directory.display()), &e.into())
                .fix("look for mounts and for files of other users in it")
        };
        let top = open_top(&self.directory)?;
        let _ = fchmod(&top, Mode::from_raw_mode(0o750));
        empty(&top).map_err(failed)?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o027));
        for name in SKELETON {
            match mkdirat(&top, name, Mode::from_raw_mode(0o750)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(())
    }
}

/// One signal reaches all processes of this user but this one at the same instant, so that none can start another.
fn kill_all_of_user() {
    let until = Instant::now() + Duration::from_secs(10);
    let everybody = Pid::from_raw(-1);
    while kill(everybody, Signal::SIGKILL).is_ok() && Instant::now() < until {
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Removes all in `top`. Only one directory is held at a time, so no depth is too deep.
pub fn empty(top: &OwnedFd) -> rustix::io::Result<()> {
    let mut above: Vec<CString> = Vec::new();
    let mut here = reopen(top, c".")?;
    loop {
        match remove_plain(&here)? {
            Some(name) => {
                let _ = chmodat(&here, name.as_c_str(), Mode::from_raw_mode(0o700), AtFlags::empty());
                here = reopen(&here, &name)?;
                above.push(name);
            }
            None => {
                let Some(name) = above.pop() else { return Ok(()) };
                here = reopen(&here, c"..")?;
                match unlinkat(&here, name.as_c_str(), AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(e) => return Err(e),
                }
            }
        }
    }
}

fn reopen(folder: &OwnedFd, name: &std::ffi::CStr) -> rustix::io::Result<OwnedFd> {
    openat(folder, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Removes what can be removed from one directory; the first directory in it that is not empty, if there is one.
fn remove_plain(folder: &OwnedFd) -> rustix::io::Result<Option<CString>> {
    let mut full = None;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let flags = if entry.file_type() == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match unlinkat(folder, name, flags) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => full = Some(name.to_owned()),
            Err(Errno::ISDIR) => match unlinkat(folder, name, AtFlags::REMOVEDIR) {
                Ok(()) => {}
                Err(Errno::NOTEMPTY | Errno::EXIST) => full = Some(name.to_owned()),
                Err(e) => return Err(e),
            },
            Err(e) => return Err(e),
        }
    }
    Ok(full)
}

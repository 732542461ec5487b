//! The socket at which a partition's instance speaks with the agent: made in the partition's directory with its user's
//! rights over files, so that nothing it puts in the way leads anywhere that it could not go itself.

use super::account::become_for_files;
use super::disk::io_problem;
use super::partition::files::{open_top, parents};
use crate::aside::{By, Reached, refuse_files};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use plat_agent_plan::SOCKET;
use plat_model::Problem;
use plat_model::node::Account;
use plat_model::problem::codes;
use rustix::fs::{AtFlags, Mode, fchmod, unlinkat};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Connections that wait to be taken.
const WAITING: i32 = 64;
/// How often it is tried again while somebody puts something in its place.
const TRIES: usize = 8;

/// Makes the socket anew, in the place of an earlier one, and listens on it: for its owner, and root, alone.
///
/// # Errors
/// [`codes::FILES_FAILED`] if something that is no socket is in the way; [`codes::DISK_FULL`].
pub fn open(directory: PathBuf, account: Option<Account>) -> Result<Reached, Problem> {
    // Rights over files are a thread's own, and this one ends with them.
    let made = std::thread::spawn(move || {
        become_for_files(account.as_ref())?;
        let top = open_top(&directory)?;
        make(&top).map_err(|e| {
            io_problem(codes::FILES_FAILED, format!("cannot listen at {}/{SOCKET}", directory.display()), &e)
                .fix("look what is there, and remove it; the agent tries again")
        })
    });
    made.join().unwrap_or_else(|_| Err(Problem::new(codes::INTERNAL, "the thread that makes a socket ended early")))
}

fn make(top: &OwnedFd) -> io::Result<Reached> {
    let path = Path::new(SOCKET);
    let name = path.file_name().unwrap_or_default();
    let folder = parents(top, path.parent().unwrap_or(Path::new("")))?;
    let made = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    refuse_files(&made)?;
    // The file has this mode from its first moment on.
    fchmod(&made, Mode::from_raw_mode(0o600))?;
    // However long the partition's own path is, this one is short, and nobody can exchange what it leads through.
    let address = UnixAddr::new(&Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name))?;
    let mut tries = 0;
    loop {
        match unlinkat(&folder, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
        match bind(made.as_raw_fd(), &address) {
            Ok(()) => break,
            Err(nix::errno::Errno::EADDRINUSE) if tries < TRIES => tries += 1,
            Err(e) => return Err(e.into()),
        }
    }
    listen(&made, Backlog::new(WAITING)?)?;
    Ok(Reached::new(made, By::Tenants))
}

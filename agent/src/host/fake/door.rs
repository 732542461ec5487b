//! The sockets of a fake host are real ones, and no files: the kernel names each by itself.

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use plat_model::Problem;
use plat_model::problem::codes;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{SocketAddr, UnixListener};

/// Listens, and tells where.
pub(super) fn open() -> Result<(OwnedFd, SocketAddr), Problem> {
    made().map_err(|why| Problem::new(codes::FILES_FAILED, "a fake host cannot listen").because(why))
}

fn made() -> io::Result<(OwnedFd, SocketAddr)> {
    let made = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    // Bound to no name it is given one that nobody else has.
    bind(made.as_raw_fd(), &UnixAddr::new_unnamed())?;
    listen(&made, Backlog::new(64)?)?;
    let listener = UnixListener::from(made);
    let address = listener.local_addr()?;
    Ok((listener.into(), address))
}

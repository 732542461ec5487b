//! What others can send open files to. Whoever lets go of a file as the last one waits until it is closed, and its sender
//! says how long that takes: a TCP connection with SO_LINGER whose peer takes nothing is closing for as long as was asked.
//!
//! Where the kernel can (6.16) such files are refused. Everywhere they are received by threads that have a table of open
//! files of their own, of which nothing is closed but by the thread's end: what ends waits for no peer. Kernels before 5.9,
//! which give no such table, let the thread wait, and nobody else.
//!
//! Files of such a table are its thread's alone, and so is what a thread does with them: it wakes no task of tokio's, whose
//! own files it lacks.

#![expect(unsafe_code, reason = "neither the option nor the table has a safe form; each says why it is sound")]

use nix::libc;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::mpsc;
use tokio::io::unix::AsyncFd;

/// SO_PASSRIGHTS of asm-generic/socket.h.
const PASS_RIGHTS: libc::c_int = 83;
/// CLOSE_RANGE_UNSHARE of linux/close_range.h.
const UNSHARE: libc::c_uint = 1 << 1;
/// Most files in one message: SCM_MAX_FD.
pub const FILES_MAX: usize = 253;
/// Of a thread's stack, in bytes: a message with as many files as there can be, and a few KiB of what is copied.
const STACK: usize = 64 * 1024;

/// Has a socket, and all connections that are made to it from now on, take no open files: who sends some is told EPERM.
/// Kernels before 6.16 go on taking them.
///
/// # Errors
/// Those of the system.
pub fn refuse_files(socket: impl AsFd) -> io::Result<()> {
    let (socket, no) = (socket.as_fd().as_raw_fd(), 0 as libc::c_int);
    let length = size_of_val(&no) as libc::socklen_t;
    // SAFETY: the kernel reads one number, which lives across the call.
    let done = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, PASS_RIGHTS, (&raw const no).cast(), length) };
    match io::Error::last_os_error() {
        _ if done == 0 => Ok(()),
        why if why.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        why => Err(why),
    }
}

/// Does the work on a thread with a table of open files of its own, which are these and the three that each process has. It
/// answers with whatever may hold others' files, which go with the thread's end. Returns when the thread has its table: from
/// then on it needs nothing of the caller's.
///
/// # Errors
/// Those of the system: there is no thread then.
pub fn aside<const N: usize, L>(
    files: [BorrowedFd<'_>; N],
    work: impl FnOnce([OwnedFd; N]) -> L + Send + 'static,
) -> io::Result<()> {
    let numbers = files.map(|file| file.as_raw_fd());
    let (begun, has_begun) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("aside".into()).stack_size(STACK);
    thread.spawn(move || {
        let is_own = own_table(numbers);
        let own: io::Result<Vec<OwnedFd>> = numbers.iter().map(|number| own_file(*number, is_own)).collect();
        let own = match own.map(<[OwnedFd; N]>::try_from) {
            Ok(Ok(own)) => own,
            Ok(Err(_)) => return,
            Err(why) => return drop(begun.send(Err(why))),
        };
        let _the_caller_waits = begun.send(Ok(()));
        let left = work(own);
        // What is closed before the end waits for whom it likes.
        if is_own {
            std::mem::forget(left);
        }
    })?;
    has_begun.recv().unwrap_or_else(|_| Err(io::Error::other("a thread ended before it began")))
}

/// Gives this thread a table of its own with these files. They are copied: none is closed here that the caller, who waits,
/// does not hold as well.
fn own_table<const N: usize>(mut kept: [RawFd; N]) -> bool {
    kept.sort_unstable();
    let close = |first: RawFd, last: libc::c_uint, flags: libc::c_uint| {
        // SAFETY: with the flag the table becomes this thread's, and without it it is already. The thread has just begun and
        // owns none of the files yet.
        unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) == 0 }
    };
    let above = kept.last().map_or(3, |last| (last + 1).max(3));
    // What is above is not even copied.
    if !close(above, libc::c_uint::MAX, UNSHARE) {
        return false;
    }
    let mut next = 3;
    for number in kept {
        if number > next {
            let _open_or_not = close(next, (number - 1) as libc::c_uint, 0);
        }
        next = next.max(number + 1);
    }
    true
}

fn own_file(number: RawFd, is_own: bool) -> io::Result<OwnedFd> {
    if is_own {
        // SAFETY: it is open, and in this table nobody else owns it.
        return Ok(unsafe { OwnedFd::from_raw_fd(number) });
    }
    // SAFETY: the caller of `aside` has lent it and waits until there is an answer.
    unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()
}

/// Who can reach a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    Tenants,
    /// Nobody but this process: so it is in a simulation, where how threads take turns is nothing that a seed could decide.
    Us,
}

/// A socket of ours, which can hold what was sent to it when it is closed: that is done where it keeps nobody waiting.
#[derive(Debug)]
pub struct Reached {
    socket: ManuallyDrop<OwnedFd>,
    pub by: By,
}

impl Reached {
    pub fn new(socket: OwnedFd, by: By) -> Self {
        Self { socket: ManuallyDrop::new(socket), by }
    }

    /// Tells when somebody has come. Within a tokio runtime.
    ///
    /// # Errors
    /// Those of the system.
    pub fn watched(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: it is one open file until it is dropped, and the AsyncFd holds it until then.
        Ok(unsafe { AsyncFd::register(self) }?)
    }
}

impl AsFd for Reached {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Reached {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for Reached {
    fn drop(&mut self) {
        let (closed, is_closed) = mpsc::channel::<()>();
        let is_held = self.by == By::Us
            || aside([self.socket.as_fd()], move |held| {
                let _when_it_is = is_closed.recv();
                held
            })
            .is_ok();
        // Else it stays open until this process ends.
        if is_held {
            // SAFETY: it is not used after this.
            unsafe { ManuallyDrop::drop(&mut self.socket) };
        }
        drop(closed);
    }
}

#[cfg(test)]
pub mod tests;

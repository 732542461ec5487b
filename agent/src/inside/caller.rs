//! One who speaks, on a thread beside all others ([`crate::aside`]): what is said is copied between the connection and a
//! socket of the agent's own, and whatever comes along with it is nobody's.

use super::serve::PATIENCE;
use crate::aside::FILES_MAX;
use nix::sys::socket::{getsockopt, sockopt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_oobinline;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, Shutdown, SocketFlags, accept_with, recv, recvmsg,
    send, shutdown,
};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Instant;

/// Bytes that are copied at once.
const SOME: usize = 4096;

/// Takes who waits at the listener, says on the other socket whom it has (a user, or less than zero: the error's number), and
/// then copies until one of the two says no more. All that is left when it is over, to be closed by the thread's end.
pub fn listen([listener, ours]: [OwnedFd; 2]) -> Vec<OwnedFd> {
    let taken = accept_with(&listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
    // Else the kernel lets go of what comes out of band as it passes over it, in the middle of this thread's life.
    let taken = taken.and_then(|taken| set_socket_oobinline(&taken, true).map(|()| taken));
    let (said, taken) = match taken {
        Ok(taken) => match getsockopt(&taken, sockopt::PeerCredentials) {
            Ok(peer) => (i64::from(peer.uid()), Some(taken)),
            Err(why) => (-i64::from(why as i32), Some(taken)),
        },
        Err(why) => (-i64::from(why.raw_os_error()), None),
    };
    let is_heard = send(&ours, &said.to_be_bytes(), SendFlags::NOSIGNAL) == Ok(size_of_val(&said));
    let mut left = Vec::new();
    if let Some(theirs) = taken {
        if is_heard && said >= 0 {
            left = copy(&theirs, &ours);
        }
        left.push(theirs);
    }
    left.extend([listener, ours]);
    left
}

/// What was taken from one and not yet given to the other.
struct Held {
    bytes: [u8; SOME],
    at: usize,
    end: usize,
}

impl Held {
    fn new() -> Self {
        Self { bytes: [0; SOME], at: 0, end: 0 }
    }

    fn is_empty(&self) -> bool {
        self.at == self.end
    }

    fn holds(&mut self, bytes: usize) {
        (self.at, self.end) = (0, bytes);
    }

    /// As much as goes now.
    fn give(&mut self, to: &OwnedFd) -> Result<(), Errno> {
        while !self.is_empty() {
            match send(to, &self.bytes[self.at..self.end], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(sent) => self.at += sent,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(why) => return Err(why),
            }
        }
        Ok(())
    }
}

/// Copies both ways until the agent's side says no more, or theirs takes no more. Files that came along, if there were any:
/// that ends it, as where the kernel refuses them.
fn copy(theirs: &OwnedFd, ours: &OwnedFd) -> Vec<OwnedFd> {
    let (mut asked, mut answer) = (Held::new(), Held::new());
    let mut is_over = false;
    loop {
        let wanted = |takes: bool, gives: bool| {
            let (takes, gives) = (takes.then_some(PollFlags::IN), gives.then_some(PollFlags::OUT));
            takes.into_iter().chain(gives).collect::<PollFlags>()
        };
        let of_theirs = wanted(asked.is_empty() && !is_over, !answer.is_empty());
        let of_ours = wanted(answer.is_empty(), !asked.is_empty()) | PollFlags::RDHUP;
        // Who has gone is always told of: not asked for, it is left out.
        let mut either = [PollFd::new(ours, of_ours), PollFd::new(theirs, of_theirs)];
        let count = if of_theirs.is_empty() { 1 } else { 2 };
        if !matches!(poll(&mut either[..count], None), Ok(_) | Err(Errno::INTR)) {
            return Vec::new();
        }
        if either[0].revents().intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
            last_words(theirs, ours, answer);
            return Vec::new();
        }
        if asked.is_empty() && !is_over {
            match take(theirs, &mut asked) {
                Ok(files) if !files.is_empty() => return files,
                Ok(_) if asked.is_empty() => is_over = true,
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return Vec::new(),
            }
            if is_over && shutdown(ours, Shutdown::Write).is_err() {
                return Vec::new();
            }
        }
        if asked.give(ours).is_err() {
            // It has ended, and is heard of next.
            asked.holds(0);
        }
        if answer.is_empty() {
            match recv(ours, &mut answer.bytes, RecvFlags::DONTWAIT) {
                Ok((_, bytes)) => answer.holds(bytes),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => return Vec::new(),
            }
        }
        if answer.give(theirs).is_err() {
            return Vec::new();
        }
    }
}

/// What comes with what was said, which is empty at its end.
fn take(theirs: &OwnedFd, asked: &mut Held) -> Result<Vec<OwnedFd>, Errno> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = recvmsg(theirs, &mut [IoSliceMut::new(&mut asked.bytes)], &mut control, flags)?;
    asked.holds(got.bytes);
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok(files.flatten().collect())
}

/// The agent's side says no more: what it has said goes, if it is taken in time.
fn last_words(theirs: &OwnedFd, ours: &OwnedFd, mut answer: Held) {
    let until = Instant::now() + PATIENCE;
    loop {
        if answer.is_empty() {
            match recv(ours, &mut answer.bytes, RecvFlags::DONTWAIT) {
                Ok((_, bytes)) if bytes > 0 => answer.holds(bytes),
                Err(Errno::INTR) => {}
                _ => return,
            }
        }
        if answer.give(theirs).is_err() {
            return;
        }
        if answer.is_empty() {
            continue;
        }
        let wait = until.saturating_duration_since(Instant::now());
        let wait_at_most = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
        if wait.is_zero() || poll(&mut [PollFd::new(theirs, PollFlags::OUT)], Some(&wait_at_most)).is_err() {
            return;
        }
    }
}

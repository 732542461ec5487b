//! Hearing that a service is alive, by the protocol of `sd_notify`: a datagram socket that its environment names.

use super::launch::Program;
use crate::aside::{FILES_MAX, aside, refuse_files};
use crate::host::linux::disk::random_hex;
use crate::host::linux::namespace;
use nix::sched::{CloneFlags, setns};
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::event::{EventfdFlags, Timespec, eventfd, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, bind,
    recvmsg, socket_with, sockopt,
};
use std::io::IoSliceMut;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

/// Longest message that is read, in bytes; of a longer one, so much.
const MESSAGE_MAX: usize = 4096;
/// How soon it is tried again to listen.
const AGAIN: Duration = Duration::from_secs(1);

/// Where a service says that it is alive. Everybody in its network namespace can write there, and send files along: it is read
/// on a thread [aside](crate::aside), never by whoever stands by the service.
pub struct Notices {
    /// Never closed but by this process's end, which waits for nobody.
    socket: ManuallyDrop<OwnedFd>,
    /// Rung by the thread that listens.
    bell: OwnedFd,
    word: Arc<Word>,
    /// Whose words count.
    uid: u32,
    /// Longest silence.
    pub seconds: u32,
}

/// What the bell was rung for.
struct Word {
    is_alive: AtomicBool,
    /// Nobody listens any more.
    is_deaf: AtomicBool,
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Notices {
    /// Makes the socket, and tells the program of it. It has a name without a file: nothing of root's is in a partition's
    /// folder, and no folder of root's has to be open to partitions. Such names belong to a network namespace, so it is
    /// made in the program's.
    ///
    /// # Errors
    /// SERVICE_START, NO_NAMESPACE.
    pub fn open(program: &mut Program, seconds: u32) -> Result<Self, Problem> {
        let name = format!("plat/notify/{}", random_hex(16)?);
        let wrong = |why: String| {
            Problem::new(codes::SERVICE_START, "there can be no socket for a service to say that it is alive")
                .because(why)
        };
        let space = program.confinement.namespace.as_deref();
        let home = openat(CWD, "/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|e| wrong(e.to_string()))?;
        namespace::enter(space)?;
        let made = Self::make(&name);
        if space.is_some() {
            setns(home, CloneFlags::CLONE_NEWNET).map_err(|e| wrong(e.desc().into()))?;
        }
        let socket = made.map_err(|e| wrong(e.to_string()))?;
        let account = program.confinement.account.as_ref();
        let uid = account.map_or_else(|| rustix::process::geteuid().as_raw(), |account| account.uid);
        let micros = u64::from(seconds) * 1_000_000;
        program.environment.insert("NOTIFY_SOCKET".into(), format!("@{name}"));
        program.environment.insert("WATCHDOG_USEC".into(), micros.to_string());
        Self::of(socket, uid, seconds).map_err(|e| wrong(e.to_string()))
    }

    fn of(socket: OwnedFd, uid: u32, seconds: u32) -> rustix::io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let word = Arc::new(Word { is_alive: AtomicBool::new(false), is_deaf: AtomicBool::new(true) });
        Ok(Self { socket: ManuallyDrop::new(socket), bell, word, uid, seconds })
    }

    fn make(name: &str) -> rustix::io::Result<OwnedFd> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        refuse_files(&socket).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        // Every user of the namespace can see the name and write: the kernel says who did.
        sockopt::set_socket_passcred(&socket, true)?;
        bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        Ok(socket)
    }

    pub fn longest(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// Has a thread listen, from now on or from soon on.
    pub fn listen(&self) {
        let (word, uid) = (self.word.clone(), self.uid);
        word.is_deaf.store(false, Relaxed);
        let begun = aside([self.socket.as_fd(), self.bell.as_fd()], move |[socket, bell]| {
            let files = hear(&socket, &bell, uid, &word);
            (files, socket, bell)
        });
        if begun.is_err() {
            self.word.is_deaf.store(true, Relaxed);
        }
    }

    /// When it is to be tried again to listen, if nobody does.
    pub fn deaf(&self) -> Option<Duration> {
        self.word.is_deaf.load(Relaxed).then_some(AGAIN)
    }

    /// Whether the service has said that it is alive since this was asked last.
    pub fn heard(&self) -> bool {
        let _rung_or_not = rustix::io::read(&self.bell, &mut [0; 8]);
        if self.word.is_deaf.load(Acquire) {
            self.listen();
        }
        self.word.is_alive.swap(false, Acquire)
    }
}

/// Listens until files come along with a message. They are closed by the thread's end, and another one listens then.
fn hear(socket: &OwnedFd, bell: &OwnedFd, uid: u32, word: &Word) -> Vec<OwnedFd> {
    loop {
        let (is_alive, files) = match next(socket, uid) {
            Ok(next) => next,
            Err(Errno::INTR) => continue,
            Err(_) => {
                // For lack of memory, which may be there later.
                let _the_time_is_over = poll(&mut [], Some(&Timespec { tv_sec: AGAIN.as_secs() as i64, tv_nsec: 0 }));
                continue;
            }
        };
        word.is_alive.fetch_or(is_alive, Release);
        word.is_deaf.fetch_or(!files.is_empty(), Release);
        if is_alive || !files.is_empty() {
            let _there_is_room = rustix::io::write(bell, &1_u64.to_ne_bytes());
        }
        if !files.is_empty() {
            return files;
        }
    }
}

/// The next message: whether it is the service's and says that it is alive, and what came along with it.
fn next(socket: &OwnedFd, uid: u32) -> Result<(bool, Vec<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(FILES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; MESSAGE_MAX];
    let got = recvmsg(socket, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let (mut is_own, mut files) = (false, Vec::new());
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmCredentials(sender) => is_own = sender.uid.as_raw() == uid,
            RecvAncillaryMessage::ScmRights(sent) => files.extend(sent),
            _ => {}
        }
    }
    Ok((is_own && text[..got].split(|byte| *byte == b'\n').any(|line| line == b"WATCHDOG=1"), files))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aside::tests::{lingering, take_files, until, within};
    use rustix::net::{SendFlags, connect};

    fn socket(uid: u32) -> (Notices, OwnedFd) {
        let name = format!("plat/test/{}", random_hex(16).unwrap());
        let socket = Notices::make(&name).unwrap();
        take_files(&socket);
        let say = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).unwrap();
        connect(&say, &SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap()).unwrap();
        (Notices::of(socket, uid, 1).unwrap(), say)
    }

    fn alive(say: &OwnedFd) {
        rustix::net::send(say, b"STATUS=busy\nWATCHDOG=1\n", SendFlags::empty()).unwrap();
    }

    #[test]
    fn what_others_send_along_keeps_nobody_from_being_heard() {
        within(60, || {
            for _ in 0..20 {
                let (notices, say) = socket(rustix::process::geteuid().as_raw());
                // Read only then: nobody else has them any more.
                let _held = [(); 4].map(|()| lingering().send(&say, "READY=1").unwrap());
                alive(&say);
                notices.listen();
                until("it is heard", || notices.heard());
                assert!(!notices.heard());
                alive(&say);
                until("it is heard again", || notices.heard());
            }
        });
    }

    #[test]
    fn the_words_of_others_do_not_count() {
        within(60, || {
            let (notices, say) = socket(rustix::process::geteuid().as_raw() + 1);
            let _held = lingering().send(&say, "WATCHDOG=1").unwrap();
            alive(&say);
            notices.listen();
            let mut reads = || {
                assert!(!notices.heard());
                rustix::io::ioctl_fionread(&*notices.socket).unwrap() == 0
            };
            until("all is read", &mut reads);
            assert!(reads());
        });
    }
}

//! Hearing that a service is alive, by the protocol of `sd_notify`: a datagram socket that its environment names.

use super::launch::Program;
use crate::host::linux::disk::random_hex;
use crate::host::linux::namespace;
use nix::sched::{CloneFlags, setns};
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, bind,
    recvmsg, socket_with, sockopt,
};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Longest message that is read, in bytes; of a longer one, so much.
const MESSAGE_MAX: usize = 4096;
/// Messages that are read at once, so that a flood does not keep the rest from being looked at.
const MESSAGES: usize = 64;

/// Where a service says that it is alive.
pub struct Notices {
    socket: OwnedFd,
    /// Whose words count.
    uid: u32,
    /// Longest silence.
    pub seconds: u32,
}

impl AsFd for Notices {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
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
        Ok(Self { socket, uid, seconds })
    }

    fn make(name: &str) -> rustix::io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        // Every user of the namespace can see the name and write: the kernel says who did.
        sockopt::set_socket_passcred(&socket, true)?;
        bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        Ok(socket)
    }

    pub fn longest(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// Reads what was said; whether the service has said that it is alive.
    pub fn heard(&self) -> bool {
        (0..MESSAGES).map_while(|_| self.read()).fold(false, |heard, alive| heard || alive)
    }

    /// One message; `None` when there is none.
    fn read(&self) -> Option<bool> {
        // What else was sent along is closed.
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(8))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut text = [0; MESSAGE_MAX];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let got = match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut text)], &mut control, flags) {
            Ok(got) => got.bytes,
            Err(rustix::io::Errno::INTR) => return Some(false),
            Err(_) => return None,
        };
        let mut own = false;
        for message in control.drain() {
            match message {
                RecvAncillaryMessage::ScmCredentials(sender) => own = sender.uid.as_raw() == self.uid,
                RecvAncillaryMessage::ScmRights(files) => files.for_each(drop),
                _ => {}
            }
        }
        Some(own && text[..got].split(|byte| *byte == b'\n').any(|line| line == b"WATCHDOG=1"))
    }
}

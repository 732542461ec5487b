use super::*;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Has a socket take files, as where the kernel cannot refuse them.
pub fn take_files(socket: impl AsFd) {
    let (socket, yes) = (socket.as_fd().as_raw_fd(), 1 as libc::c_int);
    let length = size_of_val(&yes) as libc::socklen_t;
    // SAFETY: the kernel reads one number, which lives across the call.
    unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, PASS_RIGHTS, (&raw const yes).cast(), length) };
}

/// What whoever closes it as the last one waits for, for days: one end of a connection that is full.
pub struct Lingering {
    pub sent: TcpStream,
    never_read: TcpStream,
}

pub fn lingering() -> Lingering {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sent = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (never_read, _) = listener.accept().unwrap();
    sent.set_nonblocking(true).unwrap();
    while sent.write(&[0; 64 * 1024]).is_ok() {}
    setsockopt(&sent, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 1_000_000 }).unwrap();
    Lingering { sent, never_read }
}

impl Lingering {
    /// Sends it along with a text, and has it no more. The peer is to be held on to.
    pub fn send(self, to: impl AsFd, text: &str) -> rustix::io::Result<TcpStream> {
        self.send_by(to, text, SendFlags::empty())
    }

    pub fn send_by(self, to: impl AsFd, text: &str, how: SendFlags) -> rustix::io::Result<TcpStream> {
        let files = [self.sent.as_fd()];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        control.push(SendAncillaryMessage::ScmRights(&files));
        let sent = sendmsg(to, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL | how);
        if sent.is_err() {
            setsockopt(&self.sent, sockopt::Linger, &libc::linger { l_onoff: 0, l_linger: 0 }).unwrap();
        }
        sent.map(|_| self.never_read)
    }
}

/// A test that hangs has failed.
pub fn within(seconds: u64, test: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let running = std::thread::spawn(move || {
        test();
        done.send(()).unwrap();
    });
    match is_done.recv_timeout(Duration::from_secs(seconds)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => running.join().unwrap(),
    }
}

/// Looks again until it is so.
pub fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < end, "it did not happen: {what}");
        std::thread::yield_now();
    }
}

fn receive(from: &impl AsFd) -> Vec<OwnedFd> {
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    recvmsg(from, &mut [IoSliceMut::new(&mut [0; 16])], &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
    let files = control.drain().filter_map(|message| match message {
        rustix::net::RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    files.flatten().collect()
}

#[test]
fn what_is_received_aside_is_closed_at_once_by_its_threads_end() {
    within(60, || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut held = lingering().send(&theirs, "x").unwrap();
        aside([ours.as_fd()], |[ours]| (receive(&ours), ours)).unwrap();
        drop(ours);
        // The thread had the other end, and the connection is told of the close by the kernel.
        until("the thread has ended", || (&theirs).write(b"x").is_err());
        held.set_nonblocking(true).unwrap();
        let mut some = vec![0; 1 << 20];
        until("it is closed", || matches!(std::io::Read::read(&mut held, &mut some), Ok(0)));
    });
}

#[test]
fn a_thread_aside_has_the_files_that_it_was_lent_and_no_others() {
    let ((one, other), (three, _four)) = (UnixStream::pair().unwrap(), UnixStream::pair().unwrap());
    let (say, said) = mpsc::channel();
    let numbers = [one.as_raw_fd(), other.as_raw_fd(), three.as_raw_fd()];
    let end = one.as_fd().try_clone_to_owned().unwrap();
    aside([one.as_fd(), three.as_fd()], move |own| {
        let open = std::fs::read_dir("/proc/thread-self/fd").unwrap();
        let open: Vec<RawFd> =
            open.flatten().filter_map(|fd| fd.file_name().to_str()?.parse().ok()).filter(|fd| *fd > 2).collect();
        say.send((open, own.each_ref().map(AsRawFd::as_raw_fd))).unwrap();
        own
    })
    .unwrap();
    drop((one, end));
    let (open, own) = said.recv().unwrap();
    assert_eq!(own, [numbers[0], numbers[2]]);
    // And the one of the folder that was read.
    assert_eq!(open.iter().filter(|fd| own.contains(fd)).count(), 2);
    assert_eq!(open.len(), 3, "{open:?}");
    until("its end is the last one of the connection", || (&other).write(b"x").is_err());
}

#[test]
fn a_listener_is_closed_and_waits_for_nobody_in_its_queue() {
    within(60, || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let theirs = UnixStream::connect(&path).unwrap();
        let _held = lingering().send(&theirs, "x").unwrap();
        drop(Reached::new(listener.into(), By::Tenants));
        until("nobody can come any more", || UnixStream::connect(&path).is_err());
    });
}

#[test]
fn a_socket_that_refuses_files_has_its_connections_refuse_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    refuse_files(&listener).unwrap();
    let theirs = UnixStream::connect(&path).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let files = [file.as_fd()];
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    control.push(SendAncillaryMessage::ScmRights(&files));
    let sent = sendmsg(&theirs, &[IoSlice::new(b"x")], &mut control, SendFlags::NOSIGNAL);
    // Only where the kernel knows of it.
    assert_eq!(sent, if can_refuse() { Err(rustix::io::Errno::PERM) } else { Ok(1) });
    assert_eq!((&theirs).write(b"y").unwrap(), 1);
}

fn can_refuse() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(16))
}

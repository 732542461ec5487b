//! rtnetlink, spoken by hand: requests are packed into large datagrams and sent together, their acknowledgements read
//! after, so that a thousand links cost a few dozen system calls. Only the few attributes used here are known; whatever
//! else a newer kernel says is skipped, never an error.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

pub(super) const REQUEST: u16 = 1;
const ACK: u16 = 4;
pub(super) const EXCL: u16 = 0x200;
pub(super) const CREATE: u16 = 0x400;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
/// How many bytes of requests are sent at once. Acknowledgements of them all fit the receive buffer.
const SEND_SIZE: usize = 32 << 10;
/// How many requests are on their way at most.
const IN_FLIGHT: usize = 128;
const RECEIVE_BUFFER: usize = 1 << 20;

/// A request under construction: its fixed part, then attributes.
#[derive(Debug, Clone)]
pub(super) struct Request(Vec<u8>);

impl Request {
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(fixed);
        Self(bytes)
    }

    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub fn number(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    pub fn text(self, kind: u16, value: &str) -> Self {
        self.attribute(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// What was added to it, to be nested in an attribute of another.
    pub fn attributes_only(&self) -> &[u8] {
        &self.0[HEADER..]
    }

    fn sealed(mut self, sequence: u32, flags: u16) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | flags;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// A socket to the kernel's routing tables, in the network namespace of the thread that opened it.
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    pub fn open() -> io::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
        nix::sys::socket::bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        Ok(Self { fd, sequence: 0 })
    }

    /// Sends all requests, pipelined; says for each how it ended.
    pub fn call(&mut self, requests: Vec<Request>) -> io::Result<Vec<Result<(), Errno>>> {
        let mut results = vec![Ok(()); requests.len()];
        let first = self.sequence.wrapping_add(1);
        let (mut packet, mut waiting) = (Vec::new(), 0);
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            packet.extend(request.sealed(self.sequence, ACK));
            waiting += 1;
            if packet.len() >= SEND_SIZE || waiting >= IN_FLIGHT {
                self.send(&packet)?;
                packet.clear();
                self.acknowledged(&mut waiting, first, &mut results)?;
            }
        }
        if !packet.is_empty() {
            self.send(&packet)?;
            self.acknowledged(&mut waiting, first, &mut results)?;
        }
        Ok(results)
    }

    fn send(&self, packet: &[u8]) -> io::Result<()> {
        match send(self.fd.as_raw_fd(), packet, MsgFlags::empty())? {
            sent if sent == packet.len() => Ok(()),
            sent => Err(io::Error::other(format!("the kernel took {sent} of {} bytes", packet.len()))),
        }
    }

    fn acknowledged(&self, waiting: &mut usize, first: u32, results: &mut [Result<(), Errno>]) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        while *waiting > 0 {
            let length = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for (kind, sequence, body) in messages(&buffer[..length]) {
                if kind != ERROR {
                    continue;
                }
                *waiting = waiting.saturating_sub(1);
                let index = usize::try_from(sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                let code = number(body).map_or(-1, |bits| i32::from_ne_bytes(bits.to_ne_bytes()));
                if let Some(result) = results.get_mut(index).filter(|_| code != 0) {
                    *result = Err(Errno::from_raw(-code));
                }
            }
        }
        Ok(())
    }

    /// Asks for all of a table; `each` is given the body of every answer.
    pub fn dump(&mut self, request: Request, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(&request.sealed(self.sequence, DUMP))?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for (kind, sequence, body) in messages(&buffer[..length]) {
                match kind {
                    _ if sequence != self.sequence => {}
                    DONE => return Ok(()),
                    ERROR => {
                        let code = number(body).map_or(-1, |bits| i32::from_ne_bytes(bits.to_ne_bytes()));
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    _ => each(body),
                }
            }
        }
    }
}

/// Type, sequence number and body of each message of a datagram.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(number(bytes)?).ok()?;
        let message = bytes.get(..length).filter(|message| message.len() >= HEADER)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        Some((kind, number(&message[8..])?, &message[HEADER..]))
    })
}

/// Type and value of each attribute.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & 0x3FFF, value)) // Without the flags for nesting and byte order.
    })
}

/// The first four bytes as a number.
pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.strip_suffix(&[0]).unwrap_or(bytes)).into_owned()
}

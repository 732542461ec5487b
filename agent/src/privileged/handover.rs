//! Open files from root's part to the other: beside the socket of the calls, which carries none. Each comes with the
//! number of the call that it answers, and is there before the answer is.

use crate::aside::{By, Reached};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, Shutdown, SocketFlags, SocketType, recvmsg, sendmsg, shutdown, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Root's end. Neither end waits: what nobody takes is refused once the kernel holds enough of it.
pub struct Giving(OwnedFd);

/// The other end.
pub struct Taking(OwnedFd);

/// Both ends.
///
/// # Errors
/// Those of the system.
pub fn pair() -> io::Result<(Giving, Taking)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (mine, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // Nothing comes this way: root is sent no files that it would have to close.
    shutdown(&mine, Shutdown::Read)?;
    Ok((Giving(mine), Taking(theirs)))
}

impl Giving {
    /// # Errors
    /// Those of the system, also when too much waits to be taken.
    pub fn give(&self, id: u64, file: BorrowedFd<'_>) -> io::Result<()> {
        let files = [file];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut room);
        ancillary.push(SendAncillaryMessage::ScmRights(&files));
        sendmsg(&self.0, &[IoSlice::new(&id.to_be_bytes())], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl Taking {
    /// The file of this call, which was answered. What was given for others before it is nobody's any more.
    ///
    /// # Errors
    /// Those of the system, and NotFound if there is none.
    pub fn take(&self, id: u64) -> io::Result<OwnedFd> {
        loop {
            let mut number = [0; 8];
            let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut room);
            let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
            let got = recvmsg(&self.0, &mut [IoSliceMut::new(&mut number)], &mut ancillary, flags)?;
            let file = ancillary.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut files) => files.next(),
                _ => None,
            });
            match file {
                Some(file) if got.bytes == 8 && u64::from_be_bytes(number) == id => return Ok(file),
                _ if got.bytes == 0 => return Err(io::ErrorKind::NotFound.into()),
                // A tenant may have come to it by now.
                other => drop(other.map(|file| Reached::new(file, By::Tenants))),
            }
        }
    }
}

impl From<Taking> for OwnedFd {
    fn from(taking: Taking) -> Self {
        taking.0
    }
}

impl From<OwnedFd> for Taking {
    fn from(file: OwnedFd) -> Self {
        Self(file)
    }
}

impl AsFd for Taking {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    #[test]
    fn a_file_comes_with_its_call_and_nobody_elses() {
        let (giving, taking) = pair().unwrap();
        let folder = tempfile::tempdir().unwrap();
        for id in [3_u64, 7] {
            let path = folder.path().join(id.to_string());
            std::fs::write(&path, id.to_string()).unwrap();
            giving.give(id, File::open(path).unwrap().as_fd()).unwrap();
        }
        let mut text = String::new();
        File::from(taking.take(7).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "7");
        assert_eq!(taking.take(3).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(giving);
        assert_eq!(taking.take(3).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_nobody_takes_is_refused_in_the_end() {
        let (giving, _taking) = pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        let given = (0..100_000).map(|id| giving.give(id, file.as_fd())).take_while(Result::is_ok).count();
        assert!(given < 100_000, "{given}");
    }
}

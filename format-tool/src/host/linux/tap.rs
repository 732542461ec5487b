//! Taps and tuns by ioctl on `/dev/net/tun`: the kernel makes them no other way.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

mod calls {
    #![expect(unsafe_code, reason = "the kernel makes taps by ioctl alone, and an ioctl is a foreign call")]

    use nix::libc;

    // TUNSETIFF reads a whole `struct ifreq`; the others take a number.
    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_int_bad!(set_persist, libc::TUNSETPERSIST);
    nix::ioctl_write_int_bad!(set_owner, libc::TUNSETOWNER);

    /// Attaches the file to a new tap or tun of this name.
    pub(super) fn attach(fd: i32, name: &str, mode: super::Mode) -> nix::Result<()> {
        let mode = match mode {
            super::Mode::Tap => libc::IFF_TAP,
            super::Mode::Tun => libc::IFF_TUN,
        };
        let flags = mode | libc::IFF_NO_PI | libc::IFF_TUN_EXCL;
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags as libc::c_short },
        };
        // The name has at most 15 bytes (checked with the settings), so the last stays zero.
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
            *to = from as libc::c_char;
        }
        // SAFETY: `request` is a whole ifreq that lives across the call; the kernel writes no further than its end.
        unsafe { set_interface(fd, &request) }.map(drop)
    }

    /// Lets the tap outlive the file.
    pub(super) fn persist(fd: i32) -> nix::Result<()> {
        // SAFETY: the argument is a number, no memory is touched.
        unsafe { set_persist(fd, 1) }.map(drop)
    }

    /// Lets this user open the tap.
    pub(super) fn own(fd: i32, uid: i32) -> nix::Result<()> {
        // SAFETY: the argument is a number, no memory is touched.
        unsafe { set_owner(fd, uid) }.map(drop)
    }
}

/// What the packets of the device are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mode {
    /// Frames, as on a wire.
    Tap,
    /// IP packets.
    Tun,
}

/// Makes a persistent tap or tun. It fails where a link of the name exists, and leaves nothing behind when it fails.
pub(super) fn make(name: &str, mode: Mode, owner: Option<u32>) -> io::Result<()> {
    let file: File =
        OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_CLOEXEC).open("/dev/net/tun")?;
    let fd = file.as_raw_fd();
    calls::attach(fd, name, mode)?;
    if let Some(uid) = owner {
        calls::own(fd, i32::try_from(uid).map_err(io::Error::other)?)?;
    }
    Ok(calls::persist(fd)?)
}

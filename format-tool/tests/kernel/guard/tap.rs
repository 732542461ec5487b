//! The other side of a tap or tun: what a virtual machine or VPN software does with it.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);

mod calls {
    #![expect(unsafe_code, reason = "a tap is opened by ioctl alone, and an ioctl is a foreign call")]

    use nix::libc;

    nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);
    nix::ioctl_write_ptr_bad!(set_address, libc::SIOCSIFHWADDR, libc::ifreq);
    nix::ioctl_write_int_bad!(set_persist, libc::TUNSETPERSIST);
    nix::ioctl_write_int_bad!(set_type, libc::TUNSETLINK);

    /// Attaches the file to a tap or tun that exists.
    pub(super) fn attach(fd: i32, name: &str, mode: i32) -> nix::Result<()> {
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: (mode | libc::IFF_NO_PI) as libc::c_short },
        };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
            *to = from as libc::c_char;
        }
        // SAFETY: `request` is a whole ifreq that lives across the call; the kernel writes no further than its end.
        unsafe { set_interface(fd, &request) }.map(drop)
    }

    /// Gives the tap that the file is attached to another hardware address.
    pub(super) fn rename(fd: i32, mac: [u8; 6]) {
        let mut address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
        for (to, from) in address.sa_data.iter_mut().zip(mac) {
            *to = from as libc::c_char;
        }
        let ifr_ifru = libc::__c_anonymous_ifr_ifru { ifru_hwaddr: address };
        let request = libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru };
        // SAFETY: `request` is a whole ifreq that lives across the call; the kernel only reads it.
        unsafe { set_address(fd, &request) }.expect("whoever opens a tap may");
    }

    /// The tap is no Ethernet any more.
    pub(super) fn become_infiniband(fd: i32) {
        // SAFETY: the argument is a number, no memory is touched.
        unsafe { set_type(fd, i32::from(libc::ARPHRD_INFINIBAND)) }.expect("whoever opens a tap that is down may");
    }

    /// The tap goes with the file.
    pub(super) fn let_go(fd: i32) {
        // SAFETY: the argument is a number, no memory is touched.
        unsafe { set_persist(fd, 0) }.expect("whoever opens a tap may");
    }
}

pub struct Guest(File);

impl Guest {
    pub fn behind_tap(name: &str) -> Self {
        Self::behind(name, nix::libc::IFF_TAP)
    }

    pub fn behind_tun(name: &str) -> Self {
        Self::behind(name, nix::libc::IFF_TUN)
    }

    fn behind(name: &str, mode: i32) -> Self {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/net/tun").unwrap();
        calls::attach(file.as_raw_fd(), name, mode).unwrap_or_else(|e| panic!("{name}: {e}"));
        Self(file)
    }

    /// Lets the tap go as soon as it is there and nobody else has it open. Whether it did.
    pub fn lets_go_of(name: &str) -> bool {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
        let there = Path::new("/proc/sys/net/ipv4/conf").join(name).exists();
        let gone = there && calls::attach(file.as_raw_fd(), name, nix::libc::IFF_TAP).is_ok();
        if gone {
            calls::let_go(file.as_raw_fd());
        }
        gone
    }

    /// Calls itself by another hardware address.
    pub fn takes(&self, mac: [u8; 6]) {
        calls::rename(self.0.as_raw_fd(), mac);
    }

    /// Of a tap that is down, and no port.
    pub fn becomes_infiniband(&self) {
        calls::become_infiniband(self.0.as_raw_fd());
    }

    pub fn send(&self, frame: &[u8]) {
        assert_eq!((&self.0).write(frame).unwrap(), frame.len());
    }

    /// What arrives until something does that `last` accepts, and that.
    pub fn receive_until(&self, last: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while !frames.last().is_some_and(|frame: &Vec<u8>| last(frame)) {
            frames.push(
                self.receive(DEADLINE).unwrap_or_else(|| panic!("nothing more came after {} frames", frames.len())),
            );
        }
        frames
    }

    /// Sends a frame again and again until there is an answer: a port of the bridge forwards only a moment after
    /// somebody has opened its tap.
    pub fn ask(&self, frame: &[u8], who: &Guest, answers: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let began = Instant::now();
        loop {
            self.send(frame);
            while let Some(frame) = who.receive(Duration::from_millis(50)) {
                if answers(&frame) {
                    return frame;
                }
            }
            assert!(began.elapsed() < DEADLINE, "no answer");
        }
    }

    /// Has it said again and again until this is heard.
    pub fn hear(&self, say: impl Fn(), heard: impl Fn(&[u8]) -> bool) {
        let began = Instant::now();
        loop {
            say();
            while let Some(frame) = self.receive(Duration::from_millis(50)) {
                if heard(&frame) {
                    return;
                }
            }
            assert!(began.elapsed() < DEADLINE, "nothing is heard");
        }
    }

    fn receive(&self, deadline: Duration) -> Option<Vec<u8>> {
        let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::try_from(deadline).unwrap()).unwrap() == 0 {
            return None;
        }
        let mut frame = vec![0; 2000];
        let length = (&self.0).read(&mut frame).unwrap();
        frame.truncate(length);
        Some(frame)
    }
}

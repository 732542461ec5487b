//! The world outside of the machine: one other host, at 192.0.2.9 and 2001:db8:7::9, that knows the way to the
//! partitions. The machine's own addresses on the way to it end in 1.

use crate::machine::ip;
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::Path;

/// A network namespace; gone when nothing is left in it.
pub struct Namespace(File);

impl Namespace {
    pub fn new() -> Self {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace for the outside");
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        Self(made.join().unwrap())
    }

    pub fn open(path: &Path) -> Self {
        Self(File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
    }

    /// Runs this inside of it.
    pub fn enter<T: Send>(&self, inside: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.0, CloneFlags::CLONE_NEWNET).expect("the namespace is entered");
                inside()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// Nobody else is there who could have an address, so that nobody needs to be asked for a second.
fn without_detection() {
    fs::write("/proc/sys/net/ipv6/conf/default/dad_transmits", "0").unwrap();
}

pub fn outside() -> Namespace {
    let there = Namespace::new();
    without_detection();
    there.enter(without_detection);
    let file = format!("/proc/{}/fd/{}", std::process::id(), there.0.as_raw_fd());
    ip(&format!("link add out type veth peer name in netns {file}"));
    for arguments in
        ["address add 192.0.2.1/24 dev out", "address add 2001:db8:7::1/64 dev out nodad", "link set out up"]
    {
        ip(arguments);
    }
    there.enter(|| {
        let here = [
            "link set lo up",
            "address add 192.0.2.9/24 dev in",
            "address add 2001:db8:7::9/64 dev in nodad",
            "link set in up",
            "route add default via 192.0.2.1",
            "route add default via 2001:db8:7::1",
        ];
        here.into_iter().for_each(ip);
    });
    there
}

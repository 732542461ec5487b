//! Network namespaces: a partition's, which is entered, and the machine's, which the agent's root part leaves.

use super::disk::io_problem;
use nix::sched::{CloneFlags, setns};
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;

/// Puts this process, and all that it starts, into the network namespace that `file` is: for root, in a process of one
/// thread, before it becomes anybody else. `None`: the partition has none, and shares the network that there is.
///
/// # Errors
/// [`codes::NO_NAMESPACE`]; this process is then still where it was, and must not do what it was to do there.
pub fn enter(file: Option<&Path>) -> Result<(), Problem> {
    let Some(file) = file else { return Ok(()) };
    let wrong = |e: io::Error| {
        let what = format!("cannot enter the network namespace {}", file.display());
        io_problem(codes::NO_NAMESPACE, what, &e).fix("run `node-format apply`, which makes it again")
    };
    // A pipe in its place would hold this process.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let handle = openat(CWD, file, flags, Mode::empty()).map_err(|e| wrong(e.into()))?;
    setns(handle, CloneFlags::CLONE_NEWNET).map_err(|e| match e {
        nix::errno::Errno::EINVAL => wrong(io::Error::other("it is not a network namespace")),
        e => wrong(e.into()),
    })
}

/// The network that the agent was started in. Root's part itself may be in an empty one; what it starts is in this.
#[derive(Debug, Clone, Default)]
pub struct Network(Option<Arc<File>>);

impl Network {
    /// Leaves it, for a network without anything in it: for root, in a process of one thread.
    ///
    /// # Errors
    /// If the kernel does not allow it; this process is then still where it was.
    pub fn leave() -> io::Result<Self> {
        let here = File::open("/proc/self/ns/net")?;
        nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(Self(Some(Arc::new(here))))
    }

    /// Starts a program in it.
    ///
    /// # Errors
    /// As [`Command::spawn`].
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.within(|| command.spawn())
    }

    /// Does something in it.
    ///
    /// # Errors
    /// Those of `act`, or if the kernel does not let it be entered.
    pub fn within<T: Send>(&self, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let Some(network) = &self.0 else { return act() };
        // A thread of its own, which ends there: the others stay where they are.
        let there = || {
            setns(network, CloneFlags::CLONE_NEWNET)?;
            act()
        };
        let ended = std::thread::scope(|scope| scope.spawn(there).join());
        ended.unwrap_or_else(|_| Err(io::Error::other("the thread in the machine's network ended early")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_in_the_machines_network_leaves_this_one_where_it_is() {
        let shown = || std::fs::read_link("/proc/thread-self/ns/net");
        let here = shown().unwrap();
        assert_eq!(Network::default().within(shown).unwrap(), here);
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must have it");
            return;
        }
        // This thread alone leaves, as the process does whose only one it is.
        let moved = std::thread::spawn(move || {
            let there = File::open("/proc/thread-self/ns/net").unwrap();
            nix::sched::unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let network = Network(Some(Arc::new(there)));
            (network.within(shown).unwrap(), shown().unwrap())
        });
        let (machine, own) = moved.join().unwrap();
        assert!(machine == here && own != here);
    }
}

//! The mounts of another mount namespace, read from its own root: each process is told of those alone that it reaches from its
//! root, which a service may have changed (`chroot`).

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags, open, openat};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::thread::Builder;

/// All that is mounted in the namespace that a process is in; `proc`: where processes are shown. `None`: this process may not
/// enter it, which takes CAP_SYS_ADMIN and CAP_SYS_CHROOT.
///
/// # Errors
/// If no thread can be started to enter it.
pub(super) fn mountinfo(process: &Path, proc: &Path) -> io::Result<Option<Vec<u8>>> {
    let look = || -> io::Result<Vec<u8>> {
        let namespace = File::open(process.join("ns/mnt"))?;
        let proc = open(proc, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        // The root is a thread's own from here on; by entering it becomes that of the namespace.
        unshare(CloneFlags::CLONE_FS)?;
        setns(namespace, CloneFlags::CLONE_NEWNS)?;
        let told = openat(&proc, "thread-self/mountinfo", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = Vec::new();
        File::from(told).read_to_end(&mut text)?;
        Ok(text)
    };
    // It can serve nobody else afterwards: it ends.
    std::thread::scope(|scope| {
        let thread = Builder::new().spawn_scoped(scope, look)?;
        Ok(thread.join().ok().and_then(Result::ok))
    })
}

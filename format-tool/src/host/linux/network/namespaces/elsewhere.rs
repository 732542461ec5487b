//! This thread in another network namespace, for as long as some work takes. A thread of its own for that could be refused:
//! whoever fills the machine with processes would keep a run from being undone.

use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;

/// Where this thread is at home: it is there again when this is dropped.
struct Home(File);

/// Does what may enter other namespaces.
///
/// # Errors
/// Those of the work; or whoever goes would not come back.
pub(super) fn elsewhere<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let home = File::open("/proc/thread-self/ns/net")?;
    enter(&home)?;
    let _home = Home(home);
    work()
}

pub(super) fn enter(namespace: &File) -> io::Result<()> {
    Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
}

impl Drop for Home {
    fn drop(&mut self) {
        // Going on, it would change a partition's network for the machine's.
        enter(&self.0).expect("a namespace that could be entered a moment before");
    }
}

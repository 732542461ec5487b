//! When and where links live: one boot of the machine, and in it one network namespace.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a link is gone with. In the record as `BOOT/NAMESPACE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    boot: String,
    /// Inode of the network namespace.
    namespace: u64,
    /// Whether somebody says that there is no other any more.
    alone: bool,
}

impl Epoch {
    /// That of the calling thread.
    pub fn current() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { boot: boot.trim().into(), namespace: inode("/proc/thread-self/ns/net").unwrap_or(0), alone: false }
    }

    pub fn new(boot: impl Into<String>, namespace: u64) -> Self {
        Self { boot: boot.into(), namespace, alone: false }
    }

    /// Whoever asks takes other namespaces of this boot to be gone, if `alone`, with all that was made in them.
    #[must_use]
    pub fn alone(self, alone: bool) -> Self {
        Self { alone, ..self }
    }

    /// The namespace of `written`, if it is another one of this boot and may be there still. It is known to be gone only
    /// where all processes can be seen, none is in it, and it is mounted nowhere.
    pub(super) fn elsewhere(&self, written: &str) -> Option<u64> {
        let namespace: u64 = written.strip_prefix(&self.boot)?.strip_prefix('/')?.parse().ok()?;
        (namespace != self.namespace && !self.alone && !(sees_all_processes() && is_gone(namespace)))
            .then_some(namespace)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.boot, self.namespace)
    }
}

/// PROC_PID_INIT_INO of linux/proc_ns.h: the namespace that all processes are in.
const FIRST_PROCESSES: u64 = 0xEFFF_FFFC;

fn sees_all_processes() -> bool {
    inode("/proc/self/ns/pid") == Some(FIRST_PROCESSES)
}

fn is_gone(namespace: u64) -> bool {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut threads = entries(Path::new("/proc")).flat_map(|process| entries(&process.join("task")));
    let is_in_it = |thread: std::path::PathBuf| inode(thread.join("ns/net")) == Some(namespace);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = format!(" net:[{namespace}] ");
    !mounts.lines().any(|line| line.contains(&mounted)) && !threads.any(is_in_it)
}

fn inode(path: impl AsRef<Path>) -> Option<u64> {
    fs::metadata(path).ok().map(|found| found.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_some_process_is_in_is_there() {
        let here = Epoch::current();
        let elsewhere = Epoch::new(here.boot.clone(), here.namespace + 1);
        assert_eq!(elsewhere.elsewhere(&here.to_string()), Some(here.namespace));
    }

    #[test]
    fn neither_our_own_nor_one_that_is_gone_nor_one_of_another_boot_is_elsewhere() {
        let here = Epoch::current();
        assert_eq!(here.elsewhere(&here.to_string()), None);
        let gone = here.elsewhere(&format!("{}/{}", here.boot, u64::MAX));
        // Where not all processes are seen, nobody can tell.
        assert_eq!(gone.is_none(), sees_all_processes());
        assert_eq!(Epoch::new("another boot", 0).elsewhere(&here.to_string()), None);
        assert_eq!(here.elsewhere("nonsense"), None);
    }
}

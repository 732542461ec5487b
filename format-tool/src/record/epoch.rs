//! When and where links live: one boot of the machine, and in it one network namespace.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;

/// What a link is gone with. In the record as `BOOT/NAMESPACE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Epoch {
    boot: String,
    /// Inode of the network namespace.
    namespace: u64,
}

impl Epoch {
    /// That of the calling thread.
    pub fn current() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { boot: boot.trim().into(), namespace: inode("/proc/thread-self/ns/net").unwrap_or(0) }
    }

    pub fn new(boot: impl Into<String>, namespace: u64) -> Self {
        Self { boot: boot.into(), namespace }
    }

    /// The namespace of `written`, if it is of this boot, another one than ours, and there: some process is in it, or
    /// it has a name that `ip netns` knows. What was made in it is there then, too.
    pub(super) fn elsewhere(&self, written: &str) -> Option<u64> {
        let namespace: u64 = written.strip_prefix(&self.boot)?.strip_prefix('/')?.parse().ok()?;
        let entries = |folder| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let of_processes = entries("/proc").map(|process| process.join("ns/net"));
        let mut known = of_processes.chain(entries("/run/netns")).filter_map(inode);
        (namespace != self.namespace && known.any(|known| known == namespace)).then_some(namespace)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.boot, self.namespace)
    }
}

fn inode(path: impl AsRef<std::path::Path>) -> Option<u64> {
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
        assert_eq!(here.elsewhere(&format!("{}/{}", here.boot, u64::MAX)), None);
        assert_eq!(Epoch::new("another boot", 0).elsewhere(&here.to_string()), None);
        assert_eq!(here.elsewhere("nonsense"), None);
    }
}

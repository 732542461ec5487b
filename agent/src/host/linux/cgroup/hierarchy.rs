//! Where control groups are mounted, and which of their files counts what: a reader for each version.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What a group can count for all that is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// In microseconds.
    Cpu,
    /// Bytes read from and written to storage.
    Io,
    /// Bytes that are held now.
    Memory,
}

/// A file in each group that counts one thing.
#[derive(Debug, Clone, Copy)]
pub struct Reader {
    pub file: &'static str,
    pub parse: fn(&str) -> Option<u64>,
}

/// The reader of version 2; `None` where its controller is not there.
pub fn unified(counter: Counter, controllers: &str) -> Option<Reader> {
    let has = |name| controllers.split_ascii_whitespace().any(|one| one == name);
    match counter {
        // Counted without any controller.
        Counter::Cpu => Some(Reader { file: "cpu.stat", parse: usage_usec }),
        Counter::Io => has("io").then_some(Reader { file: "io.stat", parse: moved }),
        Counter::Memory => has("memory").then_some(Reader { file: "memory.current", parse: number }),
    }
}

/// The controller of version 1 that counts, and its reader. Its blkio does not count what is written through the page
/// cache, so it counts no I/O: that is asked of the processes.
pub fn legacy(counter: Counter) -> Option<(&'static str, Reader)> {
    match counter {
        Counter::Cpu => Some(("cpuacct", Reader { file: "cpuacct.usage", parse: nanoseconds })),
        Counter::Io => None,
        Counter::Memory => Some(("memory", Reader { file: "memory.usage_in_bytes", parse: number })),
    }
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn nanoseconds(text: &str) -> Option<u64> {
    Some(number(text)? / 1000)
}

fn usage_usec(text: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix("usage_usec ")?))
}

fn moved(text: &str) -> Option<u64> {
    let field = |field: &str| number(field.strip_prefix("rbytes=").or_else(|| field.strip_prefix("wbytes="))?);
    Some(text.split_ascii_whitespace().filter_map(field).sum())
}

/// Where they are mounted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// Version 2.
    pub unified: Option<PathBuf>,
    /// Version 1, by controller.
    pub legacy: BTreeMap<String, PathBuf>,
}

impl Mounts {
    /// Reads /proc/self/mountinfo. Of several mounts of the same, the first.
    pub fn parse(text: &str) -> Self {
        let mut mounts = Self::default();
        for (before, after) in text.lines().filter_map(|line| line.split_once(" - ")) {
            let mut after = after.split(' ');
            let (Some(kind), Some(point)) = (after.next(), before.split(' ').nth(4).map(Path::new)) else { continue };
            match kind {
                "cgroup2" => drop(mounts.unified.get_or_insert_with(|| point.to_owned())),
                "cgroup" => {
                    for option in after.nth(1).unwrap_or_default().split(',') {
                        mounts.legacy.entry(option.to_owned()).or_insert_with(|| point.to_owned());
                    }
                }
                _ => {}
            }
        }
        mounts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found_where_they_are_mounted() {
        let text = "24 1 0:22 / /proc rw - proc proc rw\n\
                    30 1 0:26 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                    31 1 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
                    32 1 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
                    33 1 0:28 / /mnt rw - cgroup2 cgroup2 rw\n";
        let mounts = Mounts::parse(text);
        assert_eq!(mounts.unified.as_deref(), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(mounts.legacy["cpuacct"], Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert_eq!(mounts.legacy["memory"], Path::new("/sys/fs/cgroup/memory"));
        assert_eq!(Mounts::parse(text.lines().next().unwrap()), Mounts::default());
    }

    #[test]
    fn each_version_says_the_same_in_its_own_words() {
        let said = |reader: Reader, text| (reader.parse)(text);
        let all = "cpuset cpu io memory pids";
        let stat = "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n";
        assert_eq!(said(unified(Counter::Cpu, "").unwrap(), stat), Some(1500));
        assert_eq!(said(legacy(Counter::Cpu).unwrap().1, "1500999\n"), Some(1500));
        assert_eq!(said(unified(Counter::Memory, all).unwrap(), "4096\n"), Some(4096));
        assert_eq!(said(legacy(Counter::Memory).unwrap().1, "4096\n"), Some(4096));
        let io = "8:0 rbytes=100 wbytes=20 rios=3 wios=4 dbytes=5 dios=6\n8:16 rbytes=1 wbytes=2\n";
        assert_eq!(said(unified(Counter::Io, all).unwrap(), io), Some(123));
        assert!(unified(Counter::Io, "hugetlb").is_none() && unified(Counter::Memory, "memory_recursive").is_none());
    }
}

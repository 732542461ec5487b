//! Control groups (v2): one for each partition, one in it for each service. They make killing whole and counting exact;
//! where they cannot be made the agent does without, and says why.

use super::process::boot_id;
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The agent's part of the tree.
pub struct Cgroups {
    base: Result<PathBuf, String>,
}

/// One reading of a group's counters. They start again when the group is made again: then `identity` differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub identity: String,
    pub cpu_micros: u64,
    /// Without the io controller: `None`.
    pub io_bytes: Option<u64>,
    /// Without the memory controller: `None`.
    pub memory_bytes: Option<u64>,
}

impl Cgroups {
    /// Makes `…/plat/ID`, where ID belongs to the agent whose state is in `state`.
    pub fn open(state: &Path) -> Self {
        Self { base: Self::make_base(state).map_err(|e| format!("no control group can be made here: {e}")) }
    }

    /// The whole tree, which systemd makes its groups in.
    pub fn of_systemd() -> Self {
        Self { base: mount().map_err(|e| format!("systemd's control groups are not seen: {e}")) }
    }

    fn make_base(state: &Path) -> io::Result<PathBuf> {
        let mount = mount()?;
        let id: String =
            Sha256::digest(state.as_os_str().as_encoded_bytes()).iter().take(6).map(|b| format!("{b:02x}")).collect();
        let base = mount.join("plat").join(id);
        fs::create_dir_all(&base)?;
        for folder in [&mount, &mount.join("plat"), &base] {
            delegate(folder);
        }
        Ok(base)
    }

    /// Why there are none.
    pub fn missing(&self) -> Option<&str> {
        self.base.as_ref().err().map(String::as_str)
    }

    pub fn base(&self) -> Option<&Path> {
        self.base.as_deref().ok()
    }

    pub fn of_partition(&self, partition: &str) -> Option<PathBuf> {
        Some(self.base()?.join(partition))
    }

    /// Makes the group `name` in the partition's.
    pub fn make(&self, partition: &str, name: &str) -> Option<PathBuf> {
        let parent = self.of_partition(partition)?;
        fs::create_dir_all(&parent).ok()?;
        delegate(&parent);
        let leaf = parent.join(name);
        fs::create_dir_all(&leaf).ok()?;
        Some(leaf)
    }

    /// Whether the kernel has a controller for the groups.
    pub fn has(&self, controller: &str) -> bool {
        let controllers = self.base().and_then(|base| fs::read_to_string(base.join("cgroup.controllers")).ok());
        controllers.is_some_and(|text| text.split_whitespace().any(|one| one == controller))
    }

    pub fn read(&self, partition: &str) -> Option<Reading> {
        Self::reading(&self.of_partition(partition)?)
    }

    /// The counters of one group with all below it.
    pub fn reading(folder: &Path) -> Option<Reading> {
        let stat = fs::read_to_string(folder.join("cpu.stat")).ok()?;
        let inode = fs::metadata(folder).ok()?.ino();
        Some(Reading {
            identity: format!("{}:{inode}", boot_id()),
            cpu_micros: stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?.trim().parse().ok()?,
            io_bytes: fs::read_to_string(folder.join("io.stat")).ok().map(|text| io_bytes(&text)),
            memory_bytes: Self::memory_of(folder),
        })
    }

    /// The memory that the partition's group holds now, where its controller is.
    pub fn memory(&self, partition: &str) -> Option<u64> {
        Self::memory_of(&self.of_partition(partition)?)
    }

    pub fn memory_of(folder: &Path) -> Option<u64> {
        fs::read_to_string(folder.join("memory.current")).ok()?.trim().parse().ok()
    }

    /// Kills all in the partition's groups, waits until they are gone, and removes the groups.
    pub fn remove(&self, partition: &str) {
        let Some(folder) = self.of_partition(partition) else { return };
        kill(&folder);
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(&folder);
    }
}

/// Kills all in a group and below it, and waits up to 10 s until they are gone.
pub fn kill(folder: &Path) {
    if fs::write(folder.join("cgroup.kill"), "1").is_err() {
        return;
    }
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until
        && fs::read_to_string(folder.join("cgroup.events")).is_ok_and(|text| text.contains("populated 1"))
    {
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Where control groups v2 are.
fn mount() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mount = mounts
        .lines()
        .filter_map(|line| line.split_once(" - "))
        .find(|(_, after)| after.starts_with("cgroup2 "))
        .and_then(|(before, _)| before.split(' ').nth(4))
        .ok_or_else(|| io::Error::other("cgroup v2 is not mounted"))?;
    Ok(mount.into())
}

/// All processes in a group and below it.
pub fn processes(folder: &Path) -> Vec<u32> {
    let own = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut all: Vec<u32> = own.lines().filter_map(|pid| pid.parse().ok()).collect();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(processes(&entry.path()));
        }
    }
    all
}

/// Hands down the controllers there are. One that is not there (or is taken by cgroup v1) is done without.
fn delegate(folder: &Path) {
    for controller in ["cpu", "memory", "io", "pids"] {
        let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn io_bytes(text: &str) -> u64 {
    text.split_ascii_whitespace()
        .filter_map(|field| {
            field.strip_prefix("rbytes=").or_else(|| field.strip_prefix("wbytes="))?.parse::<u64>().ok()
        })
        .sum()
}

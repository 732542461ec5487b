//! Control groups. Version 2: one for each partition, one in it for each service; they make killing whole and counting
//! exact. What version 2 has no controller for is counted by version 1 where that is mounted, in one group for each
//! partition. Where neither can be made the agent does without, and says why.

mod files;
mod hierarchy;
mod limits;
mod slices;

use super::process::boot_id;
use files::OpenFiles;
pub use files::{number, text};
use hierarchy::{Counter, Mounts, Reader};
use limits::Limits;
use plat_model::resources::{Enforced, Resources};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
pub use slices::Slices;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The agent's part of the trees.
pub struct Cgroups {
    base: Result<PathBuf, String>,
    cpu: Option<Source>,
    io: Option<Source>,
    memory: Option<Source>,
    limits: Limits,
    files: OpenFiles,
}

/// Where one thing is counted.
struct Source {
    /// The folder of the partitions' groups.
    base: PathBuf,
    reader: Reader,
    is_unified: bool,
}

/// What of a program the partition's groups count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counted {
    pub cpu: bool,
    pub io: bool,
    pub memory: bool,
}

impl Counted {
    pub const ALL: Self = Self { cpu: true, io: true, memory: true };
}

/// The groups that a program belongs in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Groups {
    /// That of version 2, where it can be killed as a whole.
    pub unified: Option<PathBuf>,
    /// Those of version 1.
    pub others: Vec<PathBuf>,
    pub counted: Counted,
}

/// One reading of a partition's groups. They start again when the group that counts CPU time is made again: then
/// `identity` differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub identity: String,
    pub cpu_micros: u64,
    /// Where a group counts it; never another group than that of CPU time.
    pub io_bytes: Option<u64>,
    /// Where a group counts it.
    pub memory_bytes: Option<u64>,
}

impl Cgroups {
    /// Makes `…/plat/ID` in each tree, where ID belongs to the agent whose state is in `state`.
    pub fn open(state: &Path) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map(|text| Mounts::parse(&text)).unwrap_or_default();
        let id: String =
            Sha256::digest(state.as_os_str().as_encoded_bytes()).iter().take(6).map(|b| format!("{b:02x}")).collect();
        let base = Self::unified(&mounts, &id).map_err(|e| format!("no control group can be made here: {e}"));
        let source = |counter| Self::source(counter, base.as_deref().ok(), &mounts, &id);
        let (cpu, io) = (source(Counter::Cpu), source(Counter::Io));
        // A reading is of the group that counts CPU time, and tells the rest with it.
        let memory = cpu.as_ref().and_then(|_| source(Counter::Memory));
        let limits = Limits::open(base.as_deref().ok(), &mounts, &id);
        Self { base, cpu, io, memory, limits, files: OpenFiles::new() }
    }

    fn unified(mounts: &Mounts, id: &str) -> io::Result<PathBuf> {
        let mount = mounts.unified.as_ref().ok_or_else(|| io::Error::other("cgroup v2 is not mounted"))?;
        let base = mount.join("plat").join(id);
        delegate(mount);
        make(&base)?;
        Ok(base)
    }

    fn source(counter: Counter, unified: Option<&Path>, mounts: &Mounts, id: &str) -> Option<Source> {
        let by_unified = unified.and_then(|base| {
            let controllers = fs::read_to_string(base.join("cgroup.controllers")).ok()?;
            let reader = hierarchy::unified(counter, &controllers)?;
            Some(Source { base: base.to_owned(), reader, is_unified: true })
        });
        by_unified.or_else(|| {
            let (controller, reader) = hierarchy::legacy(counter)?;
            let base = mounts.legacy.get(controller)?.join("plat").join(id);
            fs::create_dir_all(&base).ok()?;
            Some(Source { base, reader, is_unified: false })
        })
    }

    fn sources(&self) -> impl Iterator<Item = &Source> {
        self.cpu.iter().chain(&self.io).chain(&self.memory)
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

    /// Makes the groups of a program: `name` is its own, or shared by several.
    pub fn make(&self, partition: &str, name: &str) -> Groups {
        let unified = self.make_unified(partition, name);
        let others = self.legacy(partition).into_iter().filter(|folder| fs::create_dir_all(folder).is_ok());
        let others: Vec<PathBuf> = others.collect();
        let counts = |source: &Option<Source>| {
            source.as_ref().is_some_and(|source| match source.is_unified {
                true => unified.is_some(),
                false => others.contains(&source.base.join(partition)),
            })
        };
        let counted = Counted { cpu: counts(&self.cpu), io: counts(&self.io), memory: counts(&self.memory) };
        Groups { unified, others, counted }
    }

    /// The partition's groups of version 1.
    fn legacy(&self, partition: &str) -> BTreeSet<PathBuf> {
        let counting = self.sources().filter(|source| !source.is_unified).map(|source| &source.base);
        counting.chain(self.limits.legacy()).map(|base| base.join(partition)).collect()
    }

    /// The numbers of the groups that hold a partition to what it may have, of those that there are.
    pub fn holders(&self, partition: &str) -> Vec<Option<u64>> {
        self.limits.holders(partition)
    }

    /// Which amounts groups can enforce here.
    pub fn limits(&self) -> Enforced {
        self.limits.enforced()
    }

    /// Holds all in the partition's groups to these amounts; those that groups enforce.
    ///
    /// # Errors
    /// The file that could not be written: what is before it in the order cpu, memory, processes holds.
    pub fn limit(&self, partition: &str, asked: Resources) -> Result<Resources, (PathBuf, io::Error)> {
        if let Some(folder) = self.of_partition(partition) {
            make(&folder).map_err(|why| (folder, why))?;
        }
        self.limits.set(partition, asked)
    }

    fn make_unified(&self, partition: &str, name: &str) -> Option<PathBuf> {
        let parent = self.of_partition(partition)?;
        make(&parent).ok()?;
        let leaf = parent.join(name);
        fs::create_dir_all(&leaf).ok()?;
        Some(leaf)
    }

    /// What groups of version 2 alone count.
    pub fn counted_by_unified(&self) -> Counted {
        let counts = |source: &Option<Source>| source.as_ref().is_some_and(|source| source.is_unified);
        Counted { cpu: counts(&self.cpu), io: counts(&self.io), memory: counts(&self.memory) }
    }

    pub fn read(&self, partition: &str) -> Option<Reading> {
        let (group, cpu_micros) = self.ask(partition, Counter::Cpu)?;
        let (io, memory) = (self.ask(partition, Counter::Io), self.memory(partition));
        Some(Reading {
            identity: format!("{}:{group}", boot_id()),
            cpu_micros,
            io_bytes: io.filter(|(of, _)| *of == group).map(|(_, bytes)| bytes),
            memory_bytes: memory,
        })
    }

    /// The memory that the partition's group holds now, where one says it.
    pub fn memory(&self, partition: &str) -> Option<u64> {
        Some(self.ask(partition, Counter::Memory)?.1)
    }

    fn ask(&self, partition: &str, counter: Counter) -> Option<(u64, u64)> {
        let source = match counter {
            Counter::Cpu => self.cpu.as_ref()?,
            Counter::Io => self.io.as_ref()?,
            Counter::Memory => self.memory.as_ref()?,
        };
        self.files.read(partition, &source.base.join(partition), counter, source.reader)
    }

    /// Removes the partition's groups, once nothing is left in them.
    pub fn remove(&self, partition: &str) {
        self.files.forget(partition);
        if let Some(folder) = self.of_partition(partition) {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(entry.path());
            }
            let _ = fs::remove_dir(&folder);
        }
        for group in self.legacy(partition) {
            let _ = fs::remove_dir(group);
        }
    }
}

/// Kills all in a group and below it, if there is one, and waits up to 10 s until they are gone. Meanwhile no thread is held:
/// what does not end may be a tenant's doing.
pub async fn kill(folder: &Path) {
    if fs::write(folder.join("cgroup.kill"), "1").is_err() {
        return;
    }
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until
        && fs::read_to_string(folder.join("cgroup.events")).is_ok_and(|text| text.contains("populated 1"))
    {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Makes a group, and those above it that somebody has taken away; each hands down what it has.
fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            folder.parent().map_or(Err(why), make)?;
            fs::create_dir_all(folder)?;
        }
        Err(why) if why.kind() != io::ErrorKind::AlreadyExists => return Err(why),
        _ => {}
    }
    delegate(folder);
    Ok(())
}

/// Hands down the controllers there are. One that is not there (or is taken by cgroup v1) is done without.
fn delegate(folder: &Path) {
    for controller in ["cpu", "memory", "io", "pids"] {
        let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

//! The groups that systemd makes of its slices, as far as they are of version 2.

use super::files::OpenFiles;
use super::hierarchy::{self, Counter, Mounts};
use super::{Counted, Reading};
use crate::host::linux::process::boot_id;
use plat_model::resources::Enforced;
use std::fs;
use std::path::{Path, PathBuf};

pub struct Slices {
    root: Result<PathBuf, String>,
    controllers: String,
    files: OpenFiles,
}

impl Slices {
    pub fn open() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").map(|text| Mounts::parse(&text)).unwrap_or_default();
        let root =
            mounts.unified.ok_or_else(|| "systemd's control groups are not seen: cgroup v2 is not mounted".into());
        let read = |root: &PathBuf| fs::read_to_string(root.join("cgroup.controllers")).ok();
        let controllers = root.as_ref().ok().and_then(read).unwrap_or_default();
        Self { root, controllers, files: OpenFiles::new() }
    }

    /// Why there are none.
    pub fn missing(&self) -> Option<&str> {
        self.root.as_ref().err().map(String::as_str)
    }

    /// The folder of a slice, by its path among all slices.
    pub fn folder(&self, slice: &Path) -> Option<PathBuf> {
        Some(self.root.as_ref().ok()?.join(slice))
    }

    fn has(&self, controller: &str) -> bool {
        self.controllers.split_ascii_whitespace().any(|one| one == controller)
    }

    /// What systemd limits in them.
    pub fn enforces(&self) -> Enforced {
        let (cpu, memory, processes) = (self.has("cpu"), self.has("memory"), self.has("pids"));
        Enforced { cpu, memory, processes, ..Enforced::default() }
    }

    pub fn counted(&self) -> Counted {
        Counted { cpu: self.root.is_ok(), io: self.has("io"), memory: self.has("memory") }
    }

    /// The counters of a slice with all that is in it.
    pub fn read(&self, name: &str, slice: &Path) -> Option<Reading> {
        let (group, cpu_micros) = self.ask(name, slice, Counter::Cpu)?;
        let io = self.ask(name, slice, Counter::Io).filter(|(of, _)| *of == group);
        Some(Reading {
            identity: format!("{}:{group}", boot_id()),
            cpu_micros,
            io_bytes: io.map(|(_, bytes)| bytes),
            memory_bytes: self.memory(name, slice),
        })
    }

    /// The memory that all in a slice holds now.
    pub fn memory(&self, name: &str, slice: &Path) -> Option<u64> {
        Some(self.ask(name, slice, Counter::Memory)?.1)
    }

    fn ask(&self, name: &str, slice: &Path, counter: Counter) -> Option<(u64, u64)> {
        let reader = hierarchy::unified(counter, &self.controllers)?;
        self.files.read(name, &self.folder(slice)?, counter, reader)
    }

    /// The slice goes.
    pub fn forget(&self, name: &str) {
        self.files.forget(name);
    }
}

//! Which files of control groups hold a partition to what it may have, in either version.

use super::files::number;
use super::hierarchy::Mounts;
use plat_model::resources::{Enforced, Resources};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The period that CPU time is given in, in microseconds: the kernel's default.
const PERIOD: u64 = 100_000;
/// The least that the kernel gives in a period.
const LEAST: u64 = 1_000;

/// The trees that can limit an amount, with the partitions' groups in them.
pub struct Limits {
    cpu: Option<Tree>,
    memory: Option<Tree>,
    processes: Option<Tree>,
}

struct Tree {
    base: PathBuf,
    is_unified: bool,
}

impl Limits {
    pub fn open(unified: Option<&Path>, mounts: &Mounts, id: &str) -> Self {
        let controllers = unified.and_then(|base| fs::read_to_string(base.join("cgroup.controllers")).ok());
        let controllers = controllers.unwrap_or_default();
        let tree = |controller: &str, file: &str| {
            let has = controllers.split_ascii_whitespace().any(|one| one == controller);
            if let Some(base) = unified.filter(|_| has) {
                return Some(Tree { base: base.to_owned(), is_unified: true });
            }
            let base = mounts.legacy.get(controller)?.join("plat").join(id);
            fs::create_dir_all(&base).ok()?;
            // A kernel may lack the part of a controller that limits.
            base.join(file).exists().then_some(Tree { base, is_unified: false })
        };
        Self {
            cpu: tree("cpu", "cpu.cfs_quota_us"),
            memory: tree("memory", "memory.limit_in_bytes"),
            processes: tree("pids", ""),
        }
    }

    fn trees(&self) -> impl Iterator<Item = &Tree> {
        self.cpu.iter().chain(&self.memory).chain(&self.processes)
    }

    /// The folders of the partitions' groups of version 1.
    pub fn legacy(&self) -> impl Iterator<Item = &PathBuf> {
        self.trees().filter(|tree| !tree.is_unified).map(|tree| &tree.base)
    }

    /// The numbers of the groups that hold a partition, of those that there are.
    pub fn holders(&self, partition: &str) -> Vec<Option<u64>> {
        self.trees().map(|tree| number(&tree.base.join(partition))).collect()
    }

    pub fn enforced(&self) -> Enforced {
        Enforced {
            cpu: self.cpu.is_some(),
            memory: self.memory.is_some(),
            processes: self.processes.is_some(),
            ..Enforced::default()
        }
    }

    /// See [`super::Cgroups::limit`].
    pub fn set(&self, partition: &str, asked: Resources) -> Result<Resources, (PathBuf, io::Error)> {
        if let Some(tree) = &self.cpu {
            let most = asked.cpu_millis.map(|millis| (u64::from(millis) * PERIOD / 1000).max(LEAST));
            match tree.is_unified {
                true => tree.write(partition, "cpu.max", &format!("{} {PERIOD}", or(most, "max")))?,
                false => {
                    tree.write(partition, "cpu.cfs_period_us", &PERIOD.to_string())?;
                    tree.write(partition, "cpu.cfs_quota_us", &or(most, "-1"))?;
                }
            }
        }
        if let Some(tree) = &self.memory {
            let most = asked.memory_mib.map(|mib| u64::from(mib) << 20);
            match tree.is_unified {
                true => tree.write(partition, "memory.max", &or(most, "max"))?,
                false => tree.write(partition, "memory.limit_in_bytes", &or(most, "-1"))?,
            }
        }
        if let Some(tree) = &self.processes {
            tree.write(partition, "pids.max", &or(asked.processes.map(u64::from), "max"))?;
        }
        Ok(Resources {
            cpu_millis: asked.cpu_millis.filter(|_| self.cpu.is_some()),
            memory_mib: asked.memory_mib.filter(|_| self.memory.is_some()),
            disk_mib: None,
            processes: asked.processes.filter(|_| self.processes.is_some()),
        })
    }
}

impl Tree {
    fn write(&self, partition: &str, file: &str, text: &str) -> Result<(), (PathBuf, io::Error)> {
        let group = self.base.join(partition);
        let path = group.join(file);
        fs::create_dir_all(group).and_then(|()| fs::write(&path, text)).map_err(|why| (path, why))
    }
}

fn or(most: Option<u64>, free: &str) -> String {
    most.map_or_else(|| free.to_owned(), |most| most.to_string())
}

//! What holds a program in, as data: a runtime applies all of it.

use crate::host::linux::confine::Bounds;
use plat_model::node::{Account, NodePartition};
use plat_model::resources::Resources;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Most open files of a program; less where the host allows less.
const FILES: u64 = 65_536;

/// Beside these, always: no new privileges, no core dumps, nothing inherited, and files that others cannot read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Whom it runs as; `None`: the agent's own user.
    pub account: Option<Account>,
    /// The network namespace that it runs in; `None`: the agent's.
    pub namespace: Option<PathBuf>,
    /// Most processes of the user at once, where its group does not limit them and the user is the partition's own.
    pub processes: Option<u32>,
    /// Most open files.
    pub files: u64,
    /// Most bytes of each process's own memory, and of each file.
    #[serde(default)]
    pub memory: Option<u64>,
    #[serde(default)]
    pub file_bytes: Option<u64>,
    /// What it sees of the machine; `None`: what its user does.
    #[serde(default)]
    pub bounds: Option<Bounds>,
}

impl Confinement {
    /// Of a user alone.
    pub fn of_user(account: Option<Account>) -> Self {
        Self { account, namespace: None, processes: None, files: FILES, memory: None, file_bytes: None, bounds: None }
    }

    /// Of all in a partition that is held to these amounts.
    pub fn of(partition: &NodePartition, limits: Resources) -> Self {
        Self {
            namespace: partition.namespace.clone(),
            processes: limits.processes.filter(|_| partition.account.is_some()),
            ..Self::of_user(partition.account.clone())
        }
    }
}

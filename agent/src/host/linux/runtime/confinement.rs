//! What holds a program in, as data: a runtime applies all of it.

use super::Place;
use crate::host::linux::confine::{Bounds, Tmp, resolver};
use plat_model::node::Account;
use plat_model::resources::Resources;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

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

    /// Of all in a partition that is held to these amounts. `state`: the host's part of the agent's.
    pub fn of(place: &Place, limits: Resources, state: &Path) -> Self {
        let partition = &place.partition;
        Self {
            namespace: partition.namespace.clone(),
            processes: limits.processes.filter(|_| partition.account.is_some()),
            bounds: Some(bounds(place, state)),
            ..Self::of_user(partition.account.clone())
        }
    }
}

/// Folders of the machine that others than partitions have something in.
const OF_ALL: [&str; 10] = ["/", "/dev", "/etc", "/home", "/opt", "/proc", "/root", "/sys", "/usr", "/var"];

/// What all in a partition has of the machine: its own folders, and releases to read. Where a partition's folders are, those
/// of others are too.
fn bounds(place: &Place, state: &Path) -> Bounds {
    // With the keys of the part that has the network, where both are one user's.
    let state = state.parent().unwrap_or(state);
    let own = [&place.directory].into_iter().chain(&place.partition.storage);
    let among =
        own.clone().filter_map(|path| path.parent()).filter(|path| !OF_ALL.iter().any(|all| Path::new(all) == *path));
    let readable = [&place.releases].into_iter().chain(&place.partition.resource_file);
    let mut hidden: Vec<PathBuf> = among.chain([state]).map(Path::to_owned).collect();
    hidden.sort();
    hidden.dedup();
    Bounds {
        writable: own.cloned().collect(),
        readable: readable.cloned().chain(resolver()).collect(),
        hidden,
        tmp: Tmp::Within("tmp".into()),
        ..Bounds::empty()
    }
}

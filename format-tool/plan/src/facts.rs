//! What was found on the machine: only what a plan can depend on. What is not in a map does not exist; what could not
//! be looked at is said to be unknown, which is never taken for absent.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// What to look at. The planner says it, so that a machine with a million files is not read through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Paths of directories, parents before children.
    pub paths: BTreeSet<PathBuf>,
    /// Those of them of which to find out whether they hold anything that is not itself in [`Scope::paths`].
    pub contents: BTreeSet<PathBuf>,
    /// Files to read whole.
    pub node_files: BTreeSet<PathBuf>,
    /// Whether users and groups matter.
    pub accounts: bool,
    /// Whether links, addresses and routes matter.
    pub network: bool,
    /// Whether to find out which uids have processes.
    pub processes: bool,
}

/// A machine as it was seen at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostFacts {
    /// Who runs node-format; owner of all directories where partitions have no users.
    pub caller: Owner,
    pub privileges: Privileges,
    pub machine: Machine,
    pub kernel: Kernel,
    pub users: BTreeMap<String, UserFact>,
    pub groups: BTreeMap<String, GroupFact>,
    /// Of the paths in [`Scope::paths`], those that exist.
    pub paths: BTreeMap<PathBuf, PathFact>,
    pub links: BTreeMap<String, LinkFact>,
    pub addresses: BTreeSet<AddressFact>,
    /// Ranges routed to this machine itself as a whole (routes of type local, longer ranges than one address).
    pub local_routes: BTreeSet<IpNet>,
    /// Uids that have processes, if [`Scope::processes`].
    pub busy_uids: BTreeSet<u32>,
    /// Text of the files in [`Scope::node_files`] that exist.
    pub node_files: BTreeMap<PathBuf, String>,
}

/// A Unix owner by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// What the process may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Privileges {
    /// Make users, and give files to others.
    pub root: bool,
    /// Make links and addresses in the current network namespace.
    pub net_admin: bool,
}

/// What the machine has in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Thousandths of a core.
    pub cpu_millis: Option<u32>,
    pub memory_mib: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Presence {
    Present,
    Absent,
    /// It shows only when it is tried.
    #[default]
    Unknown,
}

/// Features of the kernel that a layout may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kernel {
    /// `/dev/net/tun`.
    pub tun: Presence,
    pub ipv6: Presence,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserFact {
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupFact {
    pub gid: u32,
    #[serde(default)]
    pub members: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PathFact {
    Directory {
        owner: Owner,
        /// The permission bits, `0o7777` of the mode.
        mode: u32,
        /// Name of something in it that was not asked about, if its contents were.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stranger: Option<String>,
    },
    /// A file, a link, a device: anything but a directory.
    Other { kind: String },
    /// It could not be looked at.
    Unknown { why: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    Bridge,
    /// A persistent tap and the uid that may open it.
    Tap(Option<u32>),
    /// As the kernel calls it; empty for hardware.
    Other(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkFact {
    pub kind: LinkKind,
    /// Administratively up (IFF_UP).
    #[serde(default)]
    pub up: bool,
    /// Name of the bridge it is a port of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    #[serde(default)]
    pub group: u32,
    #[serde(default)]
    pub mac: [u8; 6],
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressFact {
    pub link: String,
    pub address: IpNet,
}

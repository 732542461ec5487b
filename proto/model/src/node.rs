//! Nodes: what `node-format` made of a machine (`node.json`), what an agent reports, what it is told to hold.

use crate::Generation;
use crate::id::{Digest, InstanceId, NodeId, PartitionName};
use crate::instance::{InstanceDesired, InstanceStatus};
use crate::problem::{Problem, codes};
use crate::release::Installation;
use crate::resources::{Enforced, Resources};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};

/// Most partitions of one node.
pub const PARTITIONS_MAX: usize = 10_000;

/// `node.json`: written by `node-format`, read by the agent. All that root decided about this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeFile {
    /// Version of this form; [`NodeFile::VERSION`].
    pub version: u32,
    /// Where releases are published, e.g. `/srv/plat/releases`.
    pub releases: PathBuf,
    /// Parent of the partitions' directories, e.g. `/srv/plat/partitions`.
    pub root: PathBuf,
    /// Who builds releases; `None` where the agent builds as itself (a node made without root).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<Account>,
    /// What the whole machine offers.
    #[serde(default)]
    pub capacity: Resources,
    /// What each partition's directory is like from the start, and again after it was erased.
    #[serde(default)]
    pub skeleton: Skeleton,
    pub partitions: Vec<NodePartition>,
}

/// A partition's directory as it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skeleton {
    /// Permission bits of the directory, and of those on other storage.
    pub mode: u32,
    /// The directories in it: names and modes.
    pub directories: BTreeMap<String, u32>,
    /// Whether the file system holds the directory itself to a limit, so that it must be emptied, not replaced.
    #[serde(default)]
    pub limited: bool,
}

impl Default for Skeleton {
    fn default() -> Self {
        let directories = ["etc", "srv", "var", "run", "tmp", "log"].map(|name| (name.to_owned(), 0o750)).into();
        Self { mode: 0o750, directories, limited: false }
    }
}

/// A Unix account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    pub user: String,
    pub uid: u32,
    pub gid: u32,
    /// Gids of the other groups that its processes are in, such as `kvm`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<u32>,
}

/// One partition as formatted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodePartition {
    pub name: PartitionName,
    /// Its user; `None` where all partitions share the agent's own (a node made without root: no isolation).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// Its tap device, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap: Option<String>,
    /// Addresses its services listen on. The first IPv6 one, else the first, is its main address.
    pub addresses: Vec<IpAddr>,
    /// The IPv6 range routed to it, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_range: Option<IpNet>,
    /// What a virtual machine behind the tap may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    /// Its tun device, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tun: Option<TunOffer>,
    /// The network namespace that its processes are put into, as a file to enter it by, e.g. `/run/netns/part0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<PathBuf>,
    /// Further directories of its own, on other storage. Erased with its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub storage: Vec<PathBuf>,
    /// What the software inside may know of its partition, as a file that only root writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_file: Option<PathBuf>,
    /// Limits set when it was formatted.
    #[serde(default)]
    pub limits: Resources,
}

impl NodePartition {
    /// One with nothing but a name.
    pub fn bare(name: PartitionName) -> Self {
        Self {
            name,
            account: None,
            tap: None,
            addresses: Vec::new(),
            ipv6_range: None,
            guest: None,
            tun: None,
            namespace: None,
            storage: Vec::new(),
            resource_file: None,
            limits: Resources::default(),
        }
    }
}

/// Addresses of the virtual machine behind a partition's tap. It has them for itself: no process of the partition can
/// listen on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// Its hardware address, where the node lets no other pass.
    pub mac: String,
    /// With the length of the network that it is in: as it is to be configured inside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_gateway: Option<IpAddr>,
    /// All of it is the machine's; routed to it where taps are routed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_range: Option<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_gateway: Option<IpAddr>,
}

/// A tun device and the ranges that are routed to it; the first address of each is the node's end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunOffer {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4_range: Option<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6_range: Option<IpNet>,
}

/// `resource.json`: what a partition's own software may know of it. Written by `node-format`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResourceFile {
    /// Version of this form; [`ResourceFile::VERSION`].
    pub version: u32,
    pub partition: NodePartition,
}

impl ResourceFile {
    pub const VERSION: u32 = 1;

    /// As it is written to disk.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a resource file holds only what JSON can say");
        text.push('\n');
        text
    }
}

impl NodeFile {
    pub const VERSION: u32 = 1;

    /// One without partitions, whose directories are in `folder`.
    pub fn bare(folder: &Path) -> Self {
        Self {
            version: Self::VERSION,
            releases: folder.join("releases"),
            root: folder.join("partitions"),
            builder: None,
            skeleton: Skeleton::default(),
            capacity: Resources::default(),
            partitions: Vec::new(),
        }
    }

    /// Reads `node.json`.
    ///
    /// # Errors
    /// [`codes::NO_NODE_FILE`] if it cannot be understood or is of a newer version.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let wrong = |why: String| {
            Problem::new(codes::NO_NODE_FILE, "node.json cannot be used")
                .because(why)
                .fix("run `node-format apply` with a node-format of the agent's version")
        };
        let head: Head = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        if head.version != Self::VERSION {
            return Err(wrong(format!(
                "it is of version {}, this agent reads version {}",
                head.version,
                Self::VERSION
            )));
        }
        let file: Self = serde_json::from_str(text).map_err(|e| wrong(e.to_string()))?;
        // They are made by root, beneath a directory that they must not lead out of.
        let is_plain = |name: &str| !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
        match file.skeleton.directories.keys().find(|name| !is_plain(name)) {
            Some(name) => Err(wrong(format!("`{}` cannot be a directory's name", crate::id::shorten(name)))),
            None => Ok(file),
        }
    }

    /// As it is written to disk.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a node file holds only what JSON can say");
        text.push('\n');
        text
    }

    pub fn partition(&self, name: &PartitionName) -> Option<&NodePartition> {
        self.partitions.iter().find(|partition| &partition.name == name)
    }

    /// Whether the file system holds each partition to a limit of its own; the master finds no place for an ask of more.
    pub fn limits_disk(&self) -> bool {
        self.skeleton.limited && self.partitions.iter().all(|partition| partition.limits.disk_mib.is_some())
    }

    /// What of this is reported to the master; what the agent alone knows is not in it.
    pub fn inventory(&self) -> Inventory {
        Inventory {
            capacity: self.capacity,
            partitions: self
                .partitions
                .iter()
                .map(|p| PartitionOffer { name: p.name.clone(), addresses: p.addresses.clone(), limits: p.limits })
                .collect(),
            runtime: String::new(),
            enforced: Enforced::default(),
            does_once: false,
            troubles: Vec::new(),
        }
    }
}

impl NodePartition {
    /// The address its services are published under: its first IPv6 address, else its first, else loopback.
    pub fn address(&self) -> IpAddr {
        let ipv6 = self.addresses.iter().find(|address| address.is_ipv6());
        ipv6.or(self.addresses.first()).copied().unwrap_or(IpAddr::V6(Ipv6Addr::LOCALHOST))
    }

    /// Its first IPv4 address, if it has one.
    pub fn ipv4(&self) -> Option<IpAddr> {
        self.addresses.iter().find(|address| address.is_ipv4()).copied()
    }
}

/// What a node says it is. Facts only: labels and whether it may be used belong to the operator.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Inventory {
    pub capacity: Resources,
    pub partitions: Vec<PartitionOffer>,
    /// What keeps its services running, in a word: `systemd`, `shim`. Empty: an older agent does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub runtime: String,
    /// What every partition is really held to: of amounts what was asked for, within its own limits.
    #[serde(default, skip_serializing_if = "Enforced::is_none")]
    pub enforced: Enforced,
    /// Whether it does what is asked for once: runs a hook, builds a release again. An older agent does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub does_once: bool,
    /// What is wrong with the node as a whole, and with none of its instances alone: a full disk, a wrong clock. At most
    /// [`TROUBLES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<Problem>,
}

/// Most troubles that a node may tell of itself.
pub const TROUBLES_MAX: usize = 8;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionOffer {
    pub name: PartitionName,
    pub addresses: Vec<IpAddr>,
    #[serde(default)]
    pub limits: Resources,
}

/// A node as the master keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub id: NodeId,
    /// Set by the operator; what placement rules speak of.
    pub labels: BTreeMap<String, String>,
    /// The certificate that counts: the serial number (hex) of the newest one. Another one of this node is refused.
    pub certificates: NodeCertificates,
    pub revoked: bool,
    pub inventory: Inventory,
    pub enrolled: crate::Timestamp,
    /// How often it was asked to build each release again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rebuilds: BTreeMap<Digest, u64>,
}

/// Which certificates of a node count. After a renewal the one before still counts until the new one has been used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCertificates {
    /// Generation of the certificates; grows with every renewal and with every revocation.
    pub generation: Generation,
    /// Serial numbers (lower-case hex) that are accepted now: the newest, and until it is first used the one before.
    pub accepted: Vec<String>,
    /// Serial number (lower-case hex) of the rejoin certificate.
    pub rejoin: String,
}

/// What a node is to hold: whole. An agent can rebuild all it must do from one of these.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeDesired {
    /// Grows whenever anything below changes.
    pub generation: Generation,
    /// Releases to be available, by digest, with the resolved document each.
    pub releases: BTreeMap<Digest, String>,
    /// Of those, which were to be built again, and how often that was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rebuilds: BTreeMap<Digest, u64>,
    /// Instances by id. One that is missing here, but present on the node, is destroyed only if its partition is
    /// given to another: what the master forgot is kept and reported.
    pub instances: BTreeMap<InstanceId, InstanceDesired>,
}

/// What an agent says it holds and how it is. Only what changed since the last accepted one needs to be in it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeReport {
    /// The generation of the desired state that the agent has accepted.
    pub generation: Generation,
    /// Set when it changed, and in the first report after a start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub installations: Vec<Installation>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<InstanceStatus>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_file_is_read_back_and_a_newer_one_is_refused() {
        let file = NodeFile {
            partitions: vec![NodePartition {
                account: Some(Account { user: "part0".into(), uid: 70_000, gid: 70_000, groups: vec![104] }),
                tap: Some("part0".into()),
                addresses: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
                ..NodePartition::bare(PartitionName::parse("part0").unwrap())
            }],
            ..NodeFile::bare(Path::new("/srv/plat"))
        };
        assert_eq!(NodeFile::parse(&file.to_json()).unwrap(), file);
        assert_eq!(file.partitions[0].address(), "fd00::2".parse::<IpAddr>().unwrap());
        let newer = file.to_json().replace("\"version\": 1", "\"version\": 2, \"future\": true");
        let problem = NodeFile::parse(&newer).unwrap_err();
        assert!(problem.why.contains("version 2"), "{}", problem.why);
        for name in ["", "..", "a/b", "/a"] {
            let skeleton = Skeleton { directories: [(name.to_owned(), 0o750)].into(), ..Skeleton::default() };
            let outside = NodeFile { skeleton, ..file.clone() };
            assert_eq!(NodeFile::parse(&outside.to_json()).unwrap_err().code, codes::NO_NODE_FILE, "{name}");
        }
    }
}

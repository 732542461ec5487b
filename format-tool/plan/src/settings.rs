//! What an operator asks of a machine, in the newest form. Files of any version are read into this by `config`; the
//! unprivileged way (a node inside a folder) makes one directly. [`Settings::check`] finds everything that is wrong.

mod check;
mod ranges;
mod resolve;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use plat_model::resources::Resources;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Bounds of what a configuration may ask for.
pub struct Limits {
    /// Longest name of a network link in bytes: Linux has IFNAMSIZ - 1.
    pub link_name: usize,
    /// Longest user or group name in bytes: what utmp and systemd accept.
    pub user_name: usize,
    /// Lowest uid and gid for partitions: those below belong to the system.
    pub first_id: u32,
    /// Highest uid and gid: above are those that systemd-nspawn and user namespaces take.
    pub last_id: u32,
}

pub const LIMITS: Limits = Limits { link_name: 15, user_name: 31, first_id: 1000, last_id: 0x7FFF_FFFF };

/// Everything a person may say about how a machine becomes a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub paths: Paths,
    pub partitions: PartitionSettings,
    pub network: Network,
    /// Who builds releases; `None`: the agent's own account does.
    pub builder: Option<Builder>,
    /// What the whole node offers; an amount left out is taken from the machine (cpu, memory) or not bounded.
    pub capacity: Resources,
    /// Limits of each partition.
    pub limits: Resources,
    pub enforcement: Enforcement,
}

/// Which limits node-format itself sets on the machine. All of them are in `node.json` in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Enforcement {
    /// The file system holds each of a partition's directories to `limits.disk_mib`.
    pub disk: bool,
    /// A systemd slice for all partitions with the capacity as its limits, and one in it for each.
    pub slices: bool,
}

/// Absolute paths, without `.`, `..` or symbolic links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// Where the agent publishes releases.
    pub releases: PathBuf,
    /// Parent of the partitions' directories.
    pub root: PathBuf,
    /// `node.json`, written for the agent.
    pub node_file: PathBuf,
    /// The record of what was made; its directory is the lock of the machine's formatting.
    pub record: PathBuf,
    /// Parent of the directories that hold each partition's `resource.json`; `None`: there are none.
    pub resources: Option<PathBuf>,
    /// Further parents of a directory for each partition, on other storage.
    pub storage: Vec<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionSettings {
    /// 0 to [`PARTITIONS_MAX`].
    pub amount: u32,
    /// Partition n is named `{base_name}{n}`, counted from 0.
    pub base_name: String,
    /// Whether each has a Unix user of its own. Without, all belong to whoever runs node-format: no isolation.
    pub users: bool,
    /// User n is named `{user_base_name}{n}`.
    pub user_base_name: String,
    /// Partition n has this uid + n.
    pub first_uid: u32,
    /// Partition n has this gid + n.
    pub first_gid: u32,
    /// Groups that exist already and that every partition's user joins, e.g. `kvm`.
    pub groups: Vec<String>,
    /// Mode of each partition's directory.
    pub mode: u32,
    /// The directories in it and their modes.
    pub directories: BTreeMap<String, u32>,
}

/// Where the partitions' addresses are put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkMode {
    /// On a bridge that node-format makes; taps are joined to it.
    Bridge,
    /// On an interface that exists already. If it is a bridge, taps may be joined to it.
    Interface,
    /// In 127.0.0.0/8, where Linux answers every address without being told. Needs no privilege.
    Loopback,
    /// No addresses, no links.
    None,
}

/// How what is behind a tap reaches the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TapMode {
    /// The tap is a port of the bridge.
    Bridged,
    /// This machine is its router.
    Routed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub mode: NetworkMode,
    /// Name of the bridge, or of the interface that exists; unused in the other modes.
    pub link: String,
    /// Whether each partition has a tap, owned by its user.
    pub taps: bool,
    /// Tap n is named `{tap_base_name}{n}`.
    pub tap_base_name: String,
    pub tap_mode: TapMode,
    /// Whether each partition has a tun, owned by its user.
    pub tuns: bool,
    /// Tun n is named `{tun_base_name}{n}`.
    pub tun_base_name: String,
    /// The network of which each tun has a part.
    pub tun_ipv4_network: Option<Ipv4Net>,
    /// Prefix length of each tun's part of it.
    pub tun_ipv4_share: u8,
    /// Whether each partition's processes have a network namespace of their own, joined to the bridge.
    pub namespaces: bool,
    /// The outer end of namespace n's pair of links is named `{veth_base_name}{n}`.
    pub veth_base_name: String,
    /// An existing interface that becomes a port of the bridge.
    pub uplink: Option<String>,
    /// Hardware address of the bridge; `None`: derived from the ranges. With an uplink it is the uplink's own.
    pub bridge_mac: Option<[u8; 6]>,
    /// Bytes of the largest packet on all links that are made; `None`: the kernel's default.
    pub mtu: Option<u32>,
    /// What ports of the bridge take where [`Network::mtu`] says nothing, so that the bridge or the uplink beside them keeps its
    /// own; filled in by [`Settings::resolve`], if that is more than the kernel's default.
    pub port_mtu: Option<u32>,
    /// Whether the bridge's ports reach the machine and the uplink only, not each other.
    pub isolation: bool,
    /// Whether the packet filter holds partitions to their own addresses.
    pub guard: bool,
    /// Whether the kernel's settings that all this needs are set.
    pub sysctls: bool,
    /// Interfaces of the machine's own that routers announce themselves by; filled in by [`Settings::resolve`].
    pub listening: Vec<String>,
    /// Take the IPv6 prefix from the addresses of this interface.
    pub prefix_from: Option<String>,
    /// The IPv6 range that is divided among the partitions.
    pub ipv6_prefix: Option<Ipv6Net>,
    /// Prefix length of each partition's share of it. Its first half is for processes, the third quarter for what is
    /// behind the tap, the last for the tun.
    pub ipv6_share: u8,
    /// Whether the machine answers for every address of each share, so that its partition may use them all.
    pub local_ranges: bool,
    /// The IPv4 network of which each partition has one address; with taps, a second one from its upper half for what is
    /// behind the tap.
    pub ipv4_network: Option<Ipv4Net>,
    /// Whether the bridge itself has the first address of both ranges, for what is behind the taps.
    pub gateway: bool,
    /// Link group (IFLA_GROUP) of taps, tuns and pairs. The number after it is used for a moment while taps are deleted.
    pub link_group: u32,
}

/// The account that builds releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builder {
    pub user: String,
    pub uid: u32,
    pub gid: u32,
}

impl Settings {
    /// Name of partition n. Legal once [`Settings::check`] passed.
    pub(crate) fn partition_name(&self, n: u32) -> String {
        format!("{}{n}", self.partitions.base_name)
    }

    pub(crate) fn user_name(&self, n: u32) -> String {
        format!("{}{n}", self.partitions.user_base_name)
    }

    pub(crate) fn tap_name(&self, n: u32) -> String {
        format!("{}{n}", self.network.tap_base_name)
    }

    pub(crate) fn tun_name(&self, n: u32) -> String {
        format!("{}{n}", self.network.tun_base_name)
    }

    pub(crate) fn veth_name(&self, n: u32) -> String {
        format!("{}{n}", self.network.veth_base_name)
    }

    /// Directory of partition n.
    pub(crate) fn partition_directory(&self, n: u32) -> PathBuf {
        self.paths.root.join(self.partition_name(n))
    }

    /// The ranges whose addresses belong to this node, as written.
    pub(crate) fn ranges(&self) -> Vec<IpNet> {
        let ipv6 = self.network.ipv6_prefix.map(IpNet::V6);
        ipv6.into_iter().chain(self.network.ipv4_network.map(IpNet::V4)).collect()
    }
}

//! What was found on the machine: only what a plan can depend on. What is not in a map does not exist; what could not
//! be looked at is said to be unknown, which is never taken for absent.

mod accounts;
mod links;
mod way;

use crate::thing::Announced;
pub use accounts::{GroupFact, Left, Subordinate, UserFact};
use indexmap::{IndexMap, IndexSet};
use ipnet::IpNet;
pub use links::{About, LEAST_OF_IPV6, LinkFact, LinkKind, MTU, Odd};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
pub use way::Way;

/// What to look at. The planner says it, so that a machine with a million files is not read through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scope {
    /// Paths of directories, parents before children.
    pub paths: IndexSet<PathBuf>,
    /// Those of them of which to find out whether they hold anything that is not itself in [`Scope::paths`].
    pub contents: IndexSet<PathBuf>,
    /// Files to read whole.
    pub files: IndexSet<PathBuf>,
    /// Directories of which to find out how much disk space they may take, and the project id of each.
    pub disk: IndexMap<PathBuf, u32>,
    /// Network namespaces to look into, by the names of their files.
    pub namespaces: BTreeSet<String>,
    /// Those of them that may go: to find out who runs in them.
    pub leaving_namespaces: BTreeSet<String>,
    /// Settings of the kernel to read, e.g. `net.ipv4.ip_forward`; with `*` in the place of a link, those of each and of
    /// `default`.
    pub sysctls: BTreeSet<String>,
    /// The families of the packet filter whose table of node-format's name matters.
    pub guard: BTreeSet<String>,
    /// Whether users and groups matter.
    pub accounts: bool,
    /// Whether links, addresses and routes matter.
    pub network: bool,
    /// Uids of users that may go: to find out which of them have processes, and which others.
    pub processes: BTreeSet<u32>,
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
    /// By name, who is in the lists of lines of group(5), and of gshadow(5) if this process may read it, that are no line of a group
    /// there.
    pub other_lists: BTreeMap<String, BTreeSet<String>>,
    /// By name, numbers that lines of passwd(5) and group(5) have beside those of [`HostFacts::users`] and [`HostFacts::groups`]:
    /// further lines of a name, and lines that are no group's here but are one's for other programs.
    pub other_uids: BTreeMap<String, BTreeSet<u32>>,
    pub other_gids: BTreeMap<String, BTreeSet<u32>>,
    /// Names with a line in shadow(5), or in gshadow(5), though there is no such user or group, if this process may read it.
    pub left_in_shadow: BTreeMap<String, Left>,
    pub left_in_gshadow: BTreeMap<String, Left>,
    /// Uids and gids that users may give to what they run in user namespaces (subuid(5), subgid(5)).
    pub subordinate_uids: BTreeSet<Subordinate>,
    pub subordinate_gids: BTreeSet<Subordinate>,
    /// Of the paths in [`Scope::paths`], those that exist.
    pub paths: IndexMap<PathBuf, PathFact>,
    /// Of [`Scope::contents`], those that something is mounted on, or on what is in them: what is seen there is another's.
    /// Said is the process in whose mount namespace it is; nothing: in that of node-format.
    pub mounted: IndexMap<PathBuf, String>,
    /// Of the paths in [`Scope::paths`], those that something is mounted on as node-format sees it: what is seen there is no
    /// directory that it made.
    pub mounted_on: BTreeSet<PathBuf>,
    pub links: BTreeMap<String, LinkFact>,
    /// Those of one link in the order that the kernel tells them in: it prefers the first.
    pub addresses: IndexSet<AddressFact>,
    /// Ranges routed to this machine itself as a whole (routes of type local, longer ranges than one address).
    pub local_routes: BTreeSet<IpNet>,
    /// Routes of the main table that the kernel did not make by itself.
    pub routes: BTreeSet<Route>,
    /// Routes of any table that somebody made or a router announced, and neither [`HostFacts::routes`] nor
    /// [`HostFacts::local_routes`] has.
    pub ways: BTreeSet<Way>,
    /// By link, where the ways go that a router announced there: such a way is not among [`HostFacts::routes`].
    pub announced: BTreeMap<String, BTreeSet<IpNet>>,
    /// By link, what a DHCP client or another program keeps there as long as it was told.
    pub leases: BTreeMap<String, Leases>,
    /// Links with something that could not be put back exactly if it were taken from them, and what that is: whatever the
    /// other facts do not say in full and the kernel would not make again by itself.
    pub odd: BTreeMap<String, BTreeSet<Odd>>,
    /// Of [`HostFacts::routes`], by link, the destinations of those that another route of the main table (of any link, and
    /// whoever made it) has destination and metric in common with: put back, they would come after it.
    pub doubled: BTreeMap<String, BTreeSet<IpNet>>,
    /// Of [`HostFacts::routes`], by link, those that the kernel would refuse if they were put back, in words with their article.
    pub refused: BTreeMap<String, BTreeSet<String>>,
    /// By link, what addresses have besides; those that have nothing are missing.
    pub further: BTreeMap<String, BTreeMap<IpNet, Further>>,
    /// The numbers of links, which no other link gets in this boot and network namespace unless somebody gives it one.
    pub indexes: BTreeMap<String, u32>,
    /// Bridges that nobody gave a hardware address: each has the least one of its ports', and with the last port none.
    pub without_own_mac: BTreeSet<String>,
    /// Bridges of which it could not be found out whether somebody gave them one, and why.
    pub unknown_mac: BTreeMap<String, String>,
    /// By link, what somebody set of the frames that it takes, or that its bridge hands on.
    pub set_frames: BTreeMap<String, BTreeSet<SetFrames>>,
    /// By link, those that stand on it, as VLANs do: they go with it.
    pub stacked: BTreeMap<String, BTreeSet<String>>,
    /// Of [`Scope::namespaces`], those that exist.
    pub namespaces: BTreeMap<String, NamespaceFact>,
    /// Of those, by name, what is in them besides; those with nothing are missing.
    pub others_inside: BTreeMap<String, Others>,
    /// Of [`Scope::namespaces`], those where something else stands in the place of one, and what.
    pub not_namespaces: BTreeMap<String, String>,
    /// Of [`Scope::namespaces`], those that are mounted a second time, out of sight: one of both can be removed.
    pub mounted_again: BTreeSet<String>,
    /// Of [`Scope::leaving_namespaces`], those in which processes run, and one of these: its number and its name.
    pub entered: BTreeMap<String, (u32, String)>,
    /// Of [`Scope::sysctls`], those that this kernel has.
    pub sysctls: BTreeMap<String, String>,
    /// The packet filter's table of node-format's name, if there is one.
    pub guard: Option<Guard>,
    /// The limits that directories in [`Scope::disk`] have, or would have once they are made, in MiB; those without one are
    /// missing.
    pub disk_limits: IndexMap<PathBuf, u32>,
    /// The file systems that directories in [`Scope::disk`] are on, or would be, where a limit is that of a number on all of
    /// it.
    pub file_systems: IndexMap<PathBuf, String>,
    /// Directories that do not count into their limit.
    pub uncounted: IndexSet<PathBuf>,
    /// Of those, the ones that are of a project of somebody's, and its number.
    pub projects: IndexMap<PathBuf, u32>,
    /// Directories that cannot be limited, and why.
    pub unlimitable: IndexMap<PathBuf, String>,
    /// Uids that have processes, if [`Scope::processes`].
    pub busy_uids: BTreeSet<u32>,
    /// Of [`Scope::files`], those that exist.
    pub files: IndexMap<PathBuf, FileFact>,
    /// Of [`Scope::files`], those where something else stands in the place of one, and what.
    pub not_files: BTreeMap<PathBuf, String>,
}

/// A Unix owner by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// An empty directory in a partition's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inner {
    pub owner: Owner,
    pub mode: u32,
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
    /// The program `nft`, by which the packet filter is set.
    pub nft: Presence,
    /// systemd as the first process.
    pub systemd: Presence,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PathFact {
    Directory {
        owner: Owner,
        /// The permission bits, `0o7777` of the mode.
        mode: u32,
        /// Name of something in it that was not asked about, if its contents were, or it is half-made. Empty directories in a
        /// partition's are no strangers.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stranger: Option<String>,
        /// The empty directories in it, if its contents were asked about.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        inside: BTreeMap<String, Inner>,
        /// Whether it bears node-format's mark: a run was at work on it and did not come to its end. No user of a partition can
        /// set that.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        half_made: bool,
    },
    /// A file, a link, a device: anything but a directory.
    Other { kind: String },
    /// It could not be looked at.
    Unknown { why: String },
}

/// A file as it is, or shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileFact {
    pub owner: Owner,
    /// The permission bits.
    pub mode: u32,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressFact {
    pub link: String,
    pub address: IpNet,
    /// Whether it ends by itself: from a router's announcement, or else among [`HostFacts::leases`].
    #[serde(default)]
    pub leased: bool,
    /// Whether it is for whoever binds to it: the kernel does not choose it by itself while there is another.
    #[serde(default)]
    pub bound_only: bool,
}

impl AddressFact {
    /// One that node-format puts on a link. A single address is some partition's, and so for whoever binds to it.
    pub fn ours(link: impl Into<String>, address: IpNet) -> Self {
        let bound_only = address.prefix_len() == address.max_prefix_len();
        Self { link: link.into(), address, leased: false, bound_only }
    }
}

impl HostFacts {
    /// The address on this link, however it is marked, unless it ends by itself.
    pub fn address(&self, link: &str, address: IpNet) -> Option<&AddressFact> {
        let fact = |bound_only| AddressFact { bound_only, ..AddressFact::ours(link, address) };
        self.addresses.get(&fact(true)).or_else(|| self.addresses.get(&fact(false)))
    }

    /// What a router announced on a link and the kernel took up there. What a program keeps there as long as it was told is
    /// not of that.
    pub(crate) fn announced_on(&self, link: &str) -> Announced {
        let leases = self.leases.get(link);
        let is_leased = |address: &IpNet| leases.is_some_and(|leases| leases.addresses.contains(address));
        let ending = self.addresses.iter().filter(|found| found.link == link && found.leased);
        let ipv6 = ending.map(|found| found.address).filter(|address| address.addr().is_ipv6());
        Announced {
            addresses: ipv6.filter(|address| !is_leased(address)).collect(),
            ways: self.announced.get(link).cloned().unwrap_or_default(),
        }
    }
}

/// What programs keep on a link.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Leases {
    /// Those that end by themselves and that the kernel did not make.
    pub addresses: BTreeSet<IpNet>,
    /// Where routes in the name of DHCP or of a router go.
    pub routes: BTreeSet<IpNet>,
}

/// What an address has besides itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Further {
    /// The other end of the link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<IpAddr>,
    /// Of the route to its network; 0 is the kernel's default.
    pub metric: u32,
    /// Of IPv4, how far it is valid, as the kernel numbers that; `None`: everywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
    /// Of IPv4, the address of all in its network, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub broadcast: Option<Ipv4Addr>,
    /// Whether the kernel makes no route to its network (`noprefixroute`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub without_route: bool,
}

/// What somebody set of frames, which goes with the link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetFrames {
    /// In words, with its article.
    pub what: String,
    /// Whether its bridge keeps it, and forgets it once the link is no port of it any more.
    #[serde(default)]
    pub of_bridge: bool,
}

/// A way to other machines.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    pub destination: IpNet,
    pub link: String,
    /// The router; `None`: the destination is on the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// The kernel's default (0, and 1024 for IPv6) is 0 here.
    #[serde(default)]
    pub metric: u32,
    /// The source address that packets get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    /// Whether the router is taken to be on the link whatever the link's addresses.
    #[serde(default)]
    pub onlink: bool,
}

/// What is in a namespace besides what its partition was made with, and what the kernel makes by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Others {
    /// Links but `lo` and `eth0`; of the end of a pair, which of the machine's links is the other one (empty: none of them).
    pub links: BTreeMap<String, String>,
    /// Ends of pairs, `eth0` too, of which the other one is in a third namespace.
    pub elsewhere: BTreeSet<String>,
    /// By `lo` and `eth0`, what is on them and [`NamespaceFact`] does not say; routes by no link are by `lo`. By another link, its
    /// routes that are from an address of `eth0` alone.
    pub odd: BTreeMap<String, BTreeSet<Odd>>,
    /// Of `eth0` as a port of a bridge in there, what somebody set in that, in words.
    pub of_bridge: BTreeSet<String>,
    /// Links on top of `eth0` that take no larger packets than it does, and what each takes.
    pub above: BTreeMap<String, u32>,
}

/// The inside of a partition's network namespace: its `lo`, and its end of the pair, `eth0`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NamespaceFact {
    pub lo_up: bool,
    /// `eth0`, if it is there; neither in a bridge nor in a group.
    pub link: Option<LinkFact>,
    /// Which of the machine's links is the other end of `eth0`.
    pub outside: Option<String>,
    /// On `eth0`.
    pub addresses: BTreeSet<IpNet>,
    /// Of `eth0`.
    pub routes: BTreeSet<Route>,
    pub local_routes: BTreeSet<IpNet>,
    pub sysctls: BTreeMap<String, String>,
}

/// The packet filter's table that holds partitions to their own addresses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// Fingerprint of the script that made it, kept in the table's comment. Empty: made by somebody else.
    pub fingerprint: String,
    /// How many rules it has.
    pub rules: u32,
    /// The elements of its sets, each as `SET ELEMENT`.
    pub elements: BTreeSet<String>,
    /// A script that makes it as it is; each table first by a line `add table FAMILY plat`.
    pub script: String,
}

impl Guard {
    /// Those that it has a table in.
    pub fn families(&self) -> BTreeSet<String> {
        let tables = self.script.lines().filter_map(|line| line.strip_prefix("add table ")?.split(' ').next());
        tables.map(str::to_owned).collect()
    }

    /// Whether two tables do the same; scripts may be written differently.
    pub fn equals(&self, other: &Self) -> bool {
        (&self.fingerprint, self.rules, &self.elements) == (&other.fingerprint, other.rules, &other.elements)
    }
}

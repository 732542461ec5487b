//! What an operator asks of a machine, in the newest form. Files of any version are read into this by `config`; the
//! unprivileged way (a node inside a folder) makes one directly. [`Settings::check`] finds everything that is wrong.

use crate::shares;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use plat_model::id::PartitionName;
use plat_model::node::PARTITIONS_MAX;
use plat_model::problem::{Problem, Problems, codes};
use plat_model::resources::Resources;
use std::path::{Component, Path, PathBuf};

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
}

/// Where the partitions' addresses are put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkMode {
    /// On a bridge that node-format makes; taps are joined to it.
    Bridge,
    /// On an interface that exists already; taps are made but joined to nothing.
    Interface,
    /// In 127.0.0.0/8, where Linux answers every address without being told. Needs no privilege.
    Loopback,
    /// No addresses, no links.
    None,
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
    /// The IPv6 range that is divided among the partitions.
    pub ipv6_prefix: Option<Ipv6Net>,
    /// Prefix length of each partition's share of it.
    pub ipv6_share: u8,
    /// Whether the machine answers for every address of each share, so that its partition may use them all.
    pub local_ranges: bool,
    /// The IPv4 network of which each partition has one address.
    pub ipv4_network: Option<Ipv4Net>,
    /// Whether the bridge itself has the first address of both ranges, for what is behind the taps.
    pub gateway: bool,
    /// Link group (IFLA_GROUP) of the taps. The number after it is used for a moment while taps are deleted.
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

    /// Directory of partition n.
    pub(crate) fn partition_directory(&self, n: u32) -> PathBuf {
        self.paths.root.join(self.partition_name(n))
    }

    /// The ranges whose addresses belong to this node, as written.
    pub(crate) fn ranges(&self) -> Vec<IpNet> {
        let ipv6 = self.network.ipv6_prefix.map(IpNet::V6);
        ipv6.into_iter().chain(self.network.ipv4_network.map(IpNet::V4)).collect()
    }

    /// Finds everything that is wrong with these settings in themselves; whether they fit the machine is the
    /// planner's question.
    ///
    /// # Errors
    /// [`codes::BAD_CONFIG`] and [`codes::OVERLAP`], one for each thing that is wrong.
    pub fn check(&self) -> Result<(), Problems> {
        let mut wrong = Problems::default();
        self.check_paths(&mut wrong);
        self.check_names(&mut wrong);
        self.check_ids(&mut wrong);
        self.check_network(&mut wrong);
        wrong.none_or(())
    }

    fn check_paths(&self, wrong: &mut Problems) {
        let Paths { releases, root, node_file, record } = &self.paths;
        let named = [
            ("paths.releases", releases),
            ("paths.root", root),
            ("paths.node_file", node_file),
            ("paths.record", record),
        ];
        for (key, path) in named {
            if let Err(why) = check_path(path) {
                wrong.push(bad(key, format!("`{}` cannot be used as a path", path.display())).because(why));
            }
        }
        for (n, (key, path)) in named.iter().enumerate() {
            for (other_key, other) in &named[..n] {
                if path.starts_with(other) || other.starts_with(path) {
                    wrong.push(
                        Problem::new(codes::OVERLAP, format!("{key} and {other_key} lie within each other"))
                            .because(format!("`{}` and `{}`", path.display(), other.display()))
                            .fix("give each a place of its own")
                            .at(*key),
                    );
                }
            }
        }
    }

    fn check_names(&self, wrong: &mut Problems) {
        let last = self.partitions.amount.max(1) - 1;
        if usize::try_from(self.partitions.amount).map_or(true, |amount| amount > PARTITIONS_MAX) {
            let what = format!("{} partitions are too many", self.partitions.amount);
            wrong.push(bad("partitions.amount", what).because(format!("a node has at most {PARTITIONS_MAX}")));
        }
        if let Err(problem) = PartitionName::parse(&self.partition_name(last)) {
            wrong.push(problem.at("partitions.base_name"));
        }
        if self.partitions.users {
            check_user_name(&self.user_name(last), "partitions.user_base_name", wrong);
        }
        for group in &self.partitions.groups {
            check_user_name(group, "partitions.groups", wrong);
        }
        if let Some(builder) = &self.builder {
            check_user_name(&builder.user, "builder.user", wrong);
        }
        if matches!(self.network.mode, NetworkMode::Bridge | NetworkMode::Interface) {
            check_link_name(&self.network.link, "network.link", wrong);
            if self.network.taps {
                check_link_name(&self.tap_name(last), "network.tap_base_name", wrong);
                let clash = (0..=last).find(|n| self.tap_name(*n) == self.network.link);
                if let Some(n) = clash {
                    let what = format!("tap {} would have the name of `network.link`", self.tap_name(n));
                    wrong.push(bad("network.tap_base_name", what).fix("choose another base name for the taps"));
                }
            }
        }
    }

    fn check_ids(&self, wrong: &mut Problems) {
        let amount = self.partitions.amount;
        let mut ranges = Vec::new();
        if self.partitions.users {
            ranges.push(("uid", "partitions.first_uid", self.partitions.first_uid, amount));
            ranges.push(("gid", "partitions.first_gid", self.partitions.first_gid, amount));
        }
        if let Some(builder) = &self.builder {
            ranges.push(("uid", "builder.uid", builder.uid, 1));
            ranges.push(("gid", "builder.gid", builder.gid, 1));
            let same_name = (0..amount).any(|n| self.partitions.users && self.user_name(n) == builder.user);
            if same_name {
                let what = format!("`{}` is the builder and a partition's user", builder.user);
                wrong.push(bad("builder.user", what).fix("choose another name for the builder"));
            }
        }
        for (kind, key, first, amount) in &ranges {
            let last = u64::from(*first) + u64::from(amount.saturating_sub(1));
            if *first < LIMITS.first_id || last > u64::from(LIMITS.last_id) {
                let what = format!("{kind}s {first} to {last} cannot be given to partitions");
                let why = format!("{} to {} can; those below belong to the system", LIMITS.first_id, LIMITS.last_id);
                wrong.push(bad(key, what).because(why));
            }
        }
        for (n, (kind, key, first, amount)) in ranges.iter().enumerate() {
            for (_, other_key, other, others) in ranges[..n].iter().filter(|range| range.0 == *kind) {
                let apart = u64::from(*first) >= u64::from(*other) + u64::from(*others)
                    || u64::from(*other) >= u64::from(*first) + u64::from(*amount);
                if !apart {
                    wrong.push(
                        Problem::new(codes::OVERLAP, format!("{key} and {other_key} give the same {kind} twice"))
                            .fix("move one of the ranges")
                            .at(*key),
                    );
                }
            }
        }
    }

    fn check_network(&self, wrong: &mut Problems) {
        let Network { mode, taps, ipv6_prefix, ipv6_share, ipv4_network, .. } = &self.network;
        if *taps && !matches!(mode, NetworkMode::Bridge | NetworkMode::Interface) {
            let what = "taps need the network mode `bridge` or `interface`";
            wrong.push(bad("network.taps", what).fix("set `taps = false`, or another mode"));
        }
        if let Some(prefix) = ipv6_prefix {
            if *mode == NetworkMode::Loopback {
                let what = "the network mode `loopback` has IPv4 addresses only";
                wrong.push(bad("network.ipv6_prefix", what).fix("leave the prefix out, or choose another mode"));
            }
            if let Err(why) = shares::ipv6_fits(*prefix, *ipv6_share, self.partitions.amount) {
                wrong.push(too_small("network.ipv6_prefix", IpNet::V6(*prefix), why));
            }
        }
        if let Some(network) = ipv4_network {
            if *mode == NetworkMode::Loopback && !network.network().is_loopback() {
                let what = format!("{network} is not part of 127.0.0.0/8");
                wrong.push(bad("network.ipv4_network", what).because("the network mode is `loopback`"));
            }
            if *mode != NetworkMode::Loopback && network.network().is_loopback() {
                let what = format!("{network} is part of 127.0.0.0/8");
                wrong.push(bad("network.ipv4_network", what).because("only the network mode `loopback` uses it"));
            }
            if let Err(why) = shares::ipv4_fits(*network, self.partitions.amount) {
                wrong.push(too_small("network.ipv4_network", IpNet::V4(*network), why));
            }
        }
        if *mode == NetworkMode::None && (ipv6_prefix.is_some() || ipv4_network.is_some()) {
            let what = "addresses were given, but the network mode is `none`";
            wrong.push(bad("network.mode", what).fix("choose `bridge` or `interface`, or leave the ranges out"));
        }
    }
}

pub(crate) fn bad(key: &str, what: impl Into<String>) -> Problem {
    Problem::new(codes::BAD_CONFIG, what).at(key)
}

fn too_small(key: &str, range: IpNet, why: String) -> Problem {
    Problem::new(codes::OVERLAP, format!("{range} cannot be divided among the partitions"))
        .because(why)
        .fix("give a larger range, a longer share, or fewer partitions")
        .at(key)
}

fn check_path(path: &Path) -> Result<(), &'static str> {
    let Some(text) = path.to_str() else { return Err("it is not UTF-8") };
    if !path.is_absolute() {
        return Err("it is not absolute");
    }
    if text.len() > 1024 || text.chars().any(char::is_control) {
        return Err("it has more than 1024 bytes, or a control character");
    }
    if text.contains(':') || text.contains('"') {
        return Err("`:` and `\"` cannot be written into the user database");
    }
    let plain: PathBuf = path.components().filter(|c| matches!(c, Component::RootDir | Component::Normal(_))).collect();
    if plain.as_os_str() != path.as_os_str() {
        return Err("it holds `.`, `..`, `//` or a final `/`");
    }
    if path.parent().is_none() {
        return Err("it is the root of the file system");
    }
    Ok(())
}

fn check_user_name(name: &str, key: &str, wrong: &mut Problems) {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if name.len() > LIMITS.user_name || !starts || !name.chars().all(legal) {
        let what = format!("`{}` is not a legal user or group name", plat_model::id::shorten(name));
        let why = format!("1 to {} bytes: a-z, 0-9, `-`, `_`, first a letter or `_`", LIMITS.user_name);
        wrong.push(bad(key, what).because(why));
    }
}

fn check_link_name(name: &str, key: &str, wrong: &mut Problems) {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let dots = name == "." || name == "..";
    if name.is_empty() || name.len() > LIMITS.link_name || dots || !name.chars().all(legal) {
        let what = format!("`{}` cannot name a network link", plat_model::id::shorten(name));
        let why = format!("it has {} bytes; 1 to {} of a-z, A-Z, 0-9, `-_.`", name.len(), LIMITS.link_name);
        wrong.push(bad(key, what).because(why).fix("choose a shorter base name"));
    }
}

//! What is wrong with settings in themselves.

use super::{LIMITS, Network, NetworkMode, Paths, Settings, TapMode};
use crate::action::ON_ITS_WAY;
use plat_model::id::PartitionName;
use plat_model::node::PARTITIONS_MAX;
use plat_model::problem::{Problem, Problems, codes};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// Most directories in a partition's, and most further storage roots.
const DIRECTORIES_MAX: usize = 64;
/// BR_MAX_PORTS of Linux is 1024, and number 0 is not given.
const BRIDGE_PORTS_MAX: u64 = 1023;

impl Settings {
    /// Finds everything that is wrong with these settings in themselves; whether they fit the machine is the
    /// planner's question.
    ///
    /// # Errors
    /// [`codes::BAD_CONFIG`] and [`codes::OVERLAP`], one for each thing that is wrong.
    pub fn check(&self) -> Result<(), Problems> {
        let mut wrong = Problems::default();
        self.check_paths(&mut wrong);
        self.check_names(&mut wrong);
        self.check_link_names(&mut wrong);
        self.check_directories(&mut wrong);
        self.check_ids(&mut wrong);
        self.check_network(&mut wrong);
        self.check_ranges(&mut wrong);
        self.check_links(&mut wrong);
        self.check_enforcement(&mut wrong);
        wrong.none_or(())
    }

    fn check_paths(&self, wrong: &mut Problems) {
        let Paths { releases, root, node_file, record, resources, storage } = &self.paths;
        let mut named = vec![
            ("paths.releases", releases),
            ("paths.root", root),
            ("paths.node_file", node_file),
            ("paths.record", record),
        ];
        named.extend(resources.iter().map(|path| ("paths.resources", path)));
        named.extend(storage.iter().map(|path| ("paths.storage", path)));
        if storage.len() > DIRECTORIES_MAX {
            wrong.push(bad("paths.storage", format!("more than {DIRECTORIES_MAX} storage roots are too many")));
        }
        for (key, path) in &named {
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
    }

    fn check_link_names(&self, wrong: &mut Problems) {
        let network = &self.network;
        if !matches!(network.mode, NetworkMode::Bridge | NetworkMode::Interface) {
            return;
        }
        let last = self.partitions.amount.max(1) - 1;
        let mut taken: BTreeSet<String> =
            [Some(network.link.clone()), network.uplink.clone()].into_iter().flatten().collect();
        check_link_name(&network.link, "network.link", "choose another name", wrong);
        if let Some(uplink) = &network.uplink {
            check_link_name(uplink, "network.uplink", "name one that `ip link` shows", wrong);
            if *uplink == network.link {
                wrong.push(bad("network.uplink", "the uplink cannot be the bridge itself"));
            }
            if uplink == "lo" {
                let problem = bad("network.uplink", "lo cannot be an uplink").because("no other machine is behind it");
                wrong.push(problem.fix("name an interface that leads out, or leave `uplink` out"));
            }
        }
        type Name = fn(&Settings, u32) -> String;
        let kinds: [(bool, &str, Name); 3] = [
            (network.taps, "network.tap_base_name", Settings::tap_name),
            (network.tuns, "network.tun_base_name", Settings::tun_name),
            (network.namespaces, "network.veth_base_name", Settings::veth_name),
        ];
        for (_, key, name) in kinds.into_iter().filter(|(used, ..)| *used) {
            check_link_name(&name(self, last), key, "choose a shorter base name", wrong);
            let names: Vec<_> = (0..=last.min(PARTITIONS_MAX as u32)).map(|n| name(self, n)).collect();
            if let Some(clash) = names.iter().find(|name| taken.contains(*name)) {
                let what = format!("two links would have the name {clash}");
                wrong.push(bad(key, what).fix("choose another base name"));
            }
            taken.extend(names);
        }
    }

    fn check_directories(&self, wrong: &mut Problems) {
        let partitions = &self.partitions;
        let inside = partitions.directories.iter().map(|(name, mode)| ("partitions.directories", name.as_str(), *mode));
        for (key, name, mode) in inside.chain([("partitions.mode", "the partition's directory", partitions.mode)]) {
            if mode & 0o700 != 0o700 || mode & !0o775 != 0 {
                let what = format!("mode {mode:04o} cannot be given to {name}");
                let why = "its owner must have all rights in it, others no right to write";
                wrong.push(bad(key, what).because(why));
            }
        }
        for name in partitions.directories.keys() {
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(legal) {
                let what = format!("`{}` cannot name a directory of a partition", plat_model::id::shorten(name));
                let why = "1 to 64 bytes of a-z, A-Z, 0-9, `-_.`, no dot first";
                wrong.push(bad("partitions.directories", what).because(why));
            }
        }
        if partitions.directories.len() > DIRECTORIES_MAX {
            wrong.push(bad("partitions.directories", format!("more than {DIRECTORIES_MAX} directories are too many")));
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
        let Network { mode, taps, ipv6_prefix, ipv4_network, .. } = &self.network;
        if *taps && !matches!(mode, NetworkMode::Bridge | NetworkMode::Interface) {
            let what = "taps need the network mode `bridge` or `interface`";
            wrong.push(bad("network.taps", what).fix("set `taps = false`, or another mode"));
        }
        if *mode == NetworkMode::None && (ipv6_prefix.is_some() || ipv4_network.is_some()) {
            let what = "addresses were given, but the network mode is `none`";
            wrong.push(bad("network.mode", what).fix("choose `bridge` or `interface`, or leave the ranges out"));
        }
    }

    /// What goes with what.
    fn check_links(&self, wrong: &mut Problems) {
        let network = &self.network;
        let bridge = network.mode == NetworkMode::Bridge;
        let links = bridge || network.mode == NetworkMode::Interface;
        if network.tuns && !links {
            let what = "tuns need the network mode `bridge` or `interface`";
            wrong.push(bad("network.tuns", what).fix("set `tuns = false`, or another mode"));
        }
        let ports = u64::from(self.partitions.amount) + u64::from(network.uplink.is_some());
        let joins = network.namespaces || (network.taps && network.tap_mode == TapMode::Bridged);
        if links && joins && ports > BRIDGE_PORTS_MAX {
            let what = format!("{ports} links cannot be joined to one bridge");
            let why = format!("the kernel lets a bridge have {BRIDGE_PORTS_MAX}");
            wrong.push(
                bad("partitions.amount", what).because(why).fix("set `tap_mode = \"routed\"`, or fewer partitions"),
            );
        }
        if network.uplink.is_some() && !bridge {
            let what = "an uplink needs the network mode `bridge`";
            wrong.push(bad("network.uplink", what).because("it becomes a port of the bridge that node-format makes"));
        }
        if network.namespaces {
            if !bridge || !network.gateway {
                let what = "namespaces need the network mode `bridge` and `gateway = true`";
                let why = "each is joined to the bridge, whose address is its way out";
                wrong.push(bad("network.namespaces", what).because(why));
            }
            if network.taps {
                let what = "a partition has a namespace or a tap, not both";
                let why = "a process in a namespace cannot open a tap that is outside";
                wrong.push(
                    bad("network.namespaces", what).because(why).fix("set `taps = false`, or `namespaces = false`"),
                );
            }
        }
        if network.mtu.is_some_and(|mtu| !(1280..=65_521).contains(&mtu)) {
            let what = "`network.mtu` must be from 1280 to 65521";
            wrong.push(bad("network.mtu", what).because("IPv6 needs 1280, and no tap takes more than 65521"));
        }
        if network.guard && !self.partitions.users && !network.namespaces && !network.taps {
            let what = "the guard has nothing to know partitions by";
            wrong.push(bad("network.guard", what).fix("set `users = true` in [partitions], or `guard = false`"));
        }
        if network.prefix_from.is_some() && bridge && network.uplink.is_none() {
            let problem = bad("network.ipv6_prefix", "the prefix is the uplink's, but `uplink` is missing");
            wrong.push(problem.fix("name the interface in `uplink`, or give the prefix itself"));
        }
        if network.prefix_from.is_some() && !links {
            let what = "a prefix can be taken from the uplink only in the modes `bridge` and `interface`";
            wrong.push(bad("network.ipv6_prefix", what).fix("give the prefix itself"));
        }
        if network.taps && network.tap_mode == TapMode::Routed && !bridge && !links {
            wrong.push(bad("network.tap_mode", "routed taps need a network mode with links"));
        }
    }

    fn check_enforcement(&self, wrong: &mut Problems) {
        if self.enforcement.disk && self.limits.disk_mib.is_none() {
            let what = "`disk_quota` needs `disk_mib`";
            wrong.push(bad("limits.disk_quota", what).fix("say how much each partition may take, in MiB"));
        }
        if self.enforcement.disk && !self.partitions.users {
            let what = "`disk_quota` needs `users = true`";
            wrong.push(bad("limits.disk_quota", what).because("a partition's space is told from others' by its user"));
        }
        if self.enforcement.slices && !self.partitions.users {
            let what = "`slices` needs `users = true`";
            wrong.push(bad("limits.slices", what).because("they are for a whole machine, made by root"));
        }
    }
}

pub(crate) fn bad(key: &str, what: impl Into<String>) -> Problem {
    Problem::new(codes::BAD_CONFIG, what).at(key)
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
    if path.iter().any(|name| name.as_encoded_bytes().starts_with(ON_ITS_WAY.as_bytes())) {
        return Err("names that begin with `.node-format-` are those of what is on its way to its place");
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

fn check_link_name(name: &str, key: &str, fix: &str, wrong: &mut Problems) {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let dots = name == "." || name == "..";
    if name.is_empty() || name.len() > LIMITS.link_name || dots || !name.chars().all(legal) {
        let what = format!("`{}` cannot name a network link", plat_model::id::shorten(name));
        let why = format!("it has {} bytes; 1 to {} of a-z, A-Z, 0-9, `-_.`", name.len(), LIMITS.link_name);
        wrong.push(bad(key, what).because(why).fix(fix));
    }
}

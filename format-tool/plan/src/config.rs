//! The configuration file: text in, checked [`Settings`] out, everything that is wrong with it at once. Version 1 is
//! the only one so far; a later one gets a reader of its own that makes the same [`Settings`].

mod reader;

use crate::settings::{Builder, Enforcement, Network, NetworkMode, PartitionSettings, Paths, Settings, TapMode};
use ipnet::Ipv6Net;
use plat_model::node::{PARTITIONS_MAX, Skeleton};
use plat_model::problem::{Problem, Problems, codes};
use plat_model::resources::Resources;
use reader::{Reader, Section};
use std::collections::BTreeMap;
use std::path::Path;

/// A commented file that says every key with its default or a likely value. It parses.
pub const EXAMPLE: &str = include_str!("config/example.toml");

/// Longest configuration that is read, in bytes.
const SIZE_MAX: usize = 1 << 20;
/// The newest version of the form.
const VERSION: u32 = 1;

/// Where each key was said, for what is found out later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    file: String,
    /// `file:line:column` by dotted name.
    keys: BTreeMap<String, String>,
}

impl Places {
    /// The same problems; those that name a key say its line, or at least the file.
    #[must_use]
    pub fn locate(&self, problems: Problems) -> Problems {
        let of_key = |at: &str| {
            let place = || format!("{} ({at})", self.file);
            let section = at.split_once('.').map_or("", |(section, _)| section);
            let is_key = SECTIONS.contains(&section) && !at.contains([':', '/']);
            is_key.then(|| self.keys.get(at).cloned().unwrap_or_else(place))
        };
        let located = problems.into_iter().map(|mut problem| {
            problem.at = of_key(&problem.at).unwrap_or(problem.at);
            problem
        });
        Problems(located.collect())
    }
}

const SECTIONS: [&str; 6] = ["paths", "partitions", "network", "builder", "limits", "capacity"];

/// Reads a configuration. `name` is what the file is called in messages.
///
/// # Errors
/// One problem for each thing that is wrong: syntax, unknown or missing keys, values of the wrong kind or out of
/// range, ranges that overlap or are too small. Each says where.
pub fn parse(name: &str, text: &str) -> Result<Settings, Problems> {
    parse_with_places(name, text).map(|(settings, _)| settings)
}

/// As [`parse`]; besides, where everything was said.
///
/// # Errors
/// As [`parse`].
pub fn parse_with_places(name: &str, text: &str) -> Result<(Settings, Places), Problems> {
    if text.len() > SIZE_MAX {
        let what = format!("{name} has {} bytes", text.len());
        return Err(Problem::new(codes::TOO_LARGE, what).because(format!("at most {SIZE_MAX} are read")).into());
    }
    let mut reader = Reader::new(name, text);
    let Some(mut top) = reader.document() else { return Err(reader.finish()) };
    match top.number(&mut reader, "version", 1, u32::MAX) {
        Some(VERSION) => {}
        Some(other) => {
            let problem = Problem::new(codes::BAD_CONFIG, format!("{name} is of version {other}"))
                .because(format!("this node-format reads version {VERSION}"))
                .fix("use a node-format of that version or a newer one");
            return Err(problem.into());
        }
        None => top.missing(&mut reader, "version"),
    }
    let settings = version_1(&mut reader, &mut top);
    top.refuse_rest(&mut reader);
    let (file, keys) = reader.places();
    let places = Places { file, keys };
    let without_mode = reader.lacks("network.mode");
    let mut wrong = reader.finish();
    if let Err(Problems(mut more)) = settings.check() {
        // What goes with a mode cannot be said without it.
        more.retain(|problem| !(without_mode && problem.at.starts_with("network.")));
        wrong.extend(places.locate(Problems(more)));
    }
    wrong.none_or((settings, places))
}

fn version_1<'t>(reader: &mut Reader<'t>, top: &mut Section<'t>) -> Settings {
    let paths = top.section(reader, "paths", |reader, s| Paths {
        releases: s.text(reader, "releases").unwrap_or_else(|| "/srv/plat/releases".into()).into(),
        root: s.text(reader, "root").unwrap_or_else(|| "/srv/plat/partitions".into()).into(),
        node_file: s.text(reader, "node_file").unwrap_or_else(|| "/var/lib/plat/node.json".into()).into(),
        record: s.text(reader, "record").unwrap_or_else(|| "/var/lib/plat/format/record".into()).into(),
        resources: s.text(reader, "resources").map(Into::into),
        storage: s.texts(reader, "storage").into_iter().map(Into::into).collect(),
    });
    let partitions = top.section(reader, "partitions", partitions);
    // A node in a folder has no other place for them than its own.
    let beside = |root: &Path| root.with_file_name("resources");
    let resources = paths.resources.clone().or_else(|| Some(beside(&paths.root)));
    let paths = Paths { resources, ..paths };
    let network = top.section(reader, "network", |reader, s| network(reader, s, &partitions));
    let builder = (partitions.users || top.has("builder")).then(|| {
        top.section(reader, "builder", |reader, s| Builder {
            user: s.text(reader, "user").unwrap_or_else(|| "plat-builder".into()),
            uid: s.number(reader, "uid", 0, u32::MAX).unwrap_or(19_999),
            gid: s.number(reader, "gid", 0, u32::MAX).unwrap_or(19_999),
        })
    });
    let (limits, enforcement) = top.section(reader, "limits", |reader, s| {
        let enforcement = Enforcement {
            disk: s.boolean(reader, "disk_quota").unwrap_or(false),
            slices: s.boolean(reader, "slices").unwrap_or(false),
        };
        (resources_of(reader, s), enforcement)
    });
    let capacity = top.section(reader, "capacity", resources_of);
    Settings { paths, partitions, network, builder, capacity, limits, enforcement }
}

fn partitions<'t>(reader: &mut Reader<'t>, s: &mut Section<'t>) -> PartitionSettings {
    let amount = s.number(reader, "amount", 0, PARTITIONS_MAX as u32);
    if amount.is_none() {
        s.missing(reader, "amount");
    }
    let base_name = s.text(reader, "base_name").unwrap_or_else(|| "part".into());
    PartitionSettings {
        amount: amount.unwrap_or(0),
        users: s.boolean(reader, "users").unwrap_or(true),
        user_base_name: s.text(reader, "user_base_name").unwrap_or_else(|| base_name.clone()),
        first_uid: s.number(reader, "first_uid", 0, u32::MAX).unwrap_or(20_000),
        first_gid: s.number(reader, "first_gid", 0, u32::MAX).unwrap_or(20_000),
        groups: s.texts(reader, "groups"),
        mode: s.mode(reader, "mode").unwrap_or(0o750),
        directories: s.modes(reader, "directories").unwrap_or_else(|| Skeleton::default().directories),
        base_name,
    }
}

fn network<'t>(reader: &mut Reader<'t>, s: &mut Section<'t>, partitions: &PartitionSettings) -> Network {
    const MODES: [(&str, NetworkMode); 4] = [
        ("bridge", NetworkMode::Bridge),
        ("interface", NetworkMode::Interface),
        ("loopback", NetworkMode::Loopback),
        ("none", NetworkMode::None),
    ];
    const TAP_MODES: [(&str, TapMode); 2] = [("bridged", TapMode::Bridged), ("routed", TapMode::Routed)];
    let mode = s.one_of(reader, "mode", &MODES).unwrap_or(NetworkMode::None);
    if ["ipv6_prefix", "ipv4_network", "tun_ipv4_network", "uplink"].into_iter().any(|key| s.has(key)) {
        s.missing(reader, "mode");
    }
    let bridge = mode == NetworkMode::Bridge;
    let links = bridge || mode == NetworkMode::Interface;
    let link = s.text(reader, "link").unwrap_or_else(|| if bridge { "plat0" } else { "lo" }.into());
    let uplink = s.text(reader, "uplink");
    let namespaces = s.boolean(reader, "namespaces").unwrap_or(false);
    let (ipv6_prefix, from_uplink) = match s.parsed(reader, "ipv6_prefix", PREFIX) {
        Some(Prefix::Given(prefix)) => (Some(prefix), false),
        Some(Prefix::Uplink) => (None, true),
        None => (None, false),
    };
    let longer = ipv6_prefix.map(|prefix: Ipv6Net| u32::from(prefix.prefix_len()) + 16);
    // Where the prefix is not known yet, neither is its length: 0 until it is resolved.
    let longer = longer.unwrap_or(if from_uplink { 0 } else { 128 }).min(128);
    let mut ipv4_network = s.parsed(reader, "ipv4_network", "an IPv4 network such as 10.112.0.0/16");
    if mode == NetworkMode::Loopback {
        ipv4_network = ipv4_network.or_else(|| "127.0.0.0/8".parse().ok());
    }
    let base_name = &partitions.base_name;
    let default_tap_mode = if bridge { TapMode::Bridged } else { TapMode::Routed };
    let taps = s.boolean(reader, "taps").unwrap_or(links && !namespaces);
    let tap_mode = s.one_of(reader, "tap_mode", &TAP_MODES).unwrap_or(default_tap_mode);
    Network {
        mode,
        taps,
        tap_base_name: s.text(reader, "tap_base_name").unwrap_or_else(|| base_name.clone()),
        tap_mode,
        tuns: s.boolean(reader, "tuns").unwrap_or(false),
        tun_base_name: s.text(reader, "tun_base_name").unwrap_or_else(|| format!("{base_name}-tun")),
        tun_ipv4_network: s.parsed(reader, "tun_ipv4_network", "an IPv4 network such as 172.16.0.0/12"),
        tun_ipv4_share: s.length(reader, "tun_ipv4_share", 32).unwrap_or(26),
        veth_base_name: s.text(reader, "veth_base_name").unwrap_or_else(|| format!("{base_name}-v")),
        namespaces,
        bridge_mac: None,
        listening: Vec::new(),
        mtu: s.number(reader, "mtu", 0, u32::MAX),
        port_mtu: None,
        isolation: s.boolean(reader, "isolation").unwrap_or(bridge || (taps && links && tap_mode == TapMode::Bridged)),
        guard: s.boolean(reader, "guard").unwrap_or(links && (partitions.users || namespaces)),
        sysctls: s.boolean(reader, "sysctls").unwrap_or(links),
        prefix_from: from_uplink.then(|| uplink.clone().unwrap_or_else(|| link.clone())),
        ipv6_prefix,
        ipv6_share: s.length(reader, "ipv6_share", 128).unwrap_or(u8::try_from(longer).unwrap_or(128)),
        local_ranges: s.boolean(reader, "local_ranges").unwrap_or(links),
        ipv4_network,
        gateway: s.boolean(reader, "gateway").unwrap_or(bridge && uplink.is_none()),
        link_group: s.number(reader, "link_group", 1, u32::MAX - 1).unwrap_or(28_780),
        link,
        uplink,
    }
}

const PREFIX: &str = "an IPv6 range such as 2001:db8:1::/64, or \"uplink\"";

/// What may be said of the IPv6 prefix.
enum Prefix {
    Given(Ipv6Net),
    Uplink,
}

impl std::str::FromStr for Prefix {
    type Err = ipnet::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "uplink" { Ok(Self::Uplink) } else { text.parse().map(Self::Given) }
    }
}

fn resources_of<'t>(reader: &mut Reader<'t>, s: &mut Section<'t>) -> Resources {
    Resources {
        cpu_millis: s.number(reader, "cpu_millis", 1, u32::MAX),
        memory_mib: s.number(reader, "memory_mib", 1, u32::MAX),
        disk_mib: s.number(reader, "disk_mib", 1, u32::MAX),
        processes: s.number(reader, "processes", 1, u32::MAX),
    }
}

#[cfg(test)]
mod tests;

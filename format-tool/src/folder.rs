//! A node inside one folder, without privileges: no users, no links, addresses in 127.0.0.0/8, where Linux answers every
//! address without being told. The same settings, planner and host as for a whole machine.

use crate::apply::{Wish, apply};
use crate::host::linux::LinuxHost;
use crate::record::{Epoch, Record};
use ipnet::Ipv4Net;
use node_format_plan::settings::{Enforcement, Network, NetworkMode, PartitionSettings, Paths, TapMode};
use node_format_plan::{Contents, Layout, Settings};
use plat_model::node::{NodeFile, Skeleton};
use plat_model::problem::{Problem, Problems, codes};
use plat_model::resources::Resources;
use std::path::PathBuf;

/// What a node in a folder is asked to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FolderNode {
    /// Where it lies; made if missing (its parent must exist). It holds `releases`, `partitions`, `node.json` and `format/record`.
    pub folder: PathBuf,
    /// How many partitions; may be raised later, and lowered while those at the end are empty.
    pub partitions: u32,
    /// Where their addresses come from: part of 127.0.0.0/8. Partition n has the address n + 2 of it.
    pub ipv4_network: Ipv4Net,
}

/// Makes the folder a node, or makes what is missing of it; returns what `node.json` then says.
///
/// # Errors
/// As [`apply`]; besides [`codes::FILE`] if the folder cannot be made.
pub fn format_folder(wanted: &FolderNode) -> Result<NodeFile, Problems> {
    let place = |e: std::io::Error| {
        Problem::new(codes::FILE, format!("{} cannot be used as a node's folder", wanted.folder.display())).because(e)
    };
    if !wanted.folder.is_dir() {
        std::fs::create_dir(&wanted.folder).map_err(place)?;
    }
    // Whoever names the folder may do so through links; beneath it none is followed.
    let folder = wanted.folder.canonicalize().map_err(place)?;
    let settings = Settings {
        paths: Paths {
            releases: folder.join("releases"),
            root: folder.join("partitions"),
            node_file: folder.join("node.json"),
            record: folder.join("format/record"),
            resources: Some(folder.join("resources")),
            storage: Vec::new(),
        },
        partitions: PartitionSettings {
            amount: wanted.partitions,
            base_name: "part".into(),
            users: false,
            user_base_name: "part".into(),
            first_uid: 20_000,
            first_gid: 20_000,
            groups: Vec::new(),
            mode: 0o750,
            directories: Skeleton::default().directories,
        },
        network: Network {
            mode: NetworkMode::Loopback,
            link: "lo".into(),
            taps: false,
            tap_base_name: "part".into(),
            tap_mode: TapMode::Routed,
            tuns: false,
            tun_base_name: "part-tun".into(),
            tun_ipv4_network: None,
            tun_ipv4_share: 26,
            namespaces: false,
            veth_base_name: "part-v".into(),
            uplink: None,
            bridge_mac: None,
            listening: Vec::new(),
            mtu: None,
            port_mtu: None,
            isolation: false,
            guard: false,
            sysctls: false,
            prefix_from: None,
            ipv6_prefix: None,
            ipv6_share: 128,
            local_ranges: false,
            ipv4_network: Some(wanted.ipv4_network),
            gateway: false,
            link_group: 28_780,
        },
        builder: None,
        capacity: Resources::default(),
        limits: Resources::default(),
        enforcement: Enforcement::default(),
    };
    settings.check()?;
    let layout = Layout::new(&settings)?;
    let mut host = LinuxHost::new("/".as_ref())?;
    let mut record = Record::open(&settings.paths.record, &Epoch::current())?;
    let wish = Wish::new(&layout, Contents::Keep);
    let applied = apply(wish, &mut host, &mut record, &mut |_, _| {});
    record.finish()?;
    applied?;
    let text = std::fs::read_to_string(&settings.paths.node_file).map_err(place)?;
    Ok(NodeFile::parse(&text)?)
}

//! Every thing that must exist on the machine for it to be the node that was asked for, by name. An empty layout is a
//! machine that is no node: planning towards it is the reset.

mod network;
mod partition;
mod units;

use crate::action::{Namespace, Purpose};
use crate::facts::{Guard, HostFacts, LinkFact, Owner, Route};
use crate::guard;
use crate::settings::Settings;
use crate::shares::{self, Side};
use indexmap::IndexMap;
use ipnet::IpNet;
use plat_model::node::{Account, NodeFile, Skeleton};
use plat_model::problem::Problem;
use plat_model::resources::Resources;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const ROOT: Owner = Owner { uid: 0, gid: 0 };

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedUser {
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
    pub groups: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedDirectory {
    /// `None`: whoever runs node-format.
    pub owner: Option<Owner>,
    pub mode: u32,
    /// Set for a partition's. It must then be node-format's own; one on the way may exist already.
    pub partition: Option<PartitionDirectory>,
}

/// What is particular about a directory that belongs to a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PartitionDirectory {
    /// Made in it with it, and its owner's business from then on.
    pub inside: BTreeMap<String, u32>,
    pub limit: Option<DiskLimit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLimit {
    /// Project id.
    pub id: u32,
    pub mib: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedFile {
    pub purpose: Purpose,
    /// `None`: whoever runs node-format.
    pub owner: Option<Owner>,
    pub mode: u32,
    pub text: String,
}

/// A network namespace and the pair of links that joins it to the bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedNamespace {
    /// Name of the outer end.
    pub veth: String,
    pub state: Namespace,
}

/// A link that must exist already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NeededLink {
    pub name: String,
    /// Whether taps are joined to it, so that it must be a bridge.
    pub bridge: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedUplink {
    pub link: String,
    pub bridge: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// Name to gid.
    pub groups: BTreeMap<String, u32>,
    pub users: BTreeMap<String, WantedUser>,
    /// In the order in which they can be made: parents come before what is in them.
    pub directories: IndexMap<PathBuf, WantedDirectory>,
    pub links: BTreeMap<String, LinkFact>,
    pub namespaces: BTreeMap<String, WantedNamespace>,
    /// On which link, which address.
    pub addresses: BTreeSet<(String, IpNet)>,
    pub local_routes: BTreeSet<IpNet>,
    pub routes: BTreeSet<Route>,
    pub sysctls: BTreeMap<String, String>,
    pub guard: Option<Guard>,
    pub uplink: Option<WantedUplink>,
    pub needs_link: Option<NeededLink>,
    /// Ranges that no other link may have addresses of, because the bridge's own network would hide them.
    pub exclusive: Vec<IpNet>,
    /// Whether other users must be able to pass through the directories.
    pub passable: bool,
    /// Link group of the taps; what is in the next one is foreign.
    pub link_group: Option<u32>,
    pub files: IndexMap<PathBuf, WantedFile>,
    pub node_file: Option<(PathBuf, NodeFile)>,
    /// Whether systemd must be the first process.
    pub needs_systemd: bool,
}

impl Layout {
    /// What these settings ask for. They must have passed [`Settings::check`], and [`Settings::resolve`] if it has
    /// anything to do.
    ///
    /// # Errors
    /// If a name is not legal, which the check would have said.
    pub fn new(settings: &Settings) -> Result<Self, Problem> {
        let mut layout =
            Self { passable: settings.partitions.users, needs_systemd: settings.enforcement.slices, ..Self::default() };
        layout.place_directories(settings);
        layout.place_network(settings);
        if let Some(builder) = &settings.builder {
            layout.groups.insert(builder.user.clone(), builder.gid);
            let home = settings.paths.releases.clone();
            let user = WantedUser { uid: builder.uid, gid: builder.gid, home, groups: BTreeSet::new() };
            layout.users.insert(builder.user.clone(), user);
        }
        let partitions = (0..settings.partitions.amount).map(|n| layout.place_partition(settings, n));
        let partitions = partitions.collect::<Result<Vec<_>, _>>()?;
        if settings.network.guard {
            layout.guard = guard::of(settings, &partitions);
        }
        if settings.enforcement.slices {
            layout.place_units(settings, &partitions);
        }
        let node_file = NodeFile {
            version: NodeFile::VERSION,
            releases: settings.paths.releases.clone(),
            root: settings.paths.root.clone(),
            builder: settings.builder.as_ref().map(|b| Account {
                user: b.user.clone(),
                uid: b.uid,
                gid: b.gid,
                groups: Vec::new(),
            }),
            capacity: settings.capacity,
            skeleton: Skeleton {
                mode: settings.partitions.mode,
                directories: settings.partitions.directories.clone(),
                limited: settings.enforcement.disk,
            },
            partitions,
        };
        layout.node_file = Some((settings.paths.node_file.clone(), node_file));
        Ok(layout)
    }

    /// Every file that must exist; `node.json` with the machine's own amounts where the capacity leaves some
    /// out, and its own numbers of groups.
    pub(crate) fn files(&self, facts: &HostFacts) -> IndexMap<PathBuf, WantedFile> {
        let mut files = self.files.clone();
        if let Some((path, node_file)) = &self.node_file {
            let machine = Resources {
                cpu_millis: facts.machine.cpu_millis,
                memory_mib: facts.machine.memory_mib,
                ..Resources::default()
            };
            let mut whole = NodeFile { capacity: node_file.capacity.or(machine), ..node_file.clone() };
            for account in whole.partitions.iter_mut().filter_map(|partition| partition.account.as_mut()) {
                let wanted = self.users.get(&account.user).map(|user| &user.groups);
                let found = wanted.into_iter().flatten().filter_map(|group| facts.groups.get(group));
                account.groups = found.map(|group| group.gid).collect();
            }
            let text = whole.to_json();
            files.insert(path.clone(), WantedFile { purpose: Purpose::Node, owner: None, mode: 0o644, text });
        }
        files
    }

    fn place_directories(&mut self, settings: &Settings) {
        let owner = settings.partitions.users.then_some(ROOT);
        let paths = &settings.paths;
        let parents = |path: &Path| path.ancestors().skip(1).map(Path::to_path_buf).collect::<Vec<_>>();
        let mut above = [parents(&paths.releases), parents(&paths.root), parents(&paths.node_file)].concat();
        paths.resources.iter().chain(&paths.storage).for_each(|path| above.extend(parents(path)));
        above.sort();
        for path in above.into_iter().filter(|path| path.parent().is_some()) {
            self.directories.insert(path, WantedDirectory { owner, mode: 0o755, partition: None });
        }
        self.directories.insert(paths.releases.clone(), WantedDirectory { owner, mode: 0o755, partition: None });
        // Nobody needs to list the partitions; each user passes through to its own.
        for path in [&paths.root].into_iter().chain(&paths.resources).chain(&paths.storage) {
            self.directories.insert(path.clone(), WantedDirectory { owner, mode: 0o711, partition: None });
        }
    }
}

/// What makes this node's hardware addresses differ from another's: the ranges it has, and its uplink.
fn seed(settings: &Settings) -> String {
    let ranges: Vec<_> = settings.ranges().iter().map(IpNet::to_string).collect();
    let uplink = settings.network.bridge_mac.map(|mac| format!("{mac:02x?}")).unwrap_or_default();
    format!("{} {} {}{uplink}", ranges.join(" "), settings.network.link, settings.network.tap_base_name)
}

/// Hardware address of what is behind the tap of partition n, or of the end of the pair in its namespace.
pub(crate) fn guest_mac(settings: &Settings, n: u32) -> [u8; 6] {
    shares::mac(Side::Guest, &seed(settings), u16::try_from(n).unwrap_or(u16::MAX))
}

/// Nobody's address has a longer length than its family: the single one is meant then.
fn net(address: impl Into<std::net::IpAddr>, length: u8) -> IpNet {
    let address = address.into();
    IpNet::new(address, length).unwrap_or_else(|_| IpNet::from(address))
}

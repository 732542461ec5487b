//! Every thing that must exist on the machine for it to be the node that was asked for, by name. An empty layout is a
//! machine that is no node: planning towards it is the reset.

use crate::facts::{HostFacts, LinkFact, LinkKind, Owner};
use crate::settings::{NetworkMode, Settings};
use crate::shares;
use ipnet::IpNet;
use plat_model::id::PartitionName;
use plat_model::node::{Account, NodeFile, NodePartition};
use plat_model::problem::Problem;
use plat_model::resources::Resources;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Directories in each partition's, as the agent and releases expect them.
const INSIDE: [&str; 6] = ["etc", "srv", "var", "run", "tmp", "log"];
const ROOT: Owner = Owner { uid: 0, gid: 0 };

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedUser {
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
    pub groups: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WantedDirectory {
    /// `None`: whoever runs node-format.
    pub owner: Option<Owner>,
    pub mode: u32,
    /// Whether it is a partition's or in one. It must then be node-format's own; one on the way may exist already.
    pub partition: bool,
}

/// A link that must exist, as it must be seen.
pub type WantedLink = LinkFact;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Layout {
    /// Name to gid.
    pub groups: BTreeMap<String, u32>,
    pub users: BTreeMap<String, WantedUser>,
    /// Parents come before what is in them.
    pub directories: BTreeMap<PathBuf, WantedDirectory>,
    pub links: BTreeMap<String, WantedLink>,
    /// On which link, which address.
    pub addresses: BTreeSet<(String, IpNet)>,
    pub local_routes: BTreeSet<IpNet>,
    /// A link that must exist already, for addresses are put on it.
    pub needs_link: Option<String>,
    /// Ranges that no other link may have addresses of, because the bridge's own network would hide them.
    pub exclusive: Vec<IpNet>,
    /// Whether other users must be able to pass through the directories.
    pub passable: bool,
    /// Link group of the taps; what is in the next one is foreign.
    pub link_group: Option<u32>,
    pub node_file: Option<(PathBuf, NodeFile)>,
}

impl Layout {
    /// What these settings ask for. They must have passed [`Settings::check`].
    ///
    /// # Errors
    /// If a name is not legal, which the check would have said.
    pub fn new(settings: &Settings) -> Result<Self, Problem> {
        let mut layout = Self { passable: settings.partitions.users, ..Self::default() };
        layout.place_directories(settings);
        layout.place_network(settings);
        if let Some(builder) = &settings.builder {
            layout.groups.insert(builder.user.clone(), builder.gid);
            let home = settings.paths.releases.clone();
            let user = WantedUser { uid: builder.uid, gid: builder.gid, home, groups: BTreeSet::new() };
            layout.users.insert(builder.user.clone(), user);
        }
        let partitions = (0..settings.partitions.amount).map(|n| layout.place_partition(settings, n));
        let partitions = partitions.collect::<Result<_, _>>()?;
        let node_file = NodeFile {
            version: NodeFile::VERSION,
            releases: settings.paths.releases.clone(),
            root: settings.paths.root.clone(),
            builder: settings.builder.as_ref().map(|b| Account { user: b.user.clone(), uid: b.uid, gid: b.gid }),
            capacity: settings.capacity,
            directories: plat_model::node::skeleton(),
            partitions,
        };
        layout.node_file = Some((settings.paths.node_file.clone(), node_file));
        Ok(layout)
    }

    /// The text of `node.json` on this machine: amounts that were left out of the capacity are the machine's.
    pub(crate) fn node_file_text(&self, facts: &HostFacts) -> Option<(&Path, String)> {
        let (path, node_file) = self.node_file.as_ref()?;
        let machine = Resources {
            cpu_millis: facts.machine.cpu_millis,
            memory_mib: facts.machine.memory_mib,
            ..Resources::default()
        };
        let whole = NodeFile { capacity: node_file.capacity.or(machine), ..node_file.clone() };
        Some((path, whole.to_json()))
    }

    fn place_directories(&mut self, settings: &Settings) {
        let owner = settings.partitions.users.then_some(ROOT);
        let paths = &settings.paths;
        let parents = |path: &Path| path.ancestors().skip(1).map(Path::to_path_buf).collect::<Vec<_>>();
        let above = [parents(&paths.releases), parents(&paths.root), parents(&paths.node_file)].concat();
        for path in above.into_iter().filter(|path| path.parent().is_some()) {
            self.directories.insert(path, WantedDirectory { owner, mode: 0o755, partition: false });
        }
        self.directories.insert(paths.releases.clone(), WantedDirectory { owner, mode: 0o755, partition: false });
        // Nobody needs to list the partitions; each user passes through to its own.
        self.directories.insert(paths.root.clone(), WantedDirectory { owner, mode: 0o711, partition: false });
    }

    fn place_network(&mut self, settings: &Settings) {
        let network = &settings.network;
        match network.mode {
            NetworkMode::Bridge => {
                let mac = shares::mac(&seed(settings), u16::MAX);
                let bridge = LinkFact { kind: LinkKind::Bridge, up: true, bridge: None, group: 0, mac };
                self.links.insert(network.link.clone(), bridge);
                if network.gateway {
                    let ipv6 = network.ipv6_prefix.map(|range| net(shares::ipv6_gateway(range), range.prefix_len()));
                    let ipv4 = network.ipv4_network.map(|range| net(shares::ipv4_gateway(range), range.prefix_len()));
                    let link = &network.link;
                    self.addresses.extend(ipv6.into_iter().chain(ipv4).map(|address| (link.clone(), address)));
                    self.exclusive = settings.ranges();
                }
            }
            NetworkMode::Interface => self.needs_link = Some(network.link.clone()),
            NetworkMode::Loopback | NetworkMode::None => {}
        }
        self.link_group = network.taps.then_some(network.link_group);
    }

    fn place_partition(&mut self, settings: &Settings, n: u32) -> Result<NodePartition, Problem> {
        let directory = settings.partition_directory(n);
        let account = settings.partitions.users.then(|| Account {
            user: settings.user_name(n),
            uid: settings.partitions.first_uid + n,
            gid: settings.partitions.first_gid + n,
        });
        let owner = account.as_ref().map(|account| Owner { uid: account.uid, gid: account.gid });
        let wanted = WantedDirectory { owner, mode: 0o750, partition: true };
        self.directories.extend(INSIDE.map(|name| (directory.join(name), wanted)));
        self.directories.insert(directory.clone(), wanted);
        if let Some(account) = &account {
            self.groups.insert(account.user.clone(), account.gid);
            let groups = settings.partitions.groups.iter().cloned().collect();
            let user = WantedUser { uid: account.uid, gid: account.gid, home: directory, groups };
            self.users.insert(account.user.clone(), user);
        }
        let (addresses, ipv6_range) = self.place_addresses(settings, n);
        let tap = settings.network.taps.then(|| settings.tap_name(n));
        if let Some(name) = &tap {
            let bridge = (settings.network.mode == NetworkMode::Bridge).then(|| settings.network.link.clone());
            let mac = shares::mac(&seed(settings), u16::try_from(n).unwrap_or(u16::MAX));
            let kind = LinkKind::Tap(owner.map(|owner| owner.uid));
            let tap = LinkFact { kind, up: true, bridge, group: settings.network.link_group, mac };
            self.links.insert(name.clone(), tap);
        }
        let name = PartitionName::parse(&settings.partition_name(n))?;
        Ok(NodePartition {
            name,
            account,
            tap,
            addresses,
            ipv6_range,
            guest: None,
            tun: None,
            namespace: None,
            storage: Vec::new(),
            resource_file: None,
            limits: settings.limits,
        })
    }

    /// The addresses of partition n; where they must be configured, on which link.
    fn place_addresses(&mut self, settings: &Settings, n: u32) -> (Vec<IpAddr>, Option<IpNet>) {
        let network = &settings.network;
        let ipv6 = network.ipv6_prefix.map(|prefix| IpAddr::V6(shares::ipv6_address(prefix, network.ipv6_share, n)));
        let ipv4 = network.ipv4_network.map(|range| IpAddr::V4(shares::ipv4_address(range, n)));
        let range = network.ipv6_prefix.map(|p| IpNet::V6(shares::ipv6_range(p, network.ipv6_share, n)));
        let range = range.filter(|range| network.local_ranges && range.prefix_len() < 128);
        let addresses: Vec<IpAddr> = ipv6.into_iter().chain(ipv4).collect();
        if matches!(network.mode, NetworkMode::Bridge | NetworkMode::Interface) {
            // A single address each: the route to the whole range must stay the bridge's or the interface's own.
            let single = addresses.iter().map(|address| (network.link.clone(), IpNet::from(*address)));
            self.addresses.extend(single);
            self.local_routes.extend(range);
        }
        (addresses, range)
    }
}

fn net(address: impl Into<IpAddr>, length: u8) -> IpNet {
    let address = address.into();
    IpNet::new(address, length).unwrap_or_else(|_| IpNet::from(address))
}

/// What makes this node's hardware addresses differ from another's: the ranges it has.
fn seed(settings: &Settings) -> String {
    let ranges: Vec<_> = settings.ranges().iter().map(IpNet::to_string).collect();
    format!("{} {} {}", ranges.join(" "), settings.network.link, settings.network.tap_base_name)
}

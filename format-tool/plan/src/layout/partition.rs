//! What the n-th partition is: a function of the settings and n alone.

use super::network::{ROUTER, blank, gateway};
use super::{DiskLimit, Layout, PartitionDirectory, ROOT, WantedDirectory, WantedFile, WantedNamespace, WantedUser};
use super::{guest_mac, net, seed};
use crate::action::{Namespace, Purpose};
use crate::facts::{LinkFact, LinkKind, NamespaceFact, Owner, Route};
use crate::settings::{NetworkMode, Settings, TapMode};
use crate::shares::{self, Side};
use ipnet::IpNet;
use plat_model::id::PartitionName;
use plat_model::node::{Account, Guest, NodePartition, ResourceFile, TunOffer};
use plat_model::problem::Problem;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Where network namespaces are kept, for `ip netns` too.
pub(super) const NAMESPACES: &str = "/run/netns";
/// A namespace's end of its pair.
const INNER: &str = "eth0";

impl Layout {
    pub(super) fn place_partition(&mut self, settings: &Settings, n: u32) -> Result<NodePartition, Problem> {
        let name = PartitionName::parse(&settings.partition_name(n))?;
        let account = settings.partitions.users.then(|| Account {
            user: settings.user_name(n),
            uid: settings.partitions.first_uid + n,
            gid: settings.partitions.first_gid + n,
            groups: Vec::new(),
        });
        let owner = account.as_ref().map(|account| Owner { uid: account.uid, gid: account.gid });
        self.place_account(settings, account.as_ref(), settings.partition_directory(n));
        let storage = self.place_partition_directories(settings, owner, n);
        let (addresses, ipv6_range) = self.place_addresses(settings, n);
        let links = settings.network.mode == NetworkMode::Bridge || settings.network.mode == NetworkMode::Interface;
        let tap = (links && settings.network.taps).then(|| self.place_tap(settings, owner, n));
        let (tap, guest) = tap.unzip();
        let mut partition = NodePartition {
            tap,
            guest,
            tun: (links && settings.network.tuns).then(|| self.place_tun(settings, owner, n)),
            namespace: settings.network.namespaces.then(|| self.place_namespace(settings, &addresses, ipv6_range, n)),
            name,
            account,
            addresses,
            ipv6_range,
            storage,
            resource_file: None,
            limits: settings.limits,
        };
        if let Some(resources) = &settings.paths.resources {
            self.place_resource_file(resources, owner, &mut partition);
        }
        Ok(partition)
    }

    fn place_account(&mut self, settings: &Settings, account: Option<&Account>, home: PathBuf) {
        let Some(account) = account else { return };
        self.groups.insert(account.user.clone(), account.gid);
        let groups = settings.partitions.groups.iter().cloned().collect();
        self.users.insert(account.user.clone(), WantedUser { uid: account.uid, gid: account.gid, home, groups });
    }

    /// Its own directory, and one on each further storage: those are returned.
    fn place_partition_directories(&mut self, settings: &Settings, owner: Option<Owner>, n: u32) -> Vec<PathBuf> {
        let mib = settings.limits.disk_mib.filter(|_| settings.enforcement.disk);
        let limit = mib.zip(owner).map(|(mib, owner)| DiskLimit { id: owner.uid, mib });
        let mode = settings.partitions.mode;
        let wanted = |inside| WantedDirectory { owner, mode, partition: Some(PartitionDirectory { inside, limit }) };
        let inside = settings.partitions.directories.clone();
        self.directories.insert(settings.partition_directory(n), wanted(inside));
        let name = settings.partition_name(n);
        let storage: Vec<PathBuf> = settings.paths.storage.iter().map(|root| root.join(&name)).collect();
        self.directories.extend(storage.iter().map(|path| (path.clone(), wanted(BTreeMap::new()))));
        storage
    }

    /// Root's own directory and file, which the partition's user can read and no other.
    fn place_resource_file(&mut self, resources: &Path, owner: Option<Owner>, partition: &mut NodePartition) {
        let directory = resources.join(partition.name.as_str());
        let path = directory.join("resource.json");
        partition.resource_file = Some(path.clone());
        let reader = owner.map(|owner| Owner { gid: owner.gid, ..ROOT });
        self.directories.insert(directory, WantedDirectory { owner: reader, mode: 0o750, partition: None });
        let text = ResourceFile { version: ResourceFile::VERSION, partition: partition.clone() }.to_json();
        let file = WantedFile { purpose: Purpose::Resources, owner: reader, mode: 0o640, text };
        self.files.insert(path, file);
    }

    /// The addresses of partition n; where they must be configured, on which link.
    fn place_addresses(&mut self, settings: &Settings, n: u32) -> (Vec<IpAddr>, Option<IpNet>) {
        let network = &settings.network;
        let ipv6 = network.ipv6_prefix.map(|prefix| IpAddr::V6(shares::ipv6_address(prefix, network.ipv6_share, n)));
        let ipv4 = network.ipv4_network.map(|range| IpAddr::V4(shares::ipv4_address(range, n)));
        let range = network.ipv6_prefix.and_then(|p| shares::ipv6_range(p, network.ipv6_share, n)).map(IpNet::V6);
        let range = range.filter(|_| network.local_ranges);
        let addresses: Vec<IpAddr> = ipv6.into_iter().chain(ipv4).collect();
        let links = matches!(network.mode, NetworkMode::Bridge | NetworkMode::Interface);
        if links && !network.namespaces {
            // A single address each: the route to the whole range must stay the bridge's or the interface's own.
            let single = addresses.iter().map(|address| (network.link.clone(), IpNet::from(*address)));
            self.addresses.extend(single);
            self.local_routes.extend(range);
        }
        (addresses, range)
    }

    fn place_tap(&mut self, settings: &Settings, owner: Option<Owner>, n: u32) -> (String, Guest) {
        let network = &settings.network;
        let name = settings.tap_name(n);
        let bridged = network.tap_mode == TapMode::Bridged;
        let tap = LinkFact {
            bridge: bridged.then(|| network.link.clone()),
            group: network.link_group,
            mac: shares::mac(Side::Port, &seed(settings), short(n)),
            mtu: network.mtu.or(network.port_mtu.filter(|_| bridged)),
            isolated: bridged && network.isolation,
            ..blank(LinkKind::Tap(owner.map(|owner| owner.uid)))
        };
        self.links.insert(name.clone(), tap);
        if !bridged {
            self.hear_no_router(settings, &name);
        }
        let ipv4 = network.ipv4_network.map(|range| (shares::ipv4_guest(range, n), range.prefix_len()));
        let ipv6 = network.ipv6_prefix.and_then(|prefix| shares::ipv6_guest(prefix, network.ipv6_share, n));
        let (mut ipv4_gateway, mut ipv6_gateway) = (gateway(network, false), gateway(network, true));
        if !bridged {
            // The same address on each tap: it is never seen beyond it.
            let routers = [ipv4_gateway.filter(|_| ipv4.is_some()).map(IpNet::from), ipv6.map(|_| net(ROUTER, 64))];
            self.addresses.extend(routers.into_iter().flatten().map(|address| (name.clone(), address)));
            let ways = [ipv4.map(|(ip, _)| IpNet::from(IpAddr::V4(ip))), ipv6.map(IpNet::V6)];
            let ways = ways.into_iter().flatten().map(|destination| direct(destination, &name));
            self.routes.extend(ways);
            ipv6_gateway = Some(ROUTER.into());
        } else if !network.gateway {
            (ipv4_gateway, ipv6_gateway) = (None, None);
        }
        let guest = Guest {
            mac: text(guest_mac(settings, n)),
            ipv4: ipv4.map(|(ip, length)| net(ip, if bridged { length } else { 32 })),
            ipv4_gateway: ipv4_gateway.filter(|_| ipv4.is_some()),
            ipv6_range: ipv6.map(IpNet::V6),
            ipv6_gateway: ipv6_gateway.filter(|_| ipv6.is_some()),
        };
        (name, guest)
    }

    /// What is behind a tap or tun must not say that it is the machine's way out.
    fn hear_no_router(&mut self, settings: &Settings, link: &str) {
        if settings.network.sysctls {
            self.sysctls.insert(format!("net.ipv6.conf.{}.accept_ra", link.replace('.', "/")), "0".into());
        }
    }

    fn place_tun(&mut self, settings: &Settings, owner: Option<Owner>, n: u32) -> TunOffer {
        let network = &settings.network;
        let name = settings.tun_name(n);
        let kind = LinkKind::Tun(owner.map(|owner| owner.uid));
        let tun = LinkFact { group: network.link_group, mtu: network.mtu, ..blank(kind) };
        self.links.insert(name.clone(), tun);
        self.hear_no_router(settings, &name);
        let ipv4 = network.tun_ipv4_network.map(|range| shares::ipv4_tun(range, network.tun_ipv4_share, n));
        let ipv6 = network.ipv6_prefix.and_then(|prefix| shares::ipv6_tun(prefix, network.ipv6_share, n));
        let ends = [
            ipv4.map(|range| net(shares::ipv4_gateway(range), range.prefix_len())),
            ipv6.map(|range| net(shares::first(range), range.prefix_len())),
        ];
        self.addresses.extend(ends.into_iter().flatten().map(|address| (name.clone(), address)));
        TunOffer { name, ipv4_range: ipv4.map(IpNet::V4), ipv6_range: ipv6.map(IpNet::V6) }
    }

    /// Every packet goes through the machine, so that isolated neighbours reach each other where it lets them.
    fn place_namespace(&mut self, settings: &Settings, addresses: &[IpAddr], range: Option<IpNet>, n: u32) -> PathBuf {
        let network = &settings.network;
        let name = settings.partition_name(n);
        let veth = settings.veth_name(n);
        let outside = LinkFact {
            bridge: Some(network.link.clone()),
            group: network.link_group,
            mac: shares::mac(Side::Port, &seed(settings), short(n)),
            mtu: network.mtu.or(network.port_mtu),
            isolated: network.isolation,
            ..blank(LinkKind::Veth)
        };
        let mac = guest_mac(settings, n);
        let mut routes = BTreeSet::new();
        for router in [false, true].into_iter().filter_map(|ipv6| gateway(network, ipv6)) {
            let everywhere = if router.is_ipv6() { "::/0" } else { "0.0.0.0/0" };
            routes.insert(direct(IpNet::from(router), INNER));
            if let Ok(destination) = everywhere.parse() {
                routes.insert(Route { via: Some(router), ..direct(destination, INNER) });
            }
        }
        let ipv6 = addresses.iter().find(|address| address.is_ipv6());
        if let (Some(range), Some(address)) = (range, ipv6) {
            self.routes.insert(Route { via: Some(*address), ..direct(range, &network.link) });
        }
        let nonlocal = range.filter(|_| network.sysctls).map(|_| ("net.ipv6.ip_nonlocal_bind".into(), "1".into()));
        let deaf = ("net.ipv6.conf.eth0.accept_ra".to_owned(), "0".to_owned());
        let inside = NamespaceFact {
            lo_up: true,
            link: Some(LinkFact { mac, mtu: network.mtu.or(network.port_mtu), ..blank(LinkKind::Veth) }),
            outside: Some(veth.clone()),
            addresses: addresses.iter().copied().map(IpNet::from).collect(),
            routes,
            local_routes: range.into_iter().collect(),
            sysctls: nonlocal.into_iter().chain([deaf]).collect(),
        };
        let state = Namespace { outside: Some(outside), inside: Some(inside) };
        self.namespaces.insert(name.clone(), WantedNamespace { veth, state });
        Path::new(NAMESPACES).join(name)
    }
}

fn direct(destination: IpNet, link: &str) -> Route {
    Route { destination, link: link.into(), via: None, metric: 0, source: None, onlink: false }
}

fn short(n: u32) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

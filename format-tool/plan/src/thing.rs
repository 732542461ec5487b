//! What node-format makes, by identity: the entries of its record. A thing in the record is ours and may be changed and
//! removed; anything else on the machine is not.

use crate::facts::{Further, LinkFact, Route};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// One thing that exists because node-format made it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "thing", rename_all = "kebab-case")]
pub enum Thing {
    Group {
        name: String,
        gid: u32,
    },
    User {
        name: String,
        uid: u32,
    },
    /// A directory on the way to the partitions, or beside them. Others may put things into it.
    Directory {
        path: PathBuf,
    },
    /// A partition's directory. All that is in it is the partition's.
    PartitionDirectory {
        path: PathBuf,
    },
    /// A partition's directory that a run was at work on. Only older records have it: the directory itself is marked now.
    BegunDirectory {
        path: PathBuf,
    },
    /// How much a partition's directory may take.
    DiskLimit {
        path: PathBuf,
        id: u32,
        /// The file system that has it, where a limit is that of a number on all of it. Another one, where this one is not
        /// mounted, may have one of the same number.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file_system: Option<String>,
    },
    Bridge {
        name: String,
    },
    Tap {
        name: String,
    },
    Tun {
        name: String,
    },
    /// A namespace and the pair of links that joins it to the bridge, by the name of its outer end.
    Namespace {
        name: String,
        veth: String,
    },
    Address {
        link: String,
        address: IpNet,
    },
    /// A range whose every address this machine answers for.
    LocalRoute {
        range: IpNet,
    },
    Route(Route),
    /// A setting of the kernel, and what it was before.
    Sysctl {
        key: String,
        was: String,
        /// Others that the kernel wrote along with it, as they were before: setting it back does not bring them back.
        #[serde(default, skip_serializing_if = "Along::is_empty")]
        along: Along,
        #[serde(default, skip_serializing_if = "Last::is_unknown")]
        last: Last,
    },
    /// The packet filter's tables.
    Guard {
        /// Those that have one. Older records do not say it, and mean both.
        #[serde(default = "both_families")]
        families: BTreeSet<String>,
    },
    /// An interface that was joined to the bridge, with all it had.
    Uplink(Uplink),
    /// Root has said that the machine can be reached through the bridge: this interface may be taken at every start.
    UplinkConfirmed {
        link: String,
    },
    File {
        path: PathBuf,
    },
}

/// What a setting was when node-format last had to do with it: what it had written, or what it was about to change. Older
/// records do not say it. It is known of a thing, and no part of what the thing is: any two are equal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Last(pub Option<String>);

impl Last {
    fn is_unknown(&self) -> bool {
        self.0.is_none()
    }
}

impl PartialEq for Last {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Last {}

impl PartialOrd for Last {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Last {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

/// What the kernel wrote along with a setting, as it was before. Others may set it anew while the setting is somebody else's again:
/// it too is known of a thing, and no part of what the thing is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Along(pub BTreeMap<String, String>);

impl Along {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq for Along {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Along {}

impl PartialOrd for Along {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Along {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

/// What an interface had when it became a port of the bridge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uplink {
    pub link: String,
    pub bridge: String,
    /// Its hardware address: by that it is told from another one that gets its name. An older record does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<[u8; 6]>,
    /// Its number in this boot and network namespace: by that it is known whatever it is called, and whatever hardware address
    /// it has. An older record does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<u32>,
    /// Whether it was up already.
    pub was_up: bool,
    /// Whether the machine was reached by it, so that somebody must say that it still is.
    #[serde(default)]
    pub carries: bool,
    /// Moved to the bridge. In the order that the kernel prefers them in.
    pub addresses: Vec<IpNet>,
    /// Of those that have more to them, what that is.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub further: BTreeMap<IpNet, Further>,
    /// Of the interface; through the bridge while it is taken.
    pub routes: BTreeSet<Route>,
    #[serde(default, skip_serializing_if = "Announced::is_empty")]
    pub announced: Announced,
}

/// What a router had announced on an interface: the kernel makes it anew where it hears the router next. For people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Announced {
    pub addresses: BTreeSet<IpNet>,
    /// Where the ways go.
    pub ways: BTreeSet<IpNet>,
}

impl Announced {
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.ways.is_empty()
    }
}

impl Uplink {
    /// All that moves, in words.
    pub(crate) fn carried(&self) -> Vec<String> {
        let addresses = self.addresses.iter().map(IpNet::to_string);
        let routes = self.routes.iter().map(|route| format!("route to {}", route.destination));
        let announced = self.announced.addresses.iter().map(|address| format!("announced {address}"));
        let ways = self.announced.ways.iter().map(|to| format!("announced route to {to}"));
        addresses.chain(routes).chain(announced).chain(ways).collect()
    }
}

fn both_families() -> BTreeSet<String> {
    ["inet", "bridge"].map(String::from).into()
}

impl Thing {
    /// Of the packet filter's tables, the families.
    pub(crate) fn families(&self) -> impl Iterator<Item = &String> {
        let families = if let Self::Guard { families } = self { Some(families) } else { None };
        families.into_iter().flatten()
    }

    /// Whether it is gone after a reboot, and with the network namespace it was made in.
    pub fn is_volatile(&self) -> bool {
        match self {
            Self::Bridge { .. } | Self::Tap { .. } | Self::Tun { .. } | Self::Namespace { .. } => true,
            Self::Address { .. } | Self::LocalRoute { .. } | Self::Route(_) => true,
            Self::Sysctl { .. } | Self::Guard { .. } | Self::Uplink(_) => true,
            Self::Group { .. } | Self::User { .. } | Self::Directory { .. } | Self::PartitionDirectory { .. } => false,
            Self::BegunDirectory { .. } | Self::DiskLimit { .. } | Self::UplinkConfirmed { .. } | Self::File { .. } => {
                false
            }
        }
    }
}

/// All that node-format has made and not removed, or may have made before it was interrupted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims(BTreeSet<Thing>);

impl Claims {
    /// What was known of it before is replaced.
    pub fn add(&mut self, thing: Thing) {
        self.0.replace(thing);
    }

    pub fn remove(&mut self, thing: &Thing) {
        self.0.remove(thing);
    }

    pub fn has(&self, thing: &Thing) -> bool {
        self.0.contains(thing)
    }

    /// Whether a link of this name and kind was made.
    pub(crate) fn has_link(&self, name: &str, link: &LinkFact) -> bool {
        link.thing(name).is_some_and(|thing| self.has(&thing))
    }

    /// The same of a port of a bridge: one that was made, an uplink that was taken, or the outer end of a namespace's pair.
    pub(crate) fn has_port(&self, name: &str, link: &LinkFact) -> bool {
        let is_it = |thing: &Thing| match thing {
            Thing::Uplink(uplink) => uplink.link == name,
            Thing::Namespace { veth, .. } => veth == name,
            _ => false,
        };
        self.has_link(name, link) || self.iter().any(is_it)
    }

    /// In a fixed order: parents before what is in them.
    pub fn iter(&self) -> impl Iterator<Item = &Thing> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl FromIterator<Thing> for Claims {
    fn from_iter<I: IntoIterator<Item = Thing>>(things: I) -> Self {
        Self(things.into_iter().collect())
    }
}

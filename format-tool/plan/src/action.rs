//! One step of a plan, with every choice made: names, numbers, owners, modes. Each knows its exact inverse and which
//! things it makes or removes.

use crate::facts::{AddressFact, FileFact, Guard, Inner, LinkFact, LinkKind, NamespaceFact, Owner, Route};
use crate::thing::{Along, Last, Thing, Uplink};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A user as made or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub name: String,
    pub uid: u32,
    /// Its own group, of the user's name.
    pub gid: u32,
    pub home: PathBuf,
    /// Other groups it is a member of.
    pub groups: BTreeSet<String>,
}

/// A directory as made, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Directory {
    pub path: PathBuf,
    pub owner: Owner,
    pub mode: u32,
    /// Whether it is a partition's: what is in it belongs to its owner.
    pub partition: bool,
    /// The empty directories in a partition's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inside: BTreeMap<String, Inner>,
    /// Whether its disk space is to be limited, for which some file systems need another kind of directory.
    #[serde(default)]
    pub limited: bool,
    /// As in [`PathFact::Directory`](crate::facts::PathFact): it is the caller's and [`UNFINISHED`], whatever it says besides.
    #[serde(default)]
    pub half_made: bool,
}

/// What the name of a file or directory begins with before it takes its place: nobody else's does, and one that a killed run left
/// is removed.
pub const ON_ITS_WAY: &str = ".node-format-";

/// Mode of a directory that nobody but root may have yet, or any more.
pub const UNFINISHED: u32 = 0o1700;

/// A namespace with its pair of links: what there is of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Namespace {
    /// The end of the pair that is a port of the bridge.
    pub outside: Option<LinkFact>,
    pub inside: Option<NamespaceFact>,
}

/// What there is, and what there shall be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Change<T> {
    pub from: T,
    pub to: T,
}

impl<T> Change<T> {
    fn back(self) -> Self {
        Self { from: self.to, to: self.from }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    AddGroup {
        name: String,
        gid: u32,
        /// Whom somebody else had put into it before it was removed, if it comes back.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        members: BTreeSet<String>,
    },
    RemoveGroup {
        name: String,
        gid: u32,
        /// Whom somebody else has put into it.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        members: BTreeSet<String>,
    },
    AddUser(User),
    RemoveUser(User),
    /// Changes what is known of a user of ours but name and number; what somebody else set (a shell, a password) stays.
    SetUser {
        from: User,
        to: User,
    },
    MakeDirectory(Directory),
    /// Makes a partition's directory that is half-made whole. It is not taken back.
    FinishDirectory(Directory),
    /// Removes a directory that holds nothing but empty ones.
    RemoveDirectory(Directory),
    /// Removes a partition's directory with all that is in it. Its inverse makes it again, half-made.
    EraseDirectory(Directory),
    SetDirectory {
        path: PathBuf,
        from: (Owner, u32),
        to: (Owner, u32),
    },
    /// How much a partition's directory may take, in MiB.
    SetDiskLimit {
        path: PathBuf,
        /// Number that the file system knows the partition by (project id).
        id: u32,
        /// As in [`Thing::DiskLimit`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        file_system: Option<String>,
        from: Option<u32>,
        to: Option<u32>,
    },
    AddLink {
        name: String,
        link: LinkFact,
    },
    RemoveLink {
        name: String,
        link: LinkFact,
    },
    SetLink {
        name: String,
        from: LinkFact,
        to: LinkFact,
    },
    /// From what there is of a namespace to what there must be, or to nothing.
    SetNamespace {
        name: String,
        veth: String,
        state: Box<Change<Namespace>>,
    },
    AddAddress(AddressFact),
    RemoveAddress(AddressFact),
    AddLocalRoute {
        range: IpNet,
    },
    RemoveLocalRoute {
        range: IpNet,
    },
    AddRoute(Route),
    RemoveRoute(Route),
    SetSysctl {
        key: String,
        /// Before node-format first touched it.
        was: String,
        from: String,
        /// Empty: nothing is set, for it goes with its link.
        to: String,
        /// Set to these once it is as it was.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        along: BTreeMap<String, String>,
        /// What the record says of it before and after, if that is kept: see [`Action::settles`].
        #[serde(skip)]
        last: Change<Last>,
    },
    /// Makes, replaces or removes the packet filter's table, in one step of the kernel.
    SetGuard {
        from: Option<Guard>,
        to: Option<Guard>,
    },
    /// Joins an interface to the bridge and moves its addresses and routes there.
    TakeUplink(Uplink),
    /// The same with one that the record knows, of which something is missing on the bridge. Undone, one that stood alone with
    /// some of its network has its own again; else it stays so: the machine may be reached by the rest of it, and this run
    /// took nothing.
    FinishUplink {
        #[serde(flatten)]
        uplink: Uplink,
        alone: bool,
    },
    /// Undone, it is taken again, unless it stood alone.
    ReturnUplink {
        #[serde(flatten)]
        uplink: Uplink,
        alone: bool,
    },
    /// Takes from the bridge what is left there of an interface that is gone: if it comes back, the system gives it its network
    /// anew, and the same on the bridge would draw away what is to go through it.
    DropUplink {
        uplink: Box<Uplink>,
        /// The same with what of it is there alone.
        left: Box<Uplink>,
    },
    /// That again.
    KeepUplink {
        uplink: Box<Uplink>,
        left: Box<Uplink>,
    },
    /// Writes the file whole, or removes it where `to` is `None`.
    WriteFile {
        path: PathBuf,
        purpose: Purpose,
        from: Option<FileFact>,
        to: Option<FileFact>,
    },
}

/// What a file is for; files of one purpose are written together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// What the software in a partition may know.
    Resources,
    /// A unit of systemd, which is told of it.
    Unit,
    /// `node.json`.
    Node,
}

/// What kind of step; consecutive actions of one kind are performed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    AddAccounts,
    RemoveAccounts,
    SetAccounts,
    MakeDirectories,
    RemoveDirectories,
    SetDirectories,
    SetDiskLimits,
    // From here to `RemoveRoutes`: what needs CAP_NET_ADMIN.
    SetSysctls,
    AddBridges,
    RemoveBridges,
    AddTaps,
    RemoveTaps,
    SetLinks,
    AddNamespaces,
    RemoveNamespaces,
    SetGuard,
    MoveUplink,
    AddAddresses,
    RemoveAddresses,
    AddRoutes,
    RemoveRoutes,
    WriteFiles(Purpose),
}

impl Action {
    pub fn kind(&self) -> Kind {
        match self {
            Self::AddGroup { .. } | Self::AddUser(_) => Kind::AddAccounts,
            Self::RemoveGroup { .. } | Self::RemoveUser(_) => Kind::RemoveAccounts,
            Self::SetUser { .. } => Kind::SetAccounts,
            Self::MakeDirectory(_) | Self::FinishDirectory(_) => Kind::MakeDirectories,
            Self::RemoveDirectory(_) | Self::EraseDirectory(_) => Kind::RemoveDirectories,
            Self::SetDirectory { .. } => Kind::SetDirectories,
            Self::SetDiskLimit { .. } => Kind::SetDiskLimits,
            Self::AddLink { link, .. } if link.kind == LinkKind::Bridge => Kind::AddBridges,
            Self::RemoveLink { link, .. } if link.kind == LinkKind::Bridge => Kind::RemoveBridges,
            Self::AddLink { .. } => Kind::AddTaps,
            Self::RemoveLink { .. } => Kind::RemoveTaps,
            Self::SetLink { .. } => Kind::SetLinks,
            Self::SetNamespace { state, .. } if state.to.inside.is_some() => Kind::AddNamespaces,
            Self::SetNamespace { .. } => Kind::RemoveNamespaces,
            Self::AddAddress(_) => Kind::AddAddresses,
            Self::RemoveAddress(_) => Kind::RemoveAddresses,
            Self::AddLocalRoute { .. } | Self::AddRoute(_) => Kind::AddRoutes,
            Self::RemoveLocalRoute { .. } | Self::RemoveRoute(_) => Kind::RemoveRoutes,
            Self::SetSysctl { .. } => Kind::SetSysctls,
            Self::SetGuard { .. } => Kind::SetGuard,
            Self::TakeUplink(_)
            | Self::FinishUplink { .. }
            | Self::ReturnUplink { .. }
            | Self::DropUplink { .. }
            | Self::KeepUplink { .. } => Kind::MoveUplink,
            Self::WriteFile { purpose, .. } => Kind::WriteFiles(*purpose),
        }
    }

    /// The action that takes this one back, if it is ever taken back.
    #[must_use]
    pub fn inverse(&self) -> Option<Self> {
        Some(match self.clone() {
            Self::AddGroup { name, gid, members } => Self::RemoveGroup { name, gid, members },
            Self::RemoveGroup { name, gid, members } => Self::AddGroup { name, gid, members },
            Self::SetUser { from, to } => Self::SetUser { from: to, to: from },
            Self::AddUser(user) => Self::RemoveUser(user),
            Self::RemoveUser(user) => Self::AddUser(user),
            Self::MakeDirectory(directory) => Self::RemoveDirectory(directory),
            Self::RemoveDirectory(directory) => Self::MakeDirectory(directory),
            Self::EraseDirectory(directory) => {
                Self::MakeDirectory(Directory { half_made: true, inside: BTreeMap::new(), ..directory })
            }
            Self::FinishDirectory(_) => return None,
            Self::SetDirectory { path, from, to } => Self::SetDirectory { path, from: to, to: from },
            Self::SetDiskLimit { path, id, file_system, from, to } => {
                Self::SetDiskLimit { path, id, file_system, from: to, to: from }
            }
            Self::AddLink { name, link } => Self::RemoveLink { name, link },
            Self::RemoveLink { name, link } => Self::AddLink { name, link },
            Self::SetLink { name, from, to } => Self::SetLink { name, from: to, to: from },
            Self::SetNamespace { name, veth, state } => {
                Self::SetNamespace { name, veth, state: Box::new(state.back()) }
            }
            Self::AddAddress(address) => Self::RemoveAddress(address),
            Self::RemoveAddress(address) => Self::AddAddress(address),
            Self::AddLocalRoute { range } => Self::RemoveLocalRoute { range },
            Self::RemoveLocalRoute { range } => Self::AddLocalRoute { range },
            Self::AddRoute(route) => Self::RemoveRoute(route),
            Self::RemoveRoute(route) => Self::AddRoute(route),
            Self::SetSysctl { key, was, from, to, along, last } => {
                Self::SetSysctl { key, was, from: to, to: from, along, last: last.back() }
            }
            Self::SetGuard { from, to } => Self::SetGuard { from: to, to: from },
            Self::TakeUplink(uplink) => Self::ReturnUplink { uplink, alone: false },
            Self::FinishUplink { uplink, alone: true } => Self::ReturnUplink { uplink, alone: false },
            Self::ReturnUplink { uplink, alone: false } => Self::TakeUplink(uplink),
            Self::FinishUplink { alone: false, .. } | Self::ReturnUplink { alone: true, .. } => return None,
            Self::DropUplink { uplink, left } => Self::KeepUplink { uplink, left },
            Self::KeepUplink { uplink, left } => Self::DropUplink { uplink, left },
            Self::WriteFile { path, purpose, from, to } => Self::WriteFile { path, purpose, from: to, to: from },
        })
    }

    /// The thing that exists because of this action: to be claimed before it is performed.
    pub fn makes(&self) -> Option<Thing> {
        Some(match self {
            Self::AddGroup { name, gid, .. } => Thing::Group { name: name.clone(), gid: *gid },
            Self::AddUser(user) => Thing::User { name: user.name.clone(), uid: user.uid },
            Self::MakeDirectory(directory) | Self::FinishDirectory(directory) => directory.thing(),
            Self::SetDiskLimit { path, id, file_system, to: Some(_), .. } => {
                Thing::DiskLimit { path: path.clone(), id: *id, file_system: file_system.clone() }
            }
            Self::AddLink { name, link } => link.thing(name)?,
            Self::SetNamespace { name, veth, state } if state.to.inside.is_some() => {
                Thing::Namespace { name: name.clone(), veth: veth.clone() }
            }
            Self::AddAddress(AddressFact { link, address, .. }) => {
                Thing::Address { link: link.clone(), address: *address }
            }
            Self::AddLocalRoute { range } => Thing::LocalRoute { range: *range },
            Self::AddRoute(route) => Thing::Route(route.clone()),
            Self::SetSysctl { key, was, from, to, along, .. } if to != was && !to.is_empty() => {
                let last = Last(Some(from.clone()));
                Thing::Sysctl { key: key.clone(), was: was.clone(), along: Along(along.clone()), last }
            }
            Self::SetGuard { to: Some(guard), .. } => Thing::Guard { families: guard.families() },
            Self::TakeUplink(uplink) | Self::FinishUplink { uplink, .. } => Thing::Uplink(uplink.clone()),
            Self::KeepUplink { uplink, .. } => Thing::Uplink((**uplink).clone()),
            Self::WriteFile { path, to: Some(_), .. } => Thing::File { path: path.clone() },
            _ => return None,
        })
    }

    /// The thing that is gone because of this action: to be struck from the record once it is performed.
    pub fn removes(&self) -> Option<Thing> {
        match self {
            Self::RemoveGroup { .. }
            | Self::RemoveUser(_)
            | Self::RemoveDirectory(_)
            | Self::EraseDirectory(_)
            | Self::RemoveLink { .. }
            | Self::RemoveAddress(_)
            | Self::RemoveLocalRoute { .. }
            | Self::RemoveRoute(_) => self.inverse()?.makes(),
            Self::ReturnUplink { uplink, .. } => Some(Thing::Uplink(uplink.clone())),
            Self::DropUplink { uplink, .. } => Some(Thing::Uplink((**uplink).clone())),
            Self::SetNamespace { name, veth, state } if state.to.inside.is_none() => {
                Some(Thing::Namespace { name: name.clone(), veth: veth.clone() })
            }
            Self::SetDiskLimit { path, id, file_system, to: None, .. } => {
                Some(Thing::DiskLimit { path: path.clone(), id: *id, file_system: file_system.clone() })
            }
            Self::SetSysctl { key, was, to, along, .. } if to == was || to.is_empty() => {
                let last = Last::default();
                Some(Thing::Sysctl { key: key.clone(), was: was.clone(), along: Along(along.clone()), last })
            }
            Self::SetGuard { from: Some(guard), to: None } => Some(Thing::Guard { families: guard.families() }),
            Self::WriteFile { path, to: None, .. } => Some(Thing::File { path: path.clone() }),
            _ => None,
        }
    }

    /// What is known of the thing it made once it is performed: of what others may tell to hear no router, that it was set.
    pub fn settles(&self) -> Option<Thing> {
        self.known(|last| &last.to)
    }

    /// What is known of the thing still, where it was ours before and is not changed after all.
    pub fn keeps(&self) -> Option<Thing> {
        self.known(|last| &last.from)
    }

    fn known(&self, when: impl Fn(&Change<Last>) -> &Last) -> Option<Thing> {
        match (self, self.makes()?) {
            (Self::SetSysctl { last, .. }, Thing::Sysctl { key, was, along, .. }) if key.ends_with(".accept_ra") => {
                Some(Thing::Sysctl { key, was, along, last: when(last).clone() })
            }
            _ => None,
        }
    }

    /// Whether a partition's own user may bring about, at any moment, what this action mends: mode and group of his own
    /// directory, whether it
    /// counts into its limit, of a tap or tun that he may open its hardware address, its owner, and whether it is there, and
    /// what is inside of a namespace.
    /// It is no proof that the machine is not as it was made.
    pub fn is_tenants_doing(&self) -> bool {
        match self {
            // Or one of his subordinate numbers': that of a third one is refused before.
            Self::SetDirectory { from, to, .. } => from.0.uid != 0 && to.0.uid != 0,
            // Which project a directory is of is its owner's to say.
            Self::SetDiskLimit { from, to: Some(to), .. } => *from == Some(*to),
            Self::AddLink { link, .. } | Self::RemoveLink { link, .. } => link.is_tenants(),
            // In there he may be root: over its own end he takes the pair away.
            Self::SetNamespace { state, .. } => {
                let Change { from, to } = &**state;
                let is_whole = from.outside.is_none() || from.outside == to.outside;
                from.inside.is_some() && to.inside.is_some() && is_whole
            }
            Self::SetLink { from, to, .. } => to.is_tenants() && LinkFact { mac: to.mac, ..from.clone() } == *to,
            _ => false,
        }
    }
}

impl Action {
    /// The uplink that is whole on its bridge because of this action.
    #[must_use]
    pub fn takes(&self) -> Option<&Uplink> {
        if let Self::TakeUplink(uplink) | Self::FinishUplink { uplink, .. } = self { Some(uplink) } else { None }
    }

    /// The uplink whose network goes from its bridge because of this action.
    #[must_use]
    pub fn clears(&self) -> Option<&Uplink> {
        match self {
            Self::ReturnUplink { uplink, .. } => Some(uplink),
            Self::DropUplink { left, .. } => Some(left),
            _ => None,
        }
    }

    /// The link that it is about, if it is about one.
    pub fn link(&self) -> Option<String> {
        match self {
            Self::AddLink { name, .. } | Self::RemoveLink { name, .. } | Self::SetLink { name, .. } => {
                Some(name.clone())
            }
            Self::AddAddress(address) | Self::RemoveAddress(address) => Some(address.link.clone()),
            Self::AddRoute(route) | Self::RemoveRoute(route) => Some(route.link.clone()),
            Self::SetSysctl { key, .. } => {
                let (_, rest) = key.split_once(".conf.")?;
                rest.rsplit_once('.').map(|(link, _)| link.replace('/', "."))
            }
            _ => None,
        }
    }
}

impl Directory {
    fn thing(&self) -> Thing {
        let path = self.path.clone();
        if self.partition { Thing::PartitionDirectory { path } } else { Thing::Directory { path } }
    }
}

impl LinkFact {
    /// Whether a partition's user may open it, and so let it go, or give it another hardware address, at any moment.
    pub fn is_tenants(&self) -> bool {
        matches!(self.kind, LinkKind::Tap(Some(_)) | LinkKind::Tun(Some(_)))
    }

    /// What a link of this kind is in the record. `None`: node-format makes none such by itself.
    pub(crate) fn thing(&self, name: &str) -> Option<Thing> {
        let name = name.to_owned();
        match self.kind {
            LinkKind::Bridge => Some(Thing::Bridge { name }),
            LinkKind::Tap(_) => Some(Thing::Tap { name }),
            LinkKind::Tun(_) => Some(Thing::Tun { name }),
            LinkKind::Veth | LinkKind::Other(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_directory_it_is_its_user_may_change_among_his_own_numbers_and_nobody_elses() {
        let set = |from, to| {
            let [from, to] = [from, to].map(|uid| (Owner { uid, gid: uid }, 0o750));
            Action::SetDirectory { path: "/srv/part0".into(), from, to }
        };
        assert!(set(20_000, 20_000).is_tenants_doing());
        assert!(set(165_536, 20_000).is_tenants_doing(), "a subordinate one");
        assert!(!set(0, 20_000).is_tenants_doing() && !set(20_000, 0).is_tenants_doing());
    }
}

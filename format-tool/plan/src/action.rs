//! One step of a plan, with every choice made: names, numbers, owners, modes. Each knows its exact inverse and which
//! things it makes or removes.

use crate::facts::{LinkFact, Owner};
use crate::thing::Thing;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Directory {
    pub path: PathBuf,
    pub owner: Owner,
    pub mode: u32,
    /// Whether it is a partition's, or one in it.
    pub partition: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case")]
pub enum Action {
    AddGroup {
        name: String,
        gid: u32,
    },
    RemoveGroup {
        name: String,
        gid: u32,
    },
    AddUser(User),
    RemoveUser(User),
    MakeDirectory(Directory),
    /// Removes an empty directory.
    RemoveDirectory(Directory),
    /// Removes a partition's directory with all that is in it. Its inverse makes it again, empty.
    EraseDirectory(Directory),
    SetDirectory {
        path: PathBuf,
        from: (Owner, u32),
        to: (Owner, u32),
    },
    AddBridge {
        name: String,
        link: LinkFact,
    },
    RemoveBridge {
        name: String,
        link: LinkFact,
    },
    AddTap {
        name: String,
        link: LinkFact,
    },
    RemoveTap {
        name: String,
        link: LinkFact,
    },
    SetLink {
        name: String,
        from: LinkFact,
        to: LinkFact,
    },
    AddAddress {
        link: String,
        address: IpNet,
    },
    RemoveAddress {
        link: String,
        address: IpNet,
    },
    AddLocalRoute {
        range: IpNet,
    },
    RemoveLocalRoute {
        range: IpNet,
    },
    /// Writes the file whole, or removes it where `to` is `None`.
    WriteNodeFile {
        path: PathBuf,
        from: Option<String>,
        to: Option<String>,
    },
}

/// What kind of step; consecutive actions of one kind are performed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    AddAccounts,
    RemoveAccounts,
    MakeDirectories,
    RemoveDirectories,
    SetDirectories,
    AddBridges,
    RemoveBridges,
    AddTaps,
    RemoveTaps,
    SetLinks,
    AddAddresses,
    RemoveAddresses,
    AddRoutes,
    RemoveRoutes,
    WriteNodeFile,
}

impl Action {
    pub fn kind(&self) -> Kind {
        match self {
            Self::AddGroup { .. } | Self::AddUser(_) => Kind::AddAccounts,
            Self::RemoveGroup { .. } | Self::RemoveUser(_) => Kind::RemoveAccounts,
            Self::MakeDirectory(_) => Kind::MakeDirectories,
            Self::RemoveDirectory(_) | Self::EraseDirectory(_) => Kind::RemoveDirectories,
            Self::SetDirectory { .. } => Kind::SetDirectories,
            Self::AddBridge { .. } => Kind::AddBridges,
            Self::RemoveBridge { .. } => Kind::RemoveBridges,
            Self::AddTap { .. } => Kind::AddTaps,
            Self::RemoveTap { .. } => Kind::RemoveTaps,
            Self::SetLink { .. } => Kind::SetLinks,
            Self::AddAddress { .. } => Kind::AddAddresses,
            Self::RemoveAddress { .. } => Kind::RemoveAddresses,
            Self::AddLocalRoute { .. } => Kind::AddRoutes,
            Self::RemoveLocalRoute { .. } => Kind::RemoveRoutes,
            Self::WriteNodeFile { .. } => Kind::WriteNodeFile,
        }
    }

    /// The action that takes this one back.
    #[must_use]
    pub fn inverse(&self) -> Self {
        match self.clone() {
            Self::AddGroup { name, gid } => Self::RemoveGroup { name, gid },
            Self::RemoveGroup { name, gid } => Self::AddGroup { name, gid },
            Self::AddUser(user) => Self::RemoveUser(user),
            Self::RemoveUser(user) => Self::AddUser(user),
            Self::MakeDirectory(directory) => Self::RemoveDirectory(directory),
            Self::RemoveDirectory(directory) | Self::EraseDirectory(directory) => Self::MakeDirectory(directory),
            Self::SetDirectory { path, from, to } => Self::SetDirectory { path, from: to, to: from },
            Self::AddBridge { name, link } => Self::RemoveBridge { name, link },
            Self::RemoveBridge { name, link } => Self::AddBridge { name, link },
            Self::AddTap { name, link } => Self::RemoveTap { name, link },
            Self::RemoveTap { name, link } => Self::AddTap { name, link },
            Self::SetLink { name, from, to } => Self::SetLink { name, from: to, to: from },
            Self::AddAddress { link, address } => Self::RemoveAddress { link, address },
            Self::RemoveAddress { link, address } => Self::AddAddress { link, address },
            Self::AddLocalRoute { range } => Self::RemoveLocalRoute { range },
            Self::RemoveLocalRoute { range } => Self::AddLocalRoute { range },
            Self::WriteNodeFile { path, from, to } => Self::WriteNodeFile { path, from: to, to: from },
        }
    }

    /// The thing that exists because of this action: to be claimed before it is performed.
    pub fn makes(&self) -> Option<Thing> {
        Some(match self {
            Self::AddGroup { name, gid } => Thing::Group { name: name.clone(), gid: *gid },
            Self::AddUser(user) => Thing::User { name: user.name.clone(), uid: user.uid },
            Self::MakeDirectory(directory) => directory.thing(),
            Self::AddBridge { name, .. } => Thing::Bridge { name: name.clone() },
            Self::AddTap { name, .. } => Thing::Tap { name: name.clone() },
            Self::AddAddress { link, address } => Thing::Address { link: link.clone(), address: *address },
            Self::AddLocalRoute { range } => Thing::LocalRoute { range: *range },
            Self::WriteNodeFile { path, to: Some(_), .. } => Thing::NodeFile { path: path.clone() },
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
            | Self::RemoveBridge { .. }
            | Self::RemoveTap { .. }
            | Self::RemoveAddress { .. }
            | Self::RemoveLocalRoute { .. } => self.inverse().makes(),
            Self::WriteNodeFile { path, to: None, .. } => Some(Thing::NodeFile { path: path.clone() }),
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

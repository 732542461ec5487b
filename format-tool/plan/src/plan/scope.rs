//! What has to be looked at before a plan can be made.

use super::machine::default_of;
use crate::facts::Scope;
use crate::layout::Layout;
use crate::thing::{Claims, Thing};

/// What to look at, to plan from these claims towards this layout.
pub fn scope(layout: &Layout, claims: &Claims) -> Scope {
    let mut scope = of_layout(layout);
    for thing in claims.iter() {
        match thing {
            Thing::Group { .. } => scope.accounts = true,
            Thing::User { name, .. } => {
                scope.accounts = true;
                scope.processes |= !layout.users.contains_key(name);
            }
            Thing::Directory { path } | Thing::PartitionDirectory { path } => {
                scope.paths.insert(path.clone());
                if !layout.directories.contains_key(path) {
                    scope.contents.insert(path.clone());
                }
            }
            Thing::DiskLimit { path, id, .. } => {
                scope.disk.entry(path.clone()).or_insert(*id);
            }
            Thing::File { path } => {
                scope.files.insert(path.clone());
            }
            Thing::Namespace { name, .. } => {
                scope.namespaces.insert(name.clone());
                scope.network = true;
            }
            Thing::Sysctl { key, .. } => {
                scope.sysctls.insert(key.clone());
            }
            Thing::Guard => scope.guard = true,
            Thing::Bridge { .. } | Thing::Tap { .. } | Thing::Tun { .. } | Thing::Uplink(_) => scope.network = true,
            Thing::Address { .. } | Thing::LocalRoute { .. } | Thing::Route(_) => scope.network = true,
            Thing::UplinkConfirmed { .. } => {}
        }
    }
    scope
}

fn of_layout(layout: &Layout) -> Scope {
    let limits = layout.directories.iter().filter_map(|(path, wanted)| Some((path, wanted.partition.as_ref()?.limit?)));
    Scope {
        paths: layout.directories.keys().cloned().collect(),
        files: layout.files.keys().chain(layout.node_file.iter().map(|(path, _)| path)).cloned().collect(),
        disk: limits.map(|(path, limit)| (path.clone(), limit.id)).collect(),
        namespaces: layout.namespaces.keys().cloned().collect(),
        sysctls: layout.sysctls.keys().flat_map(|key| [Some(key.clone()), default_of(layout, key)]).flatten().collect(),
        guard: layout.guard.is_some(),
        accounts: !layout.users.is_empty() || !layout.groups.is_empty(),
        network: !layout.links.is_empty() || !layout.addresses.is_empty() || layout.needs_link.is_some(),
        ..Scope::default()
    }
}

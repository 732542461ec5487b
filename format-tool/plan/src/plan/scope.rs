//! What has to be looked at before a plan can be made.

use super::listening::accept_ra;
use super::losses::promote_secondaries;
use super::machine::default_of;
use super::setting_before;
use super::uplink::{addr_gen_mode, disable_ipv6};
use crate::facts::{Guard, LinkKind, Scope};
use crate::forwarding::{IPV6, of_a_link, written_along};
use crate::layout::Layout;
use crate::thing::{Claims, Thing};
use std::collections::BTreeSet;

/// What to look at, to plan from these claims towards this layout.
pub fn scope(layout: &Layout, claims: &Claims) -> Scope {
    let mut scope = of_layout(layout);
    let recorded = claims.iter().filter_map(setting_before).map(|(key, _)| key);
    let along = layout.sysctls.keys().map(String::as_str).chain(recorded).flat_map(written_along);
    scope.sysctls.extend(along.map(|pattern| (*pattern).to_owned()));
    // Who runs something under a number that is given out would run it in the partition.
    let new =
        layout.users.iter().filter(|(name, user)| !claims.has(&Thing::User { name: (*name).clone(), uid: user.uid }));
    scope.processes.extend(new.map(|(_, user)| user.uid));
    for thing in claims.iter() {
        match thing {
            Thing::Group { .. } => scope.accounts = true,
            Thing::User { name, uid } => {
                scope.accounts = true;
                if !layout.users.contains_key(name) {
                    scope.processes.insert(*uid);
                }
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
                if !layout.namespaces.contains_key(name) {
                    scope.leaving_namespaces.insert(name.clone());
                }
                scope.network = true;
            }
            Thing::Sysctl { key, along, .. } => {
                scope.sysctls.insert(key.clone());
                if !layout.sysctls.contains_key(key) {
                    scope.sysctls.extend(along.0.keys().cloned());
                }
            }
            Thing::Guard { families } => scope.guard.extend(families.iter().cloned()),
            Thing::Bridge { name } => {
                scope.network = true;
                scope.sysctls.extend([promote_secondaries("all"), promote_secondaries(name)]);
            }
            Thing::Tap { .. } | Thing::Tun { .. } | Thing::Uplink(_) => scope.network = true,
            Thing::Address { .. } | Thing::LocalRoute { .. } | Thing::Route(_) => scope.network = true,
            // What such a one still holds is told.
            Thing::BegunDirectory { path } => drop(scope.contents.insert(path.clone())),
            Thing::UplinkConfirmed { .. } => {}
        }
    }
    scope
}

fn of_layout(layout: &Layout) -> Scope {
    let limits = layout.directories.iter().filter_map(|(path, wanted)| Some((path, wanted.partition.as_ref()?.limit?)));
    let bridge = layout.needs_link.as_ref().filter(|needed| needed.bridge);
    let bridge = bridge.map(|needed| [accept_ra(&needed.name), IPV6.to_owned()]).into_iter().flatten();
    // Whether the bridge will hear the uplink's router, and the uplink itself once it is given back.
    let heard = layout.uplink.as_ref().map(|uplink| {
        let listens = [&uplink.bridge, &uplink.link, "default"].map(accept_ra);
        let makes = [&uplink.bridge, "default"].map(addr_gen_mode);
        listens.into_iter().chain(makes).chain([of_a_link(&uplink.link), IPV6.to_owned()])
    });
    // Whether the kernel takes an address of IPv6 there; of taps and tuns, which are many, that is that of links that are made.
    let is_one = |link: &String| layout.links.get(link).is_none_or(|fact| fact.kind == LinkKind::Bridge);
    let ipv6 = layout.addresses.iter().filter(|(_, address)| address.addr().is_ipv6()).map(|(link, _)| link);
    let ipv6 = ipv6.flat_map(|link| [Some("default"), Some(link.as_str()).filter(|_| is_one(link))]);
    let ipv6: BTreeSet<String> = ipv6.flatten().map(disable_ipv6).collect();
    let settings = layout.sysctls.keys().flat_map(|key| [Some(key.clone()), default_of(layout, key)]);
    Scope {
        paths: layout.directories.keys().cloned().collect(),
        files: layout.files.keys().chain(layout.node_file.iter().map(|(path, _)| path)).cloned().collect(),
        disk: limits.map(|(path, limit)| (path.clone(), limit.id)).collect(),
        namespaces: layout.namespaces.keys().cloned().collect(),
        sysctls: settings.flatten().chain(bridge).chain(heard.into_iter().flatten()).chain(ipv6).collect(),
        guard: layout.guard.as_ref().map(Guard::families).unwrap_or_default(),
        accounts: !layout.users.is_empty() || !layout.groups.is_empty(),
        network: !layout.links.is_empty() || !layout.addresses.is_empty() || layout.needs_link.is_some(),
        ..Scope::default()
    }
}

//! What an action does to a machine, as a function of facts. The fake host performs actions with it, and the properties
//! of the planner are stated in it.

use crate::action::{Action, UNFINISHED};
use crate::facts::{AddressFact, GroupFact, HostFacts, PathFact, Route, UserFact};
use crate::forwarding::{as_written, is_meant, written_along};
use crate::thing::Uplink;
use indexmap::IndexMap;
use ipnet::IpNet;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

impl HostFacts {
    /// The machine after the action.
    pub fn perform(&mut self, action: &Action) {
        match action {
            Action::AddGroup { name, gid, members } => {
                self.groups
                    .insert(name.clone(), GroupFact { gid: *gid, members: members.clone(), ..GroupFact::default() });
            }
            Action::RemoveGroup { name, .. } => {
                self.groups.remove(name);
            }
            Action::AddUser(user) => {
                let fact = UserFact { uid: user.uid, gid: user.gid, home: user.home.clone() };
                self.users.insert(user.name.clone(), fact);
                for group in &user.groups {
                    self.groups.entry(group.clone()).and_modify(|group| {
                        group.members.insert(user.name.clone());
                    });
                }
            }
            Action::RemoveUser(user) => {
                self.users.remove(&user.name);
                self.groups.values_mut().for_each(|group| {
                    group.members.remove(&user.name);
                    group.in_shadow.remove(&user.name);
                });
                self.other_lists.retain(|_, names| {
                    names.remove(&user.name);
                    !names.is_empty()
                });
            }
            Action::SetUser { to, .. } => {
                let fact = UserFact { uid: to.uid, gid: to.gid, home: to.home.clone() };
                self.users.insert(to.name.clone(), fact);
                self.groups.iter_mut().for_each(|(name, group)| {
                    group.members.remove(&to.name);
                    group.members.extend(to.groups.contains(name).then(|| to.name.clone()));
                });
            }
            Action::MakeDirectory(made) | Action::FinishDirectory(made) => {
                let (inside, half_made) = (made.inside.clone(), made.half_made);
                let (owner, mode) = if half_made { (self.caller, UNFINISHED) } else { (made.owner, made.mode) };
                let fact = PathFact::Directory { owner, mode, stranger: None, inside, half_made };
                self.paths.insert(made.path.clone(), fact);
            }
            Action::RemoveDirectory(directory) => {
                self.paths.swap_remove(&directory.path);
            }
            Action::EraseDirectory(directory) => self.paths.retain(|path, _| !path.starts_with(&directory.path)),
            Action::SetDirectory { path, to, .. } => {
                if let Some(PathFact::Directory { owner, mode, .. }) = self.paths.get_mut(path) {
                    (*owner, *mode) = *to;
                }
            }
            Action::SetDiskLimit { path, to, .. } => {
                put_at(&mut self.disk_limits, path, *to);
                self.uncounted.swap_remove(path);
                self.projects.swap_remove(path);
            }
            Action::AddLink { name, link } => {
                self.links.insert(name.clone(), link.clone());
            }
            Action::RemoveLink { name, .. } => self.remove_link(name),
            Action::SetLink { name, to, .. } => {
                self.links.insert(name.clone(), to.clone());
            }
            Action::SetNamespace { name, veth, state } => {
                put(&mut self.links, veth.clone(), state.to.outside.clone());
                put(&mut self.namespaces, name.clone(), state.to.inside.clone());
            }
            Action::AddAddress(address) => self.add_address(address.clone()),
            Action::RemoveAddress(AddressFact { link, address, .. }) => {
                self.addresses.retain(|found| (&found.link, found.address) != (link, *address));
            }
            Action::AddLocalRoute { range } => {
                self.local_routes.insert(*range);
            }
            Action::RemoveLocalRoute { range } => {
                self.local_routes.remove(range);
            }
            Action::AddRoute(route) => {
                self.routes.insert(route.clone());
            }
            Action::RemoveRoute(route) => {
                self.routes.remove(route);
            }
            // Empty: of a link that was not there.
            Action::SetSysctl { key, to, was, along, .. } => {
                put(&mut self.sysctls, key.clone(), Some(to.clone()).filter(|to| !to.is_empty()));
                for pattern in written_along(key) {
                    let others = self.sysctls.iter_mut().filter(|(other, _)| is_meant(other, pattern));
                    others.for_each(|(other, value)| {
                        if let Some(written) = as_written(other, to) {
                            *value = written.into();
                        }
                    });
                }
                for (other, before) in along.iter().filter(|_| to == was) {
                    self.sysctls.entry(other.clone()).and_modify(|value| value.clone_from(before));
                }
            }
            Action::SetGuard { to, .. } => self.guard.clone_from(to),
            Action::TakeUplink(uplink) | Action::FinishUplink { uplink, .. } => {
                self.move_uplink(uplink, &uplink.link, &uplink.bridge)
            }
            Action::ReturnUplink { uplink, .. } => self.move_uplink(uplink, &uplink.bridge, &uplink.link),
            Action::DropUplink { left, .. } => self.drop_uplink(left),
            Action::KeepUplink { left, .. } => self.move_network(left, &left.bridge, &left.bridge),
            Action::WriteFile { path, to, .. } => put_at(&mut self.files, path, to.clone()),
        }
    }

    /// As the kernel tells of them: the newest of IPv6 comes first, of IPv4 last.
    fn add_address(&mut self, address: AddressFact) {
        let is_later = |found: &AddressFact| found.link == address.link && found.address.addr().is_ipv6();
        let before = self.addresses.iter().position(is_later).filter(|_| address.address.addr().is_ipv6());
        if !self.addresses.contains(&address) {
            self.addresses.shift_insert(before.unwrap_or(self.addresses.len()), address);
        }
    }

    /// With a link go its addresses and routes, and its ports stand alone.
    fn remove_link(&mut self, name: &str) {
        self.links.remove(name);
        self.addresses.retain(|address| address.link != name);
        self.further.remove(name);
        self.routes.retain(|route| route.link != name);
        self.links.values_mut().filter(|link| link.bridge.as_deref() == Some(name)).for_each(|port| {
            port.bridge = None;
            port.isolated = false;
        });
    }

    fn drop_uplink(&mut self, left: &Uplink) {
        if let Some(all) = self.further.get_mut(&left.bridge) {
            all.retain(|address, _| !left.further.contains_key(address));
        }
        self.further.retain(|_, further| !further.is_empty());
        self.addresses.retain(|found| found.link != left.bridge || !left.addresses.contains(&found.address));
        let on_bridge = |route: &Route| Route { link: left.bridge.clone(), ..route.clone() };
        self.routes.retain(|route| !left.routes.iter().any(|gone| on_bridge(gone) == *route));
    }

    fn move_uplink(&mut self, uplink: &Uplink, from: &str, to: &str) {
        let taken = to == uplink.bridge;
        if let Some(port) = self.links.get_mut(&uplink.link) {
            port.bridge = taken.then(|| uplink.bridge.clone());
            port.up = taken || uplink.was_up;
        }
        self.move_network(uplink, from, to);
    }

    fn move_network(&mut self, uplink: &Uplink, from: &str, to: &str) {
        let there = self.links.contains_key(to);
        if let Some(all) = self.further.get_mut(from) {
            all.retain(|address, _| !uplink.further.contains_key(address));
        }
        if there && !uplink.further.is_empty() {
            self.further.entry(to.into()).or_default().extend(uplink.further.clone());
        }
        self.further.retain(|_, further| !further.is_empty());
        let (ipv4, ipv6): (Vec<&IpNet>, Vec<&IpNet>) =
            uplink.addresses.iter().partition(|address| address.addr().is_ipv4());
        for address in ipv4.into_iter().chain(ipv6.into_iter().rev()) {
            // However it was marked where it was.
            let found = self.address(from, *address).cloned();
            if let Some(found) = &found {
                self.addresses.shift_remove(found);
            }
            let marked = found.is_some_and(|found| found.bound_only);
            let moved = AddressFact { link: to.into(), address: *address, leased: false, bound_only: marked };
            there.then_some(moved).into_iter().for_each(|moved| self.add_address(moved));
        }
        for route in &uplink.routes {
            self.routes.remove(&Route { link: from.into(), ..route.clone() });
            self.routes.extend(there.then(|| Route { link: to.into(), ..route.clone() }));
        }
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(key, value)),
        None => drop(map.remove(&key)),
    }
}

fn put_at<V>(map: &mut IndexMap<PathBuf, V>, path: &Path, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(path.to_path_buf(), value)),
        None => drop(map.swap_remove(path)),
    }
}

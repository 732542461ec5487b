//! What an action does to a machine, as a function of facts. The fake host performs actions with it, and the properties
//! of the planner are stated in it.

use crate::action::Action;
use crate::facts::{AddressFact, GroupFact, HostFacts, PathFact, UserFact};

impl HostFacts {
    /// The machine after the action.
    pub fn perform(&mut self, action: &Action) {
        match action {
            Action::AddGroup { name, gid } => {
                self.groups.insert(name.clone(), GroupFact { gid: *gid, members: Default::default() });
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
                });
            }
            Action::MakeDirectory(made) => {
                let fact = PathFact::Directory { owner: made.owner, mode: made.mode, stranger: None };
                self.paths.insert(made.path.clone(), fact);
            }
            Action::RemoveDirectory(directory) => {
                self.paths.remove(&directory.path);
            }
            Action::EraseDirectory(directory) => self.paths.retain(|path, _| !path.starts_with(&directory.path)),
            Action::SetDirectory { path, to, .. } => {
                let fact = PathFact::Directory { owner: to.0, mode: to.1, stranger: None };
                self.paths.insert(path.clone(), fact);
            }
            Action::AddBridge { name, link } | Action::AddTap { name, link } => {
                self.links.insert(name.clone(), link.clone());
            }
            Action::RemoveBridge { name, .. } | Action::RemoveTap { name, .. } => {
                self.links.remove(name);
                self.addresses.retain(|address| &address.link != name);
                self.links.values_mut().filter(|link| link.bridge.as_ref() == Some(name)).for_each(|port| {
                    port.bridge = None;
                });
            }
            Action::SetLink { name, to, .. } => {
                self.links.insert(name.clone(), to.clone());
            }
            Action::AddAddress { link, address } => {
                self.addresses.insert(AddressFact { link: link.clone(), address: *address });
            }
            Action::RemoveAddress { link, address } => {
                self.addresses.remove(&AddressFact { link: link.clone(), address: *address });
            }
            Action::AddLocalRoute { range } => {
                self.local_routes.insert(*range);
            }
            Action::RemoveLocalRoute { range } => {
                self.local_routes.remove(range);
            }
            Action::WriteNodeFile { path, to: Some(text), .. } => {
                self.node_files.insert(path.clone(), text.clone());
            }
            Action::WriteNodeFile { path, to: None, .. } => {
                self.node_files.remove(path);
            }
        }
    }
}

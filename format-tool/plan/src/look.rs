//! What a look at a machine finds, as a function of all there is on it. The fake host looks with it, so that a plan which
//! forgot to ask for something does not see it.

use crate::facts::{HostFacts, Inner, PathFact, Presence, Scope};
use crate::forwarding::is_meant;
use std::path::{Path, PathBuf};

impl HostFacts {
    /// What a look that asks for `scope` finds of this machine.
    #[must_use]
    pub fn seen(&self, scope: &Scope) -> Self {
        let mut seen = self.clone();
        seen.paths.retain(|path, _| scope.paths.contains(path));
        for (path, fact) in &mut seen.paths {
            self.look_inside(path, fact, scope);
        }
        seen.mounted.retain(|path, _| scope.contents.contains(path));
        seen.mounted_on.retain(|path| scope.paths.contains(path));
        seen.files.retain(|path, _| scope.files.contains(path));
        seen.not_files.retain(|path, _| scope.files.contains(path));
        seen.disk_limits.retain(|path, _| scope.disk.contains_key(path));
        seen.file_systems.retain(|path, _| scope.disk.contains_key(path));
        seen.uncounted.retain(|path| scope.disk.contains_key(path));
        seen.projects.retain(|path, _| scope.disk.contains_key(path));
        seen.unlimitable.retain(|path, _| scope.disk.contains_key(path));
        seen.namespaces.retain(|name, _| scope.namespaces.contains(name));
        seen.others_inside.retain(|name, _| scope.namespaces.contains(name));
        seen.not_namespaces.retain(|name, _| scope.namespaces.contains(name));
        seen.mounted_again.retain(|name| scope.namespaces.contains(name));
        seen.entered.retain(|name, _| scope.leaving_namespaces.contains(name));
        let patterns: Vec<_> = scope.sysctls.iter().filter(|key| key.contains('*')).collect();
        let is_asked = |key: &String| scope.sysctls.contains(key) || patterns.iter().any(|one| is_meant(key, one));
        seen.sysctls.retain(|key, _| is_asked(key));
        if scope.guard.is_empty() || self.kernel.nft != Presence::Present {
            seen.guard = None;
        }
        if !scope.accounts {
            seen.users.clear();
            seen.groups.clear();
            seen.other_lists.clear();
            seen.other_uids.clear();
            seen.other_gids.clear();
            seen.left_in_shadow.clear();
            seen.left_in_gshadow.clear();
            seen.subordinate_uids.clear();
            seen.subordinate_gids.clear();
        }
        if scope.processes.is_empty() {
            seen.busy_uids.clear();
        }
        if !scope.network {
            seen.links.clear();
            seen.addresses.clear();
            seen.local_routes.clear();
            seen.routes.clear();
            seen.ways.clear();
            seen.announced.clear();
            seen.leases.clear();
            seen.odd.clear();
            seen.doubled.clear();
            seen.refused.clear();
            seen.further.clear();
            seen.indexes.clear();
            seen.stacked.clear();
            seen.set_frames.clear();
            seen.without_own_mac.clear();
            seen.unknown_mac.clear();
        }
        seen
    }

    /// Of a directory, what it holds that was not asked about itself, if that was asked.
    fn look_inside(&self, path: &Path, fact: &mut PathFact, scope: &Scope) {
        let PathFact::Directory { stranger, inside, half_made, .. } = fact else { return };
        if !scope.contents.contains(path) && !*half_made {
            (*stranger, *inside) = Default::default();
            return;
        }
        let is_in_it = |other: &Path| other.parent() == Some(path);
        let name = |other: &Path| other.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for (other, found) in self.paths.iter().filter(|(other, _)| is_in_it(other) && !scope.paths.contains(*other)) {
            match found {
                PathFact::Directory { owner, mode, .. } if self.is_empty(other) => {
                    inside.insert(name(other), Inner { owner: *owner, mode: *mode });
                }
                _ => *stranger = Some(name(other)),
            }
        }
        for other in self.no_directories().filter(|other| is_in_it(other) && !scope.files.contains(*other)) {
            *stranger = Some(name(other));
        }
    }

    fn is_empty(&self, directory: &Path) -> bool {
        let holds_nothing = match self.paths.get(directory) {
            Some(PathFact::Directory { stranger, inside, .. }) => stranger.is_none() && inside.is_empty(),
            _ => false,
        };
        let mut all = self.paths.keys().chain(self.no_directories());
        holds_nothing && !all.any(|other| other.parent() == Some(directory))
    }

    fn no_directories(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.keys().chain(self.not_files.keys())
    }
}

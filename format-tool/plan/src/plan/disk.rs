//! Limits of the partitions' disk space wanted × found.

use super::Planner;
use crate::action::Action;
use crate::facts::PathFact;
use crate::layout::DiskLimit;
use crate::thing::Thing;
use plat_model::problem::{Problem, codes};
use std::path::Path;

impl Planner<'_> {
    /// Those of directories that go, or are not to be limited any more.
    pub(super) fn drop_disk_limits(&mut self) {
        for thing in self.claims.iter() {
            let Thing::DiskLimit { path, id } = thing else { continue };
            let wanted = self.layout.directories.get(path).and_then(|wanted| wanted.partition.as_ref()?.limit);
            match self.facts.disk_limits.get(path) {
                Some(_) if wanted.is_some_and(|wanted| wanted.id == *id) => {}
                Some(found) => {
                    self.remove.push(Action::SetDiskLimit { path: path.clone(), id: *id, from: Some(*found), to: None })
                }
                // What cannot be looked at now may be limited all the same.
                None if matches!(self.facts.paths.get(path), Some(PathFact::Unknown { .. })) => {}
                None => self.forget.push(thing.clone()),
            }
        }
    }

    pub(super) fn disk_limit(&mut self, path: &Path, limit: Option<DiskLimit>) {
        let Some(DiskLimit { id, mib }) = limit else { return };
        if let Some(why) = self.facts.unlimitable.get(path) {
            self.unlimitable.entry(why.clone()).or_insert_with(|| path.to_path_buf());
            return;
        }
        let found = self.facts.disk_limits.get(path).copied();
        if found.is_some() && !self.claims.has(&Thing::DiskLimit { path: path.to_path_buf(), id }) {
            let what = format!("project {id} has a limit on the file system of {}", path.display());
            let fix = "take it away, or choose another `first_uid`: a partition's project has the number of its user";
            return self.foreign(what, "node-format did not set it", fix);
        }
        if found != Some(mib) || self.facts.uncounted.contains(path) {
            self.limits.push(Action::SetDiskLimit { path: path.to_path_buf(), id, from: found, to: Some(mib) });
        }
    }

    /// What a file system lacks is said once for it, not for each directory on it.
    pub(super) fn refuse_unlimitable(&mut self) {
        for (why, path) in std::mem::take(&mut self.unlimitable) {
            self.problems.push(
                Problem::new(codes::KERNEL_LACKS, format!("the disk space of {} cannot be limited", path.display()))
                    .because(why)
                    .fix("see to that, or set `disk_quota = false` in [limits]"),
            );
        }
    }
}

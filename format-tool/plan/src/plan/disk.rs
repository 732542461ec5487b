//! Limits of the partitions' disk space wanted × found.

use super::Planner;
use crate::action::Action;
use crate::facts::PathFact;
use crate::layout::DiskLimit;
use crate::thing::Thing;
use plat_model::problem::{Problem, codes};
use std::collections::BTreeSet;
use std::path::Path;

impl Planner<'_> {
    /// Those of directories that go, or are not to be limited any more.
    pub(super) fn drop_disk_limits(&mut self) {
        let facts = self.facts;
        let limits = self.layout.directories.iter();
        let limits = limits.filter_map(|(path, wanted)| Some((path, wanted.partition.as_ref()?.limit?.id)));
        let kept: BTreeSet<(&String, u32)> =
            limits.filter_map(|(path, id)| Some((facts.file_systems.get(path)?, id))).collect();
        for thing in self.claims.iter() {
            let Thing::DiskLimit { path, id, file_system } = thing else { continue };
            let wanted = self.layout.directories.get(path).and_then(|wanted| wanted.partition.as_ref()?.limit);
            let there = facts.file_systems.get(path);
            let elsewhere = file_system.is_some() && there.is_some() && file_system.as_ref() != there;
            match facts.disk_limits.get(path) {
                // What is seen is of what is mounted there: the directory's own goes on to be ours, and no other is touched.
                _ if facts.mounted_on.contains(path) => {
                    if wanted.is_none_or(|wanted| wanted.id != *id) {
                        self.notes
                            .push(format!("the disk limit of {} is left: something is mounted there", path.display()));
                    }
                }
                // What has it is not mounted here; a limit that is here is another's.
                _ if elsewhere => self.forget.push(thing.clone()),
                Some(_) if wanted.is_some_and(|wanted| wanted.id == *id) => {}
                // Another directory of the partition, on the same file system, keeps it.
                Some(_) if there.is_some_and(|there| kept.contains(&(there, *id))) => self.forget.push(thing.clone()),
                Some(found) => self.remove.push(Action::SetDiskLimit {
                    path: path.clone(),
                    id: *id,
                    file_system: file_system.clone(),
                    from: Some(*found),
                    to: None,
                }),
                // What cannot be looked at now may be limited all the same.
                None if matches!(facts.paths.get(path), Some(PathFact::Unknown { .. })) => {}
                None => match facts.unlimitable.get(path) {
                    None => self.forget.push(thing.clone()),
                    // To set it anew is refused.
                    Some(_) if wanted.is_some_and(|wanted| wanted.id == *id) => {}
                    Some(why) => {
                        self.notes.push(format!("the disk limit of {} is left: {why}", path.display()));
                    }
                },
            }
        }
    }

    pub(super) fn disk_limit(&mut self, path: &Path, limit: Option<DiskLimit>) {
        let Some(DiskLimit { id, mib }) = limit else { return };
        if let Some(why) = self.facts.unlimitable.get(path) {
            self.unlimitable.entry(why.clone()).or_insert_with(|| path.to_path_buf());
            return;
        }
        let there = self.facts.file_systems.get(path);
        let claim = |file_system| Thing::DiskLimit { path: path.to_path_buf(), id, file_system };
        // As an older node-format wrote it.
        let unnamed = self.claims.has(&claim(None));
        let ours = unnamed
            || self.claims.has(&claim(there.cloned()))
            || there.is_some_and(|there| self.limits_made.contains(&(there.as_str(), id)));
        let found = self.facts.disk_limits.get(path).copied();
        if found.is_some() && !ours {
            let what = format!("project {id} has a limit on the file system of {}", path.display());
            let fix = "take it away, or choose another `first_uid`: a partition's project has the number of its user";
            return self.foreign(what, "node-format did not set it", fix);
        }
        if found != Some(mib) || self.facts.uncounted.contains(path) {
            if let Some(another) = self.facts.projects.get(path) {
                self.notes.push(format!(
                    "{} is of project {another}: with all that is in it it becomes one of project {id}, and what limits {another} \
                     holds it no more",
                    path.display()
                ));
            }
            let file_system = there.filter(|_| !unnamed).cloned();
            self.limits.push(Action::SetDiskLimit {
                path: path.to_path_buf(),
                id,
                file_system,
                from: found,
                to: Some(mib),
            });
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

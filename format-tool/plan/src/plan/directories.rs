//! Directories wanted × found. Those on the way to the partitions may exist already and are then left as they are; those
//! of the partitions must be our own. What is in a partition's directory is its user's, who may change it at any moment:
//! it is made with it and not looked at again.

mod hands;

use super::{Contents, Planner};
use crate::action::{Action, Directory, UNFINISHED};
use crate::facts::{Inner, Owner, PathFact};
use crate::layout::{DiskLimit, WantedDirectory};
use crate::thing::Thing;
use plat_model::problem::{Problem, codes};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

impl Planner<'_> {
    pub(super) fn directories(&mut self) {
        self.refuse_lost_roots();
        self.drop_directories();
        self.forget_begun();
        let layout = self.layout;
        for (path, wanted) in &layout.directories {
            self.directory(path, wanted);
        }
        self.drop_disk_limits();
        self.refuse_unlimitable();
        let limits = std::mem::take(&mut self.limits);
        self.add.extend(limits);
    }

    /// Where a formatted machine's partitions are all gone at once, what they were on is not mounted: made again beside it
    /// they would be empty, and the machine would start with them.
    fn refuse_lost_roots(&mut self) {
        let node_file = self.layout.node_file.as_ref().map(|(path, _)| path);
        if !node_file.is_some_and(|path| self.facts.files.contains_key(path)) {
            return; // It was never formatted to the end.
        }
        let mut roots: BTreeMap<&Path, bool> = BTreeMap::new();
        for thing in self.claims.iter() {
            let Thing::PartitionDirectory { path } = thing else { continue };
            if let Some(root) = path.parent().filter(|_| self.layout.directories.contains_key(path)) {
                *roots.entry(root).or_default() |= self.facts.paths.contains_key(path);
            }
        }
        for (root, _) in roots.into_iter().filter(|(_, some)| !some) {
            self.problems.push(
                Problem::new(codes::STILL_USED, format!("every partition in {} is gone", root.display()))
                    .because("the record says they were made, so what they are on is probably not mounted")
                    .fix("mount it; if they are lost for good, run `node-format reset`, then `apply`"),
            );
        }
    }

    /// The topmost directory of ours on the way to a path, or at it, that is none any more, or not there.
    pub(super) fn lost_with<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        let ours = |at: &Path| {
            let path = at.to_path_buf();
            let things = [Thing::Directory { path: path.clone() }, Thing::PartitionDirectory { path }];
            things.iter().any(|thing| self.claims.has(thing)) && !self.layout.directories.contains_key(at)
        };
        let is_lost = |at: &Path| matches!(self.facts.paths.get(at), None | Some(PathFact::Other { .. }));
        path.ancestors().filter(|at| ours(at) && is_lost(at)).last()
    }

    /// Names what is not where it was made, with how much there was in it, and leaves what something else lies in by now.
    fn leave(&mut self, path: &Path, things: usize) {
        let shown = path.display();
        let with = match things - 1 {
            0 => String::new(),
            1 => ", with the directory in it".into(),
            more => format!(", with the {more} directories in it"),
        };
        let note = match self.facts.paths.get(path) {
            Some(PathFact::Other { kind }) => {
                self.keep_above(path);
                format!("{shown} is left{with}: it is {kind} by now, no directory of node-format's")
            }
            _ => format!("{shown} is not there: if it is on a disk that is not mounted, it stays{with}"),
        };
        self.notes.push(note);
    }

    fn drop_directories(&mut self) {
        // By the topmost directory that is not there, how many are not.
        let mut left: BTreeMap<&Path, usize> = BTreeMap::new();
        for thing in self.claims.iter() {
            let (Thing::Directory { path } | Thing::PartitionDirectory { path }) = thing else { continue };
            let partition = matches!(thing, Thing::PartitionDirectory { .. });
            if partition
                && path.parent().is_some_and(|above| self.claims.has(&Thing::PartitionDirectory { path: above.into() }))
            {
                self.forget.push(thing.clone()); // Part of what belongs to the partition.
                continue;
            }
            match self.facts.paths.get(path) {
                None | Some(PathFact::Other { .. }) => {
                    if !self.layout.directories.contains_key(path) {
                        *left.entry(self.lost_with(path).unwrap_or(path)).or_default() += 1;
                    }
                    self.forget.push(thing.clone());
                }
                Some(PathFact::Unknown { .. }) if self.layout.directories.contains_key(path) => {} // See `hidden`.
                Some(PathFact::Unknown { why }) => self.unknown_going(path, why, partition),
                Some(PathFact::Directory { .. }) if self.layout.directories.contains_key(path) => {}
                Some(PathFact::Directory { owner, mode, stranger, inside, .. }) => {
                    let directory = Directory {
                        path: path.clone(),
                        owner: *owner,
                        mode: *mode,
                        partition,
                        inside: if partition { inside.clone() } else { BTreeMap::new() },
                        limited: self.facts.disk_limits.contains_key(path),
                        half_made: partition && self.is_half_made(path),
                    };
                    // An empty directory beside the partitions is somebody's; one in a partition is nothing.
                    let mut inner = inside.iter();
                    let beside = inner.find(|(_, inner)| !self.is_the_partitions(&directory, **inner));
                    let beside = beside.map(|(name, _)| name);
                    self.drop_directory(thing, directory, stranger.as_ref().or(beside).map(String::as_str));
                }
            }
        }
        for (path, things) in left {
            self.leave(path, things);
        }
    }

    /// Whether an empty directory in one that goes is its partition's. In one that root keeps from its user only what is his by
    /// number is; in a half-made one, unless it has been given back to its user by now, all are.
    fn is_the_partitions(&self, directory: &Directory, inner: Inner) -> bool {
        let Directory { path, owner, partition, half_made, .. } = directory;
        let is_roots = owner.uid == self.facts.caller.uid;
        let user = self.user_of(path).filter(|_| is_roots);
        *partition && ((*half_made && is_roots) || inner.owner.uid == user.unwrap_or(owner.uid))
    }

    /// Whether a run was at work on a partition's directory and did not come to its end: it is marked, or an older record says so
    /// of what looks like it.
    fn is_half_made(&self, path: &Path) -> bool {
        let Some(PathFact::Directory { owner, mode, half_made, .. }) = self.facts.paths.get(path) else { return false };
        let looks_so = owner.uid == self.facts.caller.uid && is_unfinished(*mode);
        *half_made || (looks_so && self.claims.has(&Thing::BegunDirectory { path: path.into() }))
    }

    /// What an older record says of half-made ones: by the end of the run they are whole, or gone.
    fn forget_begun(&mut self) {
        let is_over = |thing: &&Thing| match thing {
            Thing::BegunDirectory { path } => !matches!(self.facts.paths.get(path), Some(PathFact::Unknown { .. })),
            _ => false,
        };
        self.forget.extend(self.claims.iter().filter(is_over).cloned());
    }

    fn drop_directory(&mut self, thing: &Thing, directory: Directory, stranger: Option<&str>) {
        if directory.partition && self.is_a_third_ones(directory.owner.uid, None) {
            return self.refuse_a_third_ones(&directory.path, directory.owner, None);
        }
        let shown = directory.path.display().to_string();
        if let Some(who) = self.mounted(&directory, stranger) {
            let (why, fix) = match who.as_str() {
                "" => (
                    "something is mounted there or in it".into(),
                    format!("find it (`findmnt -R {shown}`, or in /proc/self/mountinfo) and `umount` it"),
                ),
                other => (
                    format!("something is mounted there or in it in the mount namespace of {other}"),
                    "stop that, or `umount` it there (`nsenter --mount --target PID`)".into(),
                ),
            };
            return self.problems.push(
                Problem::new(codes::STILL_USED, format!("{shown} cannot be removed"))
                    .because(match directory.partition {
                        true => format!("{why}, and what is in that is not the partition's"),
                        false => format!("{why}, and what is in that is not node-format's"),
                    })
                    .fix(match directory.partition {
                        true => format!("{fix}, or keep the partition"),
                        false => fix,
                    }),
            );
        }
        match (stranger, directory.partition, self.consent.contents) {
            (_, true, Contents::Erase) => self.remove.push(Action::EraseDirectory(directory)),
            (None, ..) => self.remove.push(Action::RemoveDirectory(directory)),
            (Some(name), false, _) => {
                self.notes.push(format!("{shown} is left: it holds `{name}`, which node-format did not make"));
                self.forget.push(thing.clone());
                self.keep_above(&directory.path);
            }
            (Some(name), true, Contents::Keep) => {
                let Directory { path, owner, mode, .. } = &directory;
                let looks_half_made = owner.uid == self.facts.caller.uid && is_unfinished(*mode);
                let older = match looks_half_made && !self.is_half_made(path) {
                    true => format!("{}; else ", clear_away(path)),
                    false => String::new(),
                };
                self.problems.push(
                    Problem::new(codes::STILL_USED, format!("{shown} cannot be removed"))
                        .because(format!("it holds `{name}`"))
                        .fix(format!("{older}destroy the partition's instance, or remove what is in it, or keep the partition; `reset --erase` loses what all of them hold")),
                );
            }
        }
    }

    /// Who sees something mounted on a directory or in it, if that keeps it from being removed. Of one that is left anyway, and
    /// of one with a directory in it of which that is said, nothing is said.
    fn mounted(&self, directory: &Directory, stranger: Option<&str>) -> Option<&String> {
        let who = self.facts.mounted.get(&directory.path)?;
        let deeper = |path: &PathBuf| path != &directory.path && path.starts_with(&directory.path);
        let is_said = stranger.is_some() || self.facts.mounted.keys().any(deeper);
        (directory.partition || !is_said).then_some(who)
    }

    /// A directory that stays keeps those above it.
    pub(super) fn keep_above(&mut self, path: &Path) {
        let forget = &mut self.forget;
        self.remove.retain(|action| match action {
            Action::RemoveDirectory(above) if path.starts_with(&above.path) && !above.partition => {
                forget.extend(action.removes());
                false
            }
            _ => true,
        });
    }

    fn directory(&mut self, path: &Path, wanted: &WantedDirectory) {
        let owner = wanted.owner.unwrap_or(self.facts.caller);
        let partition = wanted.partition.clone();
        let limit = partition.as_ref().and_then(|partition| partition.limit);
        let is_partition = partition.is_some();
        let inside = partition.unwrap_or_default().inside;
        let directory = Directory {
            path: path.to_path_buf(),
            owner,
            mode: wanted.mode,
            partition: is_partition,
            limited: limit.is_some(),
            inside: inside.into_iter().map(|(name, mode)| (name, Inner { owner, mode })).collect(),
            half_made: false,
        };
        let (found, mode, stranger) = match self.facts.paths.get(path) {
            None => {
                self.add.push(Action::MakeDirectory(directory));
                return self.disk_limit(path, limit);
            }
            Some(PathFact::Unknown { why }) => return self.hidden(path, why),
            Some(PathFact::Other { kind }) => {
                let what = format!("{} is in the way", path.display());
                let fix = "give real directories in [paths], without symbolic links, or remove what is there";
                return self.foreign(what, format!("it is {kind}, not a directory"), fix);
            }
            Some(PathFact::Directory { owner, mode, stranger, .. }) => (*owner, *mode, stranger),
        };
        let ours = Action::MakeDirectory(directory.clone()).makes().is_some_and(|thing| self.claims.has(&thing));
        if ours && self.facts.mounted_on.contains(path) {
            match directory.partition {
                true => self.another_is_mounted(&directory, (found, mode), limit),
                false => self.check_shared(path, found, mode),
            }
        } else if ours {
            let (from, to) = ((found, mode), (owner, wanted.mode));
            if directory.partition && self.is_a_third_ones(found.uid, wanted.owner) {
                self.refuse_a_third_ones(path, found, wanted.owner);
            } else if directory.partition
                && self.is_half_made(path)
                && !self.changes_hands(path, found, wanted.owner)
                && !self.changes_group(path, found, wanted.owner)
            {
                if let Some(left) = stranger {
                    let shown = path.display();
                    self.notes.push(format!(
                        "{shown} was not emptied to the end: it still holds `{left}`, which stays in it"
                    ));
                }
                self.add.push(Action::FinishDirectory(directory));
            } else if directory.partition && self.changes_hands(path, found, wanted.owner) {
                self.refuse_another_owner(path, wanted.owner);
            } else if directory.partition && self.changes_group(path, found, wanted.owner) {
                self.refuse_another_group(path, found, wanted.owner);
            } else if directory.partition && is_locked(from, owner) {
                let of_a_killed_run = match is_unfinished(mode) {
                    true => format!("; {}, and the next `apply` makes it anew", clear_away(path)),
                    false => String::new(),
                };
                self.notes.push(format!(
                    "{shown} stays locked: it is root's, mode {mode:04o}; `chown {}:{} {shown}` gives it back to its \
                     user{of_a_killed_run}",
                    owner.uid,
                    owner.gid,
                    shown = path.display()
                ));
            } else if from != to {
                self.add.push(Action::SetDirectory { path: path.to_path_buf(), from, to });
            }
            self.disk_limit(path, limit);
        } else if wanted.partition.is_some() {
            let what = format!("{} exists already", path.display());
            let fix = "choose another `root` or base name, or move it away";
            self.foreign(what, "node-format did not make it", fix);
        } else {
            self.check_shared(path, found, mode);
        }
    }

    /// A directory that was there before: safe to build beneath, and open for the partitions' users to pass.
    fn check_shared(&mut self, path: &Path, owner: Owner, mode: u32) {
        if !self.layout.passable {
            return; // Without users of their own there is nobody to keep out, or to let in.
        }
        let writable = mode & 0o022 != 0 && mode & 0o1000 == 0;
        if owner.uid != 0 || writable {
            let what = format!("{} cannot be trusted to hold partitions", path.display());
            let why =
                format!("it belongs to uid {} and has mode {mode:04o}; others could replace what is in it", owner.uid);
            self.foreign(what, why, "choose a directory that only root can write");
        } else if mode & 0o001 == 0 {
            let what = format!("{} lets no other user pass", path.display());
            let why = format!("it has mode {mode:04o}, so partitions' users would not reach their own directories");
            self.foreign(what, why, "choose another directory, or give it `chmod o+x`");
        }
    }

    /// Whether a partition's directory belongs to somebody who can have it neither by node-format nor by the partition's user
    /// (who may give it to numbers of his containers): another disk may be mounted above it.
    fn is_a_third_ones(&self, uid: u32, user: Option<Owner>) -> bool {
        let has_users = user.is_some() || !self.made_users.is_empty();
        let is_known = [0, self.facts.caller.uid].contains(&uid)
            || user.is_some_and(|user| user.uid == uid)
            || self.made_users.values().any(|made| *made == uid);
        let of_containers =
            || self.facts.subordinate_uids.iter().any(|range| range.within([uid].into_iter()).is_some());
        has_users && !is_known && !of_containers()
    }

    fn refuse_a_third_ones(&mut self, path: &Path, found: Owner, user: Option<Owner>) {
        let shown = path.display();
        let back = user.map_or("chown USER:GROUP".into(), |user| format!("chown {}:{}", user.uid, user.gid));
        self.problems.push(
            Problem::new(codes::STILL_USED, format!("{shown} is perhaps not the partition's"))
                .because(format!(
                    "it belongs to uid {}, who is no partition's user: another disk may be mounted above it than the one that it \
                     was made on",
                    found.uid
                ))
                .fix(format!("mount the right one (`findmnt -T {shown}` shows which it is); if it is the partition's, `{back} {shown}`")),
        );
    }

    /// What somebody mounted on a partition's directory is his: as it must be, or left as it is.
    fn another_is_mounted(&mut self, directory: &Directory, found: (Owner, u32), limit: Option<DiskLimit>) {
        let Directory { path, owner, mode, .. } = directory;
        let shown = path.display();
        if found != (*owner, *mode) {
            let (Owner { uid, gid }, mode_now) = found;
            self.notes.push(format!(
                "what is mounted on {shown} is left as it is: uid {uid}, gid {gid}, mode {mode_now:04o}; if it is the partition's: \
                 `chown {}:{} {shown}`, `chmod {mode:04o} {shown}`",
                owner.uid, owner.gid
            ));
        }
        let limited = |limit: DiskLimit| self.facts.disk_limits.get(path) == Some(&limit.mib);
        if limit.is_some_and(|limit| !limited(limit) || self.facts.uncounted.contains(path)) {
            self.notes.push(format!("what is mounted on {shown} is given no disk limit"));
        }
    }

    /// What is at a directory that is to stay cannot be seen. A partition's own user can bring that about, by what he
    /// mounts on his directory: it keeps nothing else from being done.
    fn hidden(&mut self, path: &Path, why: &str) {
        let his = self.claims.has(&Thing::PartitionDirectory { path: path.into() });
        if !(his && self.facts.privileges.root) {
            return self.unknown(path, why);
        }
        let shown = path.display();
        self.notes.push(format!(
            "{shown} cannot be looked at ({why}); if its user mounted something there: `umount {shown}`"
        ));
    }

    /// One that is to go.
    fn unknown_going(&mut self, path: &Path, why: &str, partition: bool) {
        if !(partition && self.facts.privileges.root) {
            return self.unknown(path, why);
        }
        let shown = path.display();
        self.problems.push(
            Problem::new(codes::STILL_USED, format!("{shown} cannot be removed"))
                .because(format!("it cannot be looked at: {why}"))
                .fix(format!("if its user mounted something there: `umount {shown}`")),
        );
    }

    fn unknown(&mut self, path: &Path, why: &str) {
        self.problems.push(
            Problem::new(codes::NEEDS_ROOT, format!("{} cannot be looked at", path.display()))
                .because(why)
                .fix("run node-format as root"),
        );
    }
}

/// What makes an end of a directory that looks half-made, of which the record does not say so: older versions did not note it
/// there, and a user who made his directory sticky before root locked it leaves the same.
fn clear_away(path: &Path) -> String {
    let shown = path.display();
    format!(
        "if nobody locked it, an older node-format was killed while it made it: `find {shown} -type d -empty -delete`"
    )
}

/// The mode of one that is half made: where the file system has it so, with its folder's set-group-id bit.
fn is_unfinished(mode: u32) -> bool {
    mode & !0o2000 == UNFINISHED
}

/// Whether root took a partition's directory from its user and lets nobody else in: only root can, and means it.
fn is_locked((found, mode): (Owner, u32), user: Owner) -> bool {
    found.uid == 0 && user.uid != 0 && mode & 0o077 == 0
}

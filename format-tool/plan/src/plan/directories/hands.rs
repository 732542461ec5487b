//! Whose a partition's directory is, and whether it would become another's.

use super::Planner;
use crate::facts::{Owner, PathFact};
use plat_model::problem::{Problem, codes};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

impl Planner<'_> {
    /// The uid that a partition's user was made with.
    pub(super) fn user_of(&self, path: &Path) -> Option<u32> {
        self.users_who_may_have(path).first().copied()
    }

    /// One, unless it is nobody's now and several are called alike or have one home.
    fn users_who_may_have(&self, path: &Path) -> Vec<u32> {
        self.who_may_have(path, &self.users_of, |owner| owner.uid)
    }

    /// The gid that a partition's group was made with.
    fn group_of(&self, path: &Path) -> Option<u32> {
        self.groups_that_may_have(path).first().copied()
    }

    /// As [`Self::users_who_may_have`].
    fn groups_that_may_have(&self, path: &Path) -> Vec<u32> {
        self.who_may_have(path, &self.groups_of, |owner| owner.gid)
    }

    fn who_may_have(&self, path: &Path, all: &BTreeMap<&OsStr, Vec<u32>>, number: fn(Owner) -> u32) -> Vec<u32> {
        let made = path.file_name().and_then(|name| all.get(name)).cloned().unwrap_or_default();
        let has_it = self.owner_of(path).map(number).filter(|now| made.contains(now));
        has_it.map_or(made, |now| vec![now])
    }

    /// Whose it is now.
    fn owner_of(&self, path: &Path) -> Option<Owner> {
        if let PathFact::Directory { owner, .. } = self.facts.paths.get(path)? { Some(*owner) } else { None }
    }

    /// Whether partitions begin to have users of their own, or cease to, or this one is to have one of another number: what is
    /// in it stays its former owner's. Root may have taken one from its user, who is known.
    pub(super) fn changes_hands(&self, path: &Path, found: Owner, user: Option<Owner>) -> bool {
        let made = self.users_who_may_have(path);
        let Some(user) = user else { return !made.is_empty() };
        let is_anothers = |made: &u32| *made != user.uid && !self.is_renumbered(*made, user.uid);
        found.uid != user.uid && (made.is_empty() || made.iter().any(is_anothers))
    }

    /// Whether a partition is to have a group of another number: what is in it stays the former one's, which another
    /// partition may have by then.
    pub(super) fn changes_group(&self, path: &Path, found: Owner, user: Option<Owner>) -> bool {
        let Some(user) = user else { return false };
        let made = self.groups_that_may_have(path);
        if made.is_empty() {
            // Nobody is left who would know.
            return self.user_of(path).is_none() && found.gid != user.gid;
        }
        let keeps_its_name = |made: u32| {
            let mut groups = self.layout.groups.iter().filter(|(_, gid)| **gid == user.gid);
            groups.any(|(name, _)| self.facts.groups.get(name).is_some_and(|found| found.gid == made))
        };
        found.gid != user.gid && made.iter().any(|made| *made != user.gid && !keeps_its_name(*made))
    }

    /// Whether a user keeps his name and is to have another number, which is refused for him.
    fn is_renumbered(&self, from: u32, to: u32) -> bool {
        let has = |name: &String| self.facts.users.get(name).is_some_and(|found| found.uid == from);
        self.layout.users.iter().any(|(name, wanted)| wanted.uid == to && has(name))
    }

    pub(super) fn refuse_another_group(&mut self, path: &Path, found: Owner, user: Option<Owner>) {
        let Some(user) = user else { return };
        let made = self.group_of(path).unwrap_or(found.gid);
        let problem = Problem::new(codes::STILL_USED, format!("{} keeps its group {made}", path.display()));
        let why = format!("{} is to have it now, but what is in it belongs to {made}", user.gid);
        let fix = "put the old `first_gid` back, or run `node-format reset` first";
        self.problems.push(problem.because(why).fix(fix).at("partitions.first_gid"));
    }

    pub(super) fn refuse_another_owner(&mut self, path: &Path, user: Option<Owner>) {
        if let Some((made, user)) = self.user_of(path).zip(user) {
            let problem = Problem::new(codes::STILL_USED, format!("{} keeps its owner {made}", path.display()));
            let why = format!("{} is to have it now, but what is in it belongs to {made}", user.uid);
            let fix = "put the old `first_uid` back, or run `node-format reset` first";
            return self.problems.push(problem.because(why).fix(fix).at("partitions.first_uid"));
        }
        let (why, fix) = match user {
            Some(_) => ("it was made without a user of its own, and what is in it would not become his", "false"),
            None => ("it was made for a user of its own, and what is in it would stay his number's", "true"),
        };
        self.problems.push(
            Problem::new(codes::STILL_USED, format!("{} keeps its owner", path.display()))
                .because(why)
                .fix(format!("put `users = {fix}` back, or run `node-format reset` first"))
                .at("partitions.users"),
        );
    }
}

//! Users and groups wanted × found.

use super::{Planner, made_user};
use crate::action::{Action, User};
use crate::facts::{HostFacts, Left, Subordinate};
use crate::layout::WantedUser;
use crate::thing::Thing;
use crate::undo::listed;
use plat_model::problem::{Problem, Problems, codes};
use std::collections::{BTreeMap, BTreeSet};

/// By user, the groups it is a member of.
pub(super) fn memberships(facts: &HostFacts) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut of: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (name, group) in &facts.groups {
        group.members.iter().for_each(|member| {
            of.entry(member).or_default().insert(name);
        });
    }
    of
}

/// By group, or whatever else has the name, all whom lists name.
fn lists(facts: &HostFacts) -> BTreeMap<&String, BTreeSet<&str>> {
    let of_groups = facts.groups.iter().map(|(name, group)| (name, group.members.iter().chain(&group.in_shadow)));
    let mut lists: BTreeMap<&String, BTreeSet<&str>> = BTreeMap::new();
    of_groups.for_each(|(name, names)| lists.entry(name).or_default().extend(names.map(String::as_str)));
    let others = facts.other_lists.iter();
    others.for_each(|(name, names)| lists.entry(name).or_default().extend(names.iter().map(String::as_str)));
    lists
}

/// Why a user that runs something cannot be removed: as itself, or in a user namespace as one of its subordinate uids.
fn running(name: &str, uid: u32, facts: &HostFacts) -> Option<Problem> {
    let is_its_own = |range: &&Subordinate| range.owner == name || range.owner.parse() == Ok(uid);
    let within = |range: &Subordinate| range.within(facts.busy_uids.iter().copied()).map(|(first, _)| first);
    let why = match facts.busy_uids.contains(&uid) {
        true => format!("processes of uid {uid} are running"),
        false => {
            let found = facts.subordinate_uids.iter().filter(is_its_own).find_map(within)?;
            format!("processes of uid {found} are running, which /etc/subuid gives to its containers")
        }
    };
    let problem = Problem::new(codes::STILL_USED, format!("user {name} cannot be removed")).because(why);
    Some(problem.fix("stop what runs in the partition (destroy its instance), then try again"))
}

/// Users that these actions remove for good and that run something, and groups that became another user's first one: looked at
/// once more when they are about to go.
pub fn still_used(actions: &[Action], facts: &HostFacts) -> Problems {
    let comes_back = |uid: u32| actions.iter().any(|action| matches!(action, Action::AddUser(user) if user.uid == uid));
    let is_seen_to = |name: &str| {
        actions.iter().any(|action| match action {
            Action::RemoveUser(user) | Action::AddUser(user) | Action::SetUser { to: user, .. } => user.name == name,
            _ => false,
        })
    };
    let first_of = |gid: u32| facts.users.iter().find(|(name, user)| user.gid == gid && !is_seen_to(name));
    let gone = actions.iter().filter_map(|action| match action {
        Action::RemoveUser(user) if !comes_back(user.uid) => running(&user.name, user.uid, facts),
        Action::RemoveGroup { name, gid, .. } => {
            let (user, _) = first_of(*gid)?;
            let problem = Problem::new(codes::STILL_USED, format!("group {name} cannot be removed"));
            let problem = problem.because(format!("by now it is the first group of user {user}"));
            Some(problem.fix("see who changes users at the same time, then run it again: it is left then"))
        }
        _ => None,
    });
    let mut problems = Problems::default();
    gone.for_each(|problem| problems.push(problem));
    problems
}

/// Who has each number: more than one name may.
type Holders<'a> = BTreeMap<u32, Vec<&'a str>>;

fn by_number<'a>(all: impl Iterator<Item = (u32, &'a str)>) -> Holders<'a> {
    let mut holders = Holders::new();
    all.for_each(|(number, name)| holders.entry(number).or_default().push(name));
    holders
}

/// What is left of an account that somebody gave another number.
fn renumbered(kind: &str, name: &str, (number, found): (&str, u32), made: u32) -> String {
    format!("{kind} {name} is left: it has {number} {found} by now, and was made with {made}")
}

/// Whose further line has a number, if one has.
fn further_line(file: &str, others: &BTreeMap<String, BTreeSet<u32>>, number: u32) -> Option<String> {
    let (name, _) = others.iter().find(|(_, numbers)| numbers.contains(&number))?;
    Some(format!("a further line of {name} in /etc/{file} has it"))
}

const RESERVE: &str = "choose other names or numbers in format.toml, or remove what is there";

impl Planner<'_> {
    pub(super) fn accounts(&mut self) {
        let facts = self.facts;
        let by_gid = by_number(facts.groups.iter().map(|(name, group)| (group.gid, name.as_str())));
        let by_uid = by_number(facts.users.iter().map(|(name, user)| (user.uid, name.as_str())));
        let others = facts.users.iter().filter(|(name, user)| !self.made_user(name, user.uid));
        let first_groups = by_number(others.map(|(name, user)| (user.gid, name.as_str())));
        self.drop_groups(&by_gid, &first_groups);
        self.drop_users(&by_uid);
        self.say_who_leaves_lists();
        self.say_who_is_taken_out();
        for (name, gid) in &self.layout.groups {
            self.group(name, *gid, &by_gid, &first_groups);
        }
        self.refuse_missing_groups();
        let mut changes = Vec::new();
        for (name, user) in &self.layout.users {
            changes.extend(self.user(name, user, &by_uid));
        }
        self.add.extend(changes);
        self.refuse_subordinate();
        self.refuse_listed();
        self.refuse_left();
        self.say_what_stays();
    }

    /// A user's files are looked for where he was given a place; of all others that is said.
    fn say_what_stays(&mut self) {
        let goes = self.remove.iter().filter_map(|action| match action {
            Action::RemoveUser(user) => Some(user),
            _ => None,
        });
        // Who goes by one name and comes by another has the same place.
        let comes = |gone: &User| {
            let is_same = |user: &User| (user.uid, &user.home) == (gone.uid, &gone.home);
            self.add.iter().any(|action| matches!(action, Action::AddUser(user) if is_same(user)))
        };
        let gone: BTreeSet<u32> = goes.filter(|user| !comes(user)).map(|user| user.uid).collect();
        let (Some(first), Some(last)) = (gone.first(), gone.last()) else { return };
        let whose = if first == last { format!("uid {first}") } else { format!("uids {first} to {last}") };
        self.notes.push(format!(
            "what {whose} left elsewhere (/tmp, /var/tmp, /dev/shm, crontabs, at jobs) stays, and is that of whoever gets the number next: `find / -xdev -uid {first}` shows it"
        ));
    }

    fn made_user(&self, name: &str, uid: u32) -> bool {
        self.claims.has(&Thing::User { name: name.into(), uid })
    }

    /// Names of new users that a group lists already: they would be in it at once. Said once for a group.
    fn refuse_listed(&mut self) {
        let facts = self.facts;
        for (group, names) in lists(facts) {
            let is_listed = |user: &User| {
                // A run that was killed may have written this much.
                let begun = user.groups.contains(group) && self.made_user(&user.name, user.uid);
                !begun && names.contains(user.name.as_str())
            };
            let listed: Vec<&str> = self
                .add
                .iter()
                .filter_map(|action| match action {
                    // One that goes by one name and comes by another takes nothing along.
                    Action::AddUser(user) if !facts.users.contains_key(&user.name) && is_listed(user) => {
                        Some(user.name.as_str())
                    }
                    _ => None,
                })
                .collect();
            let Some(first) = listed.first() else { continue };
            let more = if listed.len() > 1 { format!(" and {} more", listed.len() - 1) } else { String::new() };
            self.foreign(
                format!("group {group} lists {first}{more} already"),
                "there is no such user, and one that is made now would be in it",
                "take the name out of /etc/group and /etc/gshadow, or choose other names in format.toml",
            );
        }
    }

    /// Lines that new accounts would take over. Said once for each file.
    fn refuse_left(&mut self) {
        // What a run of ours that was killed wrote of them is taken away first.
        let begun: BTreeSet<(&str, &str)> = self
            .claims
            .iter()
            .filter_map(|thing| match thing {
                Thing::User { name, .. } => Some(("shadow", name.as_str())),
                Thing::Group { name, .. } => Some(("gshadow", name.as_str())),
                _ => None,
            })
            .collect();
        let facts = self.facts;
        let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for action in &self.add {
            let (file, left, name) = match action {
                Action::AddUser(user) => ("shadow", &facts.left_in_shadow, user.name.as_str()),
                Action::AddGroup { name, .. } => ("gshadow", &facts.left_in_gshadow, name.as_str()),
                _ => continue,
            };
            if left.get(name).is_some_and(|left| *left == Left::Old || !begun.contains(&(file, name))) {
                found.entry(file).or_default().push(name);
            }
        }
        let found: Vec<(&str, String)> = found
            .into_iter()
            .map(|(file, names)| match names.as_slice() {
                [name] => (file, (*name).to_owned()),
                names => (file, format!("{} and {} more", names[0], names.len() - 1)),
            })
            .collect();
        for (file, names) in found {
            let (kind, what, program) = match file {
                "shadow" => ("user", "password", "vipw -s"),
                _ => ("group", "password, administrators and members", "vigr -s"),
            };
            self.foreign(
                format!("/etc/{file} has a line of {names} already"),
                format!("there is no such {kind}, and one that is made now would have the {what} in it"),
                &format!("take the line out (`{program}`), or choose other names in format.toml"),
            );
        }
    }

    /// Numbers of new accounts that somebody may already give to what he runs in user namespaces. Said once for a range.
    fn refuse_subordinate(&mut self) {
        let facts = self.facts;
        let users = self.add.iter().filter_map(|action| match action {
            Action::AddUser(user) if !facts.users.contains_key(&user.name) => Some(user.uid),
            _ => None,
        });
        let groups = self.add.iter().filter_map(|action| match action {
            Action::AddGroup { gid, .. } => Some(*gid),
            _ => None,
        });
        let (users, groups): (Vec<u32>, Vec<u32>) = (users.collect(), groups.collect());
        let kinds = [("uid", &facts.subordinate_uids, users), ("gid", &facts.subordinate_gids, groups)];
        for (kind, ranges, numbers) in kinds {
            for range in ranges {
                let Some((first, last)) = range.within(numbers.iter().copied()) else { continue };
                let numbers =
                    if first == last { format!("{kind} {first}") } else { format!("{kind}s {first} to {last}") };
                let end = u64::from(range.first) + u64::from(range.count) - 1;
                let why = format!("/etc/sub{kind} gives {} to {end} to that user's containers", range.first);
                self.foreign(format!("{numbers} of partitions may be used by {}", range.owner), why, RESERVE);
            }
        }
    }

    fn drop_groups(&mut self, by_gid: &Holders, first_groups: &Holders) {
        for thing in self.claims.iter() {
            let Thing::Group { name, gid } = thing else { continue };
            match self.facts.groups.get(name) {
                Some(found) if found.gid == *gid => {
                    if self.layout.groups.get(name) == Some(gid) {
                        continue;
                    }
                    if let Some(user) = first_groups.get(gid).into_iter().flatten().next() {
                        self.notes.push(format!("group {name} is left: it is the first group of user {user}"));
                    } else {
                        let members = found.members.iter().filter(|member| !self.leaves(member)).cloned().collect();
                        self.remove.push(Action::RemoveGroup { name: name.clone(), gid: *gid, members });
                        continue;
                    }
                }
                Some(found) => self.notes.push(renumbered("group", name, ("gid", found.gid), *gid)),
                None => {
                    let mut holders = by_gid.get(gid).into_iter().flatten();
                    let is_ours = |other: &str| self.claims.has(&Thing::Group { name: other.into(), gid: *gid });
                    let renamed = holders.find(|other| !is_ours(other));
                    self.notes.extend(
                        renamed.map(|other| {
                            format!("group {other} is left: it has gid {gid}, which {name} was made with")
                        }),
                    );
                }
            }
            self.forget.push(thing.clone());
        }
    }

    /// Whether a user of ours goes.
    fn leaves(&self, user: &str) -> bool {
        self.made_users.contains_key(user) && !self.layout.users.contains_key(user)
    }

    /// Names of users that are gone, which groups still list. What a run that was killed wrote of users looks the same, so they are
    /// taken out with what it left.
    fn say_who_is_taken_out(&mut self) {
        let facts = self.facts;
        let is_gone = |thing: &&Thing| match thing {
            Thing::User { name, .. } => {
                !facts.users.contains_key(name) && facts.left_in_shadow.get(name) != Some(&Left::Old)
            }
            _ => false,
        };
        let gone = self.claims.iter().filter(is_gone).filter_map(made_user);
        let gone: BTreeSet<&str> = gone.map(|(name, _)| name).collect();
        for (group, all) in lists(facts) {
            let comes = |name: &&str| self.layout.users.get(*name).is_some_and(|user| user.groups.contains(group));
            let names: Vec<&str> = gone.intersection(&all).copied().filter(|name| !comes(name)).collect();
            if !names.is_empty() {
                self.cleared.push(format!("of group {group}, names that nobody has any more: {}", listed(&names)));
            }
        }
        self.notes.extend(self.cleared.iter().map(|what| format!("taken out first, and not put back: {what}")));
    }

    fn drop_users(&mut self, by_uid: &Holders) {
        for thing in self.claims.iter() {
            let Thing::User { name, uid } = thing else { continue };
            let there = self.facts.users.get(name);
            let Some(found) = there.filter(|found| found.uid == *uid) else {
                let renamed = by_uid.get(uid).into_iter().flatten().next().filter(|other| !self.made_user(other, *uid));
                self.notes.extend(match (there, renamed) {
                    (Some(found), _) => Some(renumbered("user", name, ("uid", found.uid), *uid)),
                    (None, Some(other)) => {
                        Some(format!("user {other} is left: it has uid {uid}, which {name} was made with"))
                    }
                    (None, None) => None,
                });
                self.forget.push(thing.clone());
                continue;
            };
            if self.layout.users.contains_key(name) {
                continue;
            }
            if let Some(problem) = running(name, *uid, self.facts) {
                self.problems.push(problem);
            }
            let user = User {
                name: name.clone(),
                uid: *uid,
                gid: found.gid,
                home: found.home.clone(),
                groups: self.memberships(name),
            };
            self.remove.push(Action::RemoveUser(user));
        }
    }

    /// Users that go, from lists that their own lines do not say: those of gshadow(5), and of lines that are no group's. Said
    /// once for a group; one that goes itself takes its lists along.
    fn say_who_leaves_lists(&mut self) {
        let facts = self.facts;
        let users = || {
            self.remove
                .iter()
                .filter_map(|action| if let Action::RemoveUser(user) = action { Some(user) } else { None })
        };
        let goes = |group: &str| {
            self.remove.iter().any(|action| matches!(action, Action::RemoveGroup { name, .. } if name == group))
        };
        let mut said = Vec::new();
        for (group, all) in lists(facts).into_iter().filter(|(group, _)| !goes(group)) {
            let is_listed = |user: &&User| all.contains(user.name.as_str()) && !user.groups.contains(group);
            let names: Vec<&str> = users().filter(is_listed).map(|user| user.name.as_str()).collect();
            if !names.is_empty() {
                said.push(format!(
                    "users that go are taken out of the lists of {group} (in /etc/gshadow, or of no group) too: {}",
                    listed(&names)
                ));
            }
        }
        self.notes.extend(said);
    }

    /// The groups that a user is a member of, beside its own.
    fn memberships(&self, user: &str) -> BTreeSet<String> {
        self.memberships
            .get(user)
            .map(|groups| groups.iter().map(|group| (*group).to_owned()).collect())
            .unwrap_or_default()
    }

    fn group(&mut self, name: &str, gid: u32, by_gid: &Holders, first_groups: &Holders) {
        match self.facts.groups.get(name) {
            None => {
                if let Some(found) = self.facts.other_gids.get(name).and_then(BTreeSet::first) {
                    let why = format!("a line of it in /etc/group, with gid {found}, is no group's of four fields");
                    return self.foreign(format!("group {name} exists already"), why, RESERVE);
                }
            }
            Some(found) if !self.claims.has(&Thing::Group { name: name.into(), gid: found.gid }) => {
                let what = format!("group {name} exists already");
                return self.foreign(what, format!("it has gid {}; node-format did not make it", found.gid), RESERVE);
            }
            Some(found) if found.gid == gid => return,
            Some(found) => return self.refuse_renumbering("group", name, found.gid, gid),
        }
        let leaves = |other: &str| {
            let ours = self.claims.has(&Thing::Group { name: other.into(), gid });
            ours && !self.layout.groups.contains_key(other)
        };
        if let Some(other) = by_gid.get(&gid).into_iter().flatten().find(|other| !leaves(other)) {
            return self.foreign(format!("gid {gid} of {name} is taken"), format!("group {other} has it"), RESERVE);
        }
        if let Some(why) = further_line("group", &self.facts.other_gids, gid) {
            return self.foreign(format!("gid {gid} of {name} is taken"), why, RESERVE);
        }
        if let Some(user) = first_groups.get(&gid).into_iter().flatten().next() {
            let why = format!("it is the first group of user {user}");
            return self.foreign(format!("gid {gid} of {name} is taken"), why, RESERVE);
        }
        self.add.push(Action::AddGroup { name: name.into(), gid, members: BTreeSet::new() });
    }

    /// Each user joins the same groups: one that is missing is said once.
    fn refuse_missing_groups(&mut self) {
        let wanted: BTreeSet<&String> = self.layout.users.values().flat_map(|u| &u.groups).collect();
        for group in wanted {
            if !self.facts.groups.contains_key(group) {
                self.problems.push(
                    Problem::new(codes::BAD_CONFIG, format!("group {group} does not exist on this machine"))
                        .fix("make it, or take it out of `groups` in [partitions]")
                        .at("partitions.groups"),
                );
            }
        }
    }

    /// Returns what is to be changed of one that is there.
    fn user(&mut self, name: &str, wanted: &WantedUser, by_uid: &Holders) -> Option<Action> {
        let action = User {
            name: name.into(),
            uid: wanted.uid,
            gid: wanted.gid,
            home: wanted.home.clone(),
            groups: wanted.groups.clone(),
        };
        let Some(found) = self.facts.users.get(name) else {
            // A user of ours under a name that is not wanted any more makes room: its files go by the number.
            let leaves = |other: &str| {
                let ours = self.claims.has(&Thing::User { name: other.into(), uid: wanted.uid });
                ours && !self.layout.users.contains_key(other)
            };
            if let Some(other) = by_uid.get(&wanted.uid).into_iter().flatten().find(|other| !leaves(other)) {
                let what = format!("uid {} of {name} is taken", wanted.uid);
                self.foreign(what, format!("user {other} has it"), RESERVE);
            } else if let Some(why) = further_line("passwd", &self.facts.other_uids, wanted.uid) {
                self.foreign(format!("uid {} of {name} is taken", wanted.uid), why, RESERVE);
            } else if !self.made_user(name, wanted.uid)
                && !by_uid.contains_key(&wanted.uid)
                && self.facts.busy_uids.contains(&wanted.uid)
            {
                let what = format!("uid {} of {name} is in use", wanted.uid);
                let fix = format!("see `ps -U {0} -u {0}` and end them, or choose another `first_uid`", wanted.uid);
                self.foreign(what, "processes of it are running, though nobody has it".to_owned(), &fix);
            } else {
                self.add.push(Action::AddUser(action));
            }
            return None;
        };
        if let Some(made) = self.made_users.get(name).copied().filter(|made| *made != found.uid) {
            self.problems.push(
                Problem::new(codes::FOREIGN, format!("user {name} has uid {}", found.uid))
                    .because(format!("it was made with {made}, which its files belong to"))
                    .fix(format!("run `usermod -u {made} {name}`")),
            );
            return None;
        }
        if !self.claims.has(&Thing::User { name: name.into(), uid: found.uid }) {
            let what = format!("user {name} exists already");
            self.foreign(what, format!("it has uid {}; node-format did not make it", found.uid), RESERVE);
            return None;
        }
        if found.uid != wanted.uid {
            self.refuse_renumbering("user", name, found.uid, wanted.uid);
            return None;
        }
        let groups = self.memberships(name);
        let differs = found.gid != wanted.gid || found.home != wanted.home || groups != wanted.groups;
        let from = User { gid: found.gid, home: found.home.clone(), groups, ..action.clone() };
        differs.then_some(Action::SetUser { from, to: action })
    }

    fn refuse_renumbering(&mut self, kind: &str, name: &str, found: u32, wanted: u32) {
        self.problems.push(
            Problem::new(codes::STILL_USED, format!("{kind} {name} keeps its number {found}"))
                .because(format!("{wanted} is wanted now, but the partition's files belong to {found}"))
                .fix("put the old number back, or run `node-format reset` first"),
        );
    }
}

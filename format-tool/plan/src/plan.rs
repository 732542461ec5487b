//! The difference between a layout and a machine, as actions in an order that works; or every reason why there must be
//! none.
//!
//! Things are made in the order accounts, directories, packet filter, which links listen to routers, kernel settings, links,
//! addresses, namespaces, routes, uplink and the settings of links, files, and removed in the reverse; removals come
//! first. The node file is written last, so that the agent is never told of what is not there yet, except when partitions
//! only go: then first, so that it is never told of what is not there any more.

mod accounts;
mod addresses;
mod directories;
mod disk;
mod files;
mod links;
mod listening;
mod losses;
mod machine;
mod missing;
mod namespaces;
mod order;
mod routes;
mod scope;
mod uplink;

pub use accounts::still_used;
pub use losses::lowered_above;
pub use scope::scope;
pub use uplink::{giving_back, needs_it_up, rollback, rollback_scope, strangers};

use crate::action::{Action, Kind, Purpose};
use crate::facts::HostFacts;
use crate::layout::Layout;
use crate::thing::{Along, Claims, Thing};
use plat_model::problem::{Problem, Problems, codes};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::PathBuf;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// Entries of the record that name nothing of ours any more: gone, or replaced by somebody else's.
    pub forget: Vec<Thing>,
    /// Entries of the record that are to say what is known of a thing by now.
    pub known: Vec<Thing>,
    /// What is left as it is although one might expect otherwise, for people.
    pub notes: Vec<String>,
    /// Those of them that say what is not as it must be, and is left so: whoever is root in a partition's namespace may have
    /// brought it about, and may not keep anything else from being made.
    pub left: Vec<String>,
    /// Those of them that say what of somebody else's goes along with what goes: undoing the plan does not bring it back. Before
    /// them, what only undoing it changes.
    pub lost: Vec<String>,
    /// Those of them that say what of somebody else's is taken away before the first action, and so stays away.
    pub cleared: Vec<String>,
}

/// What is struck out of the record, and when.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Forgotten {
    pub first: Vec<Thing>,
    /// What an interface that is gone has left on the bridge is removed before: what another one brings there comes after.
    pub before_taking: Vec<Thing>,
    /// Once all is done: root's word, places that are left because they hold something else, and who is gone. A run that fails
    /// would lose the one, with the other what it made, and by the last whose the directories are.
    pub last: Vec<Thing>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }

    /// Whether the machine is as it must be. One that is not may have nothing that could be done.
    pub fn is_satisfied(&self) -> bool {
        self.actions.is_empty() && self.left.is_empty()
    }

    /// When what of [`Plan::forget`] is to be struck out.
    pub fn forgotten(&self) -> Forgotten {
        let made: BTreeSet<Thing> = self.actions.iter().filter_map(Action::makes).collect();
        let taken = self.actions.iter().find_map(Action::takes).map(|uplink| uplink.link.as_str());
        let mut forgotten = Forgotten::default();
        // Whose account is made again was ours all along, also if that is undone.
        let is_account = |thing: &Thing| matches!(thing, Thing::User { .. } | Thing::Group { .. });
        for thing in self.forget.iter().filter(|thing| !(is_account(thing) && made.contains(thing))) {
            let when = match (thing, taken) {
                (Thing::UplinkConfirmed { link }, Some(taken)) if link == taken => &mut forgotten.before_taking,
                (Thing::UplinkConfirmed { .. } | Thing::Guard { .. } | Thing::BegunDirectory { .. }, _)
                | (Thing::Uplink(_), None) => &mut forgotten.last,
                (Thing::Uplink(gone), Some(taken)) if gone.link != taken => &mut forgotten.before_taking,
                (Thing::User { .. } | Thing::Group { .. }, _) => &mut forgotten.last,
                (Thing::Directory { .. } | Thing::PartitionDirectory { .. } | Thing::File { .. }, _)
                    if !made.contains(thing) =>
                {
                    &mut forgotten.last
                }
                _ => &mut forgotten.first,
            };
            when.push(thing.clone());
        }
        forgotten
    }

    /// How much there is to do, in words.
    pub fn count(&self) -> String {
        crate::render::count(&self.actions)
    }
}

impl Plan {
    /// The links that partitions' users may open, and so let go at any moment: those that are there, and those to be.
    pub fn tenants_links(&self, facts: &HostFacts) -> BTreeSet<String> {
        let there = facts.links.iter().filter(|(_, link)| link.is_tenants()).map(|(name, _)| name);
        let to_be = self.actions.iter().filter_map(|action| match action {
            Action::AddLink { name, link } if link.is_tenants() => Some(name),
            _ => None,
        });
        there.chain(to_be).cloned().collect()
    }

    /// The first action, if there is one, that mends what no partition's user can bring about at any moment. What is on
    /// a link that its user let go is missing with it.
    pub fn beyond_tenants(&self) -> Option<&Action> {
        let let_go: BTreeSet<&str> = self
            .actions
            .iter()
            .filter_map(|action| match action {
                Action::AddLink { name, link } if link.is_tenants() => Some(name.as_str()),
                _ => None,
            })
            .collect();
        let his = |action: &Action| action.link().is_some_and(|link| let_go.contains(link.as_str()));
        self.actions.iter().find(|action| !action.is_tenants_doing() && !his(action))
    }
}

/// What may be lost by a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Contents {
    /// A partition that holds anything is refused to be removed.
    #[default]
    Keep,
    /// A partition's directory goes with all that is in it.
    Erase,
}

/// What root agrees to in this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Consent {
    pub contents: Contents,
    /// Move the addresses and routes that the machine is reached by from the uplink to the bridge.
    pub take_uplink: bool,
}

impl From<Contents> for Consent {
    fn from(contents: Contents) -> Self {
        Self { contents, take_uplink: false }
    }
}

/// Plans from what was found to what is wanted.
///
/// # Errors
/// Every reason why nothing may be done: foreign things in the way ([`codes::FOREIGN`]), ranges of others
/// ([`codes::OVERLAP`]), partitions in use ([`codes::STILL_USED`]), missing features ([`codes::KERNEL_LACKS`]), and what
/// could not be looked at ([`codes::NEEDS_ROOT`]); the machine is reached through the uplink ([`codes::UPLINK`]).
pub fn plan(
    layout: &Layout,
    facts: &HostFacts,
    claims: &Claims,
    consent: impl Into<Consent>,
) -> Result<Plan, Problems> {
    let mut planner = Planner::new(layout, facts, claims, consent.into());
    planner.accounts();
    planner.directories();
    // Before there is anybody whom it holds to anything, or a router is listened to where partitions could be one; and until
    // there is nobody any more, and none is.
    planner.guard();
    planner.sysctls(machine::Part::Listening);
    planner.sysctls(machine::Part::Machine);
    planner.links();
    planner.namespaces();
    planner.routes();
    planner.uplink();
    planner.bridge_of_uplink();
    planner.say_what_goes_with_addresses();
    planner.keep_the_order_of_addresses();
    planner.sysctls(machine::Part::Link);
    planner.say_what_links_are_missing();
    planner.needs();
    planner.files();
    let Planner { mut remove, add, forget, known, notes, left, lost, cleared, problems, .. } = planner;
    remove.reverse();
    let is_node_file = |action: &Action| action.kind() == Kind::WriteFiles(Purpose::Node);
    let (node_file, add): (Vec<_>, Vec<_>) = add.into_iter().partition(is_node_file);
    let (gone, remove): (Vec<_>, Vec<_>) = remove.into_iter().partition(is_node_file);
    let makes_partitions = |action: &Action| {
        let kind = action.kind();
        matches!(kind, Kind::AddAccounts | Kind::MakeDirectories | Kind::AddTaps | Kind::AddNamespaces)
    };
    let grows = add.iter().any(makes_partitions) || (remove.is_empty() && !add.is_empty());
    let (ahead, behind) = if grows { (Vec::new(), node_file) } else { (node_file, Vec::new()) };
    let actions: Vec<Action> = ahead.into_iter().chain(gone).chain(remove).chain(add).chain(behind).collect();
    problems.none_or(Plan { actions, forget, known, notes, left, lost, cleared })
}

/// What of the plan this process may not do.
pub fn privileges_lacking(plan: &Plan, facts: &HostFacts) -> Problems {
    let mut problems = Problems::default();
    let kinds: BTreeSet<Kind> = plan.actions.iter().map(Action::kind).collect();
    let accounts = [Kind::AddAccounts, Kind::RemoveAccounts, Kind::SetAccounts].iter().any(|kind| kinds.contains(kind));
    let gives = plan.actions.iter().any(|action| match action {
        Action::MakeDirectory(directory) | Action::FinishDirectory(directory) => {
            directory.owner.uid != facts.caller.uid
        }
        Action::WriteFile { to: Some(file), .. } => file.owner.uid != facts.caller.uid,
        Action::SetDirectory { from, .. } => from.0.uid != facts.caller.uid,
        _ => false,
    });
    if (accounts || gives) && !facts.privileges.root {
        problems.push(
            Problem::new(codes::NEEDS_ROOT, "users cannot be made, nor directories given to them")
                .because(format!("node-format runs as uid {}", facts.caller.uid))
                .fix("run it as root, or set `users = false` in [partitions] and leave out [builder]"),
        );
    }
    let network = kinds.range(Kind::SetSysctls..=Kind::RemoveRoutes).next().is_some();
    if network && !facts.privileges.net_admin {
        problems.push(
            Problem::new(codes::NEEDS_ROOT, "links and addresses cannot be changed")
                .because("the capability CAP_NET_ADMIN is missing")
                .fix("run node-format as root, or set `mode = \"loopback\"` or `\"none\"` in [network]"),
        );
    }
    problems
}

/// Whose a partition's directory may be, by what it is called: as his home is, or as he is. Somebody may have given one user
/// another's home.
fn by_directory<'a>(made: impl Iterator<Item = (&'a str, u32)>, facts: &'a HostFacts) -> BTreeMap<&'a OsStr, Vec<u32>> {
    let mut all: BTreeMap<&OsStr, Vec<u32>> = BTreeMap::new();
    for (name, number) in made {
        if let Some(home) = facts.users.get(name).and_then(|user| user.home.file_name()) {
            all.entry(home).or_default().insert(0, number);
        }
        all.entry(OsStr::new(name)).or_default().push(number);
    }
    all
}

fn made_group(thing: &Thing) -> Option<(&str, u32)> {
    if let Thing::Group { name, gid } = thing { Some((name, *gid)) } else { None }
}

/// The uplink's name, if another interface has it by now.
fn exchanged_name(thing: &Thing, facts: &HostFacts, claims: &Claims) -> Option<String> {
    let Thing::Uplink(uplink) = thing else { return None };
    uplink::is_another(uplink, facts, claims).then(|| uplink.link.clone())
}

fn made_user(thing: &Thing) -> Option<(&str, u32)> {
    if let Thing::User { name, uid } = thing { Some((name, *uid)) } else { None }
}

/// A number that has a limit, and on which file system: where an older record does not say, on that which is there now.
fn limit_made<'a>(thing: &'a Thing, facts: &'a HostFacts) -> Option<(&'a str, u32)> {
    let Thing::DiskLimit { path, id, file_system } = thing else { return None };
    Some((file_system.as_ref().or_else(|| facts.file_systems.get(path))?, *id))
}

fn setting_before(thing: &Thing) -> Option<(&str, Before<'_>)> {
    let Thing::Sysctl { key, was, along: Along(along), last } = thing else { return None };
    Some((key, Before { was, along, last: last.0.as_deref() }))
}

/// What a setting of the kernel was before node-format first changed it, and those that change along with it.
#[derive(Debug, Clone, Copy)]
struct Before<'a> {
    was: &'a str,
    along: &'a BTreeMap<String, String>,
    /// See [`crate::thing::Last`].
    last: Option<&'a str>,
}

struct Planner<'a> {
    layout: &'a Layout,
    facts: &'a HostFacts,
    claims: &'a Claims,
    consent: Consent,
    /// In the order of making; reversed at the end.
    remove: Vec<Action>,
    add: Vec<Action>,
    forget: Vec<Thing>,
    known: Vec<Thing>,
    notes: Vec<String>,
    left: Vec<String>,
    lost: Vec<String>,
    cleared: Vec<String>,
    problems: Problems,
    memberships: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// The uid that each user of ours was made with.
    made_users: BTreeMap<&'a str, u32>,
    /// The uid that a partition's user was made with, by the name of the partition's directory: the likeliest first.
    users_of: BTreeMap<&'a OsStr, Vec<u32>>,
    /// The gid that a partition's group was made with, in the same way.
    groups_of: BTreeMap<&'a OsStr, Vec<u32>>,
    /// Which numbers have limits of ours, on which file systems: all directories of a partition on one share its own.
    limits_made: BTreeSet<(&'a str, u32)>,
    settings_before: BTreeMap<&'a str, Before<'a>>,
    /// Names that the uplink had, and another interface has by now.
    exchanged: BTreeSet<String>,
    /// Links that go, and those that are made anew: what is on them goes with them.
    leaving: BTreeSet<String>,
    /// Links that join a bridge or leave one: down meanwhile, for where they are neither a router's nor a bridge's the machine
    /// may listen to whoever is behind them.
    moving: BTreeSet<String>,
    /// After all directories: those of one kind are performed together.
    limits: Vec<Action>,
    /// Why directories cannot be limited, and the first of each reason.
    unlimitable: BTreeMap<String, PathBuf>,
}

impl<'a> Planner<'a> {
    fn new(layout: &'a Layout, facts: &'a HostFacts, claims: &'a Claims, consent: Consent) -> Self {
        Self {
            layout,
            facts,
            claims,
            consent,
            remove: Vec::new(),
            add: Vec::new(),
            forget: Vec::new(),
            known: Vec::new(),
            notes: Vec::new(),
            left: Vec::new(),
            lost: Vec::new(),
            cleared: Vec::new(),
            problems: Problems::default(),
            memberships: accounts::memberships(facts),
            made_users: claims.iter().filter_map(|thing| made_user(thing)).collect(),
            users_of: by_directory(claims.iter().filter_map(made_user), facts),
            groups_of: by_directory(claims.iter().filter_map(made_group), facts),
            limits_made: claims.iter().filter_map(|thing| limit_made(thing, facts)).collect(),
            settings_before: claims.iter().filter_map(|thing| setting_before(thing)).collect(),
            exchanged: claims.iter().filter_map(|thing| exchanged_name(thing, facts, claims)).collect(),
            leaving: BTreeSet::new(),
            moving: BTreeSet::new(),
            limits: Vec::new(),
            unlimitable: BTreeMap::new(),
        }
    }

    /// Notes what goes along, of somebody else's.
    fn lose(&mut self, what: Vec<String>) {
        self.lost.extend(what.iter().cloned());
        self.notes.extend(what);
    }

    /// Something that is not ours stands where a thing of ours must be.
    fn foreign(&mut self, what: String, why: impl Into<String>, fix: &str) {
        self.problems.push(Problem::new(codes::FOREIGN, what).because(why.into()).fix(fix));
    }
}

#[cfg(test)]
mod tests;

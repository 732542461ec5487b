//! The difference between a layout and a machine, as actions in an order that works; or every reason why there must be
//! none.
//!
//! Things are made in the order accounts, directories, links, addresses, routes and removed in the reverse; removals
//! come first. The node file is written last, so that the agent is never told of what is not there yet, except when
//! there is nothing to make: then first, so that it is never told of what is not there any more.

mod accounts;
mod addresses;
mod directories;
mod links;
mod node_file;

use crate::action::{Action, Kind};
use crate::facts::{HostFacts, Scope};
use crate::layout::Layout;
use crate::thing::{Claims, Thing};
use plat_model::problem::{Problem, Problems, codes};
use std::collections::BTreeSet;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    pub actions: Vec<Action>,
    /// Entries of the record that name nothing of ours any more: gone, or replaced by somebody else's.
    pub forget: Vec<Thing>,
    /// What is left as it is although one might expect otherwise, for people.
    pub notes: Vec<String>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }
}

/// What to look at, to plan from these claims towards this layout.
pub fn scope(layout: &Layout, claims: &Claims) -> Scope {
    let mut scope = Scope {
        paths: layout.directories.keys().cloned().collect(),
        accounts: !layout.users.is_empty() || !layout.groups.is_empty(),
        network: !layout.links.is_empty() || !layout.addresses.is_empty() || layout.needs_link.is_some(),
        ..Scope::default()
    };
    scope.node_files.extend(layout.node_file.as_ref().map(|(path, _)| path.clone()));
    for thing in claims.iter() {
        match thing {
            Thing::Group { .. } => scope.accounts = true,
            Thing::User { name, .. } => {
                scope.accounts = true;
                scope.processes |= !layout.users.contains_key(name);
            }
            Thing::Directory { path } | Thing::PartitionDirectory { path } => {
                scope.paths.insert(path.clone());
                if !layout.directories.contains_key(path) {
                    scope.contents.insert(path.clone());
                }
            }
            Thing::NodeFile { path } => {
                scope.node_files.insert(path.clone());
            }
            Thing::Bridge { .. } | Thing::Tap { .. } | Thing::Address { .. } | Thing::LocalRoute { .. } => {
                scope.network = true;
            }
        }
    }
    scope
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

/// Plans from what was found to what is wanted.
///
/// # Errors
/// Every reason why nothing may be done: foreign things in the way ([`codes::FOREIGN`]), ranges of others
/// ([`codes::OVERLAP`]), partitions in use ([`codes::STILL_USED`]), missing features ([`codes::KERNEL_LACKS`]), and what
/// could not be looked at ([`codes::NEEDS_ROOT`]).
pub fn plan(layout: &Layout, facts: &HostFacts, claims: &Claims, contents: Contents) -> Result<Plan, Problems> {
    let mut planner = Planner::new(layout, facts, claims, contents);
    planner.accounts();
    planner.directories();
    planner.links();
    planner.addresses();
    let node_file = planner.node_file();
    let Planner { mut remove, add, forget, notes, problems, .. } = planner;
    remove.reverse();
    let making = !add.is_empty();
    let ahead = node_file.iter().filter(|_| !making).cloned();
    let behind = node_file.iter().filter(|_| making).cloned();
    let actions: Vec<Action> = ahead.chain(remove).chain(add).chain(behind).collect();
    problems.none_or(Plan { actions, forget, notes })
}

/// What of the plan this process may not do.
pub fn privileges_lacking(plan: &Plan, facts: &HostFacts) -> Problems {
    let mut problems = Problems::default();
    let kinds: BTreeSet<Kind> = plan.actions.iter().map(Action::kind).collect();
    let accounts = kinds.contains(&Kind::AddAccounts) || kinds.contains(&Kind::RemoveAccounts);
    let gives = plan.actions.iter().any(|action| match action {
        Action::MakeDirectory(directory) => directory.owner.uid != facts.caller.uid,
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
    let network = kinds.range(Kind::AddBridges..=Kind::RemoveRoutes).next().is_some();
    if network && !facts.privileges.net_admin {
        problems.push(
            Problem::new(codes::NEEDS_ROOT, "links and addresses cannot be changed")
                .because("the capability CAP_NET_ADMIN is missing")
                .fix("run node-format as root, or set `mode = \"loopback\"` or `\"none\"` in [network]"),
        );
    }
    problems
}

struct Planner<'a> {
    layout: &'a Layout,
    facts: &'a HostFacts,
    claims: &'a Claims,
    contents: Contents,
    /// In the order of making; reversed at the end.
    remove: Vec<Action>,
    add: Vec<Action>,
    forget: Vec<Thing>,
    notes: Vec<String>,
    problems: Problems,
}

impl<'a> Planner<'a> {
    fn new(layout: &'a Layout, facts: &'a HostFacts, claims: &'a Claims, contents: Contents) -> Self {
        Self {
            layout,
            facts,
            claims,
            contents,
            remove: Vec::new(),
            add: Vec::new(),
            forget: Vec::new(),
            notes: Vec::new(),
            problems: Problems::default(),
        }
    }

    /// Something that is not ours stands where a thing of ours must be.
    fn foreign(&mut self, what: String, why: impl Into<String>, fix: &str) {
        self.problems.push(Problem::new(codes::FOREIGN, what).because(why.into()).fix(fix));
    }
}

#[cfg(test)]
mod tests;

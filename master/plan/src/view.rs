//! What a caller sees. Listing, showing and watching go through the same filter.

use crate::allocate;
use crate::record::Sum;
use crate::state::State;
use plat_model::id::{InstanceName, NodeId, ProjectName};
use plat_model::instance::{Instance, InstanceState, Wish};
use plat_model::principal::{Principal, Role};
use plat_model::problem::{Problem, codes};
use plat_model::release::InstallState;
use plat_model::time::Period;
use plat_model::waiting::Waiting;
use std::collections::BTreeSet;
use std::ops::Bound;

/// The project that an operator means when it names none.
pub const DEFAULT_PROJECT: &str = "default";
/// Most items of one page.
pub const PAGE_MAX: usize = 1000;

/// Whether a caller may see what belongs to a project.
pub fn sees(who: &Principal, project: &ProjectName) -> bool {
    match who {
        Principal::Master | Principal::User { role: Role::Operator | Role::Billing, .. } => true,
        Principal::User { role: Role::Member(own), .. } => own == project,
        _ => false,
    }
}

/// The project that a caller means: the one it names, else a member's own, else [`DEFAULT_PROJECT`].
///
/// # Errors
/// [`codes::BAD_NAME`].
pub fn project(who: &Principal, asked: &str) -> Result<ProjectName, Problem> {
    match who {
        Principal::User { role: Role::Member(own), .. } if asked.is_empty() => Ok(own.clone()),
        _ if asked.is_empty() => ProjectName::parse(DEFAULT_PROJECT),
        _ => ProjectName::parse(asked),
    }
}

/// The instances that a caller sees, of one project or of all, in the order of project and name, after `after`, at most
/// `limit` and never more than [`PAGE_MAX`].
pub fn instances<'s>(
    state: &'s State,
    who: &Principal,
    project: Option<&ProjectName>,
    after: Option<&(ProjectName, InstanceName)>,
    limit: usize,
) -> Vec<&'s Instance> {
    let only = match (project, who) {
        (Some(project), _) => Some(project),
        (None, Principal::User { role: Role::Member(own), .. }) => Some(own),
        (None, _) => None,
    };
    // `0` is the least name, so that a project's instances are found without looking at those of others.
    let least = InstanceName::parse("0").ok();
    let start = match (after, only.cloned().zip(least)) {
        (Some(after), Some(first)) if *after < first => Bound::Included(first),
        (Some(after), _) => Bound::Excluded(after.clone()),
        (None, Some(first)) => Bound::Included(first),
        (None, None) => Bound::Unbounded,
    };
    state
        .by_name
        .range((start, Bound::Unbounded))
        .take_while(|((of, _), _)| only.is_none_or(|only| only == of))
        .filter(|((of, _), _)| sees(who, of))
        .filter_map(|(_, id)| state.instances.get(id))
        .take(limit.min(PAGE_MAX))
        .collect()
}

/// An instance that a caller sees.
///
/// # Errors
/// [`codes::NOT_FOUND`], also for what exists and is not the caller's to see.
pub fn instance<'s>(
    state: &'s State,
    who: &Principal,
    project: &ProjectName,
    name: &InstanceName,
) -> Result<&'s Instance, Problem> {
    state.instance(project, name).filter(|_| sees(who, project)).ok_or_else(|| {
        Problem::new(codes::NOT_FOUND, format!("there is no instance `{project}/{name}`")).fix("see `plat list`")
    })
}

/// The sums of usage that a caller sees, of one project or of all, in periods from `first` to `last`.
pub fn sums<'s>(
    state: &'s State,
    who: &'s Principal,
    project: Option<&'s ProjectName>,
    first: Period,
    last: Period,
) -> impl Iterator<Item = &'s Sum> {
    let of_projects = state.sums.iter().filter(move |((of, period), _)| {
        project.is_none_or(|project| project == of) && (first..=last).contains(period) && sees(who, of)
    });
    of_projects.flat_map(|(_, sums)| sums.values())
}

/// What an instance waits on now; nothing once it is as it is wished.
pub fn waiting(state: &State, online: &BTreeSet<NodeId>, instance: &Instance) -> Vec<Waiting> {
    let who = format!("instance {}/{}", instance.project, instance.name);
    let since = instance.changed;
    let Some(place) = &instance.placement else { return vec![allocate::why_unplaced(state, online, instance)] };
    let node = &place.node;
    let wait = |on: String, todo: &str| vec![Waiting { who: who.clone(), on, since, todo: todo.into() }];
    if state.nodes.get(node).is_none_or(|row| row.revoked) {
        return wait(
            format!("node {node}, which is revoked"),
            "enrol the node again (`plat-agent enroll --again`), or destroy the instance; its processes may still run there",
        );
    }
    let status = state.statuses.get(&instance.id);
    let told = status.filter(|status| status.generation == instance.generation);
    let done = match (told.map(|status| status.state), instance.wish) {
        (Some(InstanceState::Ready), Wish::Started) | (Some(InstanceState::Stopped), Wish::Stopped) => true,
        (now, _) => now == Some(InstanceState::Destroyed),
    };
    if done {
        return Vec::new();
    }
    if !online.contains(node) {
        return wait(format!("node {node}, which is offline"), "bring the node back");
    }
    let installation = state.installations.get(&(node.clone(), instance.release.clone()));
    if let Some(installation) = installation.filter(|i| i.state != InstallState::Installed) {
        let release = format!("release {} to be installed on {node}", instance.release.short());
        let on = match installation.progress.as_str() {
            "" => format!("{release} ({})", installation.state),
            progress => format!("{release} ({progress})"),
        };
        return wait(on, installation.problem.as_ref().map_or("", |problem| &problem.todo));
    }
    match told {
        None => wait(format!("node {node} to take it up"), ""),
        Some(status) => {
            let on = if status.detail.is_empty() { status.state.to_string() } else { status.detail.clone() };
            let todo = status.problem.as_ref().map_or(String::new(), |problem| problem.todo.clone());
            vec![Waiting { who, on, since: status.since, todo }]
        }
    }
}

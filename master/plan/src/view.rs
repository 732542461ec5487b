//! What a caller sees. Lists and sums are cut here; what a call names is allowed or refused before, by the access table.

use crate::allocate;
use crate::record::Sum;
use crate::state::State;
use plat_model::id::{InstanceName, NodeId, ProjectName};
use plat_model::instance::{Instance, InstanceState, Wish};
use plat_model::principal::{Principal, Role};
use plat_model::release::InstallState;
use plat_model::time::Period;
use plat_model::waiting::Waiting;
use std::collections::BTreeSet;
use std::ops::Bound;

/// Whether a caller may see what belongs to a project.
pub fn sees(who: &Principal, project: &ProjectName) -> bool {
    match who {
        Principal::Master | Principal::User { role: Role::Operator | Role::Billing, .. } => true,
        Principal::User { role: Role::Member(own), .. } => own == project,
        _ => false,
    }
}

/// The instances that a caller sees, of one project or of all, in the order of project and name, after `after`, at most
/// `limit`.
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
        .filter_map(|(_, id)| state.instances.get(id).map(|instance| &**instance))
        .take(limit)
        .collect()
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
    if let Some(host) = &instance.rides {
        let told = state.statuses.get(&instance.id).map(|status| status.generation);
        if told == Some(instance.generation) {
            return Vec::new();
        }
        let host = state.instances.get(host).map_or(host.to_string(), |host| format!("{}/{}", host.project, host.name));
        let todo = format!("see `plat show {}`: it publishes what a shared instance is reached by", host);
        return vec![Waiting { who, on: format!("instance {host} to take it in"), since, todo }];
    }
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
            // A node whose clock is behind would have it wait since before there was anything to wait for.
            vec![Waiting { who, on, since: status.since.max(instance.created), todo }]
        }
    }
}

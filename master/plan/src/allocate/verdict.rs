//! Why an instance is where it is, or why it waits, node by node.

use super::candidates::{Room, Shape, first_fitting, room, score};
use crate::state::State;
use plat_model::id::{InstanceId, NodeId};
use plat_model::instance::{Instance, PlacementRules};
use plat_model::node::Node;
use plat_model::release::InstallState;
use plat_model::waiting::Waiting;
use std::collections::{BTreeMap, BTreeSet};

/// How many nodes a reason names before it only counts them.
const NAMED_MAX: usize = 10;

/// What speaks for or against a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub node: NodeId,
    /// It holds the instance, or would be chosen now.
    pub chosen: bool,
    /// Why not; or, of one that could take it, why.
    pub reasons: Vec<String>,
    /// Whether the instance could go there.
    pub fits: bool,
}

/// What of a node's row forbids it by an instance's rules.
pub(crate) fn rules_against(node: &Node, rules: &PlacementRules) -> Vec<String> {
    against_rules(node, rules.node.as_ref(), &rules.labels)
}

fn against_rules(node: &Node, only: Option<&NodeId>, labels: &BTreeMap<String, String>) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(only) = only.filter(|only| *only != &node.id) {
        reasons.push(format!("only `{only}` is asked for"));
    }
    for (key, value) in labels {
        match node.labels.get(key) {
            Some(present) if present == value => {}
            Some(present) => reasons.push(format!("label {key} is {present}, not {value}")),
            None => reasons.push(format!("it has no label {key}={value}")),
        }
    }
    reasons
}

/// Everything that speaks against a node for a shape; nothing if it fits.
pub(super) fn against(state: &State, room: &Room<'_>, shape: &Shape<'_>) -> Vec<String> {
    let node = room.node;
    if node.revoked {
        return vec!["it is revoked".into()];
    }
    let mut reasons = against_rules(node, shape.node, shape.labels);
    if !room.online {
        reasons.push("it is offline".into());
    }
    if !state.is_supplied(&node.id, shape.release) {
        reasons.push(format!("release {} is not supplied to it", shape.release.short()));
    }
    if node.inventory.partitions.is_empty() {
        reasons.push("it offers no partition".into());
    } else if room.free.is_empty() {
        reasons.push(format!("none of its {} partitions is free", node.inventory.partitions.len()));
    } else if first_fitting(room, shape, None).is_none() {
        reasons.push("every free partition has limits below what is asked for".into());
    }
    reasons.extend(room.taken.left_of(node.inventory.capacity).shortfalls(shape.resources));
    reasons
}

pub(super) fn of(state: &State, room: &Room<'_>, shape: &Shape<'_>) -> Verdict {
    let mut reasons = against(state, room, shape);
    let fits = reasons.is_empty();
    if fits {
        let release = state.install_state(&room.node.id, shape.release);
        reasons.push(match release {
            InstallState::Absent => "the release is yet to be installed".into(),
            state => format!("the release is {state}"),
        });
        reasons.push(format!("{} instances, {} partitions free", room.instances, room.free.len()));
    }
    Verdict { node: room.node.id.clone(), chosen: false, reasons, fits }
}

/// Why an instance is where it is, or what each node has against it; empty for an unknown one.
pub fn explain(state: &State, online: &BTreeSet<NodeId>, id: &InstanceId) -> Vec<Verdict> {
    let Some(instance) = state.instances.get(id) else { return Vec::new() };
    let shape = Shape::of(instance);
    let rooms: Vec<Room<'_>> = state.nodes.iter().map(|(id, node)| room(state, node, online.contains(id))).collect();
    let mut verdicts: Vec<Verdict> = rooms.iter().map(|room| of(state, room, &shape)).collect();
    if let Some(place) = &instance.placement {
        for verdict in verdicts.iter_mut().filter(|verdict| verdict.node == place.node) {
            verdict.chosen = true;
            verdict.fits = true;
            verdict.reasons = vec![format!("it is in partition `{}` here", place.partition)];
        }
    } else {
        let fitting = rooms.iter().zip(&verdicts).enumerate().filter(|(_, (_, verdict))| verdict.fits);
        let best = fitting.min_by_key(|(_, (room, _))| score(state, room, &shape)).map(|(at, _)| at);
        if let Some(best) = best {
            verdicts[best].chosen = true;
            verdicts[best].reasons.push("it is the best for this, and taken in the next round".into());
        }
    }
    verdicts
}

/// Says in one text why no node fits, the same reasons together.
pub(super) fn nowhere(verdicts: &[Verdict]) -> String {
    if verdicts.is_empty() {
        return "a node: the grid has none".into();
    }
    let mut by_reason: BTreeMap<String, Vec<&NodeId>> = BTreeMap::new();
    for verdict in verdicts {
        by_reason.entry(verdict.reasons.join(", ")).or_default().push(&verdict.node);
    }
    let mut groups: Vec<(String, Vec<&NodeId>)> = by_reason.into_iter().collect();
    groups.sort_by(|a, b| a.1.cmp(&b.1));
    let mut texts: Vec<String> = groups.iter().take(NAMED_MAX).map(|(reason, nodes)| named(nodes, reason)).collect();
    let left: usize = groups.iter().skip(NAMED_MAX).map(|(_, nodes)| nodes.len()).sum();
    if left > 0 {
        texts.push(format!("{left} more nodes have other reasons"));
    }
    format!("a node that fits ({})", texts.join("; "))
}

fn named(nodes: &[&NodeId], reason: &str) -> String {
    let mut names: Vec<&str> = nodes.iter().take(NAMED_MAX).map(|node| node.as_str()).collect();
    let more = format!("{} more", nodes.len().saturating_sub(NAMED_MAX));
    if nodes.len() > NAMED_MAX {
        names.push(&more);
    }
    format!("{}: {reason}", names.join(", "))
}

pub(super) fn waiting(instance: &Instance, on: String) -> Waiting {
    Waiting {
        who: format!("instance {}/{}", instance.project, instance.name),
        on,
        since: instance.changed,
        todo: "free or add a partition, supply the release, or ask for less (`plat explain` says more)".into(),
    }
}

/// What an instance without a partition waits on.
pub(crate) fn why_unplaced(state: &State, online: &BTreeSet<NodeId>, instance: &Instance) -> Waiting {
    let shape = Shape::of(instance);
    let rooms = state.nodes.iter().map(|(id, node)| room(state, node, online.contains(id)));
    let verdicts: Vec<Verdict> = rooms.map(|room| of(state, &room, &shape)).collect();
    if verdicts.iter().any(|verdict| verdict.fits) {
        return Waiting { todo: String::new(), ..waiting(instance, "the next round of placements".into()) };
    }
    waiting(instance, nowhere(&verdicts))
}

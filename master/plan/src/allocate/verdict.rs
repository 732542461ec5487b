//! Why an instance is where it is, or why it waits, node by node.

use super::candidates::{Room, Shape, first_fitting, room, score};
use crate::state::State;
use plat_model::id::{InstanceId, NodeId};
use plat_model::instance::{Instance, PlacementRules};
use plat_model::node::Node;
use plat_model::release::InstallState;
use plat_model::waiting::Waiting;
use std::collections::{BTreeMap, BTreeSet};

/// How many kinds of reasons are told before the nodes with others are only counted.
const KINDS_MAX: usize = 10;

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
    /// The reasons in words that tell nothing of the node but what was asked for: what its members may read.
    kinds: Vec<String>,
}

/// One thing that speaks against a node.
pub(super) struct Reason {
    kind: String,
    text: String,
}

impl Reason {
    /// Of a node that nobody is told more about.
    fn plain(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { kind: text.clone(), text }
    }
}

/// What of a node's row forbids it by an instance's rules.
pub(crate) fn rules_against(node: &Node, rules: &PlacementRules) -> Vec<String> {
    against_rules(node, rules.node.as_ref(), &rules.labels).into_iter().map(|reason| reason.text).collect()
}

fn against_rules(node: &Node, only: Option<&NodeId>, labels: &BTreeMap<String, String>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if let Some(only) = only.filter(|only| *only != &node.id) {
        reasons.push(Reason::plain(format!("only `{only}` is asked for")));
    }
    for (key, value) in labels {
        let kind = format!("it has no label {key}={value}");
        match node.labels.get(key) {
            Some(present) if present == value => {}
            Some(present) => reasons.push(Reason { kind, text: format!("label {key} is {present}, not {value}") }),
            None => reasons.push(Reason::plain(kind)),
        }
    }
    reasons
}

/// Everything that speaks against a node for a shape; nothing if it fits.
pub(super) fn against(state: &State, room: &Room<'_>, shape: &Shape<'_>) -> Vec<Reason> {
    let node = room.node;
    if node.revoked {
        return vec![Reason::plain("it is revoked")];
    }
    let mut reasons = against_rules(node, shape.node, shape.labels);
    if !room.online {
        reasons.push(Reason::plain("it is offline"));
    }
    if !state.is_supplied(&node.id, shape.release) {
        reasons.push(Reason::plain(format!("release {} is not supplied to it", shape.release.short())));
    }
    if node.inventory.partitions.is_empty() {
        reasons.push(Reason::plain("it offers no partition"));
    } else if room.free.is_empty() {
        let text = format!("none of its {} partitions is free", node.inventory.partitions.len());
        reasons.push(Reason { kind: "none of its partitions is free".into(), text });
    } else if first_fitting(room, shape, None).is_none() {
        reasons.push(Reason::plain("every free partition has limits below what is asked for"));
    }
    let short = room.taken.left_of(node.inventory.capacity).shortfalls(shape.resources);
    reasons.extend(short.into_iter().map(|text| {
        let asked = text.split(", ").next().unwrap_or_default();
        Reason { kind: format!("{asked}, less is free"), text }
    }));
    reasons
}

pub(super) fn of(state: &State, room: &Room<'_>, shape: &Shape<'_>) -> Verdict {
    let (kinds, mut reasons): (Vec<_>, Vec<_>) =
        against(state, room, shape).into_iter().map(|reason| (reason.kind, reason.text)).unzip();
    let fits = reasons.is_empty();
    if fits {
        let release = state.install_state(&room.node.id, shape.release);
        reasons.push(match release {
            InstallState::Absent => "the release is yet to be installed".into(),
            state => format!("the release is {state}"),
        });
        reasons.push(format!("{} instances, {} partitions free", room.instances, room.free.len()));
    }
    Verdict { node: room.node.id.clone(), chosen: false, reasons, fits, kinds }
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

/// Says in one text why no node fits, the same reasons together. Members read it, so it names no node.
pub(super) fn nowhere(verdicts: &[Verdict]) -> String {
    if verdicts.is_empty() {
        return "a node: the grid has none".into();
    }
    let mut by_kind: BTreeMap<String, usize> = BTreeMap::new();
    for verdict in verdicts {
        *by_kind.entry(verdict.kinds.join(", ")).or_default() += 1;
    }
    let mut kinds: Vec<(String, usize)> = by_kind.into_iter().collect();
    kinds.sort_by_key(|(_, nodes)| std::cmp::Reverse(*nodes));
    let counted = |nodes: usize| if nodes == 1 { "1 node".to_owned() } else { format!("{nodes} nodes") };
    let mut texts: Vec<String> =
        kinds.iter().take(KINDS_MAX).map(|(kind, nodes)| format!("{}: {kind}", counted(*nodes))).collect();
    let left: usize = kinds.iter().skip(KINDS_MAX).map(|(_, nodes)| nodes).sum();
    if left > 0 {
        texts.push(format!("{} for other reasons", counted(left)));
    }
    format!("a node that fits ({})", texts.join("; "))
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

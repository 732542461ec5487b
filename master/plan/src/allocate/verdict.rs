//! Why an instance is where it is, or why it waits, node by node.

use super::candidates::{Room, Shape, first_fitting, room, score};
use crate::state::State;
use plat_model::id::{InstanceId, NodeId};
use plat_model::instance::{Instance, PlacementRules};
use plat_model::node::Node;
use plat_model::release::InstallState;
use plat_model::resources::Enforced;
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
    /// What would have to be otherwise; nothing if it fits.
    obstacles: BTreeSet<Obstacle>,
}

/// A kind of reason against a node, by what lifts it. In the order in which they are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    Revoked,
    OtherNode,
    Labels,
    NotEnforced,
    Offline,
    NotSupplied,
    NoPartition,
    PartitionsTaken,
    TooLarge,
}

/// One thing that speaks against a node.
pub(super) struct Reason {
    obstacle: Obstacle,
    kind: String,
    text: String,
}

impl Reason {
    /// Of a node that nobody is told more about.
    fn plain(obstacle: Obstacle, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { obstacle, kind: text.clone(), text }
    }
}

/// What of a node's row forbids it by an instance's rules.
pub(crate) fn rules_against(node: &Node, rules: &PlacementRules) -> Vec<String> {
    against_rules(node, rules.node.as_ref(), &rules.labels, rules.enforced)
        .into_iter()
        .map(|reason| reason.text)
        .collect()
}

fn against_rules(
    node: &Node,
    only: Option<&NodeId>,
    labels: &BTreeMap<String, String>,
    enforced: Enforced,
) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if let Some(only) = only.filter(|only| *only != &node.id) {
        reasons.push(Reason::plain(Obstacle::OtherNode, format!("only `{only}` is asked for")));
    }
    for (key, value) in labels {
        let kind = format!("it has no label {key}={value}");
        match node.labels.get(key) {
            Some(present) if present == value => {}
            Some(present) => reasons.push(Reason {
                obstacle: Obstacle::Labels,
                kind,
                text: format!("label {key} is {present}, not {value}"),
            }),
            None => reasons.push(Reason::plain(Obstacle::Labels, kind)),
        }
    }
    let lacks = node.inventory.enforced.lacks(enforced);
    if !lacks.is_empty() {
        let text = format!("it holds nobody to what was asked for of {}", lacks.join(" and "));
        reasons.push(Reason::plain(Obstacle::NotEnforced, text));
    }
    reasons
}

/// Everything that speaks against a node for a shape; nothing if it fits.
pub(super) fn against(state: &State, room: &Room<'_>, shape: &Shape<'_>) -> Vec<Reason> {
    let node = room.node;
    if node.revoked {
        return vec![Reason::plain(Obstacle::Revoked, "it is revoked")];
    }
    let mut reasons = against_rules(node, shape.node, shape.labels, shape.enforced);
    if !room.online {
        reasons.push(Reason::plain(Obstacle::Offline, "it is offline"));
    }
    if !state.is_supplied(&node.id, shape.release) {
        let text = format!("release {} is not supplied to it", shape.release.short());
        reasons.push(Reason::plain(Obstacle::NotSupplied, text));
    }
    if node.inventory.partitions.is_empty() {
        reasons.push(Reason::plain(Obstacle::NoPartition, "it offers no partition"));
    } else if room.free.is_empty() {
        let text = format!("none of its {} partitions is free", node.inventory.partitions.len());
        let kind = "none of its partitions is free".into();
        reasons.push(Reason { obstacle: Obstacle::PartitionsTaken, kind, text });
    } else if first_fitting(room, shape, None).is_none() {
        reasons.push(Reason::plain(Obstacle::TooLarge, "every free partition has limits below what is asked for"));
    }
    let short = room.taken.left_of(node.inventory.capacity).shortfalls(shape.resources);
    reasons.extend(short.into_iter().map(|text| {
        let asked = text.split(", ").next().unwrap_or_default();
        Reason { obstacle: Obstacle::TooLarge, kind: format!("{asked}, less is free"), text }
    }));
    reasons
}

pub(super) fn of(state: &State, room: &Room<'_>, shape: &Shape<'_>) -> Verdict {
    let against = against(state, room, shape);
    let obstacles = against.iter().map(|reason| reason.obstacle).collect();
    let (kinds, mut reasons): (Vec<_>, Vec<_>) = against.into_iter().map(|reason| (reason.kind, reason.text)).unzip();
    let fits = reasons.is_empty();
    if fits {
        let release = state.install_state(&room.node.id, shape.release);
        reasons.push(match release {
            InstallState::Absent => "the release is yet to be installed".into(),
            state => format!("the release is {state}"),
        });
        reasons.push(format!("{} instances, {} partitions free", room.instances, room.free.len()));
    }
    Verdict { node: room.node.id.clone(), chosen: false, reasons, fits, kinds, obstacles }
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
            verdict.obstacles.clear();
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

/// What would give an instance of this shape a place: what lifts the obstacles of the nodes that have the fewest.
pub(super) fn todo(state: &State, verdicts: &[Verdict], shape: &Shape<'_>) -> String {
    let standing = || verdicts.iter().filter(|verdict| !verdict.obstacles.contains(&Obstacle::Revoked));
    match shape.node {
        Some(only) if !standing().any(|verdict| &verdict.node == only) => {
            return format!(
                "there is no node `{only}`: enrol it (`plat token create --node {only}`), or ask for another one"
            );
        }
        None if standing().next().is_none() => {
            return "enrol a node: `plat token create --node NAME` makes the token for `plat-agent enroll`".into();
        }
        _ => {}
    }
    let candidates = || standing().filter(|verdict| !verdict.obstacles.contains(&Obstacle::OtherNode));
    let fewest = candidates().map(|verdict| verdict.obstacles.len()).min();
    let nearest = candidates().filter(|verdict| Some(verdict.obstacles.len()) == fewest);
    let obstacles: BTreeSet<Obstacle> = nearest.flat_map(|verdict| verdict.obstacles.iter().copied()).collect();
    let steps: Vec<String> = obstacles.into_iter().map(|obstacle| lift(state, obstacle, shape)).collect();
    format!("{} (`plat explain instance` says more)", steps.join("; "))
}

fn lift(state: &State, obstacle: Obstacle, shape: &Shape<'_>) -> String {
    match obstacle {
        Obstacle::Revoked | Obstacle::OtherNode => "ask for another node".into(),
        Obstacle::Labels => "label a node (`plat node label NODE KEY=VALUE`), or ask for other labels".into(),
        Obstacle::NotEnforced => {
            "add a node that enforces it (`plat node show NODE` says what one does), or ask without `--enforced`".into()
        }
        Obstacle::Offline => "bring a node back".into(),
        Obstacle::NotSupplied => {
            let name = state.releases.get(shape.release).map_or(shape.release.short(), |release| release.name.as_str());
            format!("supply the release (`plat supply {name} --all`)")
        }
        Obstacle::NoPartition => "give a node partitions (`node-format apply`)".into(),
        Obstacle::PartitionsTaken => "destroy an instance, or add partitions or a node".into(),
        Obstacle::TooLarge => "ask for less, or add a node that has more".into(),
    }
}

pub(super) fn waiting(instance: &Instance, on: String, todo: String) -> Waiting {
    Waiting { who: format!("instance {}/{}", instance.project, instance.name), on, since: instance.changed, todo }
}

/// What an instance without a partition waits on.
pub(crate) fn why_unplaced(state: &State, online: &BTreeSet<NodeId>, instance: &Instance) -> Waiting {
    let shape = Shape::of(instance);
    let rooms = state.nodes.iter().map(|(id, node)| room(state, node, online.contains(id)));
    let verdicts: Vec<Verdict> = rooms.map(|room| of(state, &room, &shape)).collect();
    if verdicts.iter().any(|verdict| verdict.fits) {
        return waiting(instance, "the next round of placements".into(), String::new());
    }
    waiting(instance, nowhere(&verdicts), todo(state, &verdicts, &shape))
}

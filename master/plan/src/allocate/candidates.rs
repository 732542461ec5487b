//! The nodes that can take an instance, best first, as a round fills them.

use super::verdict::{self, Verdict};
use crate::state::{State, Taken};
use imbl::OrdMap;
use plat_model::id::{Digest, NodeId, PartitionName, PartitionRef};
use plat_model::instance::{Instance, PlacementRules};
use plat_model::node::Node;
use plat_model::release::InstallState;
use plat_model::resources::{Enforced, Resources};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

/// What placement depends on. Instances of one shape fit the same nodes, so each shape looks at them once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Shape<'s> {
    pub release: &'s Digest,
    pub node: Option<&'s NodeId>,
    pub labels: &'s BTreeMap<String, String>,
    pub enforced: Enforced,
    pub resources: Resources,
}

impl<'s> Shape<'s> {
    pub(super) fn of(instance: &'s Instance) -> Self {
        let PlacementRules { node, labels, enforced } = &instance.rules;
        let (release, enforced, resources) = (&instance.release, *enforced, instance.resources);
        Self { release, node: node.as_ref(), labels, enforced, resources }
    }
}

/// A node as the round has filled it so far.
#[derive(Clone)]
pub(super) struct Room<'s> {
    pub node: &'s Node,
    pub online: bool,
    pub free: OrdMap<PartitionName, Resources>,
    pub taken: Taken,
    pub instances: usize,
}

/// Lower is better: how far its release is, how many instances it has, its name.
type Score<'s> = (u8, usize, &'s NodeId);

pub(super) struct Candidates<'s> {
    state: &'s State,
    rooms: BTreeMap<&'s NodeId, Room<'s>>,
    queues: BTreeMap<Shape<'s>, Queue<'s>>,
}

/// The nodes that a shape may go to. A score that has grown old is noticed when it comes to the top. What did not fit
/// once does not fit later in the round either, for a round only fills.
struct Queue<'s> {
    best: BinaryHeap<Reverse<Score<'s>>>,
    /// The partitions before this one are too small for the shape, or held.
    tried: BTreeMap<&'s NodeId, PartitionName>,
}

impl<'s> Candidates<'s> {
    pub(super) fn new(state: &'s State, online: &BTreeSet<NodeId>) -> Self {
        let rooms = state.nodes.iter().map(|(id, node)| (id, room(state, node, online.contains(id)))).collect();
        Self { state, rooms, queues: BTreeMap::new() }
    }

    /// Takes the best free partition for a shape; `None` if there is none.
    pub(super) fn take_best(&mut self, shape: &Shape<'s>) -> Option<PartitionRef> {
        if !self.queues.contains_key(shape) {
            let fitting = self.rooms.values().filter(|room| verdict::against(self.state, room, shape).is_empty());
            let best = fitting.map(|room| Reverse(score(self.state, room, shape))).collect();
            self.queues.insert(*shape, Queue { best, tried: BTreeMap::new() });
        }
        let queue = self.queues.get_mut(shape)?;
        while let Some(Reverse(noted)) = queue.best.pop() {
            let Some(room) = self.rooms.get_mut(noted.2) else { continue };
            let present = score(self.state, room, shape);
            if present > noted {
                queue.best.push(Reverse(present));
                continue;
            }
            if !room.taken.left_of(room.node.inventory.capacity).shortfalls(shape.resources).is_empty() {
                continue;
            }
            let Some(name) = first_fitting(room, shape, queue.tried.get(noted.2)) else { continue };
            room.free.remove(&name);
            room.taken.add(shape.resources);
            room.instances += 1;
            queue.best.push(Reverse(score(self.state, room, shape)));
            queue.tried.insert(noted.2, name.clone());
            return Some(PartitionRef { node: noted.2.clone(), partition: name });
        }
        None
    }

    /// What speaks against each node now.
    pub(super) fn verdicts(&self, shape: &Shape<'s>) -> Vec<Verdict> {
        self.rooms.values().map(|room| verdict::of(self.state, room, shape)).collect()
    }
}

pub(super) fn room<'s>(state: &'s State, node: &'s Node, online: bool) -> Room<'s> {
    Room {
        node,
        online,
        free: state.free.get(&node.id).cloned().unwrap_or_default(),
        taken: state.taken.get(&node.id).copied().unwrap_or_default(),
        instances: state.placed.get(&node.id).map_or(0, |placed| placed.len()),
    }
}

pub(super) fn score<'s>(state: &State, room: &Room<'s>, shape: &Shape<'_>) -> Score<'s> {
    let far = match state.install_state(&room.node.id, shape.release) {
        InstallState::Installed => 0,
        InstallState::Installing | InstallState::Absent => 1,
        InstallState::Removing => 2,
        InstallState::Failed => 3,
    };
    (far, room.instances, &room.node.id)
}

/// The first free partition, from `from` on, whose own limits are large enough.
pub(super) fn first_fitting(room: &Room<'_>, shape: &Shape<'_>, from: Option<&PartitionName>) -> Option<PartitionName> {
    let fits = |limits: &Resources| limits.shortfalls(shape.resources).is_empty();
    let found = match from {
        Some(from) => room.free.range(from.clone()..).find(|(_, limits)| fits(limits)),
        None => room.free.iter().find(|(_, limits)| fits(limits)),
    };
    found.map(|(name, _)| name.clone())
}

//! What a node is told to hold.

use crate::state::State;
use plat_model::Generation;
use plat_model::id::{Digest, InstanceId, NodeId};
use plat_model::instance::{Instance, InstanceDesired, Wish};
use plat_model::node::NodeDesired;
use plat_model::tree::SharedDesired;
use std::collections::{BTreeMap, BTreeSet};

/// What a body weighs besides its parameters, at most.
const BODY_BYTES: usize = 1024;

/// What a node is to hold, without the bodies: what is compared with what it says it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Index {
    pub generation: Generation,
    /// In the order of ids.
    pub instances: Vec<(InstanceId, Generation)>,
    pub releases: BTreeSet<Digest>,
    /// How often each was to be built again, of those that were.
    pub rebuilds: BTreeMap<Digest, u64>,
}

/// The generation of what a node is to hold; zero for one that is unknown or revoked.
pub fn generation(state: &State, node: &NodeId) -> Generation {
    let stands = state.nodes.get(node).is_some_and(|row| !row.revoked);
    Generation(if stands { state.desired_revision.get(node).copied().unwrap_or(0) } else { 0 })
}

/// The index of what a node is to hold. A node that is unknown or revoked is to hold nothing, and is told so by nobody:
/// it is not answered.
pub fn index(state: &State, node: &NodeId) -> Index {
    let generation = generation(state, node);
    if generation == Generation::ZERO {
        return Index::default();
    }
    let mut releases = state.supplied_to(node);
    let mut instances = Vec::new();
    for instance in state.instances_on(node) {
        releases.insert(instance.release.clone());
        instances.push((instance.id.clone(), instance.generation));
    }
    releases.retain(|digest| state.releases.contains_key(digest));
    let rebuilds = state.nodes.get(node).map(|row| row.rebuilds.clone()).unwrap_or_default();
    let rebuilds = rebuilds.into_iter().filter(|(digest, _)| releases.contains(digest)).collect();
    Index { generation, instances, releases, rebuilds }
}

/// All that a node is to hold, whole.
pub fn desired(state: &State, node: &NodeId) -> NodeDesired {
    let index = index(state, node);
    let (releases, bodies) = lacking(state, &index, &BTreeMap::new(), &BTreeSet::new(), usize::MAX);
    let instances = bodies.into_iter().map(|body| (body.id.clone(), body)).collect();
    NodeDesired { generation: index.generation, releases, rebuilds: index.rebuilds, instances }
}

/// What a node lacks, as much of it as fits in `room` bytes, and at least one thing: it asks again for the rest.
pub fn lacking(
    state: &State,
    index: &Index,
    held: &BTreeMap<InstanceId, Generation>,
    held_releases: &BTreeSet<Digest>,
    mut room: usize,
) -> (BTreeMap<Digest, String>, Vec<InstanceDesired>) {
    let mut is_first = true;
    let mut fits = |bytes: usize| {
        let fits = is_first || bytes <= room;
        is_first = false;
        room = room.saturating_sub(bytes);
        fits
    };
    let documents = missing_documents(state, index, held_releases).take_while(|(_, text)| fits(text.len())).collect();
    let bodies = missing_bodies(state, index, held);
    (documents, bodies.take_while(|body| fits(bytes_of(body))).collect())
}

/// The bodies of the instances that a node does not hold in their present generation.
fn missing_bodies<'a>(
    state: &'a State,
    index: &'a Index,
    held: &'a BTreeMap<InstanceId, Generation>,
) -> impl Iterator<Item = InstanceDesired> + 'a {
    let differing = index.instances.iter().filter(|(id, generation)| held.get(id) != Some(generation));
    differing.filter_map(|(id, _)| state.instances.get(id).and_then(|instance| body(state, instance)))
}

/// The documents of the releases that a node does not hold.
fn missing_documents<'a>(
    state: &'a State,
    index: &'a Index,
    held: &'a BTreeSet<Digest>,
) -> impl Iterator<Item = (Digest, String)> + 'a {
    let missing = index.releases.difference(held).filter_map(|digest| state.releases.get(digest));
    missing.map(|release| (release.digest.clone(), release.document.clone()))
}

fn bytes_of(body: &InstanceDesired) -> usize {
    let parameters = body.shared.iter().map(|shared| &shared.parameters).chain([&body.parameters]);
    parameters.map(|parameters| BODY_BYTES + parameters.to_json().len()).sum()
}

fn body(state: &State, instance: &Instance) -> Option<InstanceDesired> {
    Some(InstanceDesired {
        id: instance.id.clone(),
        project: instance.project.clone(),
        name: instance.name.clone(),
        partition: instance.placement.as_ref()?.partition.clone(),
        generation: instance.generation,
        release: instance.release.clone(),
        parameters: instance.parameters.clone(),
        wish: instance.wish,
        resources: instance.resources,
        bang: instance.bang,
        runs: crate::run::open(state, instance).cloned().collect(),
        shared: state
            .riders_of(&instance.id)
            .filter(|rider| rider.wish == Wish::Started)
            .map(|rider| SharedDesired {
                id: rider.id.clone(),
                name: rider.name.clone(),
                parameters: rider.parameters.clone(),
            })
            .collect(),
    })
}

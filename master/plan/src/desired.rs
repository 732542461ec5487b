//! What a node is told to hold.

use crate::state::State;
use plat_model::Generation;
use plat_model::id::{Digest, InstanceId, NodeId};
use plat_model::instance::{Instance, InstanceDesired};
use plat_model::node::NodeDesired;
use std::collections::{BTreeMap, BTreeSet};

/// What a node is to hold, without the bodies: what is compared with what it says it holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Index {
    pub generation: Generation,
    /// In the order of ids.
    pub instances: Vec<(InstanceId, Generation)>,
    pub releases: BTreeSet<Digest>,
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
    Index { generation, instances, releases }
}

/// All that a node is to hold, whole.
pub fn desired(state: &State, node: &NodeId) -> NodeDesired {
    let index = index(state, node);
    NodeDesired {
        generation: index.generation,
        releases: documents(state, &index, &BTreeSet::new()),
        instances: bodies(state, &index, &BTreeMap::new()).into_iter().map(|body| (body.id.clone(), body)).collect(),
    }
}

/// The bodies of the instances that a node does not hold in their present generation.
pub fn bodies(state: &State, index: &Index, held: &BTreeMap<InstanceId, Generation>) -> Vec<InstanceDesired> {
    let differing = index.instances.iter().filter(|(id, generation)| held.get(id) != Some(generation));
    differing.filter_map(|(id, _)| state.instances.get(id).and_then(|instance| body(instance))).collect()
}

/// The documents of the releases that a node does not hold.
pub fn documents(state: &State, index: &Index, held: &BTreeSet<Digest>) -> BTreeMap<Digest, String> {
    let missing = index.releases.difference(held).filter_map(|digest| state.releases.get(digest));
    missing.map(|release| (release.digest.clone(), release.document.clone())).collect()
}

fn body(instance: &Instance) -> Option<InstanceDesired> {
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
    })
}

//! How the grid is, in one look: what metrics and the operator's overview show.

use crate::state::State;
use plat_model::id::NodeId;
use plat_model::instance::{InstanceState, Wish};
use plat_model::waiting::Waiting;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    pub nodes_online: usize,
    /// Enrolled, not revoked, and not reachable now.
    pub nodes_offline: BTreeSet<NodeId>,
    /// How many instances are in each state; those that no node reported are waiting.
    pub instances: BTreeMap<InstanceState, usize>,
    /// What a person may have to do something about: instances on nodes that are offline or revoked.
    pub waiting: Vec<Waiting>,
}

/// Looks at every node and instance once. `online` are the nodes that can be told now.
pub fn health(state: &State, online: &BTreeSet<NodeId>) -> Health {
    let mut health = Health::default();
    for node in state.nodes.values() {
        if !node.revoked && online.contains(&node.id) {
            health.nodes_online += 1;
            continue;
        }
        if !node.revoked {
            health.nodes_offline.insert(node.id.clone());
        }
        let of_node = state.instances_on(&node.id).filter(|instance| instance.wish != Wish::Stopped);
        let (count, since) =
            of_node.fold((0, None), |(count, since), instance| (count + 1, since.max(Some(instance.changed))));
        if let Some(since) = since {
            let how = if node.revoked { "revoked" } else { "offline" };
            health.waiting.push(Waiting {
                who: format!("{count} instances on node {}", node.id),
                on: format!("the node, which is {how}"),
                since,
                todo: "bring the node back, or destroy the instances and request them again".into(),
            });
        }
    }
    for id in state.instances.keys() {
        let now = state.statuses.get(id).map_or(InstanceState::Waiting, |status| status.state);
        *health.instances.entry(now).or_insert(0) += 1;
    }
    health
}

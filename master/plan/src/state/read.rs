//! Questions about [`State`] that several decisions ask.

use super::State;
use crate::record::Sum;
use imbl::OrdMap;
use plat_model::id::{Digest, InstanceId, InstanceName, NodeId, ProjectName};
use plat_model::instance::Instance;
use plat_model::release::{InstallState, SupplyState};
use std::collections::BTreeSet;
use std::sync::Arc;

impl State {
    /// The instance of a project by its name.
    pub fn instance(&self, project: &ProjectName, name: &InstanceName) -> Option<&Instance> {
        self.instances.get(self.by_name.get(&(project.clone(), name.clone()))?).map(Arc::as_ref)
    }

    /// The instances placed on a node, in the order of their ids.
    pub fn instances_on(&self, node: &NodeId) -> impl Iterator<Item = &Instance> {
        self.placed
            .get(node)
            .into_iter()
            .flatten()
            .filter_map(|id: &InstanceId| self.instances.get(id).map(Arc::as_ref))
    }

    /// What an instance asked for, in the order of the names that it gave.
    pub fn children_of(&self, instance: &InstanceId) -> impl Iterator<Item = &Instance> {
        let children = self.children.get(instance).into_iter().flat_map(OrdMap::values);
        children.filter_map(|id| self.instances.get(id).map(Arc::as_ref))
    }

    /// The shared instances in one, in the order of their ids.
    pub fn riders_of(&self, instance: &InstanceId) -> impl Iterator<Item = &Instance> {
        let riders = self.riders.get(instance).into_iter().flatten();
        riders.filter_map(|id: &InstanceId| self.instances.get(id).map(Arc::as_ref))
    }

    /// The sums of an instance, from the oldest period to the newest. They stay when it is gone.
    pub fn sums_of(&self, instance: &InstanceId) -> impl Iterator<Item = &Sum> {
        let periods = self.summed.get(instance).into_iter().flatten();
        periods.filter_map(|(period, project)| self.sums.get(&(project.clone(), *period))?.get(instance))
    }

    /// Whether a release is supplied to a node: by a supply of its own, else by one to all.
    pub fn is_supplied(&self, node: &NodeId, release: &Digest) -> bool {
        let state = |to: &Option<NodeId>| self.supplied.get(to).and_then(|of| of.get(release)).copied();
        state(&Some(node.clone())).or_else(|| state(&None)) == Some(SupplyState::Available)
    }

    /// Whether a release is supplied to all nodes, future ones too.
    pub fn is_supplied_to_all(&self, release: &Digest) -> bool {
        self.supplied.get(&None).and_then(|of| of.get(release)) == Some(&SupplyState::Available)
    }

    /// The releases supplied to a node.
    pub fn supplied_to(&self, node: &NodeId) -> BTreeSet<Digest> {
        let own = self.supplied.get(&Some(node.clone())).into_iter().flatten();
        let all = self.supplied.get(&None).into_iter().flatten();
        own.chain(all).map(|(digest, _)| digest).filter(|digest| self.is_supplied(node, digest)).cloned().collect()
    }

    /// Whether a node is to hold a release: it is supplied to it, or an instance on it is of that release.
    pub fn holds(&self, node: &NodeId, release: &Digest) -> bool {
        self.is_supplied(node, release) || self.instances_on(node).any(|instance| &instance.release == release)
    }

    /// What a node reported of a release; absent while it reported nothing.
    pub fn install_state(&self, node: &NodeId, release: &Digest) -> InstallState {
        let installation = self.installations.get(&(node.clone(), release.clone()));
        installation.map_or(InstallState::Absent, |installation| installation.state)
    }
}

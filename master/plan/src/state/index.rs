//! Keeps the indexes of [`State`] in step with its records: each record's part in them is taken out and put in again.

use super::State;
use crate::record::{Sum, Supply};
use imbl::OrdMap;
use plat_model::id::{Digest, InstanceId, NodeId, PartitionRef, ProjectName};
use plat_model::instance::{Instance, Wish};
use plat_model::node::Node;
use plat_model::release::Release;
use plat_model::time::Period;
use plat_model::tree::Parent;
use std::sync::Arc;

impl State {
    pub(super) fn put_node(&mut self, node: &Node, revision: u64) {
        let offers = node.inventory.partitions.iter().map(|offer| (offer.name.clone(), offer.limits));
        let offers: OrdMap<_, _> = offers.collect();
        if self.offers.get(&node.id) != Some(&offers) {
            let held = |name| PartitionRef { node: node.id.clone(), partition: name };
            let free = offers.iter().filter(|(name, _)| !self.is_held(&held((*name).clone())));
            self.free.insert(node.id.clone(), free.map(|(name, limits)| (name.clone(), *limits)).collect());
            self.offers.insert(node.id.clone(), offers);
        }
        let before = self.nodes.insert(node.id.clone(), node.clone());
        self.desired_revision.entry(node.id.clone()).or_insert(revision);
        if before.is_some_and(|before| before.rebuilds != node.rebuilds) {
            self.touch(&node.id, revision);
        }
    }

    pub(super) fn delete_node(&mut self, id: &NodeId) {
        self.nodes.remove(id);
        self.offers.remove(id);
        self.free.remove(id);
        self.desired_revision.remove(id);
    }

    fn is_held(&self, partition: &PartitionRef) -> bool {
        self.seats.get(partition).is_some_and(|seat| seat.instance.is_some())
    }

    /// Puts a partition among the free ones of its node, or takes it out, by its seat.
    pub(super) fn index_seat(&mut self, partition: &PartitionRef) {
        let offer = self.offers.get(&partition.node).and_then(|offers| offers.get(&partition.partition)).copied();
        let held = self.is_held(partition);
        let Some(free) = self.free.get_mut(&partition.node) else { return };
        match offer {
            Some(limits) if !held => drop(free.insert(partition.partition.clone(), limits)),
            _ => drop(free.remove(&partition.partition)),
        }
    }

    pub(super) fn put_release(&mut self, release: &Release, revision: u64) {
        let before = self.releases.insert(release.digest.clone(), release.clone());
        if let Some(before) = &before
            && before != release
        {
            self.find_newest(before);
        }
        let is_newer = |held: &Digest| {
            self.releases.get(held).is_none_or(|held| (held.added, &held.digest) <= (release.added, &release.digest))
        };
        if self.newest.get(&release.name).is_none_or(is_newer) {
            self.newest.insert(release.name.clone(), release.digest.clone());
        }
        if before.as_ref() != Some(release) {
            match plat_document::Release::from_canonical_json(&release.document) {
                Ok(document) => drop(self.documents.insert(release.digest.clone(), Arc::new(document))),
                Err(_) => drop(self.documents.remove(&release.digest)),
            }
            self.touch_holders(&release.digest, revision);
        }
    }

    pub(super) fn delete_release(&mut self, digest: &Digest, revision: u64) {
        if let Some(release) = self.releases.remove(digest) {
            self.documents.remove(digest);
            self.find_newest(&release);
            self.touch_holders(digest, revision);
        }
    }

    /// Looks for the newest release of a name from all of them; `gone` is the one that was it, perhaps.
    fn find_newest(&mut self, gone: &Release) {
        let of_name = self.releases.values().filter(|release| release.name == gone.name);
        match of_name.max_by_key(|release| (release.added, release.digest.clone())) {
            Some(newest) => drop(self.newest.insert(gone.name.clone(), newest.digest.clone())),
            None => drop(self.newest.remove(&gone.name)),
        }
    }

    /// Touches the nodes that are to hold a release.
    fn touch_holders(&mut self, digest: &Digest, revision: u64) {
        let nodes: Vec<NodeId> = self.nodes.keys().filter(|node| self.holds(node, digest)).cloned().collect();
        for node in nodes {
            self.touch(&node, revision);
        }
    }

    fn touch(&mut self, node: &NodeId, revision: u64) {
        let newest = self.desired_revision.entry(node.clone()).or_insert(revision);
        *newest = revision.max(*newest);
    }

    fn touch_supply(&mut self, node: Option<&NodeId>, revision: u64) {
        match node {
            Some(node) if self.nodes.contains_key(node) => self.touch(node, revision),
            Some(_) => {}
            None => {
                let nodes: Vec<NodeId> = self.nodes.keys().cloned().collect();
                nodes.iter().for_each(|node| self.touch(node, revision));
            }
        }
    }

    pub(super) fn put_supply(&mut self, supply: &Supply, revision: u64) {
        let before = self.supplies.insert((supply.release.clone(), supply.node.clone()), supply.clone());
        if before.as_ref() != Some(supply) {
            let of_node = self.supplied.entry(supply.node.clone()).or_default();
            of_node.insert(supply.release.clone(), supply.state);
            self.touch_supply(supply.node.as_ref(), revision);
        }
    }

    pub(super) fn delete_supply(&mut self, digest: &Digest, node: Option<&NodeId>, revision: u64) {
        if self.supplies.remove(&(digest.clone(), node.cloned())).is_none() {
            return;
        }
        let key = node.cloned();
        if let Some(of_node) = self.supplied.get_mut(&key) {
            of_node.remove(digest);
            if of_node.is_empty() {
                self.supplied.remove(&key);
            }
        }
        self.touch_supply(node, revision);
    }

    pub(super) fn put_instance(&mut self, instance: &Instance, revision: u64) {
        let before = self.instances.insert(instance.id.clone(), Arc::new(instance.clone()));
        if before.as_deref() == Some(instance) {
            return;
        }
        if let Some(before) = before {
            self.unindex_instance(&before, revision);
        }
        self.by_name.insert((instance.project.clone(), instance.name.clone()), instance.id.clone());
        *self.uses.entry(instance.release.clone()).or_insert(0) += 1;
        self.index_tree(instance);
        if let Some(leaving) = instance.leaving {
            self.leaving.insert((leaving.at, instance.id.clone()));
        }
        match &instance.placement {
            Some(place) => {
                self.placed.entry(place.node.clone()).or_default().insert(instance.id.clone());
                self.taken.entry(place.node.clone()).or_default().add(instance.resources);
                self.touch_placed(&place.node, revision);
            }
            None if instance.wish != Wish::Destroyed && instance.leaving.is_none() && instance.rides.is_none() => {
                drop(self.unplaced.insert(instance.id.clone()))
            }
            None => {}
        }
    }

    pub(super) fn delete_instance(&mut self, id: &InstanceId, revision: u64) {
        if let Some(before) = self.instances.remove(id) {
            self.unindex_instance(&before, revision);
        }
    }

    fn touch_placed(&mut self, node: &NodeId, revision: u64) {
        if self.nodes.contains_key(node) {
            self.touch(node, revision);
        }
    }

    fn unindex_instance(&mut self, instance: &Instance, revision: u64) {
        let name = (instance.project.clone(), instance.name.clone());
        if self.by_name.get(&name) == Some(&instance.id) {
            self.by_name.remove(&name);
        }
        self.unplaced.remove(&instance.id);
        self.unindex_tree(instance);
        if let Some(leaving) = instance.leaving {
            self.leaving.remove(&(leaving.at, instance.id.clone()));
        }
        if let Some(uses) = self.uses.get_mut(&instance.release) {
            *uses -= 1;
            if *uses == 0 {
                self.uses.remove(&instance.release);
            }
        }
        let Some(place) = &instance.placement else { return };
        let mut empty = false;
        if let Some(placed) = self.placed.get_mut(&place.node) {
            placed.remove(&instance.id);
            empty = placed.is_empty();
        }
        self.taken.entry(place.node.clone()).or_default().take_away(instance.resources);
        if empty {
            self.placed.remove(&place.node);
            self.taken.remove(&place.node);
        }
        self.touch_placed(&place.node, revision);
    }

    fn index_tree(&mut self, instance: &Instance) {
        if let Some(Parent { instance: parent, name }) = &instance.parent {
            self.children.entry(parent.clone()).or_default().insert(name.clone(), instance.id.clone());
        }
        if let Some(host) = &instance.rides {
            self.riders.entry(host.clone()).or_default().insert(instance.id.clone());
        }
    }

    fn unindex_tree(&mut self, instance: &Instance) {
        if let Some(Parent { instance: parent, name }) = &instance.parent
            && let Some(children) = self.children.get_mut(parent)
            && children.get(name) == Some(&instance.id)
        {
            children.remove(name);
            if children.is_empty() {
                self.children.remove(parent);
            }
        }
        if let Some(host) = &instance.rides
            && let Some(riders) = self.riders.get_mut(host)
        {
            riders.remove(&instance.id);
            if riders.is_empty() {
                self.riders.remove(host);
            }
        }
    }

    pub(super) fn put_sum(&mut self, sum: &Sum) {
        let of_project = self.sums.entry((sum.project.clone(), sum.period)).or_default();
        of_project.insert(sum.instance.clone(), sum.clone());
        let periods = self.summed.entry(sum.instance.clone()).or_default();
        periods.insert((sum.period, sum.project.clone()));
    }

    pub(super) fn delete_sum(&mut self, project: &ProjectName, period: Period, instance: &InstanceId) {
        let key = (project.clone(), period);
        if let Some(of_project) = self.sums.get_mut(&key) {
            of_project.remove(instance);
            if of_project.is_empty() {
                self.sums.remove(&key);
            }
        }
        if let Some(periods) = self.summed.get_mut(instance) {
            periods.remove(&(period, project.clone()));
            if periods.is_empty() {
                self.summed.remove(instance);
            }
        }
    }
}

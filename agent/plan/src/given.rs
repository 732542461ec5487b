//! What a partition's plan is made from.

use crate::facts::{PartitionFact, ReleaseFact};
use crate::moment::Moment;
use plat_document::Release;
use plat_model::id::{Digest, NodeId, PartitionName};
use plat_model::instance::{InstanceDesired, InstanceStatus, Wish};
use plat_model::node::{NodeDesired, NodeFile, NodePartition};
use std::path::PathBuf;

/// Where things are on this node, and what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub node: NodeId,
    /// Parent of the releases' folders.
    pub releases: PathBuf,
    /// Parent of the partitions' directories.
    pub partitions: PathBuf,
}

impl Place {
    pub fn new(node: NodeId, file: &NodeFile) -> Self {
        Self { node, releases: file.releases.clone(), partitions: file.root.clone() }
    }

    pub fn release_directory(&self, digest: &Digest) -> String {
        self.releases.join(digest.as_str()).display().to_string()
    }

    pub fn partition_directory(&self, partition: &PartitionName) -> String {
        self.partitions.join(partition.as_str()).display().to_string()
    }
}

/// Everything that decides what happens next in one partition.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    pub place: &'a Place,
    pub partition: &'a NodePartition,
    /// The instance that is to be in it: see [`instance_of`].
    pub desired: Option<&'a InstanceDesired>,
    /// Its release's document; `None` if it is not at hand or cannot be read.
    pub release: Option<&'a Release>,
    pub release_fact: &'a ReleaseFact,
    pub fact: &'a PartitionFact,
    /// What was reported of this instance last.
    pub previous: Option<&'a InstanceStatus>,
    pub now: Moment,
}

/// The instance that a partition's plan is about: the one that is in it, if the master still lists it there; else the
/// one that is to come.
pub fn instance_of<'a>(
    desired: &'a NodeDesired,
    partition: &PartitionName,
    fact: &PartitionFact,
) -> Option<&'a InstanceDesired> {
    let here = |instance: &&InstanceDesired| &instance.partition == partition;
    let occupant = fact.occupant.as_ref().and_then(|occupant| desired.instances.get(&occupant.instance)).filter(here);
    occupant
        .or_else(|| desired.instances.values().filter(here).find(|instance| instance.wish != Wish::Destroyed))
        .or_else(|| desired.instances.values().find(here))
}

//! The plan of a whole node: the union of what its partitions and releases need, each decided by itself.

use crate::facts::{PartitionFact, ReleaseFact};
use crate::given::{Given, Place, instance_of};
use crate::moment::Moment;
use crate::partition::{PartitionPlan, plan_partition};
use crate::release::{InUse, Rebuild, ReleaseGiven, ReleasePlan, Settled, plan_release};
use crate::render::applied_release;
use plat_document::Release;
use plat_model::Problem;
use plat_model::id::{Digest, InstanceId, PartitionName};
use plat_model::instance::InstanceStatus;
use plat_model::node::{NodeDesired, NodeFile};
use std::collections::{BTreeMap, BTreeSet};

/// What is there on a node.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeFacts {
    /// One that is missing here is not known yet, and waits.
    pub releases: BTreeMap<Digest, ReleaseFact>,
    /// Likewise.
    pub partitions: BTreeMap<PartitionName, PartitionFact>,
    /// What was reported last.
    pub reported: BTreeMap<InstanceId, InstanceStatus>,
    /// Releases that are to go if nothing needs them.
    pub garbage: BTreeSet<Digest>,
    /// Of releases that were to be built again, the wishes that were settled last.
    pub settled: BTreeMap<Digest, Settled>,
    /// Why nothing is begun that takes room.
    pub shortage: Option<Problem>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodePlan {
    pub releases: BTreeMap<Digest, ReleasePlan>,
    pub partitions: BTreeMap<PartitionName, PartitionPlan>,
}

/// Plans everything at once.
pub fn plan(place: &Place, file: &NodeFile, desired: &NodeDesired, facts: &NodeFacts, now: Moment) -> NodePlan {
    let in_use = releases_in_use(desired, facts.partitions.values());
    let all_seen = file.partitions.iter().all(|partition| facts.partitions.contains_key(&partition.name));
    let digests: BTreeSet<&Digest> = desired.releases.keys().chain(facts.releases.keys()).collect();
    let releases = digests.into_iter().filter_map(|digest| {
        let document = desired.releases.get(digest).map(String::as_str);
        let wanted = desired.rebuilds.get(digest).copied().unwrap_or(0);
        let settled = facts.settled.get(digest).copied().unwrap_or_default();
        let given = ReleaseGiven {
            digest,
            document,
            in_use: match in_use.contains(digest) {
                true => InUse::Yes,
                false if all_seen => InUse::No,
                false => InUse::Unknown,
            },
            garbage: facts.garbage.contains(digest),
            rebuild: Rebuild { wanted, settled },
            shortage: facts.shortage.as_ref(),
            roomier: false,
            unremoved: None,
            fact: facts.releases.get(digest)?,
            now,
        };
        Some((digest.clone(), plan_release(&given)))
    });
    let partitions = file.partitions.iter().filter_map(|partition| {
        let fact = facts.partitions.get(&partition.name)?;
        let instance = instance_of(desired, &partition.name, fact);
        let document = instance.and_then(|instance| desired.releases.get(&instance.release));
        let release = document.and_then(|document| Release::from_canonical_json(document).ok());
        let release_fact = instance.and_then(|instance| facts.releases.get(&instance.release));
        let given = Given {
            place,
            partition,
            desired: instance,
            release: release.as_ref(),
            release_fact: release_fact.unwrap_or(&ReleaseFact::Absent),
            fact,
            previous: instance.and_then(|instance| facts.reported.get(&instance.id)),
            now,
        };
        Some((partition.name.clone(), plan_partition(&given)))
    });
    NodePlan { releases: releases.collect(), partitions: partitions.collect() }
}

/// The releases that instances on this node consist of, or are to.
pub fn releases_in_use<'a>(
    desired: &NodeDesired,
    facts: impl IntoIterator<Item = &'a PartitionFact>,
) -> BTreeSet<Digest> {
    let applied = facts.into_iter().filter_map(|fact| applied_release(&fact.occupant.as_ref()?.configured));
    desired.instances.values().map(|instance| instance.release.clone()).chain(applied).collect()
}

//! The directories that an instance keeps things in, or uses for a while.

use crate::action::{Action, Note};
use crate::facts::Occupant;
use crate::given::Given;
use crate::partition::{PartitionPlan, Verdict};
use crate::render::Rendered;
use crate::{fingerprint, teardown};
use plat_document::release::VolumeKind;
use plat_model::instance::InstanceState;
use std::collections::BTreeMap;

/// Where they are, beneath the partition's directory.
pub const VOLUMES: &str = "volumes";

/// Of which volumes it is written down that they are ready; empty without any.
pub fn ready(volumes: &BTreeMap<String, VolumeKind>) -> String {
    if volumes.is_empty() { String::new() } else { fingerprint::of(volumes) }
}

/// Has them made, and what is for a while emptied. Only where nothing of the instance runs.
pub(crate) fn prepare(given: &Given<'_>, rendered: &Rendered, plan: &mut PartitionPlan) {
    if !rendered.volumes.is_empty() {
        let partition = &given.partition.name;
        let volumes = rendered.volumes.clone();
        let note = Note::Prepared { volumes: ready(&volumes) };
        plan.actions.push(Action::PrepareVolumes { partition: partition.clone(), volumes });
        plan.actions.push(Action::Note { partition: partition.clone(), note });
    }
}

/// The same for an instance that was stopped, and is otherwise as it should be.
pub(crate) fn before_start(
    given: &Given<'_>,
    occupant: &Occupant,
    rendered: &Rendered,
    plan: &mut PartitionPlan,
) -> Option<Verdict> {
    if rendered.volumes.is_empty() || occupant.prepared == ready(&rendered.volumes) {
        return None;
    }
    teardown::stop_services(given, occupant, rendered.stop.as_ref(), plan);
    prepare(given, rendered, plan);
    Some(Verdict::new(InstanceState::Starting, "its volumes are prepared"))
}

//! Views of the grid as the wire spells them.

use crate::grid::show::{InstallationView, InstanceView, NodeView, ReleaseView};
use plat_master_plan::allocate::Verdict;
use plat_model::instance::Wish;
use plat_model::parameters::Parameters;
use plat_model::principal::Role;
use plat_wire::v1;

pub(super) fn role(role: &Role) -> (String, String) {
    match role {
        Role::Operator => ("operator".into(), String::new()),
        Role::Member(project) => ("member".into(), project.to_string()),
        Role::Billing => ("billing".into(), String::new()),
    }
}

fn json(parameters: &Parameters) -> String {
    if parameters.is_empty() { String::new() } else { parameters.to_json() }
}

pub(super) fn instance(view: InstanceView) -> v1::InstanceView {
    let instance = view.instance;
    v1::InstanceView {
        id: instance.id.to_string(),
        project: instance.project.to_string(),
        name: instance.name.to_string(),
        release_name: view.release_name,
        release: instance.release.to_string(),
        parameters_json: json(&instance.parameters),
        wish: wish(instance.wish).into(),
        rules: Some((&instance.rules).into()),
        resources: Some((&instance.resources).into()),
        placement: instance.placement.as_ref().map(Into::into),
        generation: instance.generation.0,
        created_ms: instance.created.0,
        changed_ms: instance.changed.0,
        status: Some((&view.status).into()),
        waiting: view.waiting.iter().map(Into::into).collect(),
        installation: view.installation.as_ref().map(Into::into),
        created: view.created,
        leaves_ms: instance.leaving.map_or(0, |leaving| leaving.at.0),
        parent: view.tree.parent.map_or_else(String::new, |name| name.to_string()),
        children: view.tree.children.iter().map(ToString::to_string).collect(),
        on: view.tree.on.map_or_else(String::new, |name| name.to_string()),
        shared: view.tree.shared.iter().map(ToString::to_string).collect(),
        wish_before: instance.leaving.map_or(v1::Wish::Unspecified, |leaving| wish(leaving.before)).into(),
    }
}

fn wish(wish: Wish) -> v1::Wish {
    match wish {
        Wish::Started => v1::Wish::Started,
        Wish::Stopped => v1::Wish::Stopped,
        Wish::Destroyed => v1::Wish::Destroyed,
    }
}

pub(super) fn explanation(view: InstanceView, verdicts: Vec<Verdict>) -> v1::Explanation {
    let nodes = verdicts.into_iter().map(|verdict| v1::NodeVerdict {
        node: verdict.node.to_string(),
        chosen: verdict.chosen,
        reasons: verdict.reasons,
    });
    v1::Explanation { nodes: nodes.collect(), instance: Some(instance(view)) }
}

fn installation(view: InstallationView) -> v1::NodeInstallation {
    let absent = v1::Installation {
        digest: view.digest.to_string(),
        state: v1::InstallState::Absent.into(),
        ..v1::Installation::default()
    };
    v1::NodeInstallation {
        node: view.node.to_string(),
        wanted: view.wanted,
        installation: Some(view.installation.as_ref().map_or(absent, Into::into)),
    }
}

pub(super) fn release(view: ReleaseView) -> v1::ReleaseView {
    v1::ReleaseView {
        digest: view.digest.to_string(),
        name: view.name.to_string(),
        added_ms: view.added.0,
        document: view.document.unwrap_or_default(),
        installations: view.installations.into_iter().map(installation).collect(),
        instances: view.instances,
        title: view.title,
        all_nodes: view.all_nodes,
    }
}

pub(super) fn node(view: NodeView) -> v1::NodeView {
    let inventory = &view.node.inventory;
    let partitions = inventory.partitions.iter().zip(view.holders).map(|(offer, holder)| {
        let (project, name) = holder.map_or_else(Default::default, |(p, n)| (p.to_string(), n.to_string()));
        v1::PartitionView {
            name: offer.name.to_string(),
            addresses: offer.addresses.iter().map(ToString::to_string).collect(),
            instance_project: project,
            instance_name: name,
        }
    });
    v1::NodeView {
        id: view.node.id.to_string(),
        labels: view.node.labels.clone().into_iter().collect(),
        revoked: view.node.revoked,
        enrolled_ms: view.node.enrolled.0,
        online: view.online,
        last_seen_ms: view.last_seen.map_or(0, |at| at.0),
        capacity: Some((&inventory.capacity).into()),
        partitions: partitions.collect(),
        installations: view.installations.into_iter().map(installation).collect(),
        generation_desired: view.desired.0,
        generation_reported: view.reported.0,
        runtime: inventory.runtime.clone(),
        troubles: inventory.troubles.iter().map(Into::into).collect(),
        enforced: inventory.enforced.names().into_iter().map(str::to_owned).collect(),
    }
}

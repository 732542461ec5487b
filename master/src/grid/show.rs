//! The read side: one view for each noun, put together from several rows, and pages of them.

use super::request::Key;
use super::{Caller, Grid};
use plat_master_plan::{State, desired, view};
use plat_model::id::{Digest, InstanceId, InstanceName, NodeId, ProjectName, ReleaseName};
use plat_model::instance::{Instance, InstanceState, InstanceStatus};
use plat_model::node::Node;
use plat_model::principal::{Principal, Role};
use plat_model::problem::codes;
use plat_model::release::{Installation, Release};
use plat_model::{Generation, Problem, Timestamp, Waiting};
use std::collections::BTreeMap;
use std::ops::Bound;

/// An instance with what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceView {
    pub instance: Instance,
    /// Empty if its release is gone.
    pub release_name: String,
    pub status: InstanceStatus,
    pub waiting: Vec<Waiting>,
    /// Of its release on its node.
    pub installation: Option<Installation>,
    /// By the request that this answers.
    pub created: bool,
    pub tree: TreeView,
}

/// The names of those that an instance has to do with.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TreeView {
    /// The one that asked for it.
    pub parent: Option<InstanceName>,
    pub children: Vec<InstanceName>,
    /// Of a shared one, the one that it is in.
    pub on: Option<InstanceName>,
    /// The shared ones in it.
    pub shared: Vec<InstanceName>,
}

/// Where a release is to be, and is.
#[derive(Debug, Clone, PartialEq)]
pub struct InstallationView {
    pub node: NodeId,
    pub digest: Digest,
    pub wanted: bool,
    pub installation: Option<Installation>,
}

/// A release with where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct ReleaseView {
    pub digest: Digest,
    pub name: ReleaseName,
    pub title: String,
    pub added: Timestamp,
    /// Canonical JSON; `None` in lists.
    pub document: Option<String>,
    pub installations: Vec<InstallationView>,
    pub instances: u32,
    /// Supplied to all nodes, future ones too.
    pub all_nodes: bool,
}

/// How much of a release is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    Summary,
    Whole,
}

/// A node with who is on it.
#[derive(Debug, Clone)]
pub struct NodeView {
    pub node: Node,
    pub online: bool,
    pub last_seen: Option<Timestamp>,
    /// For each partition, in the order of the inventory, who holds it.
    pub holders: Vec<Option<(ProjectName, InstanceName)>>,
    pub installations: Vec<InstallationView>,
    pub desired: Generation,
    pub reported: Generation,
}

pub(super) fn instance(state: &State, id: &InstanceId, grid: &Grid) -> Option<InstanceView> {
    Some(instance_as(state, Instance::clone(state.instances.get(id)?), grid))
}

/// The view of an instance as a decision on `state` leaves it: with the row that it writes, and no other change of it.
pub(super) fn instance_as(state: &State, instance: Instance, grid: &Grid) -> InstanceView {
    let id = &instance.id;
    let release = state.releases.get(&instance.release);
    let status = state.statuses.get(id).cloned().unwrap_or_else(|| {
        InstanceStatus::bare(id.clone(), Generation::ZERO, InstanceState::Waiting, instance.created)
    });
    let on = instance.placement.as_ref().map(|place| (place.node.clone(), instance.release.clone()));
    InstanceView {
        release_name: release.map_or_else(String::new, |release| release.name.to_string()),
        status,
        waiting: view::waiting(state, &grid.presence.online(), &instance),
        installation: on.and_then(|key| state.installations.get(&key)).cloned(),
        tree: tree(state, &instance),
        instance,
        created: false,
    }
}

fn tree(state: &State, instance: &Instance) -> TreeView {
    let named = |id: &InstanceId| state.instances.get(id).map(|one| one.name.clone());
    TreeView {
        parent: instance.parent.as_ref().and_then(|parent| named(&parent.instance)),
        children: state.children_of(&instance.id).map(|child| child.name.clone()).collect(),
        on: instance.rides.as_ref().and_then(named),
        shared: state.riders_of(&instance.id).map(|rider| rider.name.clone()).collect(),
    }
}

/// The last view of an instance that is no more.
pub(super) fn gone(mut view: InstanceView) -> InstanceView {
    view.instance.wish = plat_model::instance::Wish::Destroyed;
    view.status.state = InstanceState::Destroyed;
    view.waiting.clear();
    view
}

pub(super) fn release(state: &State, digest: &Digest, detail: Detail) -> Option<ReleaseView> {
    let Release { digest, name, document, added } = state.releases.get(digest)?.clone();
    let installations = state.nodes.keys().filter_map(|node| installation(state, node, &digest));
    Some(ReleaseView {
        title: state.documents.get(&digest).map_or_else(String::new, |document| document.title.clone()),
        name,
        added,
        document: (detail == Detail::Whole).then_some(document),
        installations: installations.collect(),
        instances: state.uses.get(&digest).copied().unwrap_or(0),
        all_nodes: state.is_supplied_to_all(&digest),
        digest,
    })
}

/// A member is told what there is, not who else uses it.
pub(super) fn for_role(mut view: ReleaseView, caller: &Caller) -> ReleaseView {
    if let Some(Role::Member(_)) = caller.role() {
        view.installations.clear();
        view.instances = 0;
    }
    view
}

fn installation(state: &State, node: &NodeId, digest: &Digest) -> Option<InstallationView> {
    let installation = state.installations.get(&(node.clone(), digest.clone())).cloned();
    let wanted = state.holds(node, digest);
    let shown = wanted || installation.is_some();
    shown.then(|| InstallationView { node: node.clone(), digest: digest.clone(), wanted, installation })
}

pub(super) fn node(state: &State, id: &NodeId, grid: &Grid) -> Option<NodeView> {
    let node = state.nodes.get(id)?.clone();
    let mut holders = BTreeMap::new();
    for instance in state.instances_on(id) {
        if let Some(place) = &instance.placement {
            holders.insert(place.partition.clone(), (instance.project.clone(), instance.name.clone()));
        }
    }
    let mut digests = desired::index(state, id).releases;
    let least = Digest::parse(&"0".repeat(64)).ok()?;
    let reported = state.installations.range((id.clone(), least)..).take_while(|((of, _), _)| of == id);
    digests.extend(reported.map(|((_, digest), _)| digest.clone()));
    Some(NodeView {
        online: grid.presence.online().contains(id),
        last_seen: grid.presence.last_seen(id),
        holders: node.inventory.partitions.iter().map(|offer| holders.get(&offer.name).cloned()).collect(),
        installations: digests.iter().filter_map(|digest| installation(state, id, digest)).collect(),
        desired: desired::generation(state, id),
        reported: grid.presence.reported(id),
        node,
    })
}

pub(super) fn no_instance(key: &Key) -> Problem {
    let name = key.project.as_ref().map_or_else(|| key.name.to_string(), |project| format!("{project}/{}", key.name));
    Problem::new(codes::NOT_FOUND, format!("there is no instance `{name}`")).fix("see `plat list`")
}

pub(super) fn no_node(node: &NodeId) -> Problem {
    Problem::new(codes::NOT_FOUND, format!("there is no node `{node}`")).fix("see `plat node list`")
}

pub(super) fn no_release(text: &str) -> Problem {
    Problem::new(codes::NOT_FOUND, format!("there is no release `{}`", plat_model::id::shorten(text)))
        .fix("see `plat release list`, or add it with `plat release add`")
}

/// Which part of a list is asked for.
#[derive(Debug, Clone)]
pub struct Page {
    /// How many at most; the services never ask for more than `plat_wire::limits::PAGE_MAX`.
    pub size: usize,
    /// What the page before said comes next: the key of its last item. Empty: the first page.
    pub token: String,
}

impl Page {
    /// The items of a map after the token, and the next page's token (empty after the last).
    pub(super) fn of<K: Ord + Clone + std::fmt::Display, V: Clone, T>(
        &self,
        map: &imbl::OrdMap<K, V>,
        parse: fn(&str) -> Result<K, Problem>,
        item: impl Fn(&V) -> T,
    ) -> Result<(Vec<T>, String), Problem> {
        let start = match self.token.as_str() {
            "" => Bound::Unbounded,
            token => Bound::Excluded(parse(token).map_err(|_| bad_token())?),
        };
        let mut found = map.range((start, Bound::Unbounded));
        let mut last = String::new();
        let mut items = Vec::new();
        for (key, value) in found.by_ref().take(self.size) {
            items.push(item(value));
            last = key.to_string();
        }
        Ok((items, if found.next().is_some() { last } else { String::new() }))
    }

    /// The instances after the token that a caller sees, and the next page's token.
    pub(super) fn of_instances(
        &self,
        state: &State,
        who: &Principal,
        project: Option<&ProjectName>,
    ) -> Result<(Vec<InstanceId>, String), Problem> {
        let after = match self.token.split_once('/') {
            None if self.token.is_empty() => None,
            Some((project, name)) => {
                let key = ProjectName::parse(project).and_then(|p| Ok((p, InstanceName::parse(name)?)));
                Some(key.map_err(|_| bad_token())?)
            }
            None => return Err(bad_token()),
        };
        let found = view::instances(state, who, project, after.as_ref(), self.size);
        let next = match found.last() {
            Some(last) if found.len() == self.size => format!("{}/{}", last.project, last.name),
            _ => String::new(),
        };
        Ok((found.into_iter().map(|instance| instance.id.clone()).collect(), next))
    }
}

fn bad_token() -> Problem {
    Problem::new(codes::BAD_VALUE, "the page token is not one").fix("use the one from the answer before, unchanged")
}

//! Requests: what a project wishes. The same request twice is one instance.

use crate::change::Change;
use crate::decision::Decision;
use crate::record::{Key, Load, Name, Record};
use crate::state::State;
use crate::tree;
use plat_model::Generation;
use plat_model::id::{Digest, InstanceId, InstanceName, NodeId, ProjectName};
use plat_model::instance::{Instance, KEPT_MAX, Leaving, PlacementRules, Wish};
use plat_model::parameters::Parameters;
use plat_model::problem::{Problem, Problems, codes};
use plat_model::resources::Resources;
use plat_model::time::Timestamp;
use plat_model::tree::{Kind, Parent};
use std::time::Duration;

mod shared;

pub(crate) use shared::taken_in;

/// Most instances that the members of a project may have requested for it. Operators may request more.
pub const PROJECT_MAX: usize = 1000;

/// What is asked for. What is `None` takes the default of a new instance, and stays as it is of an existing one.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestAsk {
    pub project: ProjectName,
    pub name: InstanceName,
    /// Needed for a new instance.
    pub release: Option<Digest>,
    pub parameters: Option<Parameters>,
    pub rules: Option<PlacementRules>,
    pub resources: Option<Resources>,
    pub wish: Option<Wish>,
    /// The instance that asks; `None`: people do.
    pub parent: Option<Parent>,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requested {
    pub id: InstanceId,
    /// By this very request.
    pub created: bool,
}

/// Creates an instance, or changes the one of this name. `fresh` is the id of a new one: random, never used before.
///
/// # Errors
/// All that is wrong: [`codes::NOT_FOUND`] for an unknown release, or none for a new instance;
/// [`codes::BAD_PARAMETERS`]; [`codes::DESTROYED`] while an instance of this name is being destroyed;
/// [`codes::NO_PLACE`] if the change does not fit where the instance is, since instances are not moved;
/// [`codes::EXISTS`] if `fresh` is not.
pub fn request(
    state: &State,
    ask: RequestAsk,
    fresh: InstanceId,
    now: Timestamp,
) -> Result<Decision<Requested>, Problems> {
    match state.instance(&ask.project, &ask.name) {
        Some(instance) => change(state, instance, ask, now),
        None => create(state, ask, fresh, now),
    }
}

/// Whether a member may request an instance of this name: a new one only while its project has few enough.
///
/// # Errors
/// [`codes::TOO_MANY`] past [`PROJECT_MAX`].
pub fn room(state: &State, project: &ProjectName, name: &InstanceName) -> Result<(), Problem> {
    // `0` is the least name.
    let first = (project.clone(), InstanceName::parse("0")?);
    let own = || state.by_name.range(first..).take_while(|((of, _), _)| of == project);
    if state.instance(project, name).is_some() || own().nth(PROJECT_MAX - 1).is_none() {
        return Ok(());
    }
    Err(Problem::new(codes::TOO_MANY, format!("cannot request `{project}/{name}`"))
        .because(format!("project `{project}` has {PROJECT_MAX} instances, and its members may have no more"))
        .fix("destroy what is not needed, or ask an operator to request it"))
}

fn create(state: &State, ask: RequestAsk, id: InstanceId, now: Timestamp) -> Result<Decision<Requested>, Problems> {
    let what = format!("cannot request `{}/{}`", ask.project, ask.name);
    if ask.wish == Some(Wish::Destroyed) {
        return Err(no_instance(&ask.project, &ask.name).into());
    }
    if let Kind::Shared { on } = &ask.kind {
        let on = on.clone();
        return shared::create(state, ask, on.as_ref(), id, now);
    }
    let Some(release) = ask.release else {
        return Err(Problem::new(codes::NOT_FOUND, what)
            .because("there is no instance of this name, and a new one needs a release")
            .fix("say which (`--release`)")
            .into());
    };
    unused(state, &id, what)?;
    let document = document(state, &release)?;
    let parameters = plat_document::parameters::check(document, &ask.parameters.unwrap_or_default())?;
    let instance = Instance {
        id: id.clone(),
        project: ask.project.clone(),
        name: ask.name.clone(),
        release: release.clone(),
        parameters,
        wish: ask.wish.unwrap_or(Wish::Started),
        rules: ask.rules.unwrap_or_default(),
        resources: ask.resources.unwrap_or_default().or(document.resources),
        placement: None,
        leaving: None,
        parent: ask.parent,
        rides: None,
        bang: 0,
        runs: Vec::new(),
        generation: Generation::ZERO.next(),
        created: now,
        changed: now,
    };
    Ok(Decision::new(named(instance).into(), vec![Key::Release(release)], Requested { id, created: true }))
}

fn unused(state: &State, id: &InstanceId, what: String) -> Result<(), Problem> {
    if state.instances.contains_key(id) || state.summed.contains_key(id) {
        return Err(Problem::new(codes::EXISTS, what).because("its new id is taken").fix("try again"));
    }
    Ok(())
}

/// A new instance, and its name.
fn named(instance: Instance) -> [Change; 2] {
    let name = Name { project: instance.project.clone(), name: instance.name.clone(), instance: instance.id.clone() };
    [Change::put(Record::Name(name)), Change::put(Record::Instance(instance))]
}

fn change(state: &State, old: &Instance, ask: RequestAsk, now: Timestamp) -> Result<Decision<Requested>, Problems> {
    let answer = Requested { id: old.id.clone(), created: false };
    if ask.wish == Some(Wish::Destroyed) {
        return Ok(set(state, old, Wish::Destroyed, now).map(|decision| Decision {
            changes: decision.changes,
            read: decision.read,
            answer,
        })?);
    }
    if old.wish == Wish::Destroyed {
        return Err(being_destroyed(old).into());
    }
    if let (Some(leaving), None) = (&old.leaving, ask.wish) {
        return Err(leaves_soon(old, leaving).into());
    }
    if old.rides.is_some() || ask.kind != Kind::Own {
        return shared::change(state, old, ask, now);
    }
    let mut new = Instance { leaving: None, ..old.clone() };
    let mut read = vec![Key::Instance(old.id.clone())];
    new.release = ask.release.unwrap_or(new.release);
    if ask.parameters.is_some() || new.release != old.release {
        let document = document(state, &new.release)?;
        read.push(Key::Release(new.release.clone()));
        new.parameters =
            plat_document::parameters::check(document, ask.parameters.as_ref().unwrap_or(&old.parameters))?;
        if let Some(asked) = ask.resources {
            new.resources = asked.or(document.resources);
        }
    } else if let Some(asked) = ask.resources {
        new.resources = asked.or(document(state, &new.release)?.resources);
    }
    new.rules = ask.rules.unwrap_or(new.rules);
    new.wish = ask.wish.unwrap_or(new.wish);
    if new == *old {
        return Ok(Decision::nothing(answer));
    }
    let mut changes = Vec::new();
    if let Some(place) = &old.placement {
        stays(state, old, &new, &place.node, &mut read)?;
        if new.resources != old.resources || new.release != old.release {
            changes.push(more_taken(state, &place.node));
        }
    }
    new.generation = old.generation.next();
    new.changed = now;
    if let Some(leaving) = old.leaving {
        changes.extend(tree::come_back(state, old, leaving.at, now));
    }
    changes.push(Change::put(Record::Instance(new)));
    Ok(Decision::new(changes, read, answer))
}

/// Whether a changed instance can stay on the node that it is on.
fn stays(state: &State, old: &Instance, new: &Instance, node: &NodeId, read: &mut Vec<Key>) -> Result<(), Problems> {
    let mut problems = Problems::default();
    let mut no = |why: String, todo: &str| {
        problems.push(
            Problem::new(codes::NO_PLACE, format!("`{}/{}` cannot be changed so on `{node}`", new.project, new.name))
                .because(why)
                .fix(format!("{todo}, or destroy it and request it again: instances are not moved")),
        );
    };
    let Some(row) = state.nodes.get(node) else { return Ok(()) };
    if new.rules != old.rules {
        read.push(Key::Node(node.clone()));
        for why in crate::allocate::rules_against(row, &new.rules) {
            no(why, "keep the rules");
        }
    }
    if new.release != old.release {
        read.push(Key::Supply(new.release.clone(), None));
        read.push(Key::Supply(new.release.clone(), Some(node.clone())));
        if !state.is_supplied(node, &new.release) {
            no(format!("release {} is not supplied to it", new.release.short()), "supply the release to it");
        }
    }
    if new.resources != old.resources {
        read.push(Key::Node(node.clone()));
        let mut taken = state.taken.get(node).copied().unwrap_or_default();
        taken.take_away(old.resources);
        // Only what grows can fail: a node that has shrunk below its load must not keep anyone from asking for less.
        let grown = grown(old.resources, new.resources);
        let limits = old.placement.as_ref().and_then(|place| state.offers.get(node)?.get(&place.partition));
        let partition = limits.map_or(Vec::new(), |limits| limits.shortfalls(grown));
        for why in taken.left_of(row.inventory.capacity).shortfalls(grown).into_iter().chain(partition) {
            no(why, "ask for less");
        }
    }
    problems.none_or(())
}

/// The amounts of `new` that are larger than those of `old`.
fn grown(old: Resources, new: Resources) -> Resources {
    let larger = |old: Option<u32>, new: Option<u32>| new.filter(|new| *new > old.unwrap_or(0));
    Resources {
        cpu_millis: larger(old.cpu_millis, new.cpu_millis),
        memory_mib: larger(old.memory_mib, new.memory_mib),
        disk_mib: larger(old.disk_mib, new.disk_mib),
        processes: larger(old.processes, new.processes),
    }
}

/// The record that makes decisions which fill one node conflict.
pub(crate) fn more_taken(state: &State, node: &NodeId) -> Change {
    let taken = state.loads.get(node).map_or(0, |load| load.taken).saturating_add(1);
    Change::put(Record::Load(Load { node: node.clone(), taken }))
}

pub(crate) fn document<'s>(state: &'s State, release: &Digest) -> Result<&'s plat_document::Release, Problem> {
    if let Some(document) = state.documents.get(release) {
        return Ok(document);
    }
    if state.releases.contains_key(release) {
        return Err(Problem::new(codes::INTERNAL, format!("the document of release {} is not one", release.short()))
            .because("this version cannot read it")
            .fix("add the release again"));
    }
    Err(Problem::new(codes::NOT_FOUND, format!("there is no release `{}`", release.short()))
        .fix("see `plat release list`, or add it with `plat release add`"))
}

/// Wishes an instance started, stopped or destroyed. One that is on no node is gone at once when it is to be destroyed;
/// so is one whose node was revoked, since nobody will report its end. With an instance all that it asked for is
/// destroyed, and the shared instances in any of these.
///
/// # Errors
/// [`codes::NOT_FOUND`]; [`codes::DESTROYED`] for anything but destroying what is being destroyed.
pub fn set_wish(
    state: &State,
    project: &ProjectName,
    name: &InstanceName,
    wish: Wish,
    now: Timestamp,
) -> Result<Decision<InstanceId>, Problem> {
    let instance = state.instance(project, name).ok_or_else(|| no_instance(project, name))?;
    set(state, instance, wish, now)
}

fn set(state: &State, instance: &Instance, wish: Wish, now: Timestamp) -> Result<Decision<InstanceId>, Problem> {
    if !instance.wish.may_become(wish) {
        return Err(being_destroyed(instance));
    }
    let id = instance.id.clone();
    if wish == Wish::Destroyed {
        let (changes, read) = tree::destroy(state, instance, now);
        return Ok(Decision::new(changes, read, id));
    }
    if instance.wish == wish && instance.leaving.is_none() {
        return Ok(Decision::nothing(id));
    }
    if instance.rides.is_some() {
        return Err(shared::has_no_services(instance));
    }
    let mut changes = match instance.leaving {
        Some(leaving) => tree::come_back(state, instance, leaving.at, now),
        None => Vec::new(),
    };
    let next = instance.generation.next();
    let new = Instance { wish, leaving: None, generation: next, changed: now, ..instance.clone() };
    changes.push(Change::put(Record::Instance(new)));
    Ok(Decision::new(changes, Vec::new(), id))
}

/// Stops an instance and all that it asked for, and has it destroyed once it has been kept for so long. Starting or
/// stopping it before takes that back. Asked for again, the newer time counts.
///
/// # Errors
/// [`codes::NOT_FOUND`]; [`codes::DESTROYED`] if it is being destroyed; [`codes::BAD_VALUE`] past [`KEPT_MAX`].
pub fn destroy_later(
    state: &State,
    project: &ProjectName,
    name: &InstanceName,
    kept: Duration,
    now: Timestamp,
) -> Result<Decision<InstanceId>, Problem> {
    let instance = state.instance(project, name).ok_or_else(|| no_instance(project, name))?;
    if instance.wish == Wish::Destroyed {
        return Err(being_destroyed(instance));
    }
    if kept.as_secs() > KEPT_MAX {
        return Err(Problem::new(codes::BAD_VALUE, format!("`{project}/{name}` cannot be kept for so long"))
            .because(format!("a year ({KEPT_MAX} seconds) is the longest"))
            .fix("stop it instead (`plat stop`): it stays until it is destroyed")
            .at("keep_seconds"));
    }
    if instance.rides.is_some() {
        return Err(shared::has_no_services(instance));
    }
    let changes = tree::keep(state, instance, now.plus(kept), now);
    Ok(Decision::new(changes, Vec::new(), instance.id.clone()))
}

/// When the next instance is to be destroyed of those that are kept before.
pub fn next_leaving(state: &State) -> Option<Timestamp> {
    state.leaving.get_min().map(|(at, _)| *at)
}

/// Destroys an instance whose time is over; `None` while there is none.
pub fn overdue(state: &State, now: Timestamp) -> Option<Decision<InstanceId>> {
    let (_, id) = state.leaving.get_min().filter(|(at, _)| *at <= now)?;
    set(state, state.instances.get(id)?, Wish::Destroyed, now).ok()
}

fn leaves_soon(instance: &Instance, leaving: &Leaving) -> Problem {
    let Instance { project, name, .. } = instance;
    Problem::new(codes::DESTROYED, format!("`{project}/{name}` is to be destroyed"))
        .because(format!("it is kept, stopped, until {}", leaving.at))
        .fix(format!("take that back (`plat undestroy {name}`), or wait until the name is free"))
}

pub(crate) fn no_instance(project: &ProjectName, name: &InstanceName) -> Problem {
    Problem::new(codes::NOT_FOUND, format!("there is no instance `{project}/{name}`")).fix("see `plat list`")
}

pub(crate) fn being_destroyed(instance: &Instance) -> Problem {
    Problem::new(codes::DESTROYED, format!("`{}/{}` is being destroyed", instance.project, instance.name))
        .because("destroying is final; the name is free again once its node has removed everything")
        .fix("wait until it is gone (`plat show`), then request it again")
}

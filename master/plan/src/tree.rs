//! Trees: what an instance asks for itself, and what becomes of those that it asked for.
//!
//! An instance sees and changes only what it asked for itself, by the names that it gave. What is asked for by a
//! destroyed instance is destroyed with it, in one commit, so that nothing is left that nobody answers for.

use crate::change::Change;
use crate::decision::Decision;
use crate::leave;
use crate::record::{Key, Record};
use crate::request::{self, RequestAsk, taken_in};
use crate::state::State;
use plat_model::id::{InstanceId, InstanceName, NodeId};
use plat_model::instance::{Instance, InstanceState, InstanceStatus, Leaving, Wish};
use plat_model::parameters::Parameters;
use plat_model::problem::{Problem, Problems, codes};
use plat_model::time::Timestamp;
use plat_model::tree::{Child, ChildAsk, DEPTH_MAX, Parent, TREE_MAX};
use std::collections::{BTreeMap, BTreeSet};

/// The instance that a node speaks for.
///
/// # Errors
/// [`codes::NOT_YOURS`] if it is not on this node; [`codes::DESTROYED`] if it is being destroyed.
pub fn asking<'s>(state: &'s State, node: &NodeId, id: &InstanceId) -> Result<&'s Instance, Problem> {
    let instance =
        state.instances.get(id).filter(|one| one.placement.as_ref().is_some_and(|place| &place.node == node));
    let instance = instance.ok_or_else(|| {
        Problem::new(codes::NOT_YOURS, format!("node `{node}` may not ask for instance {id}"))
            .because("it is not on this node")
    })?;
    if instance.wish == Wish::Destroyed {
        return Err(request::being_destroyed(instance));
    }
    Ok(instance)
}

/// Creates or changes what `parent` asks for under a name. `fresh` is the id of a new one. One that is to be destroyed and is
/// not there is destroyed already: whoever had no answer to that may ask for it again. Then there is none to tell of.
///
/// # Errors
/// As [`request::request`]; [`codes::TOO_MANY`] past [`TREE_MAX`], [`DEPTH_MAX`] or [`request::PROJECT_MAX`];
/// [`codes::EXISTS`] if the project calls something else so.
pub fn request_child(
    state: &State,
    parent: &Instance,
    ask: &ChildAsk,
    fresh: InstanceId,
    now: Timestamp,
) -> Result<Decision<Option<InstanceId>>, Problems> {
    let release = ask.release.as_deref().map(|text| crate::release::resolve(state, text)).transpose()?;
    let known = state.children.get(&parent.id).and_then(|children| children.get(&ask.name));
    let known = known.and_then(|id| state.instances.get(id));
    let name = match known {
        Some(child) => child.name.clone(),
        None if ask.wish == Some(Wish::Destroyed) => {
            return Ok(Decision::new(Vec::new(), vec![Key::Instance(parent.id.clone())], None));
        }
        None => {
            let name = InstanceName::parse(&format!("{}-{}", parent.name, ask.name))?;
            if let Some(other) = state.instance(&parent.project, &name) {
                return Err(taken(other).into());
            }
            request::room(state, &parent.project, &name)?;
            name
        }
    };
    let asked = RequestAsk {
        project: parent.project.clone(),
        name,
        release,
        parameters: ask.parameters.clone(),
        rules: None,
        resources: ask.resources,
        wish: ask.wish,
        parent: Some(Parent { instance: parent.id.clone(), name: ask.name.clone() }),
        kind: ask.kind.clone(),
    };
    let Decision { mut changes, mut read, answer } = request::request(state, asked, fresh, now)?;
    read.push(Key::Instance(parent.id.clone()));
    if answer.created {
        changes.extend(grown(state, parent, ask, &changes)?);
    }
    Ok(Decision::new(changes, read, Some(answer.id)))
}

/// What makes two decisions conflict that make one tree larger, or that destroy one and make it larger: the instance that
/// asks, and the one at the top, are written again as they are.
fn grown(state: &State, parent: &Instance, ask: &ChildAsk, written: &[Change]) -> Result<Vec<Change>, Problem> {
    let (top, depth) = top(state, parent);
    let size = 1 + below(state, top).len();
    let (what, most) = if depth >= DEPTH_MAX {
        ("deep", DEPTH_MAX)
    } else if size >= TREE_MAX {
        ("large", TREE_MAX)
    } else {
        let same = |one: &&Instance| written.iter().all(|change| change.key() != Key::Instance(one.id.clone()));
        let mut again = vec![parent];
        again.extend((top.id != parent.id).then_some(top));
        return Ok(again.into_iter().filter(same).map(|one| Change::put(Record::Instance(one.clone()))).collect());
    };
    Err(Problem::new(codes::TOO_MANY, format!("`{}` may not ask for `{}`", parent.name, ask.name))
        .because(format!("the tree of `{}/{}` is as {what} as it may be ({most})", top.project, top.name))
        .fix("destroy what is not needed any more, or have people request it"))
}

fn taken(other: &Instance) -> Problem {
    Problem::new(codes::EXISTS, format!("`{}/{}` is another instance", other.project, other.name))
        .because("what an instance asks for is called by its own name, `-` and the name that it gives")
        .fix("give it another name")
}

/// The instance at the top of a tree, and how deep in it this one is.
fn top<'s>(state: &'s State, instance: &'s Instance) -> (&'s Instance, usize) {
    let (mut top, mut depth) = (instance, 1);
    while let Some(above) = top.parent.as_ref().and_then(|parent| state.instances.get(&parent.instance)) {
        (top, depth) = (above, depth + 1);
        if depth > DEPTH_MAX {
            break;
        }
    }
    (top, depth)
}

/// All that an instance asked for, and what those asked for.
fn below<'s>(state: &'s State, instance: &Instance) -> BTreeMap<InstanceId, &'s Instance> {
    let mut found = BTreeMap::new();
    let mut next = vec![instance.id.clone()];
    while let Some(id) = next.pop() {
        for child in state.children_of(&id) {
            if found.insert(child.id.clone(), child).is_none() {
                next.push(child.id.clone());
            }
        }
    }
    found
}

/// What `parent` asked for, as it sees it. How each is reached is told by asking for it.
pub fn children(state: &State, parent: &Instance) -> Vec<Child> {
    state.children_of(&parent.id).map(|one| Child { connection: Parameters::default(), ..child(state, one) }).collect()
}

/// One that an instance asked for, as that sees it.
pub fn child(state: &State, instance: &Instance) -> Child {
    let status = state.statuses.get(&instance.id);
    Child {
        name: instance.parent.as_ref().map_or(&instance.name, |parent| &parent.name).clone(),
        instance: instance.name.clone(),
        id: instance.id.clone(),
        wish: instance.wish,
        state: status.map_or(InstanceState::Waiting, |status| status.state),
        current: status.is_some_and(|status| status.generation == instance.generation),
        detail: status.map_or_else(String::new, |status| status.detail.clone()),
        problem: status.and_then(|status| status.problem.clone()),
        connection: status.map(|status| status.connection.clone()).unwrap_or_default(),
    }
}

/// Takes what `host` says that a shared instance in it is reached by.
///
/// # Errors
/// [`codes::NOT_FOUND`] if it is not in it.
pub fn publish_shared(
    state: &State,
    host: &Instance,
    shared: &InstanceId,
    connection: &Parameters,
    now: Timestamp,
) -> Result<Decision<()>, Problem> {
    let rider =
        state.instances.get(shared).filter(|rider| rider.rides.as_ref() == Some(&host.id)).ok_or_else(|| {
            Problem::new(codes::NOT_FOUND, format!("shared instance {shared} is not in `{}`", host.name))
                .because("it was never, or it has been destroyed")
                .fix("look again at which are: `plat-instance get shared`")
        })?;
    let known = state.statuses.get(shared);
    if known.is_some_and(|known| known.generation == rider.generation && &known.connection == connection) {
        return Ok(Decision::nothing(()));
    }
    let since = known.map_or(now, |known| known.since);
    let bare = InstanceStatus::bare(shared.clone(), rider.generation, InstanceState::Ready, since);
    let status = InstanceStatus { connection: connection.clone(), ..bare };
    let read = vec![Key::Instance(shared.clone()), Key::Instance(host.id.clone())];
    Ok(Decision::new(vec![Change::put(Record::Status(status))], read, ()))
}

/// Has every instance of the tree look at everything again.
pub fn bang(state: &State, instance: &Instance, now: Timestamp) -> Decision<()> {
    let (top, _) = top(state, instance);
    let mut all = below(state, top);
    all.insert(top.id.clone(), top);
    let banged = all.into_values().filter(|one| one.rides.is_none() && one.wish != Wish::Destroyed);
    let banged = banged.map(|one| {
        let generation = one.generation.next();
        Change::put(Record::Instance(Instance { bang: one.bang + 1, generation, changed: now, ..one.clone() }))
    });
    Decision::new(banged.collect(), Vec::new(), ())
}

/// Destroys an instance, all that it asked for, and the shared instances in any of these.
pub(crate) fn destroy(state: &State, instance: &Instance, now: Timestamp) -> (Vec<Change>, Vec<Key>) {
    let mut going = below(state, instance);
    going.insert(instance.id.clone(), instance);
    let mut next: Vec<InstanceId> = going.keys().cloned().collect();
    while let Some(id) = next.pop() {
        let riders = state.riders_of(&id).map(|rider| (rider.id.clone(), rider)).collect::<Vec<_>>();
        going.extend(riders);
    }
    let (mut changes, mut read) = (Vec::new(), BTreeSet::new());
    for one in going.values() {
        changes.extend(end(state, one, now, &mut read));
    }
    let stays = |host: &&InstanceId| !going.contains_key(*host);
    let hosts: BTreeSet<&InstanceId> = going.values().filter_map(|one| one.rides.as_ref()).filter(stays).collect();
    let hosts = hosts.into_iter().filter_map(|host| state.instances.get(host));
    changes.extend(hosts.filter(|host| host.wish != Wish::Destroyed).map(|host| taken_in(host, now)));
    (changes, read.into_iter().collect())
}

fn end(state: &State, instance: &Instance, now: Timestamp, read: &mut BTreeSet<Key>) -> Vec<Change> {
    let node = instance.placement.as_ref().map(|place| &place.node);
    // A revocation in between would give up only what it sees being destroyed.
    read.extend(node.cloned().map(Key::Node));
    if node.is_none_or(|node| state.nodes.get(node).is_none_or(|row| row.revoked)) {
        return leave::leave(state, instance, now);
    }
    if instance.wish == Wish::Destroyed {
        return Vec::new();
    }
    let generation = instance.generation.next();
    let new = Instance { wish: Wish::Destroyed, leaving: None, generation, changed: now, ..instance.clone() };
    vec![Change::put(Record::Instance(new))]
}

/// Stops an instance and all that it asked for, until they are destroyed at `at`.
pub(crate) fn keep(state: &State, instance: &Instance, at: Timestamp, now: Timestamp) -> Vec<Change> {
    let mut all = below(state, instance);
    all.insert(instance.id.clone(), instance);
    let kept = all.into_values().filter(|one| one.rides.is_none() && one.wish != Wish::Destroyed);
    let kept = kept.map(|one| {
        let before = one.leaving.map_or(one.wish, |leaving| leaving.before);
        let (leaving, generation) = (Some(Leaving { at, before }), one.generation.next());
        Change::put(Record::Instance(Instance {
            wish: Wish::Stopped,
            leaving,
            generation,
            changed: now,
            ..one.clone()
        }))
    });
    kept.collect()
}

/// What an instance asked for is again as it was before it was to be destroyed together with it, at `at`.
pub(crate) fn come_back(state: &State, instance: &Instance, at: Timestamp, now: Timestamp) -> Vec<Change> {
    let back = below(state, instance).into_values().filter_map(|one| {
        let leaving = one.leaving.filter(|leaving| leaving.at == at)?;
        let generation = one.generation.next();
        let new = Instance { wish: leaving.before, leaving: None, generation, changed: now, ..one.clone() };
        Some(Change::put(Record::Instance(new)))
    });
    back.collect()
}

//! Shared instances: places inside another instance of the same project, whose release says that it takes such in.

use super::{RequestAsk, Requested, document, named, unused};
use crate::change::Change;
use crate::decision::Decision;
use crate::record::{Key, Record};
use crate::state::State;
use plat_model::Generation;
use plat_model::id::{InstanceId, InstanceName};
use plat_model::instance::{Instance, PlacementRules, Wish};
use plat_model::problem::{Problem, Problems, codes};
use plat_model::resources::Resources;
use plat_model::time::Timestamp;
use plat_model::tree::{Kind, SHARED_BYTES, SHARED_MAX};

pub(super) fn create(
    state: &State,
    ask: RequestAsk,
    on: Option<&InstanceName>,
    id: InstanceId,
    now: Timestamp,
) -> Result<Decision<Requested>, Problems> {
    let what = format!("cannot request `{}/{}`", ask.project, ask.name);
    unused(state, &id, what.clone())?;
    let host = host(state, &ask, on, &what)?;
    plain(&ask)?;
    let parameters = ask.parameters.clone().unwrap_or_default();
    let instance = Instance {
        id: id.clone(),
        project: ask.project,
        name: ask.name,
        release: host.release.clone(),
        parameters: plat_document::parameters::check_shared(document(state, &host.release)?, &parameters)?,
        wish: Wish::Started,
        rules: PlacementRules::default(),
        resources: Resources::default(),
        placement: None,
        leaving: None,
        parent: ask.parent,
        rides: Some(host.id.clone()),
        bang: 0,
        runs: Vec::new(),
        generation: Generation::ZERO.next(),
        created: now,
        changed: now,
    };
    room(state, host, &instance)?;
    let mut changes = vec![taken_in(host, now)];
    changes.extend(named(instance));
    Ok(Decision::new(changes, vec![Key::Release(host.release.clone())], Requested { id, created: true }))
}

pub(super) fn change(
    state: &State,
    old: &Instance,
    ask: RequestAsk,
    now: Timestamp,
) -> Result<Decision<Requested>, Problems> {
    let answer = Requested { id: old.id.clone(), created: false };
    let what = format!("`{}/{}` cannot be changed so", old.project, old.name);
    let other = |why: &str| {
        let fix = "destroy it and request it again, or give the new one another name";
        Problems::from(Problem::new(codes::BAD_VALUE, what.clone()).because(why).fix(fix))
    };
    let Some(host) = old.rides.as_ref().and_then(|host| state.instances.get(host)) else {
        return Err(other("it has a partition of its own, and a shared instance has none"));
    };
    let Kind::Shared { on } = &ask.kind else {
        // Who only names it means it as it is; a release of its own would be something else.
        if ask.release.as_ref().is_some_and(|release| release != &old.release) {
            return Err(other("it is in another instance, and has no release of its own"));
        }
        return change(state, old, RequestAsk { kind: Kind::Shared { on: None }, release: None, ..ask }, now);
    };
    if on.as_ref().is_some_and(|on| on != &host.name) {
        return Err(other(&format!("it is in `{}`, and instances are not moved", host.name)));
    }
    plain(&ask)?;
    let Some(asked) = &ask.parameters else { return Ok(Decision::nothing(answer)) };
    let parameters = plat_document::parameters::check_shared(document(state, &host.release)?, asked)?;
    if parameters == old.parameters {
        return Ok(Decision::nothing(answer));
    }
    let new = Instance { parameters, generation: old.generation.next(), changed: now, ..old.clone() };
    room(state, host, &new)?;
    let changes = vec![taken_in(host, now), Change::put(Record::Instance(new))];
    Ok(Decision::new(changes, vec![Key::Release(host.release.clone())], answer))
}

/// The instance that a new one is to be in: the named one, else of those of the release the one with the fewest.
fn host<'s>(
    state: &'s State,
    ask: &RequestAsk,
    on: Option<&InstanceName>,
    what: &str,
) -> Result<&'s Instance, Problem> {
    let takes = |instance: &&Instance| {
        let document = state.documents.get(&instance.release);
        let stays = instance.wish == Wish::Started && instance.leaving.is_none() && instance.rides.is_none();
        stays && document.is_some_and(|document| document.shared.is_some())
    };
    let found = match (on, &ask.release) {
        (Some(on), _) => state.instance(&ask.project, on).filter(takes),
        (None, Some(release)) => {
            // `0` is the least name.
            let first = (ask.project.clone(), InstanceName::parse("0")?);
            let own = state.by_name.range(first..).take_while(|((project, _), _)| project == &ask.project);
            let own = own.filter_map(|(_, id)| state.instances.get(id)).map(|instance| &**instance);
            own.filter(|instance| &instance.release == release)
                .filter(takes)
                .min_by_key(|instance| state.riders.get(&instance.id).map_or(0, imbl::OrdSet::len))
        }
        (None, None) => None,
    };
    found.ok_or_else(|| {
        let which = match (on, &ask.release) {
            (Some(on), _) => format!("`{}/{on}`", ask.project),
            (None, Some(release)) => format!("no instance of release {} in `{}`", release.short(), ask.project),
            (None, None) => "neither an instance nor a release was named, so nothing".into(),
        };
        let because =
            if on.is_some() { format!("{which} does not take it in") } else { format!("{which} takes it in") };
        Problem::new(codes::NOT_FOUND, what)
            .because(because)
            .fix("name an instance of the project (`--on`) that is started and whose release has a `shared` key")
    })
}

/// What makes no sense of one without a partition.
fn plain(ask: &RequestAsk) -> Result<(), Problem> {
    let key = match (&ask.rules, &ask.resources, ask.wish) {
        (Some(rules), _, _) if *rules != PlacementRules::default() => "rules",
        (_, Some(resources), _) if *resources != Resources::default() => "resources",
        (_, _, Some(Wish::Stopped)) => "wish",
        _ => return Ok(()),
    };
    Err(Problem::new(codes::BAD_VALUE, format!("a shared instance has no {key} of its own"))
        .because("it is in another instance, which is placed, limited and stopped")
        .fix("leave this out, or request an instance that is not shared")
        .at(key))
}

/// Whether the shared instances of one stay few and small enough with this one.
fn room(state: &State, host: &Instance, one: &Instance) -> Result<(), Problem> {
    let others = state.riders_of(&host.id).filter(|rider| rider.id != one.id);
    let (count, bytes) = others.fold((1, one.parameters.to_json().len()), |(count, bytes), rider| {
        (count + 1, bytes + rider.parameters.to_json().len())
    });
    if count <= SHARED_MAX && bytes <= SHARED_BYTES {
        return Ok(());
    }
    Err(Problem::new(codes::TOO_MANY, format!("`{}/{}` takes in no more", host.project, host.name))
        .because(format!("{SHARED_MAX} shared instances, and {SHARED_BYTES} bytes of parameters of all, are allowed"))
        .fix("destroy those that are not needed, or request another one to take them in"))
}

/// The instance that shared ones are in, told that these are others now.
pub(crate) fn taken_in(host: &Instance, now: Timestamp) -> Change {
    let generation = host.generation.next();
    Change::put(Record::Instance(Instance { generation, changed: now, ..host.clone() }))
}

pub(super) fn has_no_services(instance: &Instance) -> Problem {
    Problem::new(codes::BAD_VALUE, format!("`{}/{}` can only be destroyed", instance.project, instance.name))
        .because("it is a shared instance: it has no services that could be started or stopped")
        .fix("destroy it, or start and stop the instance that it is in")
}

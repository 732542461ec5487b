//! What a node says of an instance.

use crate::action::ServiceSpec;
use crate::facts::{Ending, Occupant, ServiceFact, ServiceRun};
use crate::given::Given;
use crate::partition::Verdict;
use crate::render::Rendered;
use crate::results::PromiseFact;
use crate::timers;
use plat_document::release::Restart;
use plat_model::Timestamp;
use plat_model::id::{PromiseName, ServiceName};
use plat_model::instance::{
    InstanceDesired, InstanceState, InstanceStatus, PromiseStatus, ServiceKind, ServiceState, ServiceStatus,
};

/// Longest message of a promise, in characters.
const MESSAGE_MAX: usize = 500;

pub(crate) fn status(
    given: &Given<'_>,
    desired: &InstanceDesired,
    rendered: Option<&Rendered>,
    verdict: Verdict,
) -> InstanceStatus {
    let before = given.previous.filter(|previous| previous.id == desired.id);
    let as_before = before.filter(|previous| previous.state == verdict.state);
    let since = as_before.map_or(given.now.wall, |previous| previous.since);
    let occupant = given.fact.occupant.as_ref().filter(|occupant| occupant.instance == desired.id);
    let gone = verdict.state == InstanceState::Destroyed || occupant.is_none();
    let connection = occupant.map(|occupant| occupant.connection.clone()).unwrap_or_default();
    // That both fit together was seen when it was published; the release may have changed since.
    let own = occupant.map(|occupant| &occupant.spoken).filter(|own| !own.is_empty());
    let connection = own.and_then(|own| connection.with(own).ok()).unwrap_or(connection);
    let services = occupant.filter(|_| !gone).map(|occupant| services(given, occupant, rendered, verdict.state, since));
    let promises = given
        .fact
        .promises
        .iter()
        .filter(|(name, _)| !gone && rendered.is_some_and(|rendered| rendered.upkeep.promises.contains_key(*name)));
    let promises = promises.map(|(name, fact)| PromiseStatus {
        name: name.clone(),
        holds: fact.holds,
        message: fact.message.chars().take(MESSAGE_MAX).collect(),
        checked: fact.checked.wall,
        since: promised_since(before, name, fact),
    });
    InstanceStatus {
        id: desired.id.clone(),
        generation: desired.generation,
        state: verdict.state,
        since,
        detail: verdict.detail,
        problem: verdict.problem,
        connection,
        services: services.unwrap_or_default(),
        promises: promises.collect(),
        said: occupant.and_then(|occupant| occupant.said.clone()).filter(|_| !gone),
        ran: occupant.map(|occupant| occupant.asked.over.clone()).unwrap_or_default(),
        found: match before {
            // What is new here is seen from its beginning.
            None => occupant.is_some_and(|occupant| !occupant.configured.is_empty()),
            Some(_) => as_before.is_some_and(|previous| previous.found),
        },
    }
}

/// Since when a promise has held, or not held: as said before, if that is still so. `None`: it was so when it was looked first.
fn promised_since(before: Option<&InstanceStatus>, name: &PromiseName, fact: &PromiseFact) -> Option<Timestamp> {
    match before?.promises.iter().find(|said| said.name == *name) {
        Some(said) if said.holds == fact.holds => said.since,
        Some(_) => Some(fact.checked.wall),
        None => before.filter(|before| !before.found).map(|_| fact.checked.wall),
    }
}

/// Those that the runtime knows, and those that have not run yet because it is not their time.
fn services(
    given: &Given<'_>,
    occupant: &Occupant,
    rendered: Option<&Rendered>,
    instance: InstanceState,
    since: Timestamp,
) -> Vec<ServiceStatus> {
    let on_purpose = matches!(
        instance,
        InstanceState::Stopped | InstanceState::Stopping | InstanceState::Destroying | InstanceState::Destroyed
    );
    let upkeep = rendered.map(|rendered| &rendered.upkeep).or(occupant.upkeep.as_deref());
    let spec = |name: &ServiceName| upkeep.and_then(|upkeep| upkeep.service(name));
    let one = |name: &ServiceName, fact: Option<&ServiceFact>| {
        let spec = spec(name);
        let schedule = spec.and_then(|spec| spec.schedule.as_ref());
        let timed = spec.filter(|_| !on_purpose).and_then(|spec| timers::next(given, occupant, spec));
        ServiceStatus {
            name: name.clone(),
            kind: spec.map_or(ServiceKind::Service, |spec| spec.kind),
            state: fact.map_or(ServiceState::Stopped, |fact| state_of(fact, spec, on_purpose)),
            pid: fact.and_then(pid_of),
            restarts: fact.map_or(0, restarts),
            last_exit: fact.map(|fact| fact.last_exit.clone()).unwrap_or_default(),
            since: fact.and_then(since_of).unwrap_or(since),
            schedule: schedule.map(|schedule| schedule.as_str().to_owned()).unwrap_or_default(),
            next: timed.map(|(next, _)| next),
            skipped: timed.map_or(0, |(_, skipped)| skipped),
        }
    };
    let specs = upkeep.iter().flat_map(|upkeep| &upkeep.services);
    let unknown = specs.filter(|spec| spec.schedule.is_some() && !given.fact.services.contains_key(&spec.name));
    let mut all: Vec<_> = given.fact.services.iter().map(|(name, fact)| one(name, Some(fact))).collect();
    all.extend(unknown.map(|spec| one(&spec.name, None)));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

/// How often it was started again: a run that has ended is followed by another, or not.
fn restarts(fact: &ServiceFact) -> u32 {
    fact.restarts.saturating_sub(u32::from(matches!(fact.state, ServiceRun::Ended { .. })))
}

fn state_of(fact: &ServiceFact, spec: Option<&ServiceSpec>, on_purpose: bool) -> ServiceState {
    let (how, restart) = match fact.state {
        ServiceRun::Running { .. } | ServiceRun::Stopping { .. } => return ServiceState::Running,
        ServiceRun::Unknown => return ServiceState::Stopped,
        ServiceRun::Ended { how, .. } => (how, spec.map_or(Restart::Always, |spec| spec.restart)),
    };
    match (how, restart) {
        (Ending::Success, Restart::OnFailure | Restart::Never) => ServiceState::Done,
        (Ending::Failure, Restart::Never) => ServiceState::Failed,
        (Ending::Failure, Restart::OnFailure) if !on_purpose => ServiceState::Backoff,
        _ if fact.short_runs > 0 && !on_purpose => ServiceState::Backoff,
        _ => ServiceState::Stopped,
    }
}

fn pid_of(fact: &ServiceFact) -> Option<u32> {
    match fact.state {
        ServiceRun::Running { pid, .. } | ServiceRun::Stopping { pid, .. } => Some(pid),
        ServiceRun::Ended { .. } | ServiceRun::Unknown => None,
    }
}

fn since_of(fact: &ServiceFact) -> Option<plat_model::Timestamp> {
    match fact.state {
        ServiceRun::Running { since, .. } | ServiceRun::Stopping { since, .. } => Some(since.wall),
        ServiceRun::Ended { at, .. } => Some(at.wall),
        ServiceRun::Unknown => None,
    }
}

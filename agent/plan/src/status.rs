//! What a node says of an instance.

use crate::facts::{ServiceFact, ServiceRun};
use crate::given::Given;
use crate::partition::Verdict;
use crate::render::Rendered;
use plat_model::instance::{
    InstanceDesired, InstanceState, InstanceStatus, PromiseStatus, ServiceState, ServiceStatus,
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
    let since =
        before.filter(|previous| previous.state == verdict.state).map_or(given.now.wall, |previous| previous.since);
    let occupant = given.fact.occupant.as_ref().filter(|occupant| occupant.instance == desired.id);
    let gone = verdict.state == InstanceState::Destroyed || occupant.is_none();
    // What is about to be published is said with the state that it belongs to.
    let connection = match (verdict.state, rendered) {
        (InstanceState::Ready, Some(rendered)) => rendered.upkeep.publish.clone(),
        _ => occupant.map(|occupant| occupant.connection.clone()).unwrap_or_default(),
    };
    // That both fit together was seen when it was published; the release may have changed since.
    let own = occupant.map(|occupant| &occupant.spoken).filter(|own| !own.is_empty());
    let connection = own.and_then(|own| connection.with(own).ok()).unwrap_or(connection);
    let services = given.fact.services.iter().filter(|_| !gone).map(|(name, fact)| ServiceStatus {
        name: name.clone(),
        state: state_of(fact, verdict.state),
        pid: pid_of(fact),
        restarts: fact.restarts,
        last_exit: fact.last_exit.clone(),
        since: since_of(fact).unwrap_or(since),
    });
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
    });
    InstanceStatus {
        id: desired.id.clone(),
        generation: desired.generation,
        state: verdict.state,
        since,
        detail: verdict.detail,
        problem: verdict.problem,
        connection,
        services: services.collect(),
        promises: promises.collect(),
        said: occupant.and_then(|occupant| occupant.said.clone()).filter(|_| !gone),
    }
}

fn state_of(fact: &ServiceFact, instance: InstanceState) -> ServiceState {
    let on_purpose = matches!(
        instance,
        InstanceState::Stopped | InstanceState::Stopping | InstanceState::Destroying | InstanceState::Destroyed
    );
    match fact.state {
        ServiceRun::Running { .. } | ServiceRun::Stopping { .. } => ServiceState::Running,
        ServiceRun::Ended { .. } if fact.short_runs > 0 && !on_purpose => ServiceState::Backoff,
        ServiceRun::Ended { .. } | ServiceRun::Unknown => ServiceState::Stopped,
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
        ServiceRun::Ended { at } => Some(at.wall),
        ServiceRun::Unknown => None,
    }
}

//! When to check promises, and what their results mean.

use crate::action::{Action, Note, ServiceSpec};
use crate::backoff::{PROMISE, REVIVAL, sooner};
use crate::facts::{Occupant, STABLE_SECONDS};
use crate::given::Given;
use crate::moment::Steady;
use crate::partition::{PartitionPlan, Verdict};
use crate::render::{RenderedPromise, Upkeep};
use crate::results::PromiseFact;
use crate::services::{self, Running};
use plat_document::release::Role;
use plat_model::Problem;
use plat_model::id::PromiseName;
use plat_model::instance::InstanceState;
use plat_model::problem::codes;
use std::time::Duration;

/// Without a ready promise, services that have run for so long without an end count as ready: what cannot start at all
/// has mostly ended by then.
const SETTLE: Duration = Duration::from_millis(250);

/// Checks what has to hold before services are started. `None` once all of that does.
pub(crate) fn await_built(
    given: &Given<'_>,
    occupant: &Occupant,
    upkeep: &Upkeep,
    plan: &mut PartitionPlan,
) -> Option<Verdict> {
    let of = given.fact.built();
    let mut first = None;
    for (name, promise) in upkeep.promises.iter().filter(|(_, promise)| promise.role == Role::Built) {
        let fact = given.fact.promises.get(name).filter(|fact| fact.of == of);
        if fact.is_some_and(|fact| fact.holds) {
            continue;
        }
        let again = |fact: &PromiseFact| fact.checked.steady.plus(PROMISE.after(fact.failures.max(1)));
        ask(given, upkeep, (name, promise), &of, fact.map_or(given.now.steady, again), plan);
        first.get_or_insert(fact.map_or_else(|| unchecked(name), |fact| problem(name.as_str(), fact)));
    }
    let problem = first?;
    let state = if occupant.ready { InstanceState::Degraded } else { InstanceState::Starting };
    let detail = format!("its services wait: {}", problem.what);
    Some(Verdict { state, detail, problem: (!problem.why.is_empty()).then_some(problem) })
}

/// Checks what is due, restarts services for a failed alive promise, publishes once all ready ones hold.
pub(crate) fn keep(
    given: &Given<'_>,
    occupant: &Occupant,
    upkeep: &Upkeep,
    running: &Running,
    plan: &mut PartitionPlan,
) -> Verdict {
    let partition = &given.partition.name;
    let mut broken: Vec<Problem> = running.unfinished.iter().cloned().collect();
    let (mut not_alive, mut all_alive) = (None, true);
    let (of, now) = (given.fact.runs(), given.now.steady);
    for (name, promise) in upkeep.promises.iter().filter(|(_, promise)| promise.role != Role::Built) {
        // What another run said says nothing about this one.
        let fact = given.fact.promises.get(name).filter(|fact| fact.of == of);
        let first = running.since.plus(Duration::from_secs(promise.delay_seconds.into()));
        let due = fact.map_or(first, |fact| due(promise, fact, running.since));
        ask(given, upkeep, (name, promise), &of, due, plan);
        all_alive &= promise.role != Role::Alive || fact.is_some_and(|fact| fact.holds);
        match (promise.role, fact) {
            (Role::Built | Role::Test, _) => {}
            (_, Some(fact)) if fact.holds => {}
            (Role::Ready, Some(fact)) if occupant.ready && fact.held && fact.failures < promise.threshold => {}
            (Role::Ready, None) => broken.push(unchecked(name)),
            (Role::Ready, Some(fact)) => broken.push(problem(name.as_str(), fact)),
            (Role::Alive, None) => {}
            (Role::Alive, Some(fact)) => {
                broken.push(problem(name.as_str(), fact));
                if is_dead(promise, fact, running.since, occupant.revivals) {
                    not_alive = Some(name);
                }
            }
        }
    }
    // What it publishes is of files that it has not read.
    broken.extend(running.unread.clone());
    let restarts = |spec: &&ServiceSpec| spec.stays() && !services::rests(given, occupant, spec);
    if let Some(name) = not_alive.filter(|_| upkeep.services.iter().any(|spec| restarts(&spec))) {
        let revived = Note::Revived { times: occupant.revivals.saturating_add(1) };
        plan.actions = vec![Action::Note { partition: partition.clone(), note: revived }];
        let names = upkeep.services.iter().filter(restarts).map(|spec| spec.name.clone());
        plan.actions.extend(names.map(|service| Action::StopService { partition: partition.clone(), service }));
        let state = if occupant.ready { InstanceState::Degraded } else { InstanceState::Starting };
        let detail = format!("its services are restarted: promise {name} does not hold");
        return Verdict { state, detail, problem: broken.into_iter().next() };
    }
    if occupant.revivals > 0 && all_alive {
        let lasted = running.since.plus(Duration::from_secs(STABLE_SECONDS.into()));
        if lasted <= now {
            plan.actions.push(Action::Note { partition: partition.clone(), note: Note::Revived { times: 0 } });
        } else {
            plan.wake_at = sooner(plan.wake_at, lasted);
        }
    }
    if let Some(problem) = &running.unsettled {
        return Verdict::failed(problem.clone());
    }
    let nothing_to_ask = !upkeep.promises.values().any(|promise| promise.role == Role::Ready);
    let settled = running.since.plus(SETTLE);
    if !occupant.ready && nothing_to_ask && broken.is_empty() && now < settled {
        plan.wake_at = sooner(plan.wake_at, settled);
        return Verdict::new(InstanceState::Starting, "its services have just been started");
    }
    match broken.into_iter().next() {
        None => {
            if !occupant.ready || occupant.published != upkeep.publish.fingerprint {
                // Whoever hears that it is ready is told at the same time what it publishes.
                let publication = upkeep.publish.clone();
                plan.actions.push(Action::Publish { partition: partition.clone(), publication });
                return Verdict::new(InstanceState::Starting, "what it publishes is filled in");
            }
            // It serves, and still somebody has to look.
            match &running.lapsed {
                None => Verdict::new(InstanceState::Ready, ""),
                Some(problem) => Verdict {
                    state: InstanceState::Degraded,
                    detail: problem.what.clone(),
                    problem: Some(problem.clone()),
                },
            }
        }
        Some(problem) if occupant.ready => {
            Verdict { state: InstanceState::Degraded, detail: problem.what.clone(), problem: Some(problem) }
        }
        // Not holding yet is what starting is: only a check that failed is told as a problem.
        Some(problem) => {
            let detail = problem.what.clone();
            let problem = (!problem.why.is_empty()).then_some(problem);
            Verdict { state: InstanceState::Starting, detail, problem }
        }
    }
}

/// When a promise is checked next: in its period while it holds; sooner while it does not, but never much sooner than
/// half of the time that the services have been up, so that slow ones are not asked all the time.
fn due(promise: &RenderedPromise, fact: &PromiseFact, since: Steady) -> Steady {
    let (checked, period) = (fact.checked.steady, Duration::from_secs(promise.period_seconds.into()));
    if fact.holds {
        return checked.plus(period);
    }
    let by_age = checked.since(since).max(PROMISE.first);
    checked.plus(PROMISE.after(fact.failures.max(1)).min(by_age).min(period))
}

/// Services that were restarted for it in vain before are given longer each time.
fn is_dead(promise: &RenderedPromise, fact: &PromiseFact, since: Steady, revivals: u32) -> bool {
    let grace = Duration::from_secs(promise.grace_seconds.into()).max(REVIVAL.after(revivals));
    fact.failures >= promise.threshold && fact.checked.steady.since(since) >= grace
}

/// Asks it if it is due, else wakes when it is.
fn ask(
    given: &Given<'_>,
    upkeep: &Upkeep,
    (name, promise): (&PromiseName, &RenderedPromise),
    of: &str,
    due: Steady,
    plan: &mut PartitionPlan,
) {
    if due > given.now.steady {
        plan.wake_at = sooner(plan.wake_at, due);
        return;
    }
    plan.actions.push(Action::CheckPromise {
        partition: given.partition.name.clone(),
        promise: name.clone(),
        of: of.to_owned(),
        check: promise.check.clone(),
        timeout_seconds: promise.timeout_seconds,
        environment: upkeep.environment.clone(),
    });
}

fn unchecked(name: &PromiseName) -> Problem {
    Problem::new(codes::PROMISE_FAILED, format!("promise `{name}` has not been checked yet"))
}

fn problem(name: &str, fact: &PromiseFact) -> Problem {
    let why = if fact.message.is_empty() { "it gave no reason".to_owned() } else { fact.message.clone() };
    Problem::new(codes::PROMISE_FAILED, format!("promise `{name}` does not hold"))
        .because(why)
        .fix("read the services' logs with `plat logs`")
}

//! When to check promises, and what their results mean.

use crate::action::{Action, Note};
use crate::backoff::{PROMISE, sooner};
use crate::facts::{Occupant, PromiseFact};
use crate::given::Given;
use crate::moment::Steady;
use crate::partition::{PartitionPlan, Verdict};
use crate::render::{RenderedPromise, Upkeep};
use crate::services::Running;
use plat_document::release::Role;
use plat_model::Problem;
use plat_model::instance::InstanceState;
use plat_model::problem::codes;
use std::time::Duration;

/// An alive promise must have failed so often in a row before services are restarted for it.
const ALIVE_FAILURES: u32 = 3;
/// And the services must have had so long since their last start.
const ALIVE_GRACE: Duration = Duration::from_secs(10);

/// Without a ready promise, services that have run for so long without an end count as ready: what cannot start at all
/// has mostly ended by then.
const SETTLE: Duration = Duration::from_millis(250);

/// Checks what is due, restarts services for a failed alive promise, publishes once all ready ones hold.
pub(crate) fn keep(
    given: &Given<'_>,
    occupant: &Occupant,
    upkeep: &Upkeep,
    running: &Running,
    plan: &mut PartitionPlan,
) -> Verdict {
    let partition = &given.partition.name;
    let mut broken = Vec::new();
    let mut not_alive = None;
    let (of, now) = (given.fact.runs(), given.now.steady);
    for (name, promise) in &upkeep.promises {
        // What another run said says nothing about this one.
        let fact = given.fact.promises.get(name).filter(|fact| fact.of == of);
        let due = fact.map_or(now, |fact| due(promise, fact, running.since));
        if due <= now {
            plan.actions.push(Action::CheckPromise {
                partition: partition.clone(),
                promise: name.clone(),
                of: of.clone(),
                check: promise.check.clone(),
                timeout_seconds: promise.timeout_seconds,
                environment: upkeep.environment.clone(),
            });
        } else {
            plan.wake_at = sooner(plan.wake_at, due);
        }
        match fact {
            Some(fact) if fact.holds => {}
            Some(fact) => {
                broken.push(problem(name.as_str(), fact));
                if promise.role == Role::Alive && is_dead(promise, fact, running.since) {
                    not_alive = Some(name);
                }
            }
            None if promise.role == Role::Ready => {
                broken.push(Problem::new(codes::PROMISE_FAILED, format!("promise `{name}` has not been checked yet")))
            }
            None => {}
        }
    }
    if let Some(name) = not_alive {
        plan.actions = upkeep
            .services
            .iter()
            .map(|spec| Action::StopService { partition: partition.clone(), service: spec.name.clone() })
            .collect();
        let state = if occupant.ready { InstanceState::Degraded } else { InstanceState::Starting };
        let detail = format!("its services are restarted: promise {name} does not hold");
        return Verdict { state, detail, problem: broken.into_iter().next() };
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
            if !occupant.ready || occupant.connection != upkeep.publish {
                let note = Note::Published(upkeep.publish.clone());
                plan.actions.push(Action::Note { partition: partition.clone(), note });
            }
            Verdict::new(InstanceState::Ready, "")
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

fn is_dead(promise: &RenderedPromise, fact: &PromiseFact, since: Steady) -> bool {
    let grace = Duration::from_secs(promise.period_seconds.into()).max(ALIVE_GRACE);
    fact.failures >= ALIVE_FAILURES && fact.checked.steady.since(since) >= grace
}

fn problem(name: &str, fact: &PromiseFact) -> Problem {
    let why = if fact.message.is_empty() { "it gave no reason".to_owned() } else { fact.message.clone() };
    Problem::new(codes::PROMISE_FAILED, format!("promise `{name}` does not hold"))
        .because(why)
        .fix("read the services' logs with `plat logs`")
}

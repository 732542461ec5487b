//! When services with a schedule run. Their times are the wall clock's, which may be set; that a time was used is written
//! down before the run begins, so none is used twice, whoever is killed meanwhile.

use crate::action::{Action, Note, ServiceSpec};
use crate::backoff::sooner;
use crate::facts::{Ending, Occupant, ServiceRun};
use crate::given::Given;
use crate::partition::PartitionPlan;
use crate::render::Upkeep;
use crate::services::{LOOK_AGAIN, Running, exited};
use plat_model::Timestamp;
use plat_model::schedule::Schedule;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A clock that was set back by more than this was wrong before: times are counted from what it says now. Until then
/// nothing runs for a time that it has shown already.
const BELIEVED: Duration = Duration::from_secs(24 * 3600);
/// Nobody says that the clock was set, so it is looked at as often as cron does.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(60);

/// How far the times of a schedule have been used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timer {
    pub schedule: Schedule,
    /// Those up to this one: by a run, or because there was nothing to run yet.
    pub after: Timestamp,
    /// How often in a row a time came while the run before went on.
    pub skipped: u32,
}

impl Timer {
    /// One of which no time has been used.
    fn new(schedule: &Schedule, now: Timestamp) -> Self {
        Self { schedule: schedule.clone(), after: now, skipped: 0 }
    }
}

/// The timer of a service, as it is written down if that can be believed, else as it is to be written down.
fn timer(given: &Given<'_>, occupant: &Occupant, spec: &ServiceSpec) -> Option<Result<Timer, Timer>> {
    let (schedule, now) = (spec.schedule.as_ref()?, given.now.wall);
    let known = occupant.timers.get(&spec.name).filter(|timer| &timer.schedule == schedule);
    let believed = known.filter(|timer| timer.after.since(now) <= BELIEVED);
    Some(believed.cloned().ok_or_else(|| Timer::new(schedule, now)))
}

/// When a service runs next, and how many of its times passed because it was running.
pub(crate) fn next(given: &Given<'_>, occupant: &Occupant, spec: &ServiceSpec) -> Option<(Timestamp, u32)> {
    let timer = timer(given, occupant, spec)?.unwrap_or_else(|fresh| fresh);
    Some((timer.schedule.after(timer.after)?, timer.skipped))
}

/// Runs what is due, however many of its times have passed: once. Not while its last run goes on.
pub(crate) fn run_due(
    given: &Given<'_>,
    occupant: &Occupant,
    upkeep: &Upkeep,
    running: &mut Running,
    plan: &mut PartitionPlan,
) {
    let now = given.now.wall;
    for spec in &upkeep.services {
        let timed = |timer| Action::Note {
            partition: given.partition.name.clone(),
            note: Note::Timed { service: spec.name.clone(), timer },
        };
        let timer = match timer(given, occupant, spec) {
            None => continue,
            Some(Err(fresh)) => {
                plan.actions.push(timed(fresh));
                continue;
            }
            Some(Ok(timer)) => timer,
        };
        let fact = given.fact.services.get(&spec.name);
        if let Some(fact) = fact.filter(|fact| fact.fingerprint == spec.fingerprint)
            && matches!(fact.state, ServiceRun::Ended { how: Ending::Failure, .. })
        {
            running.lapsed.get_or_insert_with(|| exited(fact, spec));
        }
        let Some(next) = timer.schedule.after(timer.after) else { continue };
        if next > now {
            let wake_at = given.now.steady.plus(next.since(now).min(LOOK_AT_CLOCK));
            plan.wake_at = sooner(plan.wake_at, wake_at);
            continue;
        }
        match fact.map(|fact| fact.state) {
            Some(ServiceRun::Running { .. } | ServiceRun::Stopping { .. }) => {
                let skipped = timer.skipped.saturating_add(1);
                plan.actions.push(timed(Timer { after: now, skipped, ..timer }));
            }
            Some(ServiceRun::Unknown) => {
                plan.wake_at = sooner(plan.wake_at, given.now.steady.plus(LOOK_AGAIN));
            }
            None | Some(ServiceRun::Ended { .. }) => {
                plan.actions.push(timed(Timer::new(&timer.schedule, now)));
                let partition = given.partition.name.clone();
                plan.actions.push(Action::StartService { partition, spec: spec.clone() });
            }
        }
    }
}

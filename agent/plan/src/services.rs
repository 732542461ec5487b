//! Which services to start, stop, or let wait.

use crate::action::{Action, Loaded, Note, ServiceSpec};
use crate::backoff::{SERVICE, sooner};
use crate::facts::{Ending, Occupant, ServiceFact, ServiceRun};
use crate::given::Given;
use crate::moment::Steady;
use crate::partition::{PartitionPlan, Verdict};
use crate::render::Upkeep;
use plat_document::release::Restart;
use plat_model::instance::InstanceState;
use plat_model::problem::codes;
use plat_model::{Problem, Waiting};
use std::time::Duration;

/// From so many short runs in a row a service counts as failing.
const FAILING_RUNS: u32 = 3;
/// How soon a service that cannot be observed is looked at again.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How the services of an instance are.
#[derive(Default)]
pub(crate) struct Running {
    /// All run that are to, with the configuration they are to have, or could not be told to read that again.
    pub all: bool,
    /// When the youngest of them was started; zero if there are none.
    pub since: Steady,
    /// One has exited again and again, and has not run for long enough to be trusted; or for good, without success.
    pub unsettled: Option<Problem>,
    /// A one-shot has not succeeded yet.
    pub unfinished: Option<Problem>,
    /// One goes on with files that have changed, because its reload failed.
    pub unread: Option<Problem>,
    /// What has a schedule did not succeed when it ran last.
    pub lapsed: Option<Problem>,
    exited: Option<Problem>,
}

impl Running {
    /// What to say while not all of them run.
    pub fn verdict(&self, occupant: &Occupant) -> Verdict {
        let state = match (&self.unsettled, occupant.ready) {
            (Some(_), _) => InstanceState::Failed,
            (None, true) => InstanceState::Degraded,
            (None, false) => InstanceState::Starting,
        };
        let problem = self.unsettled.clone().or_else(|| self.exited.clone());
        Verdict { state, detail: "its services are being started".into(), problem }
    }
}

/// Whether a service runs as it is to.
pub(crate) fn runs_as(given: &Given<'_>, spec: &ServiceSpec) -> bool {
    let same = |fact: &&ServiceFact| fact.fingerprint == spec.fingerprint;
    let fact = given.fact.services.get(&spec.name).filter(same);
    fact.is_some_and(|fact| matches!(fact.state, ServiceRun::Running { .. }))
}

/// Whether a program that ended by itself is not started again: as its document says, or because it is done.
pub(crate) fn has_ended_for_good(given: &Given<'_>, spec: &ServiceSpec) -> bool {
    let fact = given.fact.services.get(&spec.name).filter(|fact| fact.fingerprint == spec.fingerprint);
    let Some(ServiceRun::Ended { how, .. }) = fact.map(|fact| fact.state) else { return false };
    match (spec.restart, how) {
        (Restart::Always, _) | (_, Ending::Told) => false,
        (Restart::OnFailure, Ending::Success) => spec.stays(),
        (Restart::OnFailure, Ending::Failure) => false,
        (Restart::Never, Ending::Success) => spec.stays(),
        (Restart::Never, Ending::Failure) => spec.schedule.is_none(),
    }
}

/// Whether it is not to be started, as far as it alone is concerned: it has ended for good, has done its work with this
/// configuration, or waits for its time.
pub(crate) fn rests(given: &Given<'_>, occupant: &Occupant, spec: &ServiceSpec) -> bool {
    let done = !spec.stays() && occupant.done.get(&spec.name) == Some(&spec.fingerprint);
    done || spec.schedule.is_some() || has_ended_for_good(given, spec)
}

/// Stops what runs otherwise than it should.
pub(crate) fn stop_others(given: &Given<'_>, upkeep: &Upkeep, plan: &mut PartitionPlan) {
    for (name, fact) in &given.fact.services {
        let wanted = upkeep.service(name).is_some_and(|spec| runs_as(given, spec));
        if !wanted && matches!(fact.state, ServiceRun::Running { .. } | ServiceRun::Stopping { .. }) {
            let partition = given.partition.name.clone();
            plan.actions.push(Action::StopService { partition, service: name.clone() });
        }
    }
}

/// Stops what should not run, starts what should, each in its own time. What has a schedule is not its concern.
pub(crate) fn bring_up(given: &Given<'_>, occupant: &Occupant, upkeep: &Upkeep, plan: &mut PartitionPlan) -> Running {
    let partition = &given.partition.name;
    stop_others(given, upkeep, plan);
    let mut running = Running { all: plan.actions.is_empty(), ..Running::default() };
    let mut reloads = Vec::new();
    for spec in &upkeep.services {
        let fact = given.fact.services.get(&spec.name);
        if rests(given, occupant, spec) {
            let failed = |fact: &&ServiceFact| matches!(fact.state, ServiceRun::Ended { how: Ending::Failure, .. });
            if has_ended_for_good(given, spec)
                && let Some(fact) = fact.filter(failed)
            {
                running.unsettled = Some(exited(fact, spec));
            }
            continue;
        }
        if !spec.stays() {
            running.unfinished.get_or_insert_with(|| unfinished(spec));
        }
        let start = Action::StartService { partition: partition.clone(), spec: spec.clone() };
        let Some(fact) = fact else {
            running.all &= !spec.stays();
            plan.actions.push(start);
            continue;
        };
        let same = fact.fingerprint == spec.fingerprint;
        match fact.state {
            ServiceRun::Running { since, .. } if same && spec.stays() => {
                running.since = running.since.max(since.steady);
                settle(given, fact, spec, since.steady, &mut running, plan);
                let reload = reload(given, spec, fact);
                match reload.as_ref().and_then(|[again, _]| given.fact.failure(&again.step())) {
                    // It may fail for long: what an instance promises is looked after meanwhile.
                    Some(failure) if occupant.started => running.unread = Some(failure.problem.clone()),
                    _ => running.all &= reload.is_none(),
                }
                reloads.extend(reload.into_iter().flatten());
            }
            ServiceRun::Running { .. } if same => {}
            ServiceRun::Ended { how: Ending::Success, .. } if same && !spec.stays() => {
                let (service, fingerprint) = (spec.name.clone(), spec.fingerprint.clone());
                let note = Note::Done { service, fingerprint };
                plan.actions.push(Action::Note { partition: partition.clone(), note });
            }
            ServiceRun::Unknown => {
                running.all &= !spec.stays();
                plan.wake_at = sooner(plan.wake_at, given.now.steady.plus(LOOK_AGAIN));
                plan.waiting.push(Waiting {
                    who: format!("service {} in {partition}", spec.name),
                    on: "a look at whether it runs".into(),
                    since: given.now.wall,
                    todo: String::new(),
                });
            }
            // A one-shot has always come to an end too soon when it failed, however long it took.
            ServiceRun::Ended { at, how }
                if same && (fact.short_runs > 0 || !spec.stays() && how == Ending::Failure) =>
            {
                running.all &= !spec.stays();
                let problem = exited(fact, spec);
                if fact.short_runs >= FAILING_RUNS {
                    running.unsettled = Some(problem);
                } else if spec.stays() {
                    running.exited = Some(problem);
                } else {
                    running.unfinished = Some(problem);
                }
                let again = at.steady.plus(SERVICE.after(fact.short_runs.max(1)));
                if again <= given.now.steady {
                    plan.actions.push(start);
                } else {
                    plan.wake_at = sooner(plan.wake_at, again);
                    plan.waiting.push(Waiting {
                        who: format!("service {} in {partition}", spec.name),
                        on: format!(
                            "its next start at {}, after {} short runs",
                            given.now.tell(again),
                            fact.short_runs
                        ),
                        since: at.wall,
                        todo: "read its log; it ends by itself".into(),
                    });
                }
            }
            // Not this specification's runs, or one that lasted: started again at once.
            _ => {
                running.all &= !spec.stays();
                plan.actions.push(start);
            }
        }
    }
    // Last: one that fails keeps no service from being started.
    plan.actions.append(&mut reloads);
    running
}

/// What makes a run read files again that have changed since it read them, if it has to.
fn reload(given: &Given<'_>, spec: &ServiceSpec, fact: &ServiceFact) -> Option<[Action; 2]> {
    let reload = spec.reload.as_ref()?;
    let occupant = given.fact.occupant.as_ref();
    let again = occupant.and_then(|occupant| occupant.reloaded.get(&spec.name)).filter(|again| again.run == fact.run);
    if again.map_or(&fact.loaded, |again| &again.files) == &reload.files {
        return None;
    }
    let (partition, service) = (given.partition.name.clone(), spec.name.clone());
    let loaded = Loaded { run: fact.run.clone(), files: reload.files.clone() };
    let again = Action::Reload {
        partition: partition.clone(),
        service: service.clone(),
        run: fact.run.clone(),
        how: reload.how.clone(),
    };
    Some([again, Action::Note { partition, note: Note::Reloaded { service, loaded } }])
}

/// A service that failed before has to run for a while before it counts as being up.
fn settle(
    given: &Given<'_>,
    fact: &ServiceFact,
    spec: &ServiceSpec,
    since: Steady,
    running: &mut Running,
    plan: &mut PartitionPlan,
) {
    if fact.short_runs == 0 {
        return;
    }
    let settled = since.plus(SERVICE.after(fact.short_runs).min(Duration::from_secs(10)));
    if given.now.steady < settled && fact.short_runs >= FAILING_RUNS {
        running.unsettled = Some(exited(fact, spec));
        plan.wake_at = sooner(plan.wake_at, settled);
    }
}

/// What there is to say of a one-shot before it has succeeded: no problem yet, so without a reason.
fn unfinished(spec: &ServiceSpec) -> Problem {
    Problem::new(codes::SERVICE_EXITED, format!("one-shot `{}` has not succeeded yet", spec.name))
}

/// What is wrong with a program that ended by itself.
pub(crate) fn exited(fact: &ServiceFact, spec: &ServiceSpec) -> Problem {
    // It did not get as far as to end.
    if let Some(refused) = &fact.refused {
        return refused.clone();
    }
    let mut why =
        if fact.last_exit.is_empty() { "how it ended is not known".to_owned() } else { fact.last_exit.clone() };
    if !fact.last_lines.is_empty() {
        why.push_str("; its last lines were:\n");
        why.push_str(&fact.last_lines.join("\n"));
    }
    let name = &spec.name;
    let (what, next) = match (spec.stays(), spec.restart) {
        (false, Restart::Never) if spec.schedule.is_some() => {
            (format!("`{name}` failed when it ran last"), "it runs again at its next time")
        }
        (false, Restart::Never) => (format!("one-shot `{name}` failed"), "stop and start the instance to run it again"),
        (false, _) => (format!("one-shot `{name}` failed"), "it is started again with growing pauses"),
        (true, Restart::Never) => {
            (format!("service `{name}` ended by itself"), "stop and start the instance to run it again")
        }
        (true, _) => {
            let times = match fact.short_runs {
                1 => "once".to_owned(),
                times => format!("{times} times in a row"),
            };
            (format!("service `{name}` ended by itself {times}"), "it is started again with growing pauses")
        }
    };
    let fix = format!("read its whole log with `plat logs`; {next}");
    Problem::new(codes::SERVICE_EXITED, what).because(why).fix(fix)
}

//! Which services to start, stop, or let wait.

use crate::action::{Action, Loaded, Note, ServiceSpec};
use crate::backoff::{SERVICE, sooner};
use crate::facts::{Occupant, ServiceFact, ServiceRun};
use crate::given::Given;
use crate::moment::Steady;
use crate::partition::{PartitionPlan, Verdict};
use crate::render::Upkeep;
use plat_model::instance::InstanceState;
use plat_model::problem::codes;
use plat_model::{Problem, Waiting};
use std::time::Duration;

/// From so many short runs in a row a service counts as failing.
const FAILING_RUNS: u32 = 3;
/// How soon a service that cannot be observed is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// How the services of an instance are.
pub(crate) struct Running {
    /// All run, with the configuration they are to have.
    pub all: bool,
    /// When the youngest of them was started; zero if there are none.
    pub since: Steady,
    /// One has exited again and again, and has not run for long enough to be trusted.
    pub unsettled: Option<Problem>,
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

/// Stops what should not run, starts what should, each in its own time.
pub(crate) fn bring_up(given: &Given<'_>, upkeep: &Upkeep, plan: &mut PartitionPlan) -> Running {
    let partition = &given.partition.name;
    stop_others(given, upkeep, plan);
    let mut running = Running { all: plan.actions.is_empty(), since: Steady::ZERO, unsettled: None, exited: None };
    for spec in &upkeep.services {
        let start = Action::StartService { partition: partition.clone(), spec: spec.clone() };
        let Some(fact) = given.fact.services.get(&spec.name) else {
            running.all = false;
            plan.actions.push(start);
            continue;
        };
        let same = fact.fingerprint == spec.fingerprint;
        match fact.state {
            ServiceRun::Running { since, .. } if same => {
                running.since = running.since.max(since.steady);
                settle(given, fact, spec.name.as_str(), since.steady, &mut running, plan);
                running.all &= !reload(given, spec, fact, plan);
            }
            ServiceRun::Unknown => {
                running.all = false;
                plan.wake_at = sooner(plan.wake_at, given.now.steady.plus(LOOK_AGAIN));
                plan.waiting.push(Waiting {
                    who: format!("service {} in {partition}", spec.name),
                    on: "a look at whether it runs".into(),
                    since: given.now.wall,
                    todo: String::new(),
                });
            }
            ServiceRun::Ended { at } if same && fact.short_runs > 0 => {
                running.all = false;
                let problem = exited(fact, spec.name.as_str());
                if fact.short_runs >= FAILING_RUNS {
                    running.unsettled = Some(problem);
                } else {
                    running.exited = Some(problem);
                }
                let again = at.steady.plus(SERVICE.after(fact.short_runs));
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
                running.all = false;
                plan.actions.push(start);
            }
        }
    }
    running
}

/// Makes a run read files again that have changed since it read them; whether it has to.
fn reload(given: &Given<'_>, spec: &ServiceSpec, fact: &ServiceFact, plan: &mut PartitionPlan) -> bool {
    let Some(reload) = &spec.reload else { return false };
    let occupant = given.fact.occupant.as_ref();
    let again = occupant.and_then(|occupant| occupant.reloaded.get(&spec.name)).filter(|again| again.run == fact.run);
    if again.map_or(&fact.loaded, |again| &again.files) == &reload.files {
        return false;
    }
    let (partition, service) = (given.partition.name.clone(), spec.name.clone());
    let loaded = Loaded { run: fact.run.clone(), files: reload.files.clone() };
    plan.actions.push(Action::Reload {
        partition: partition.clone(),
        service: service.clone(),
        run: fact.run.clone(),
        how: reload.how.clone(),
    });
    plan.actions.push(Action::Note { partition, note: Note::Reloaded { service, loaded } });
    true
}

/// A service that failed before has to run for a while before it counts as being up.
fn settle(
    given: &Given<'_>,
    fact: &ServiceFact,
    name: &str,
    since: Steady,
    running: &mut Running,
    plan: &mut PartitionPlan,
) {
    if fact.short_runs == 0 {
        return;
    }
    let settled = since.plus(SERVICE.after(fact.short_runs).min(Duration::from_secs(10)));
    if given.now.steady < settled && fact.short_runs >= FAILING_RUNS {
        running.unsettled = Some(exited(fact, name));
        plan.wake_at = sooner(plan.wake_at, settled);
    }
}

fn exited(fact: &ServiceFact, name: &str) -> Problem {
    let mut why =
        if fact.last_exit.is_empty() { "how it ended is not known".to_owned() } else { fact.last_exit.clone() };
    if !fact.last_lines.is_empty() {
        why.push_str("; its last lines were:\n");
        why.push_str(&fact.last_lines.join("\n"));
    }
    let times = if fact.short_runs == 1 { "once".to_owned() } else { format!("{} times in a row", fact.short_runs) };
    Problem::new(codes::SERVICE_EXITED, format!("service `{name}` ended by itself {times}"))
        .because(why)
        .fix("read its whole log with `plat logs`; it is started again with growing pauses")
}

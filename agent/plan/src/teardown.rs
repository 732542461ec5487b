//! Stopping, destroying, and emptying a partition for another instance.

use crate::action::{Action, Note, Run};
use crate::facts::{Occupant, ServiceRun};
use crate::given::Given;
use crate::partition::{PartitionPlan, Verdict};
use crate::render::Rendered;
use crate::services;
use plat_model::Problem;
use plat_model::instance::InstanceState;

/// After so many failed attempts a hook that ought to run before an end is passed over: a broken hook must not keep
/// an instance from being stopped.
pub(crate) const LAST_HOOK_ATTEMPTS: u32 = 3;

/// The stop hook (unless it fails again and again), then an end for every service that is not known to have one.
pub(crate) fn stop_services(given: &Given<'_>, occupant: &Occupant, stop: Option<&Run>, plan: &mut PartitionPlan) {
    if let Some(run) = stop.filter(|run| occupant.started && !given_up(given, run)) {
        plan.actions.push(Action::RunHook { partition: given.partition.name.clone(), run: run.clone() });
    }
    if occupant.started || !occupant.prepared.is_empty() {
        plan.actions.push(Action::Note { partition: given.partition.name.clone(), note: Note::Stopped });
    }
    for (service, fact) in &given.fact.services {
        if !matches!(fact.state, ServiceRun::Ended { .. }) {
            let partition = given.partition.name.clone();
            plan.actions.push(Action::StopService { partition, service: service.clone() });
        }
    }
}

fn given_up(given: &Given<'_>, run: &Run) -> bool {
    let step = Action::RunHook { partition: given.partition.name.clone(), run: run.clone() }.step();
    given.fact.failure(&step).is_some_and(|failure| failure.attempts >= LAST_HOOK_ATTEMPTS)
}

fn known(rendered: Option<&Result<Rendered, Problem>>) -> Option<&Rendered> {
    rendered.and_then(|rendered| rendered.as_ref().ok())
}

pub(crate) fn stop(
    given: &Given<'_>,
    occupant: Option<&Occupant>,
    rendered: Option<&Result<Rendered, Problem>>,
    plan: &mut PartitionPlan,
) -> Verdict {
    if let Some(occupant) = occupant {
        stop_services(given, occupant, known(rendered).and_then(|rendered| rendered.stop.as_ref()), plan);
        // What had ended for good runs again after the next start.
        let upkeep = occupant.upkeep.iter().flat_map(|upkeep| &upkeep.services);
        for spec in upkeep.filter(|spec| services::has_ended_for_good(given, spec)) {
            let (partition, service) = (given.partition.name.clone(), spec.name.clone());
            plan.actions.push(Action::StopService { partition, service });
        }
        if !occupant.timers.is_empty() {
            plan.actions.push(Action::Note { partition: given.partition.name.clone(), note: Note::Untimed });
        }
    }
    let done = plan.actions.is_empty();
    Verdict::new(if done { InstanceState::Stopped } else { InstanceState::Stopping }, "")
}

pub(crate) fn destroy(
    given: &Given<'_>,
    occupant: Option<&Occupant>,
    rendered: Option<&Result<Rendered, Problem>>,
    plan: &mut PartitionPlan,
) -> Verdict {
    let Some(occupant) = occupant.filter(|occupant| !occupant.erased) else {
        return Verdict::new(InstanceState::Destroyed, "");
    };
    let partition = given.partition.name.clone();
    let rendered = known(rendered);
    stop_services(given, occupant, rendered.and_then(|rendered| rendered.stop.as_ref()), plan);
    if occupant.initialised && !occupant.cleaned {
        if let Some(run) = rendered.and_then(|r| r.clean.as_ref()).filter(|run| !given_up(given, run)) {
            plan.actions.push(Action::RunHook { partition: partition.clone(), run: run.clone() });
        }
        plan.actions.push(Action::Note { partition: partition.clone(), note: Note::Cleaned });
    }
    plan.actions.push(Action::Erase { partition });
    Verdict::new(InstanceState::Destroying, "")
}

/// Empties a partition of an instance that the master no longer lists, for the one that it lists instead. Its release
/// may be gone, so none of its hooks are run.
pub(crate) fn give_away(given: &Given<'_>, occupant: &Occupant, plan: &mut PartitionPlan) {
    let partition = given.partition.name.clone();
    if occupant.erased {
        plan.actions.push(Action::Free { partition });
        return;
    }
    stop_services(given, occupant, None, plan);
    plan.actions.push(Action::Erase { partition });
}

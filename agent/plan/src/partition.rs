//! What to do next in one partition.

use crate::action::ServiceSpec;
use crate::action::{Action, Note};
use crate::backoff::{STEP, sooner};
use crate::facts::{Failure, Occupant, ReleaseFact};
use crate::given::Given;
use crate::moment::Steady;
use crate::render::{Rendered, Upkeep, applied_release, render_given};
use crate::services::Running;
use crate::{asked, promises, services, status, teardown, timers, volumes};
use plat_document::release::Role;
use plat_model::instance::{InstanceDesired, InstanceState, InstanceStatus, Wish};
use plat_model::problem::codes;
use plat_model::{Problem, Waiting};
use std::ops::ControlFlow;

/// What to do in one partition, what it waits for, and what to say of it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PartitionPlan {
    /// In this order; the first that fails ends the round. Checks of promises that follow each other may run at once.
    pub actions: Vec<Action>,
    pub waiting: Vec<Waiting>,
    /// When to look again if nothing happens before.
    pub wake_at: Option<Steady>,
    /// How the instance is before the actions are done; `None` if there is none to speak of.
    pub status: Option<InstanceStatus>,
    /// A step that failed is wanted still, and waits for its next try.
    pub held_back: bool,
}

/// The state and what there is to say of it, before it is made a status.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub state: InstanceState,
    pub detail: String,
    pub problem: Option<Problem>,
}

impl Verdict {
    pub fn new(state: InstanceState, detail: impl Into<String>) -> Self {
        Self { state, detail: detail.into(), problem: None }
    }

    pub fn failed(problem: Problem) -> Self {
        Self { state: InstanceState::Failed, detail: String::new(), problem: Some(problem) }
    }
}

/// Plans one partition, rendering its templates.
pub fn plan_partition(given: &Given<'_>) -> PartitionPlan {
    plan_rendered(given, render_given(given).as_ref())
}

/// Plans one partition from templates that [`render_given`] has rendered for the same values before.
pub fn plan_rendered(given: &Given<'_>, rendered: Option<&Result<Rendered, Problem>>) -> PartitionPlan {
    let mut plan = PartitionPlan::default();
    let mut verdict = match (&given.fact.occupant, given.desired) {
        (None, None) => None,
        (Some(occupant), None) => {
            left_alone(given, occupant, &mut plan);
            None
        }
        (Some(occupant), Some(desired)) if occupant.instance != desired.id && desired.wish == Wish::Destroyed => {
            left_alone(given, occupant, &mut plan);
            Some(Verdict::new(InstanceState::Destroyed, ""))
        }
        (Some(occupant), Some(desired)) if occupant.instance != desired.id => {
            teardown::give_away(given, occupant, &mut plan);
            Some(Verdict::new(InstanceState::Starting, "waits for its partition to be emptied"))
        }
        (occupant, Some(desired)) => Some(match desired.wish {
            Wish::Started => started(given, occupant.as_ref(), desired, rendered, &mut plan),
            Wish::Stopped => teardown::stop(given, occupant.as_ref(), rendered, &mut plan),
            Wish::Destroyed => teardown::destroy(given, occupant.as_ref(), rendered, &mut plan),
        }),
    };
    if let (Some(occupant), Some(desired)) = (&given.fact.occupant, given.desired)
        && occupant.instance == desired.id
        && !occupant.erased
    {
        asked::run(given, occupant, desired, rendered.and_then(|rendered| rendered.as_ref().ok()), &mut plan);
        if let (Some(verdict), Some(told)) = (&mut verdict, asked::told(&plan)) {
            verdict.detail = told;
        }
    }
    if let Some(limit) = limit(given) {
        plan.actions.insert(0, limit);
    }
    let failure = hold_back(given, &mut plan);
    plan.status = given.desired.zip(verdict).map(|(desired, verdict)| {
        status::status(given, desired, rendered.and_then(|r| r.as_ref().ok()), with_failure(verdict, failure))
    });
    plan
}

/// Holds an instance that is to run to what it asks for, within what its partition may have. Before all else, and no reason
/// to restart anything.
fn limit(given: &Given<'_>) -> Option<Action> {
    let desired = given.desired.filter(|desired| desired.wish == Wish::Started)?;
    given.fact.occupant.as_ref().filter(|occupant| occupant.instance == desired.id && !occupant.erased)?;
    let resources = desired.resources.within(given.partition.limits);
    let partition = given.partition.name.clone();
    (given.fact.limits != Some(resources)).then_some(Action::Limit { partition, resources })
}

/// An instance that the master does not list keeps what it has: forgetting is not asking for its end.
fn left_alone(given: &Given<'_>, occupant: &Occupant, plan: &mut PartitionPlan) {
    let partition = given.partition.name.clone();
    if occupant.erased {
        plan.actions.push(Action::Free { partition });
    } else {
        plan.waiting.push(Waiting {
            who: format!("partition {partition}"),
            on: format!("the master to say what becomes of instance {}", occupant.instance),
            since: given.now.wall,
            todo: "the master does not list this instance; destroy it, or give its partition to another".into(),
        });
    }
}

fn started(
    given: &Given<'_>,
    occupant: Option<&Occupant>,
    desired: &InstanceDesired,
    rendered: Option<&Result<Rendered, Problem>>,
    plan: &mut PartitionPlan,
) -> Verdict {
    if let Some(verdict) = without_release(given, desired, plan) {
        // One that is the same is not there either.
        let other =
            |occupant: &&Occupant| applied_release(&occupant.configured).is_some_and(|one| one != desired.release);
        let problem = occupant.filter(other).and_then(|occupant| keep_applied_up(given, occupant, plan));
        return Verdict { problem: verdict.problem.or(problem), ..verdict };
    }
    let partition = given.partition.name.clone();
    let Some(release) = given.release else {
        return Verdict::failed(
            Problem::new(
                codes::INTERNAL,
                format!("the document of release {} is not at hand", desired.release.short()),
            )
            .because("it was not sent, or this agent cannot read it")
            .fix("if the agent is older than the master, upgrade it"),
        );
    };
    let lacks = |occupant: &Occupant| release.secrets.keys().any(|name| !occupant.secrets.contains(name));
    let occupant = match occupant {
        Some(occupant) if occupant.erased => {
            plan.actions.push(Action::Free { partition });
            return Verdict::new(InstanceState::Starting, "its partition was emptied");
        }
        Some(occupant) if !lacks(occupant) => occupant,
        _ => {
            let secrets = release.secrets.iter().map(|(name, spec)| (name.clone(), spec.length)).collect();
            plan.actions.push(Action::Occupy { partition, instance: desired.id.clone(), secrets });
            return Verdict::new(InstanceState::Starting, "is given its partition");
        }
    };
    let rendered = match rendered {
        Some(Ok(rendered)) => rendered,
        Some(Err(problem)) => {
            keep_applied_up(given, occupant, plan);
            return Verdict::failed(problem.clone());
        }
        None => return Verdict::new(InstanceState::Starting, ""),
    };
    let verdict = configure(given, occupant, rendered, plan);
    if let Some(verdict) = verdict.or_else(|| volumes::before_start(given, occupant, rendered, plan)) {
        return verdict;
    }
    let running = up(given, occupant, &rendered.upkeep, plan);
    if occupant.upkeep.as_deref() != Some(&rendered.upkeep) {
        let note = Note::KeptUp(Box::new(rendered.upkeep.clone()));
        plan.actions.push(Action::Note { partition: partition.clone(), note });
    }
    let running = match running {
        ControlFlow::Continue(running) => running,
        ControlFlow::Break(verdict) => return verdict,
    };
    if !occupant.started {
        if let Some(run) = &rendered.start {
            plan.actions.push(Action::RunHook { partition: partition.clone(), run: run.clone() });
        }
        plan.actions.push(Action::Note { partition, note: Note::Started });
        return Verdict::new(
            InstanceState::Starting,
            if rendered.start.is_some() { "runs its start hook" } else { "" },
        );
    }
    promises::keep(given, occupant, &rendered.upkeep, &running, plan)
}

/// What is said while the release is not there.
fn without_release(given: &Given<'_>, desired: &InstanceDesired, plan: &mut PartitionPlan) -> Option<Verdict> {
    let short = desired.release.short();
    let (detail, problem) = match given.release_fact {
        ReleaseFact::Installed => return None,
        ReleaseFact::Absent => (format!("waits for release {short}"), None),
        ReleaseFact::Building(progress) => (progress.clone(), None),
        ReleaseFact::Failed { problem, .. } => (format!("release {short} cannot be installed"), Some(problem.clone())),
    };
    plan.waiting.push(Waiting {
        who: format!("instance {}/{}", desired.project, desired.name),
        on: format!("release {short} to be installed"),
        since: given.now.wall,
        todo: problem.as_ref().map(|problem| problem.todo.clone()).unwrap_or_default(),
    });
    let state = if problem.is_some() { InstanceState::Failed } else { InstanceState::Installing };
    Some(Verdict { state, detail, problem })
}

/// While what is desired cannot be had yet, the instance goes on as it was last: its services are started again when
/// they end, its promises are checked. Gives what is wrong with it.
fn keep_applied_up(given: &Given<'_>, occupant: &Occupant, plan: &mut PartitionPlan) -> Option<Problem> {
    let upkeep = occupant.upkeep.as_ref().filter(|_| occupant.started && !occupant.erased)?;
    let verdict = match up(given, occupant, upkeep, plan) {
        ControlFlow::Continue(running) => promises::keep(given, occupant, upkeep, &running, plan),
        ControlFlow::Break(verdict) => verdict,
    };
    verdict.problem
}

/// Brings the services up, as soon as what they are started from is as it should be. Says how they are until all run.
fn up(
    given: &Given<'_>,
    occupant: &Occupant,
    upkeep: &Upkeep,
    plan: &mut PartitionPlan,
) -> ControlFlow<Verdict, Running> {
    let mut running = services::bring_up(given, occupant, upkeep, plan);
    timers::run_due(given, occupant, upkeep, &mut running, plan);
    // That a time was used is written down with the run that used it, or not at all.
    let starts =
        |action: &Action| matches!(action, Action::StartService { .. } | Action::Note { note: Note::Timed { .. }, .. });
    if plan.actions.iter().any(|action| matches!(action, Action::StartService { .. }))
        && let Some(verdict) = promises::await_built(given, occupant, upkeep, plan)
    {
        plan.actions.retain(|action| !starts(action));
        return ControlFlow::Break(verdict);
    }
    if running.all {
        return ControlFlow::Continue(running);
    }
    ControlFlow::Break(running.verdict(occupant))
}

/// Stops what the new configuration concerns, applies it, and starts the services with it. Those that it does not
/// concern, or that reload, go on.
fn configure(given: &Given<'_>, occupant: &Occupant, rendered: &Rendered, plan: &mut PartitionPlan) -> Option<Verdict> {
    if occupant.initialised && occupant.configured == rendered.configured {
        return None;
    }
    let partition = &given.partition.name;
    let note = |note| Action::Note { partition: partition.clone(), note };
    let goes_on = |spec: &&ServiceSpec| services::runs_as(given, spec);
    if rendered.upkeep.services.iter().any(|spec| spec.stays() && goes_on(&spec)) {
        services::stop_others(given, &rendered.upkeep, plan);
    } else {
        teardown::stop_services(given, occupant, rendered.stop.as_ref(), plan);
        volumes::prepare(given, rendered, plan);
    }
    plan.actions.push(Action::WriteFiles { partition: partition.clone(), files: rendered.files.clone() });
    let mut detail = "is configured";
    if !occupant.initialised {
        if let Some(run) = &rendered.init {
            plan.actions.push(Action::RunHook { partition: partition.clone(), run: run.clone() });
            detail = "runs its init hook";
        }
        // Before what may fail; else it is written down together with the rest, for a note costs two syncs of the disk.
        if rendered.configure.is_some() {
            plan.actions.push(note(Note::Initialised));
        }
    }
    if let Some(run) = &rendered.configure {
        plan.actions.push(Action::RunHook { partition: partition.clone(), run: run.clone() });
    }
    let (fingerprint, upkeep) = (rendered.configured.clone(), Box::new(rendered.upkeep.clone()));
    plan.actions.push(note(Note::Configured { fingerprint, upkeep }));
    // What must hold before they are started is asked of what is written now.
    let awaited = rendered.upkeep.promises.values().any(|promise| promise.role == Role::Built);
    let starts = |spec: &&ServiceSpec| !goes_on(spec) && !services::rests(given, occupant, spec);
    for spec in rendered.upkeep.services.iter().filter(|spec| !awaited && starts(spec)) {
        plan.actions.push(Action::StartService { partition: partition.clone(), spec: spec.clone() });
    }
    Some(Verdict::new(InstanceState::Starting, detail))
}

/// Takes the steps that failed, and what builds on them, out of the plan until their next tries are due. Gives the first of
/// those that are wanted still.
fn hold_back<'a>(given: &Given<'a>, plan: &mut PartitionPlan) -> Option<&'a Failure> {
    let steps: Vec<String> = plan.actions.iter().map(Action::step).collect();
    let failing: Vec<&Failure> = steps.iter().filter_map(|step| given.fact.failure(step)).collect();
    for failure in &failing {
        let retry = failure.at.steady.plus(STEP.after(failure.attempts));
        // What comes before it may have taken it out of the plan.
        let Some(at) = plan.actions.iter().position(|action| action.step() == failure.step) else { continue };
        if retry <= given.now.steady {
            continue;
        }
        leave_out(at, plan);
        plan.held_back = true;
        plan.wake_at = sooner(plan.wake_at, retry);
        plan.waiting.push(Waiting {
            who: format!("{} in {}", failure.step, given.partition.name),
            on: format!("the next try at {}, after {} failed", given.now.tell(retry), failure.attempts),
            since: failure.at.wall,
            todo: failure.problem.todo.clone(),
        });
    }
    failing.first().copied()
}

/// Takes an action, and what builds on it, out of the plan.
fn leave_out(at: usize, plan: &mut PartitionPlan) {
    // Services, promises and what was asked for do not build on each other; everything else does on what is before it.
    if let Action::StartService { .. } | Action::CheckPromise { .. } | Action::RunAsked { .. } = plan.actions[at] {
        plan.actions.remove(at);
        return;
    }
    // A reload has its note behind it, and nothing else.
    if let Action::Reload { service, .. } = &plan.actions[at] {
        let reloaded = service.clone();
        plan.actions.retain(|action| match action {
            Action::Reload { service, .. } | Action::Note { note: Note::Reloaded { service, .. }, .. } => {
                *service != reloaded
            }
            _ => true,
        });
        return;
    }
    let asked = plan.actions.pop_if(|action| matches!(action, Action::RunAsked { .. }));
    let later = plan.actions.split_off(at);
    // Those that are restarted for a promise are stopped together or not at all.
    let is_revival = |action: &Action| matches!(action, Action::Note { note: Note::Revived { times: 1.. }, .. });
    if !plan.actions.iter().any(is_revival) {
        plan.actions.extend(apart(later));
    }
    // What is before it is worth doing now only as far as it leaves a mark: the rest would be done again and again.
    let leaves_mark = |action: &Action| match action {
        // These say what is about to be done with the rest, and are written down again with the next try.
        Action::Note { note: Note::Prepared { .. } | Note::Revived { .. }, .. } => false,
        Action::Note { .. } | Action::StopService { .. } | Action::StartService { .. } => true,
        _ => false,
    };
    plan.actions.truncate(plan.actions.iter().rposition(leaves_mark).map_or(0, |last| last + 1));
    plan.actions.extend(asked);
}

/// What does not build on the first of these: where that is the stop of a service, others are stopped all the same, and
/// reloaded and started as long as nothing is between that wants all of them stopped.
fn apart(actions: Vec<Action>) -> Vec<Action> {
    let mut actions = actions.into_iter();
    let Some(Action::StopService { service: stays, .. }) = actions.next() else { return Vec::new() };
    let mut all_stopped = false;
    let is_apart = |action: &Action| match action {
        Action::StopService { .. } => true,
        Action::StartService { spec, .. } => !all_stopped && spec.name != stays,
        Action::Reload { .. } => !all_stopped,
        Action::Note { note: Note::Reloaded { .. } | Note::Done { .. } | Note::Timed { .. }, .. } => !all_stopped,
        _ => {
            all_stopped = true;
            false
        }
    };
    actions.filter(is_apart).collect()
}

fn with_failure(verdict: Verdict, failure: Option<&Failure>) -> Verdict {
    let Some(failure) = failure else { return verdict };
    let detail = format!("{} failed {} times", failure.step, failure.attempts);
    let state = match verdict.state {
        InstanceState::Stopping | InstanceState::Destroying => verdict.state,
        _ => InstanceState::Failed,
    };
    Verdict { state, detail, problem: Some(failure.problem.clone()) }
}

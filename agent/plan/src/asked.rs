//! Runs of hooks that somebody asked for: one after the other, each at most once, whatever becomes of the agent meanwhile.

use crate::action::{Action, Note};
use crate::facts::{Occupant, ReleaseFact};
use crate::given::Given;
use crate::partition::PartitionPlan;
use crate::render::Rendered;
use plat_model::Timestamp;
use plat_model::Waiting;
use plat_model::id::HookName;
use plat_model::instance::{InstanceDesired, Wish};
use plat_model::run::{RUNS_MAX, RunEnd, RunResult, RunWanted};
use serde::{Deserialize, Serialize};

/// What is written down of the runs that an instance was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// One that has begun, and is not known to be over.
    pub begun: Option<Begun>,
    /// The last that are over, oldest first.
    pub over: Vec<RunResult>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    pub number: u64,
    pub hook: HookName,
    pub at: Timestamp,
}

impl Asked {
    /// The newest number that has begun, or never will; 0: none.
    pub fn newest(&self) -> u64 {
        let begun = self.begun.as_ref().map(|begun| begun.number);
        self.over.last().map(|run| run.number).max(begun).unwrap_or(0)
    }

    pub(crate) fn begin(&mut self, begun: &Begun) {
        self.begun = Some(begun.clone());
    }

    /// What is over already stays as it was: a note of it may come again.
    pub(crate) fn end(&mut self, result: &RunResult) {
        if self.over.last().is_some_and(|last| last.number >= result.number) {
            return;
        }
        self.begun = self.begun.take().filter(|begun| begun.number > result.number);
        self.over.push(result.clone());
        self.over.drain(..self.over.len().saturating_sub(RUNS_MAX));
    }
}

/// What comes next of the runs that are asked for. Nothing else happens in the partition while one runs, as with every
/// hook, so that none meets another. That one is over is written down before all else: what fails does not keep it from
/// being told, and of an instance that is erased nothing is written down any more.
pub(crate) fn run(
    given: &Given<'_>,
    occupant: &Occupant,
    desired: &InstanceDesired,
    rendered: Option<&Rendered>,
    plan: &mut PartitionPlan,
) {
    let partition = &given.partition.name;
    let now = given.now.wall;
    let over = |RunWanted { number, hook }: RunWanted, began, end, how: &str| {
        let (how, tail) = (how.to_owned(), Vec::new());
        let result = RunResult { number, hook, began, ended: now, end, how, tail };
        Action::Note { partition: partition.clone(), note: Note::RunOver(result) }
    };
    // Who would know how it ends is gone, or was told to break it off.
    if let Some(Begun { number, hook, at }) = occupant.asked.begun.clone() {
        let how = "it was broken off, or the agent ended before it did";
        plan.actions.insert(0, over(RunWanted { number, hook }, at, RunEnd::Interrupted, how));
        return;
    }
    let newest = occupant.asked.newest();
    let Some(next) = desired.runs.iter().find(|run| run.number > newest) else { return };
    let not = |how| over(next.clone(), now, RunEnd::NotRun, how);
    match (desired.wish, rendered) {
        (Wish::Started, Some(rendered)) => match rendered.asked(&next.hook) {
            None => plan.actions.insert(0, not("the instance's release has no such hook now")),
            Some(run) if is_up(given, occupant, rendered) => {
                let (number, run) = (next.number, run.clone());
                plan.actions.push(Action::RunAsked { partition: partition.clone(), number, run });
            }
            Some(_) => wait(given, desired, next, plan),
        },
        (Wish::Started, None) => wait(given, desired, next, plan),
        (Wish::Stopped, _) => plan.actions.insert(0, not("the instance was to stop")),
        (Wish::Destroyed, _) => {}
    }
}

/// Whether its release and its files are those that the hook is for, and its services have been started.
fn is_up(given: &Given<'_>, occupant: &Occupant, rendered: &Rendered) -> bool {
    let installed = given.release_fact == &ReleaseFact::Installed;
    installed && occupant.started && occupant.configured == rendered.configured
}

fn wait(given: &Given<'_>, desired: &InstanceDesired, next: &RunWanted, plan: &mut PartitionPlan) {
    plan.waiting.push(Waiting {
        who: format!("run {} of hook {} in {}", next.number, next.hook, given.partition.name),
        on: format!("instance {}/{} to be started", desired.project, desired.name),
        since: given.now.wall,
        todo: "look what keeps the instance from starting".into(),
    });
}

/// What is being done for somebody, in a few words.
pub(crate) fn told(plan: &PartitionPlan) -> Option<String> {
    plan.actions.iter().find_map(|action| match action {
        Action::RunAsked { number, run, .. } => {
            Some(format!("runs its {} hook, which was asked for (run {number})", run.name))
        }
        _ => None,
    })
}

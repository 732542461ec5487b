//! What to do about one release of the node.

use crate::action::Action;
use crate::backoff::{INSTALL, ROOMLESS, sooner};
use crate::facts::ReleaseFact;
use crate::moment::{Moment, Steady};
use plat_model::id::Digest;
use plat_model::problem::codes;
use plat_model::release::{InstallState, Installation};
use plat_model::{Category, Problem, Waiting};
use std::time::Duration;

/// Everything that decides what happens next to one release.
#[derive(Debug, Clone, Copy)]
pub struct ReleaseGiven<'a> {
    pub digest: &'a Digest,
    /// Its document, if it is to be available.
    pub document: Option<&'a str>,
    pub in_use: InUse,
    /// It is to go if nothing needs it: see [`crate::plan_garbage`].
    pub garbage: bool,
    pub rebuild: Rebuild,
    /// Why nothing is begun that takes room.
    pub shortage: Option<&'a Problem>,
    /// There is clearly more room than when the last attempt began: see [`crate::is_roomier`].
    pub roomier: bool,
    /// The last removal, if it failed.
    pub unremoved: Option<&'a Unremoved>,
    pub fact: &'a ReleaseFact,
    pub now: Moment,
}

/// Whether some instance on this node consists of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InUse {
    Yes,
    No,
    /// None that is known does, but not every partition has been looked at.
    Unknown,
}

/// Wishes to build a release again are numbered; 0: there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rebuild {
    /// The last that the master told of.
    pub wanted: u64,
    /// The last that a plan has settled. One that is larger than the last wanted was given by a master that has forgotten it.
    pub settled: Settled,
}

/// A wish that is not asked for any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settled {
    pub number: u64,
    pub how: Settling,
}

/// What became of a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Settling {
    /// An attempt has begun for it, which is told like any other.
    #[default]
    Begun,
    /// An instance consisted of the release.
    Declined,
}

impl Settled {
    pub fn begun(number: u64) -> Self {
        Self { number, how: Settling::Begun }
    }

    fn declined(number: u64) -> Self {
        Self { number, how: Settling::Declined }
    }
}

impl Rebuild {
    /// A smaller number is new too: it comes from a master that was restored from a copy.
    fn is_new(self) -> bool {
        self.wanted != 0 && self.wanted != self.settled.number
    }

    /// The same before anything new was wanted.
    fn without_news(self) -> Self {
        let wanted = self.acted_on();
        Self { wanted, settled: if wanted == 0 { Settled::default() } else { self.settled } }
    }

    /// The last that was acted on, of those that the master knows.
    pub fn acted_on(self) -> u64 {
        if self.settled.number <= self.wanted { self.settled.number } else { 0 }
    }
}

/// A removal that failed, so that the release is there still.
#[derive(Debug, Clone, PartialEq)]
pub struct Unremoved {
    pub attempts: u32,
    pub at: Moment,
    pub problem: Problem,
    /// The wish to build it again that it was for; 0: it was to be gone.
    pub rebuild: u64,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReleasePlan {
    pub action: Option<Action>,
    pub waiting: Vec<Waiting>,
    pub wake_at: Option<Steady>,
    /// What to report, as if what is settled were settled; `None` if there is nothing to say of it any more.
    pub status: Option<Installation>,
    /// The wish to build it again that an attempt of this plan is for, or that is declined: whichever, it is not asked for any
    /// more. A removal settles nothing, for it can be repeated: when it is done, the release is absent and still wanted.
    pub settles: Option<Settled>,
}

/// An installation that the same input can never make succeed is tried again only so often: somebody may mend what the
/// document points at.
const HOPELESS: Duration = Duration::from_secs(3600);

/// How often it is looked whether there is room again, or what is wanted can be written down.
const ROOM: Duration = Duration::from_secs(10);

/// How often it is looked whether every partition has been looked at.
const UNSEEN: Duration = Duration::from_secs(1);

pub fn plan_release(given: &ReleaseGiven<'_>) -> ReleasePlan {
    let again = given.rebuild.is_new();
    let was_declined = given.rebuild.settled.how == Settling::Declined;
    let mut plan = ReleasePlan::default();
    let said = |state, progress: &str, problem| {
        let (digest, progress) = (given.digest.clone(), progress.to_owned());
        Some(Installation { digest, state, progress, problem, rebuild: 0 })
    };
    let install =
        |document: &str| Action::InstallRelease { digest: given.digest.clone(), document: document.to_owned() };
    let who = || format!("release {}", given.digest.short());
    match (given.document, given.fact) {
        (Some(_), ReleaseFact::Installed) if again && given.in_use == InUse::Unknown => {
            plan.status = said(
                InstallState::Installed,
                "waits for a look at every partition, to be built again if none uses it",
                None,
            );
            plan.wake_at = Some(given.now.steady.plus(UNSEEN));
            plan.waiting.push(Waiting {
                who: who(),
                on: "a look at every partition, before it is removed to be built again".into(),
                since: given.now.wall,
                todo: "nothing, unless the agent's log says that a partition cannot be observed".into(),
            });
        }
        // What instances consist of stays as it is.
        (Some(_), ReleaseFact::Installed) if again && given.in_use == InUse::No => {
            plan.status = match given.removal_that_failed() {
                Some(failed) => said(InstallState::Installed, "", Some(failed.problem.clone())),
                None => said(InstallState::Installing, "is removed, to be built again", None),
            };
            plan.remove(given);
        }
        (Some(_), ReleaseFact::Installed) => {
            let is_declined = again || was_declined && given.rebuild.wanted == given.rebuild.settled.number;
            plan.status = said(InstallState::Installed, "", is_declined.then(|| declined(given.digest)));
        }
        (Some(_), ReleaseFact::Building(progress)) => plan.status = said(InstallState::Installing, progress, None),
        (Some(_), ReleaseFact::Absent) if given.shortage.is_some() => plan.wait_for_room(given),
        (Some(document), ReleaseFact::Absent) => {
            plan.action = Some(install(document));
            plan.status = said(InstallState::Installing, "", None);
        }
        (Some(document), ReleaseFact::Failed { attempts, at, problem }) => {
            plan.status = said(InstallState::Failed, "", Some(problem.clone()));
            let soonest = INSTALL.after(*attempts);
            let wait = match problem.category() {
                _ if again => Duration::ZERO,
                Category::Invalid => HOPELESS,
                _ if problem.code == codes::DISK_FULL && !given.roomier => ROOMLESS.after(*attempts),
                _ => soonest,
            };
            // More room has it tried sooner.
            let waits_for_room = problem.code == codes::DISK_FULL && wait > soonest;
            let retry = at.steady.plus(wait);
            if retry <= given.now.steady && given.shortage.is_some() {
                plan.wait_for_room(given);
            } else if retry <= given.now.steady {
                plan.action = Some(install(document));
                plan.status = said(InstallState::Installing, "is tried again", None);
            } else {
                let look = given.now.steady.plus(ROOM);
                plan.wake_at = Some(if waits_for_room { retry.min(look) } else { retry });
                let room = if waits_for_room { "more room on the disk, or " } else { "" };
                plan.waiting.push(Waiting {
                    who: who(),
                    on: format!("{room}the next try at {}, after {attempts} failed", given.now.tell(retry)),
                    since: at.wall,
                    todo: problem.todo.clone(),
                });
            }
        }
        (None, ReleaseFact::Installed) if given.in_use == InUse::Yes => {
            plan.status = said(InstallState::Installed, "", None);
            plan.waiting.push(Waiting {
                who: who(),
                on: "the instances that use it before it is removed".into(),
                since: given.now.wall,
                todo: "destroy them, or let them use another release".into(),
            });
        }
        // When all is known, it is said anew what is to go.
        (None, ReleaseFact::Installed) if !given.garbage || given.in_use == InUse::Unknown => {
            plan.status = said(InstallState::Absent, "", None);
            plan.waiting.push(Waiting {
                who: who(),
                on: "being supplied again, or its removal".into(),
                since: given.now.wall,
                todo: "nothing: it goes after `keep_days`, or when the disk is short of room".into(),
            });
        }
        (None, ReleaseFact::Installed | ReleaseFact::Building(_)) => {
            let failed = given.removal_that_failed().map(|failed| failed.problem.clone());
            plan.status = said(InstallState::Removing, "", failed);
            plan.remove(given);
        }
        (None, ReleaseFact::Absent | ReleaseFact::Failed { .. }) => plan.status = said(InstallState::Absent, "", None),
    }
    // What waits for room, or is being built already, is asked for still.
    let wanted = given.rebuild.wanted;
    plan.settles = match (&plan.action, given.fact) {
        _ if !again => None,
        (Some(Action::InstallRelease { .. }), _) => Some(Settled::begun(wanted)),
        (None, ReleaseFact::Installed) if given.in_use == InUse::Yes => Some(Settled::declined(wanted)),
        _ if given.document.is_none() => Some(Settled::begun(wanted)),
        _ => None,
    };
    let is_told_of = plan.settles.is_some() || given.document.is_some() && given.removal_that_failed().is_some();
    if let Some(status) = &mut plan.status {
        status.rebuild = if again && is_told_of { wanted } else { given.rebuild.acted_on() };
    }
    plan
}

/// Where what the plan settles could not be written down: nothing is begun that would have to be known later.
pub fn plan_unsettled(given: &ReleaseGiven<'_>, problem: &Problem) -> ReleasePlan {
    let given = ReleaseGiven { rebuild: given.rebuild.without_news(), ..*given };
    let mut plan = plan_release(&given);
    match &plan.action {
        Some(Action::InstallRelease { .. }) => {
            plan = ReleasePlan::default();
            plan.wait_for(&given, "waiting for what is wanted to be written down", problem);
        }
        Some(_) => {}
        None => {
            let is_there = |status: &&mut Installation| status.state == InstallState::Installed;
            if let Some(status) = plan.status.as_mut().filter(is_there) {
                status.problem = Some(problem.clone());
            }
            plan.wait_on(&given, problem);
        }
    }
    plan
}

/// Why it was not built again.
fn declined(digest: &Digest) -> Problem {
    Problem::new(codes::IN_USE, format!("release {} is not built again", digest.short()))
        .because("an instance on this node consisted of it when that was asked for")
        .fix("ask again when none does: destroy it, or let it use another release")
}

impl<'a> ReleaseGiven<'a> {
    /// The removal that is wanted now has failed.
    fn removal_that_failed(&self) -> Option<&'a Unremoved> {
        self.unremoved.filter(|failed| self.fact != &ReleaseFact::Absent && failed.rebuild == self.rebuild.wanted)
    }
}

impl ReleasePlan {
    /// Removes it, or waits a while if that has failed.
    fn remove(&mut self, given: &ReleaseGiven<'_>) {
        let failed = given.removal_that_failed();
        let retry = failed.map(|failed| failed.at.steady.plus(INSTALL.after(failed.attempts)));
        match (failed, retry.filter(|retry| *retry > given.now.steady)) {
            (Some(Unremoved { attempts, at, problem, .. }), Some(retry)) => {
                self.wake_at = Some(retry);
                self.waiting.push(Waiting {
                    who: format!("release {}", given.digest.short()),
                    on: format!("the next try to remove it at {}, after {attempts} failed", given.now.tell(retry)),
                    since: at.wall,
                    todo: problem.todo.clone(),
                });
            }
            _ => self.action = Some(Action::RemoveRelease { digest: given.digest.clone() }),
        }
    }

    fn wait_for_room(&mut self, given: &ReleaseGiven<'_>) {
        if let Some(problem) = given.shortage {
            self.wait_for(given, "waiting for room on the disk", problem);
        }
    }

    fn wait_for(&mut self, given: &ReleaseGiven<'_>, progress: &str, problem: &Problem) {
        self.status = Some(Installation {
            digest: given.digest.clone(),
            state: InstallState::Installing,
            progress: progress.into(),
            problem: Some(problem.clone()),
            rebuild: given.rebuild.acted_on(),
        });
        self.wait_on(given, problem);
    }

    /// Looks again soon.
    fn wait_on(&mut self, given: &ReleaseGiven<'_>, problem: &Problem) {
        self.wake_at = sooner(self.wake_at, given.now.steady.plus(ROOM));
        self.waiting.push(Waiting {
            who: format!("release {}", given.digest.short()),
            on: problem.one_line(),
            since: given.now.wall,
            todo: problem.todo.clone(),
        });
    }
}

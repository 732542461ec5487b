//! What to do about one release of the node.

use crate::action::Action;
use crate::backoff::INSTALL;
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
    /// Some instance on this node consists of it.
    pub in_use: bool,
    /// It is to go if nothing needs it: see [`crate::plan_garbage`].
    pub garbage: bool,
    pub rebuild: Rebuild,
    /// Why nothing is begun that takes room.
    pub shortage: Option<&'a Problem>,
    /// There is clearly more room than when the last attempt began: see [`crate::is_roomier`].
    pub roomier: bool,
    pub fact: &'a ReleaseFact,
    pub now: Moment,
}

/// Wishes to build a release again are numbered; 0: there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rebuild {
    /// The last that the master told of.
    pub wanted: u64,
    /// The last that a plan has settled. One that is larger than the last wanted was given by a master that has forgotten it.
    pub settled: u64,
}

impl Rebuild {
    /// A smaller number is new too: it comes from a master that was restored from a copy.
    fn is_new(self) -> bool {
        self.wanted != 0 && self.wanted != self.settled
    }

    /// The same before anything new was wanted.
    pub fn without_news(self) -> Self {
        Self { wanted: self.acted_on(), settled: self.acted_on() }
    }

    /// The last that was acted on, of those that the master knows.
    pub fn acted_on(self) -> u64 {
        if self.settled <= self.wanted { self.settled } else { 0 }
    }
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReleasePlan {
    pub action: Option<Action>,
    pub waiting: Vec<Waiting>,
    pub wake_at: Option<Steady>,
    /// What to report, as if what is settled were settled; `None` if there is nothing to say of it any more.
    pub status: Option<Installation>,
    /// The wish to build it again that is acted on by this, or is not to be: whichever, it is not asked for any more.
    pub settles: Option<u64>,
}

/// An installation that the same input can never make succeed is tried again only so often: somebody may mend what the
/// document points at.
const HOPELESS: Duration = Duration::from_secs(3600);

/// One that ran out of room, while there is no more than when it began: what it wrote is gone, and it would write it again.
const ROOMLESS: Duration = HOPELESS;

/// How often it is looked whether there is room again.
const ROOM: Duration = Duration::from_secs(10);

pub fn plan_release(given: &ReleaseGiven<'_>) -> ReleasePlan {
    let again = given.rebuild.is_new();
    let mut plan = ReleasePlan::default();
    let said = |state, progress: &str, problem| {
        let (digest, progress) = (given.digest.clone(), progress.to_owned());
        Some(Installation { digest, state, progress, problem, rebuild: 0 })
    };
    let install =
        |document: &str| Action::InstallRelease { digest: given.digest.clone(), document: document.to_owned() };
    let who = || format!("release {}", given.digest.short());
    match (given.document, given.fact) {
        // What instances consist of stays as it is.
        (Some(_), ReleaseFact::Installed) if again && !given.in_use => {
            plan.action = Some(Action::RemoveRelease { digest: given.digest.clone() });
            plan.status = said(InstallState::Installing, "is removed, to be built again", None);
        }
        (Some(_), ReleaseFact::Installed) => plan.status = said(InstallState::Installed, "", None),
        (Some(_), ReleaseFact::Building(progress)) => plan.status = said(InstallState::Installing, progress, None),
        (Some(_), ReleaseFact::Absent) if given.shortage.is_some() => plan.wait_for_room(given),
        (Some(document), ReleaseFact::Absent) => {
            plan.action = Some(install(document));
            plan.status = said(InstallState::Installing, "", None);
        }
        (Some(document), ReleaseFact::Failed { attempts, at, problem }) => {
            plan.status = said(InstallState::Failed, "", Some(problem.clone()));
            let waits_for_room = problem.code == codes::DISK_FULL && !given.roomier;
            let wait = match problem.category() {
                _ if again => Duration::ZERO,
                Category::Invalid => HOPELESS,
                _ if waits_for_room => ROOMLESS,
                _ => INSTALL.after(*attempts),
            };
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
        (None, ReleaseFact::Installed) if given.in_use => {
            plan.status = said(InstallState::Installed, "", None);
            plan.waiting.push(Waiting {
                who: who(),
                on: "the instances that use it before it is removed".into(),
                since: given.now.wall,
                todo: "destroy them, or let them use another release".into(),
            });
        }
        (None, ReleaseFact::Installed) if !given.garbage => {
            plan.status = said(InstallState::Absent, "", None);
            plan.waiting.push(Waiting {
                who: who(),
                on: "being supplied again, or its removal".into(),
                since: given.now.wall,
                todo: "nothing: it goes after `keep_days`, or when the disk is short of room".into(),
            });
        }
        (None, ReleaseFact::Installed | ReleaseFact::Building(_)) => {
            plan.action = Some(Action::RemoveRelease { digest: given.digest.clone() });
            plan.status = said(InstallState::Removing, "", None);
        }
        (None, ReleaseFact::Absent | ReleaseFact::Failed { .. }) => plan.status = said(InstallState::Absent, "", None),
    }
    // What waits for room, or is being built already, is asked for still.
    let is_declined = given.document.is_none() || given.fact == &ReleaseFact::Installed;
    plan.settles = (again && (plan.action.is_some() || is_declined)).then_some(given.rebuild.wanted);
    if let Some(status) = &mut plan.status {
        status.rebuild = plan.settles.unwrap_or_else(|| given.rebuild.acted_on());
    }
    plan
}

impl ReleasePlan {
    fn wait_for_room(&mut self, given: &ReleaseGiven<'_>) {
        let Some(problem) = given.shortage else { return };
        self.status = Some(Installation {
            digest: given.digest.clone(),
            state: InstallState::Installing,
            progress: "waiting for room on the disk".into(),
            problem: Some(problem.clone()),
            rebuild: 0,
        });
        self.wake_at = Some(given.now.steady.plus(ROOM));
        self.waiting.push(Waiting {
            who: format!("release {}", given.digest.short()),
            on: problem.one_line(),
            since: given.now.wall,
            todo: problem.todo.clone(),
        });
    }
}

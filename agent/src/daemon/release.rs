//! The worker of one release: installs it while it is desired, removes it when it is not and nobody uses it.

use super::Shared;
use plat_agent_plan::{
    Action, Disk, InUse, Moment, Rebuild, ReleaseFact, ReleaseGiven, Steady, Unremoved, is_roomier, plan_release,
    plan_unsettled, shortage,
};
use plat_model::Problem;
use plat_model::id::Digest;
use plat_model::node::NodeDesired;
use plat_model::release::{InstallState, Installation};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tracing::{info, warn};

struct Worker {
    shared: Arc<Shared>,
    digest: Digest,
    wake: Arc<Notify>,
    /// The last attempt's failure: attempts, when, why.
    failed: Option<(u32, Moment, Problem)>,
    /// The disks as they were when that attempt began.
    had: BTreeMap<u64, Disk>,
    /// The last removal, if it failed.
    unremoved: Option<Unremoved>,
}

/// Ends when the release is neither there nor desired.
pub(super) async fn run(shared: Arc<Shared>, digest: Digest, wake: Arc<Notify>) {
    let mut worker = Worker { shared, digest, wake, failed: None, had: BTreeMap::new(), unremoved: None };
    while let Some(next) = worker.look().await {
        match next {
            (Some(action), _) => worker.perform(&action).await,
            (None, None) => worker.wake.notified().await,
            (None, Some(until)) => {
                let pause = until.since(worker.shared.clock.steady()).max(Duration::from_millis(1));
                let _woken = tokio::time::timeout(pause, worker.wake.notified()).await;
            }
        }
    }
}

impl Worker {
    /// Observes, tells, and plans. `None`: there is nothing of it any more, and nothing to come.
    async fn look(&mut self) -> Option<(Option<Action>, Option<Steady>)> {
        let observed = self.shared.host.observe_release(&self.digest).await;
        if observed == ReleaseFact::Absent {
            self.unremoved = None;
        }
        let fact = match (&observed, &self.failed) {
            (ReleaseFact::Absent, Some((attempts, at, problem))) => {
                ReleaseFact::Failed { attempts: *attempts, at: *at, problem: problem.clone() }
            }
            (ReleaseFact::Installed, _) => {
                self.failed = None;
                observed
            }
            _ => observed,
        };
        let Some(desired) = self.shared.current() else {
            self.shared.set_release_fact(&self.digest, fact);
            return Some((None, None));
        };
        let document = desired.releases.get(&self.digest).map(String::as_str);
        let looked = match (document, &fact) {
            (Some(_), ReleaseFact::Absent | ReleaseFact::Failed { .. }) => Some(self.shared.host.observe_disks().await),
            _ => None,
        };
        let (disks, shortage) = match looked {
            None => (BTreeMap::new(), None),
            Some(Ok(disks)) => {
                let shortage = shortage(&disks, &self.shared.policy);
                // What nothing uses is looked for then.
                (disks, shortage.inspect(|_| self.shared.tidy.notify_one()))
            }
            Some(Err(problem)) => (BTreeMap::new(), Some(problem)),
        };
        let given = ReleaseGiven {
            digest: &self.digest,
            document,
            in_use: self.shared.in_use(&self.digest),
            garbage: self.shared.is_garbage(&self.digest),
            rebuild: self.rebuild(&desired),
            shortage: shortage.as_ref(),
            roomier: is_roomier(&self.had, &disks),
            unremoved: self.unremoved.as_ref(),
            fact: &fact,
            now: self.shared.clock.moment(),
        };
        let mut plan = plan_release(&given);
        if let Some(settled) = plan.settles
            && let Err(problem) = self.shared.again.settle(&self.digest, settled)
        {
            warn!(release = self.digest.short(), problem = problem.one_line(), "it is not built again");
            plan = plan_unsettled(&given, &problem);
        }
        if let Some(Action::InstallRelease { .. }) = &plan.action {
            self.had = disks;
        }
        if let Some(status) = plan.status {
            self.shared.board.installation(status);
        }
        if document.is_none() {
            self.failed = None;
            if fact == ReleaseFact::Absent {
                self.shared.forget_release(&self.digest);
                return None;
            }
        }
        if let Some(Action::RemoveRelease { .. }) = &plan.action {
            // From here on nothing is begun with it, until it is there again. What was begun before is in use now.
            let removed = ReleaseFact::Building("is removed, and then built again if it is wanted".into());
            self.shared.set_release_fact(&self.digest, removed);
            if given.in_use == InUse::No && self.shared.in_use(&self.digest) != InUse::No {
                return Some((None, Some(self.shared.clock.steady())));
            }
        } else {
            self.shared.set_release_fact(&self.digest, fact);
        }
        Some((plan.action, plan.wake_at))
    }

    fn rebuild(&self, desired: &NodeDesired) -> Rebuild {
        let wanted = desired.rebuilds.get(&self.digest).copied().unwrap_or(0);
        Rebuild { wanted, settled: self.shared.again.settled(&self.digest) }
    }

    /// Installs or removes. While that lasts its progress is told, and an installation that is no longer wanted is
    /// broken off.
    async fn perform(&mut self, action: &Action) {
        let is_install = matches!(action, Action::InstallRelease { .. });
        let shared = self.shared.clone();
        let wanted = shared.current().map_or(0, |desired| self.rebuild(&desired).wanted);
        let turns = is_install.then(|| shared.turns(&self.digest));
        let at_once = turns.and_then(|turns| turns.try_acquire().ok());
        if is_install && at_once.is_none() {
            self.tell("waiting for another release to be installed".into());
        }
        let work = async {
            let _turn = match (at_once, turns) {
                (None, Some(turns)) => turns.acquire().await.ok(),
                (turn, _) => turn,
            };
            info!(release = self.digest.short(), step = action.step(), "performing");
            shared.host.perform(action).await
        };
        tokio::pin!(work);
        let result = loop {
            tokio::select! {
                result = &mut work => break result,
                () = self.wake.notified() => {
                    let wanted = shared.current().is_some_and(|desired| desired.releases.contains_key(&self.digest));
                    if is_install && !wanted {
                        info!(release = self.digest.short(), "installation broken off: it is no longer wanted");
                        return;
                    }
                    self.progress().await;
                }
            }
        };
        match result {
            Ok(()) => {
                self.failed = None;
                if !is_install {
                    self.unremoved = None;
                    self.shared.no_garbage(&self.digest);
                    self.shared.tidy.notify_one();
                }
            }
            Err(problem) => {
                let before = match is_install {
                    true => self.failed.as_ref().map(|(attempts, ..)| *attempts),
                    false => self.unremoved.as_ref().filter(|one| one.rebuild == wanted).map(|one| one.attempts),
                };
                let (attempts, at) = (before.unwrap_or(0) + 1, shared.clock.moment());
                warn!(release = self.digest.short(), attempts, problem = problem.one_line(), "step failed");
                match is_install {
                    true => self.failed = Some((attempts, at, problem)),
                    false => self.unremoved = Some(Unremoved { attempts, at, problem, rebuild: wanted }),
                }
            }
        }
    }

    async fn progress(&self) {
        if let ReleaseFact::Building(progress) = self.shared.host.observe_release(&self.digest).await {
            self.tell(progress);
        }
    }

    /// Tells what an installation is doing.
    fn tell(&self, progress: String) {
        let desired = self.shared.current();
        self.shared.board.installation(Installation {
            digest: self.digest.clone(),
            state: InstallState::Installing,
            progress: progress.clone(),
            problem: None,
            rebuild: desired.map_or(0, |desired| self.rebuild(&desired).acted_on()),
        });
        self.shared.set_release_fact(&self.digest, ReleaseFact::Building(progress));
    }
}

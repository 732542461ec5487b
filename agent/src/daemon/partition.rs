//! The worker of one partition: observe, plan, perform, and again, until there is nothing to do.

use super::Shared;
use crate::usage::Arrival;
use futures_util::future::join_all;
use plat_agent_plan::facts::Failure;
use plat_agent_plan::{
    Action, Given, Moment, PartitionFact, PartitionPlan, Place, ReleaseFact, Rendered, Steady, instance_of,
    plan_rendered, render_given,
};
use plat_model::id::{Digest, InstanceId, PartitionName};
use plat_model::instance::{InstanceDesired, Wish};
use plat_model::node::NodePartition;
use plat_model::{Generation, Problem};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

/// How soon a partition that could not be observed is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

struct Worker {
    shared: Arc<Shared>,
    name: PartitionName,
    wake: Arc<Notify>,
    failures: Vec<Failure>,
    /// What was wanted when they failed.
    failed_with: Option<Box<InstanceDesired>>,
    cache: Option<Box<Cache>>,
    /// A check was broken off last time: the next one runs to its end, so that events cannot starve promises.
    broke_off: bool,
    followed: bool,
    /// What the last occupant used was counted after nothing of it was left.
    settled: bool,
}

/// Rendered templates, and what they were rendered from.
struct Cache {
    instance: InstanceId,
    generation: Generation,
    release: Digest,
    place: Place,
    partition: Arc<NodePartition>,
    secrets: BTreeSet<String>,
    rendered: Result<Rendered, Problem>,
}

/// How a round went.
enum Round {
    /// Something was done: look again at once.
    Again,
    /// Nothing to do before this time.
    Idle(Option<Steady>),
}

pub(super) async fn run(shared: Arc<Shared>, name: PartitionName, wake: Arc<Notify>) {
    let mut worker = Worker {
        shared,
        name,
        wake,
        failures: Vec::new(),
        failed_with: None,
        cache: None,
        broke_off: false,
        followed: false,
        settled: false,
    };
    loop {
        // A round's memory is taken for a round: there may be a thousand workers, of which hardly any does something.
        if let Round::Idle(until) = Box::pin(worker.round()).await {
            match until {
                None => worker.wake.notified().await,
                Some(until) => {
                    let pause = until.since(worker.shared.clock.steady()).max(Duration::from_millis(1));
                    let _woken = tokio::time::timeout(pause, worker.wake.notified()).await;
                }
            }
        }
    }
}

impl Worker {
    async fn round(&mut self) -> Round {
        let now = self.shared.clock.moment();
        self.forget_what_failed_otherwise();
        let fact = match self.shared.host.observe_partition(&self.name).await {
            Ok(fact) => PartitionFact { failures: self.failures.clone(), ..fact },
            Err(problem) => {
                warn!(partition = %self.name, problem = problem.one_line(), "partition cannot be observed");
                return Round::Idle(Some(now.steady.plus(LOOK_AGAIN)));
            }
        };
        let occupant = fact.occupant.as_ref();
        self.shared.note_applied(&self.name, occupant.map(|occupant| occupant.configured.as_str()));
        match occupant.filter(|occupant| !occupant.erased) {
            Some(occupant) => {
                if !std::mem::replace(&mut self.followed, true) {
                    self.shared.metering.follow(&self.name, &occupant.instance, Arrival::Found).await;
                }
            }
            None => self.followed = false,
        }
        // Before it is configured for the first time there is nobody to speak; then it is made with the files.
        let speaks = occupant.filter(|occupant| !occupant.erased && !occupant.configured.is_empty());
        let mut tries_again = None;
        if let Some(partition) = self.shared.partition(&self.name) {
            let kept = self.shared.inside.keep(&partition, speaks.map(|occupant| &occupant.instance));
            tries_again = kept.await.map(|soon| now.steady.plus(soon));
        }
        let Some((plan, instance)) = self.plan(&fact, now) else { return Round::Idle(tries_again) };
        for waiting in &plan.waiting {
            debug!(partition = %self.name, who = waiting.who, on = waiting.on, "waiting");
        }
        if let Some(status) = &plan.status {
            self.shared.board.instance(status.clone());
        }
        if plan.actions.is_empty() {
            if !plan.held_back {
                self.failures.retain(Failure::outlasts_rest);
            }
            return Round::Idle(plan.wake_at.into_iter().chain(tries_again).min());
        }
        self.perform(&plan, instance.as_ref()).await
    }

    /// `None` while too little is known to decide anything.
    fn plan(&mut self, fact: &PartitionFact, now: Moment) -> Option<(PartitionPlan, Option<InstanceDesired>)> {
        // Before the first word of the master nothing is known to be unwanted either.
        let desired = self.shared.current()?;
        let place = self.shared.place();
        let place = place.as_ref().as_ref()?;
        let partition = self.shared.partition(&self.name)?;
        let instance = instance_of(&desired, &self.name, fact);
        let release = instance.and_then(|instance| self.shared.document(&instance.release));
        let release_fact = instance.and_then(|instance| self.shared.release_fact(&instance.release));
        // Its worker has not looked yet, and wakes this one when it has. An end does not depend on it.
        let is_to_run = instance.is_some_and(|instance| instance.wish == Wish::Started);
        if is_to_run && release.is_some() && release_fact.is_none() {
            return None;
        }
        let release_fact = release_fact.unwrap_or(ReleaseFact::Absent);
        let previous = instance.and_then(|instance| self.shared.board.said(&instance.id));
        let given = Given {
            place,
            partition: &partition,
            desired: instance,
            release: release.as_deref(),
            release_fact: &release_fact,
            fact,
            previous: previous.as_ref(),
            now,
        };
        let plan = plan_rendered(&given, self.rendered(&given, &partition).as_ref());
        Some((plan, instance.cloned()))
    }

    fn rendered(&mut self, given: &Given<'_>, partition: &Arc<NodePartition>) -> Option<Result<Rendered, Problem>> {
        let (desired, occupant) = (given.desired?, given.fact.occupant.as_ref()?);
        given.release?;
        let fresh = self.cache.as_ref().filter(|cache| {
            cache.instance == desired.id
                && cache.generation == desired.generation
                && cache.release == desired.release
                && cache.place == *given.place
                && cache.partition == *partition
                && cache.secrets == occupant.secrets
        });
        if let Some(cache) = fresh {
            return Some(cache.rendered.clone());
        }
        // While the partition is another's there is nothing to render, and nothing to remember.
        let rendered = render_given(given)?;
        self.cache = Some(Box::new(Cache {
            instance: desired.id.clone(),
            generation: desired.generation,
            release: desired.release.clone(),
            place: given.place.clone(),
            partition: partition.clone(),
            secrets: occupant.secrets.clone(),
            rendered: rendered.clone(),
        }));
        Some(rendered)
    }

    /// Does what the plan says, up to the first failure. Neighbouring actions that do not build on each other run at
    /// once.
    async fn perform(&mut self, plan: &PartitionPlan, begun_for: Option<&InstanceDesired>) -> Round {
        let mut rest = plan.actions.as_slice();
        while let Some(first) = rest.first() {
            let together = rest.iter().take_while(|action| runs_beside(first, action)).count().max(1);
            let (group, later) = rest.split_at(together);
            rest = later;
            if let Err(problem) = self.before(first).await {
                self.failed(first, problem, begun_for);
                return Round::Again;
            }
            let host = self.shared.host.clone();
            let done = join_all(group.iter().map(|action| {
                debug!(partition = %self.name, step = action.step(), "performing");
                host.perform(action)
            }));
            let results = tokio::select! {
                results = done => results,
                () = self.overtaken(first, begun_for) => {
                    info!(partition = %self.name, step = first.step(), "broken off for something more urgent");
                    self.broke_off = matches!(first, Action::CheckPromise { .. });
                    return Round::Again;
                }
            };
            self.broke_off = false;
            let mut has_failed = false;
            for (action, result) in group.iter().zip(results) {
                let result = match result {
                    Ok(()) => self.after(action, begun_for).await,
                    failed => failed,
                };
                match result {
                    Ok(()) => self.went_well(action),
                    Err(problem) => {
                        has_failed = true;
                        self.failed(action, problem, begun_for);
                    }
                }
            }
            if has_failed {
                return Round::Again;
            }
        }
        if !plan.held_back {
            self.failures.retain(Failure::outlasts_rest);
        }
        Round::Again
    }

    /// What is used is counted before the record of who used it goes.
    async fn before(&mut self, action: &Action) -> Result<(), Problem> {
        match action {
            Action::Free { .. } if !self.settled => self.shared.metering.settle(&self.name).await,
            _ => Ok(()),
        }
    }

    /// What belongs to an action but not to the host.
    async fn after(&mut self, action: &Action, begun_for: Option<&InstanceDesired>) -> Result<(), Problem> {
        match action {
            Action::Erase { .. } => {
                self.shared.metering.settle(&self.name).await?;
                self.settled = true;
                Ok(())
            }
            Action::WriteFiles { .. } => {
                // Whatever has become of the socket, what is configured now finds one.
                self.shared.inside.renew(&self.name);
                if let Some((partition, instance)) = self.shared.partition(&self.name).zip(begun_for) {
                    self.shared.inside.keep(&partition, Some(&instance.id)).await;
                }
                Ok(())
            }
            Action::Occupy { instance, .. } => {
                (self.followed, self.settled) = (true, false);
                self.shared.metering.follow(&self.name, instance, Arrival::New).await;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn failed(&mut self, action: &Action, problem: Problem, begun_for: Option<&InstanceDesired>) {
        let step = action.step();
        let before = self.failures.iter().position(|failure| failure.step == step);
        let attempts = before.map_or(0, |at| self.failures.swap_remove(at).attempts) + 1;
        warn!(partition = %self.name, step, attempts, problem = problem.one_line(), "step failed");
        self.failures.push(Failure { step, problem, attempts, at: self.shared.clock.moment() });
        self.failed_with = begun_for.map(essence).map(Box::new);
    }

    fn went_well(&mut self, action: &Action) {
        if !self.failures.is_empty() {
            let step = action.step();
            self.failures.retain(|failure| failure.step != step);
        }
    }

    /// What failed is tried at once when something else is wanted: that may be what helps.
    fn forget_what_failed_otherwise(&mut self) {
        if self.failures.is_empty() {
            return;
        }
        let Some(desired) = self.shared.current() else { return };
        let Some(before) = &self.failed_with else { return };
        if desired.instances.get(&before.id).is_none_or(|now| essence(now) != **before) {
            self.failures.clear();
        }
    }

    /// Returns when what is being done should not be finished: a hook of an instance that is to be destroyed, one that was
    /// asked for of an instance that is to run no more, a check
    /// when there is news of what it checks, or when its instance is to stop.
    async fn overtaken(&self, action: &Action, begun_for: Option<&InstanceDesired>) {
        let Some(begun_for) = begun_for else { return std::future::pending().await };
        let ends = |run: &str| matches!(run, "stop" | "clean");
        let mut desired = self.shared.desired.subscribe();
        match action {
            Action::RunHook { run, .. } if !ends(&run.name) => {
                let destroyed = |now: &crate::desired::Desired| {
                    let instance = now.as_ref().and_then(|now| now.instances.get(&begun_for.id));
                    begun_for.wish != Wish::Destroyed && instance.is_some_and(|i| i.wish == Wish::Destroyed)
                };
                if desired.wait_for(destroyed).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            Action::RunAsked { .. } => {
                let ends = |now: &crate::desired::Desired| {
                    let instance = now.as_ref().and_then(|now| now.instances.get(&begun_for.id));
                    instance.is_some_and(|instance| instance.wish != begun_for.wish)
                };
                if desired.wait_for(ends).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            Action::CheckPromise { .. } if !self.broke_off => {
                self.wake.notified().await;
            }
            Action::CheckPromise { .. } => {
                let ends = |now: &crate::desired::Desired| {
                    let instance = now.as_ref().and_then(|now| now.instances.get(&begun_for.id));
                    instance.is_none_or(|instance| instance.wish != begun_for.wish)
                };
                if desired.wait_for(ends).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            _ => std::future::pending().await,
        }
    }
}

/// What decides how an instance is to be. A bang and what is run once change nothing that could help.
fn essence(desired: &InstanceDesired) -> InstanceDesired {
    InstanceDesired { generation: Generation::ZERO, bang: 0, runs: Vec::new(), ..desired.clone() }
}

/// Whether two actions may run at once.
fn runs_beside(first: &Action, other: &Action) -> bool {
    match first {
        Action::StartService { .. } => matches!(other, Action::StartService { .. }),
        Action::StopService { .. } => matches!(other, Action::StopService { .. }),
        Action::CheckPromise { .. } => matches!(other, Action::CheckPromise { .. }),
        _ => false,
    }
}

//! Instances: requested, wished for, looked at.

use super::show::{self, InstanceView, Page};
use super::stream::send;
use super::{Caller, Grid, Stream, Topic};
use crate::pki;
use plat_master_plan::access::{Subject, authorize};
use plat_master_plan::allocate::{self, Verdict};
use plat_master_plan::{release, request};
use plat_model::id::{InstanceId, InstanceName, ProjectName};
use plat_model::instance::{PlacementRules, Wish};
use plat_model::parameters::Parameters;
use plat_model::principal::Role;
use plat_model::problem::codes;
use plat_model::resources::Resources;
use plat_model::{Problem, Problems};
use std::sync::Arc;

/// Names an instance; without a project it is the member's own, or `default`.
#[derive(Debug, Clone)]
pub struct Key {
    pub project: Option<ProjectName>,
    pub name: InstanceName,
}

/// What is asked for, as the caller says it.
#[derive(Debug, Clone)]
pub struct Ask {
    pub key: Key,
    /// Name, digest or the beginning of that.
    pub release: Option<String>,
    pub parameters: Option<Parameters>,
    pub rules: Option<PlacementRules>,
    pub resources: Option<Resources>,
    pub wish: Option<Wish>,
}

/// Whether a request is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Commit,
    /// Decided and answered, and nothing changed.
    DryRun,
}

/// The project that a caller means.
pub(super) fn project(caller: &Caller, said: Option<&ProjectName>) -> Result<ProjectName, Problem> {
    match (said, caller.role()) {
        (Some(project), _) => Ok(project.clone()),
        (None, Some(Role::Member(own))) => Ok(own.clone()),
        (None, _) => ProjectName::parse("default"),
    }
}

impl Grid {
    /// Creates an instance, or changes the one of this name. The same request twice is one instance.
    ///
    /// # Errors
    /// As [`request::request`].
    pub async fn request(&self, caller: &Caller, ask: Ask, outcome: Outcome) -> Result<InstanceView, Problems> {
        let project = project(caller, ask.key.project.as_ref())?;
        let fresh = InstanceId::parse(&pki::hex(&pki::random::<16>()?))?;
        let (subject, caller) = (Subject::Instance(project.clone()), caller.about(&ask.key.name));
        let decide = |state: &plat_master_plan::State, now| {
            let release = ask.release.as_deref().map(|text| release::resolve(state, text)).transpose()?;
            let ask = request::RequestAsk {
                project: project.clone(),
                name: ask.key.name.clone(),
                release,
                parameters: ask.parameters.clone(),
                rules: ask.rules.clone(),
                resources: ask.resources,
                wish: ask.wish,
            };
            request::request(state, ask, fresh.clone(), now)
        };
        if outcome == Outcome::DryRun {
            return self.try_request(&caller, &subject, decide).await;
        }
        let requested = self.change(&caller, &subject, decide).await?;
        let key = Key { project: Some(project), name: ask.key.name.clone() };
        let snapshot = self.store.snapshot();
        let view = show::instance(&snapshot.state, &requested.id, self);
        self.store.settled(snapshot.revision).await?;
        let mut view = view.ok_or_else(|| show::no_instance(&key))?;
        view.created = requested.created;
        Ok(view)
    }

    async fn try_request(
        &self,
        caller: &Caller,
        subject: &Subject,
        mut decide: impl FnMut(
            &plat_master_plan::State,
            plat_model::Timestamp,
        ) -> Result<plat_master_plan::decision::Decision<request::Requested>, Problems>,
    ) -> Result<InstanceView, Problems> {
        let snapshot = self.store.snapshot();
        authorize(&snapshot.state, &caller.principal, caller.rpc, subject)?;
        let decision = decide(&snapshot.state, self.now())?;
        let mut after = (*snapshot.state).clone();
        for change in &decision.changes {
            after.apply(change, snapshot.revision + 1);
        }
        self.store.settled(snapshot.revision).await?;
        let mut view = show::instance(&after, &decision.answer.id, self)
            .ok_or_else(|| Problem::new(codes::NOT_FOUND, "there would be no such instance any more"))?;
        view.created = decision.answer.created;
        Ok(view)
    }

    /// Starts, stops or destroys an instance.
    ///
    /// # Errors
    /// As [`request::set_wish`].
    pub async fn set_wish(&self, caller: &Caller, key: &Key, wish: Wish) -> Result<InstanceView, Problems> {
        let project = project(caller, key.project.as_ref())?;
        let (subject, caller) = (Subject::Instance(project.clone()), caller.about(&key.name));
        let mut before = None;
        let id = self
            .change(&caller, &subject, |state, now| {
                before = state.instance(&project, &key.name).map(|i| show::instance(state, &i.id, self));
                Ok(request::set_wish(state, &project, &key.name, wish, now)?)
            })
            .await?;
        let snapshot = self.store.snapshot();
        let view = show::instance(&snapshot.state, &id, self);
        self.store.settled(snapshot.revision).await?;
        // What no node held is gone by now: the answer is its last view.
        view.or(before.flatten().map(show::gone)).ok_or_else(|| show::no_instance(key).into())
    }

    /// The instances that the caller may see: of one project, or of all.
    ///
    /// # Errors
    /// The caller may not, or the store failed.
    pub async fn instances(
        &self,
        caller: &Caller,
        project: Option<&ProjectName>,
        page: &Page,
    ) -> Result<(Vec<InstanceView>, String), Problem> {
        let subject = project.map_or(Subject::Grid, |project| Subject::Project(project.clone()));
        self.look(caller, &subject, |state| {
            let (ids, next) = page.of_instances(state, &caller.principal, project)?;
            Ok((ids.iter().filter_map(|id| show::instance(state, id, self)).collect(), next))
        })
        .await
    }

    /// One instance.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn instance(&self, caller: &Caller, key: &Key) -> Result<InstanceView, Problem> {
        let project = project(caller, key.project.as_ref())?;
        self.look(caller, &Subject::Instance(project.clone()), |state| {
            let instance = state.instance(&project, &key.name).ok_or_else(|| show::no_instance(key))?;
            show::instance(state, &instance.id, self).ok_or_else(|| show::no_instance(key))
        })
        .await
    }

    /// Why an instance is where it is, or why it waits, node by node. Members are told nothing of nodes but the names.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn explain(&self, caller: &Caller, key: &Key) -> Result<(InstanceView, Vec<Verdict>), Problem> {
        let project = project(caller, key.project.as_ref())?;
        let online = self.presence.online();
        self.look(caller, &Subject::Instance(project.clone()), |state| {
            let instance = state.instance(&project, &key.name).ok_or_else(|| show::no_instance(key))?;
            let view = show::instance(state, &instance.id, self).ok_or_else(|| show::no_instance(key))?;
            Ok((view, allocate::explain(state, &online, &instance.id)))
        })
        .await
    }

    /// An instance now, and again each time that anything of it changes. Ends once it is gone, after a last view that
    /// says so.
    ///
    /// # Errors
    /// `NOT_FOUND`, and `OVERLOADED` if the caller has too many streams.
    pub async fn watch_instance(self: &Arc<Self>, caller: &Caller, key: &Key) -> Result<Stream<InstanceView>, Problem> {
        let first = self.instance(caller, key).await?;
        let (grid, id) = (self.clone(), first.instance.id.clone());
        self.stream(caller, |to| async move {
            let mut changes = grid.nudges.subscribe(Topic::Instance(id.clone()));
            let mut last = first;
            let mut told = false;
            loop {
                let snapshot = grid.store.snapshot();
                grid.store.settled(snapshot.revision).await?;
                let Some(view) = show::instance(&snapshot.state, &id, &grid) else {
                    send(&to, show::gone(last)).await;
                    return Ok(());
                };
                if (!told || view != last) && !send(&to, view.clone()).await {
                    return Ok(());
                }
                (last, told) = (view, true);
                changes.changed().await;
            }
        })
    }

    /// A number each time that an instance which the caller may see has changed: look again.
    ///
    /// # Errors
    /// `OVERLOADED` if the caller has too many streams.
    pub async fn watch_grid(self: &Arc<Self>, caller: &Caller) -> Result<Stream<u64>, Problem> {
        let revision = self.store.snapshot().revision;
        self.look(caller, &Subject::Grid, |_| Ok(())).await?;
        let topic = match caller.role() {
            Some(Role::Member(own)) => Topic::Project(own.clone()),
            _ => Topic::Everything,
        };
        let grid = self.clone();
        self.stream(caller, |to| async move {
            let mut changes = grid.nudges.subscribe(topic);
            let mut revision = revision;
            while send(&to, revision).await {
                changes.changed().await;
                revision = changes.revision();
            }
            Ok(())
        })
    }
}

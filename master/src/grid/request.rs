//! Instances: requested, wished for, looked at.

use super::show::{self, InstanceView, Page};
use super::stream::send;
use super::{Caller, Grid, InstanceKey, Stream, Topic};
use crate::pki;
use plat_master_plan::access::Subject;
use plat_master_plan::allocate::{self, Verdict};
use plat_master_plan::decision::Decision;
use plat_master_plan::record::Record;
use plat_master_plan::{Change, State, record, release, request, run};
use plat_model::id::{HookName, InstanceId, InstanceName, ProjectName};
use plat_model::instance::{PlacementRules, Wish};
use plat_model::parameters::Parameters;
use plat_model::principal::Role;
use plat_model::resources::Resources;
use plat_model::tree::Kind;
use plat_model::{Problem, Problems};
use std::sync::Arc;
use std::time::Duration;

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
    pub kind: Kind,
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
    /// As [`request::request`]; for members also as [`request::room`].
    pub async fn request(&self, caller: &Caller, ask: Ask, outcome: Outcome) -> Result<InstanceView, Problems> {
        let project = project(caller, ask.key.project.as_ref())?;
        let fresh = InstanceId::parse(&pki::hex(&pki::random::<16>()?))?;
        let (subject, caller) = (Subject::Instance(project.clone()), caller.about(&ask.key.name));
        let key = InstanceKey { project: Some(project.clone()), name: ask.key.name.clone() };
        let is_member = matches!(caller.role(), Some(Role::Member(_)));
        let decide = |state: &State, now| -> Result<Decision<InstanceView>, Problems> {
            if is_member {
                request::room(state, &project, &ask.key.name)?;
            }
            let release = ask.release.as_deref().map(|text| release::resolve(state, text)).transpose()?;
            let ask = request::RequestAsk {
                project: project.clone(),
                name: ask.key.name.clone(),
                release,
                parameters: ask.parameters.clone(),
                rules: ask.rules.clone(),
                resources: ask.resources,
                wish: ask.wish,
                parent: None,
                kind: ask.kind.clone(),
            };
            let Decision { changes, read, answer } = request::request(state, ask, fresh.clone(), now)?;
            let view = self.after(state, &changes, &answer.id).ok_or_else(|| show::no_instance(&key))?;
            Ok(Decision { changes, read, answer: InstanceView { created: answer.created, ..view } })
        };
        match outcome {
            Outcome::Commit => self.change(&caller, &subject, decide).await,
            Outcome::DryRun => Ok(self.look(&caller, &subject, |state| Ok(decide(state, self.now()))).await??.answer),
        }
    }

    /// The view of an instance once `changes`, decided on `state`, are made. What it shows is durable when they are:
    /// commits become durable in order. A look at the newest state instead would have to wait for the commits of
    /// others that came after.
    fn after(&self, state: &State, changes: &[Change], id: &InstanceId) -> Option<InstanceView> {
        let written = changes.iter().find_map(|change| match change {
            Change::Put(record) => match &**record {
                Record::Instance(instance) if &instance.id == id => Some(instance.clone()),
                _ => None,
            },
            Change::Delete(_) => None,
        });
        if let Some(instance) = written {
            return Some(show::instance_as(state, instance, self));
        }
        let view = show::instance(state, id, self)?;
        let gone =
            changes.iter().any(|change| matches!(change, Change::Delete(record::Key::Instance(gone)) if gone == id));
        Some(if gone { show::gone(view) } else { view })
    }

    /// Asks for a run of one of an instance's hooks; its number.
    ///
    /// # Errors
    /// As [`run::run_hook`].
    pub async fn run_hook(
        &self,
        caller: &Caller,
        key: &InstanceKey,
        hook: &HookName,
    ) -> Result<(u64, InstanceView), Problems> {
        let project = project(caller, key.project.as_ref())?;
        let (subject, caller) = (Subject::Instance(project.clone()), caller.about(&key.name));
        self.change(&caller, &subject, |state, now| {
            let Decision { changes, read, answer } = run::run_hook(state, &project, &key.name, hook, now)?;
            let (id, number) = answer;
            let view = self.after(state, &changes, &id).ok_or_else(|| show::no_instance(key))?;
            Ok(Decision { changes, read, answer: (number, view) })
        })
        .await
    }

    /// Starts, stops or destroys an instance; `kept` for so long before it is destroyed.
    ///
    /// # Errors
    /// As [`request::set_wish`].
    pub async fn set_wish(
        &self,
        caller: &Caller,
        key: &InstanceKey,
        wish: Wish,
        kept: Duration,
    ) -> Result<InstanceView, Problems> {
        let project = project(caller, key.project.as_ref())?;
        let (subject, caller) = (Subject::Instance(project.clone()), caller.about(&key.name));
        self.change(&caller, &subject, |state, now| {
            let decision = match wish {
                Wish::Destroyed if !kept.is_zero() => request::destroy_later(state, &project, &key.name, kept, now)?,
                wish => request::set_wish(state, &project, &key.name, wish, now)?,
            };
            let Decision { changes, read, answer } = decision;
            let view = self.after(state, &changes, &answer).ok_or_else(|| show::no_instance(key))?;
            Ok(Decision { changes, read, answer: view })
        })
        .await
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

    /// Why an instance is where it is, or why it waits, node by node. Members are told only of the node that
    /// it is on; why it waits is in the view, in words that name no node.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn explain(&self, caller: &Caller, key: &Key) -> Result<(InstanceView, Vec<Verdict>), Problem> {
        let project = project(caller, key.project.as_ref())?;
        let online = self.presence.online();
        self.look(caller, &Subject::Instance(project.clone()), |state| {
            let instance = state.instance(&project, &key.name).ok_or_else(|| show::no_instance(key))?;
            let view = show::instance(state, &instance.id, self).ok_or_else(|| show::no_instance(key))?;
            let mut verdicts = allocate::explain(state, &online, &instance.id);
            if let Some(Role::Member(_)) = caller.role() {
                let own = instance.placement.as_ref().map(|place| &place.node);
                verdicts.retain(|verdict| Some(&verdict.node) == own);
            }
            Ok((view, verdicts))
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

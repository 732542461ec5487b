//! What an action does to a partition, as a function of facts. The fake host performs actions with it, and properties and
//! benchmarks are stated in it.

use crate::action::{Action, FileTemplate, Note, Run, ServiceSpec};
use crate::asked::Begun as RunBegun;
use crate::facts::{Ending, Occupant, PartitionFact, STABLE_SECONDS, ServiceFact, ServiceRun};
use crate::moment::Moment;
use crate::results::PromiseFact;
use plat_document::release::VolumeKind;
use plat_model::Problem;
use plat_model::id::{HookName, InstanceId, PromiseName};
use plat_model::parameters::Secret;
use plat_model::problem::codes;
use plat_model::resources::Resources;
use plat_model::run::{RunEnd, RunResult};
use std::collections::BTreeMap;
use std::time::Duration;

/// A run of a service that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begun {
    /// Another one each time.
    pub run: String,
    pub pid: u32,
    /// If it ended at once.
    pub end: Option<End>,
}

/// How a run that succeeded ended.
const SUCCESS: &str = "exit code 0";

/// How a run ended by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub how: String,
    pub last_lines: Vec<String>,
}

impl End {
    /// With success, saying nothing.
    pub fn success() -> Self {
        Self { how: SUCCESS.into(), last_lines: Vec::new() }
    }
}

/// What an action leaves to the machine, and what the machine keeps besides facts.
pub trait Outcomes {
    /// A secret, always the same one: the host's own.
    fn secret(&self, instance: &InstanceId, name: &str) -> Secret {
        Secret::new(format!("{name}-of-{instance}"))
    }
    /// A service that does not run is started; called only then.
    fn start(&mut self, spec: &ServiceSpec) -> Begun;
    /// Whether a promise holds, and what the check says.
    fn check(&mut self, _promise: &PromiseName) -> (bool, String) {
        (true, "ok".into())
    }
    fn run(&mut self, _run: &Run) {}
    fn write(&mut self, _files: &[FileTemplate], _secrets: &BTreeMap<String, Secret>) {}
    fn prepare(&mut self, _volumes: &BTreeMap<String, VolumeKind>) {}
    /// Nothing is left in the partition.
    fn erase(&mut self) {}
    /// Its counters go too.
    fn free(&mut self) {}
}

impl PartitionFact {
    /// The partition after the action.
    ///
    /// # Errors
    /// CONFLICT if it is another instance's; NOT_FOUND if nobody holds what the action is about; INTERNAL for an action
    /// that is about no partition.
    pub fn effect(&mut self, action: &Action, now: Moment, outcomes: &mut dyn Outcomes) -> Result<(), Problem> {
        match action {
            Action::Occupy { instance, secrets, .. } => {
                if self.occupant.is_none() {
                    self.limits = Some(Resources::default());
                }
                let occupant = self.occupant.get_or_insert_with(|| Occupant::new(instance.clone()));
                if &occupant.instance != instance {
                    return Err(Problem::new(codes::CONFLICT, "another instance holds the partition"));
                }
                occupant.secrets.extend(secrets.keys().cloned());
            }
            Action::WriteFiles { files, .. } => {
                let secrets = self.secrets(outcomes)?;
                outcomes.write(files, &secrets);
            }
            Action::PrepareVolumes { volumes, .. } => outcomes.prepare(volumes),
            Action::Publish { publication, .. } => {
                let connection = publication.fill(&self.secrets(outcomes)?)?;
                self.held()?.published(connection, publication.fingerprint.clone());
            }
            Action::Limit { resources, .. } => self.limits = Some(*resources),
            Action::Note { note, .. } => self.held()?.note(note),
            Action::RunHook { run, .. } => outcomes.run(run),
            Action::RunAsked { number, run, .. } => {
                let (number, hook, at) = (*number, HookName::parse(&run.name)?, now.wall);
                self.held()?.note(&Note::RunBegun(RunBegun { number, hook: hook.clone(), at }));
                outcomes.run(run);
                let (end, how) = (RunEnd::Exited(0), SUCCESS.to_owned());
                let result = RunResult { number, hook, began: at, ended: now.wall, end, how, tail: Vec::new() };
                self.held()?.note(&Note::RunOver(result));
            }
            Action::StartService { spec, .. } => self.start(spec, now, outcomes),
            Action::StopService { service, .. } => {
                if let Some(fact) = self.services.get_mut(service) {
                    (fact.state, fact.short_runs) = (ServiceRun::Ended { at: now, how: Ending::Told }, 0);
                }
            }
            // What a run has read is noted by another action.
            Action::Reload { .. } => {}
            Action::CheckPromise { promise, of, .. } => {
                let (holds, message) = outcomes.check(promise);
                let result = PromiseFact::after(self.promises.get(promise), of, holds, message, now);
                self.promises.insert(promise.clone(), result);
            }
            Action::Erase { .. } => {
                outcomes.erase();
                self.services.clear();
                self.promises.clear();
                if let Some(occupant) = &mut self.occupant {
                    occupant.secrets.clear();
                    // What was published was filled in with them.
                    (occupant.upkeep, occupant.connection) = (None, Default::default());
                    occupant.published.clear();
                    occupant.erased = true;
                }
            }
            Action::Free { .. } => {
                outcomes.free();
                *self = Self::default();
            }
            Action::InstallRelease { .. }
            | Action::RemoveRelease { .. }
            | Action::NoteUnused { .. }
            | Action::NoteUsed { .. }
            | Action::RemoveContent { .. } => {
                return Err(Problem::new(codes::INTERNAL, "a release is in no partition"));
            }
        }
        Ok(())
    }

    fn held(&mut self) -> Result<&mut Occupant, Problem> {
        self.occupant.as_mut().ok_or_else(|| Problem::new(codes::NOT_FOUND, "nobody holds the partition"))
    }

    fn secrets(&mut self, outcomes: &dyn Outcomes) -> Result<BTreeMap<String, Secret>, Problem> {
        let Occupant { instance, secrets, .. } = self.held()?;
        Ok(secrets.iter().map(|name| (name.clone(), outcomes.secret(instance, name))).collect())
    }

    fn start(&mut self, spec: &ServiceSpec, now: Moment, outcomes: &mut dyn Outcomes) {
        let before = self.services.remove(&spec.name).filter(|before| before.fingerprint == spec.fingerprint);
        let fact = match before {
            Some(before) if matches!(before.state, ServiceRun::Running { .. }) => before,
            before => {
                let Begun { run, pid, end } = outcomes.start(spec);
                let state = ServiceRun::Running { pid, since: now };
                let loaded = spec.reload.as_ref().map(|reload| reload.files.clone()).unwrap_or_default();
                let mut fact = match before {
                    Some(before) => ServiceFact { run, loaded, state, ..before },
                    None => ServiceFact { loaded, ..ServiceFact::started(spec.fingerprint.clone(), run, state) },
                };
                if let Some(end) = end {
                    fact.end(end, now);
                }
                fact
            }
        };
        self.services.insert(spec.name.clone(), fact);
    }
}

impl ServiceFact {
    /// The service after it ended by itself; one that does not run cannot.
    pub fn end(&mut self, end: End, now: Moment) {
        let ServiceRun::Running { since, .. } = self.state else { return };
        let was_short = now.since(since) < Duration::from_secs(STABLE_SECONDS.into());
        let how = if end.how == SUCCESS { Ending::Success } else { Ending::Failure };
        self.state = ServiceRun::Ended { at: now, how };
        self.restarts += 1;
        self.short_runs = if was_short { self.short_runs + 1 } else { 0 };
        (self.last_exit, self.last_lines) = (end.how, end.last_lines);
    }
}

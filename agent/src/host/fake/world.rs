//! What the fake host holds, and what each action changes in it.

use crate::host::Event;
use plat_agent_plan::action::{Note, ServiceSpec};
use plat_agent_plan::facts::{Occupant, ServiceFact, ServiceRun};
use plat_agent_plan::{Action, Moment, PartitionFact, PromiseFact};
use plat_model::id::{Digest, InstanceId, PartitionName, PromiseName};
use plat_model::node::NodeFile;
use plat_model::parameters::Secret;
use plat_model::problem::codes;
use plat_model::{Problem, Timestamp};
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::mpsc;

pub(super) struct World {
    pub node: NodeFile,
    pub releases: BTreeSet<Digest>,
    /// Of those that were noted as such.
    pub unused: BTreeMap<Digest, Timestamp>,
    /// Bytes on the disk.
    pub free: u64,
    pub partitions: BTreeMap<PartitionName, Partition>,
    pub events: Option<mpsc::Sender<Event>>,
    /// Step → how many more times it fails.
    pub failing: BTreeMap<String, u32>,
    /// Steps at whose next attempt there is a panic.
    pub bugs: BTreeSet<String>,
    pub faults: Option<(StdRng, u32)>,
    pub performed: Vec<String>,
    next_pid: u32,
}

#[derive(Default)]
pub(super) struct Partition {
    pub fact: PartitionFact,
    /// Promises that do not hold; all others do.
    pub broken: BTreeSet<PromiseName>,
    pub files: BTreeMap<String, String>,
    pub cpu_micros: u64,
    pub memory: u64,
    pub epoch: u64,
}

impl World {
    pub fn new(node: NodeFile) -> Self {
        let partitions = node.partitions.iter().map(|p| (p.name.clone(), Partition::default())).collect();
        Self {
            node,
            releases: BTreeSet::new(),
            unused: BTreeMap::new(),
            free: 1 << 40,
            partitions,
            events: None,
            failing: BTreeMap::new(),
            bugs: BTreeSet::new(),
            faults: None,
            performed: Vec::new(),
            next_pid: 1000,
        }
    }

    pub fn tell(&self, event: Event) {
        if let Some(events) = &self.events {
            // A full channel means that nobody reads; the daemon looks at everything when it starts.
            let _full = events.try_send(event);
        }
    }

    pub fn is_faulty(&mut self, step: &str) -> bool {
        if let Some(times) = self.failing.get_mut(step).filter(|times| **times > 0) {
            *times -= 1;
            return true;
        }
        self.faults.as_mut().is_some_and(|(random, per_mille)| random.random_range(0..1000) < *per_mille)
    }

    fn start(&mut self, spec: &ServiceSpec, partition: &PartitionName, at: Moment) {
        self.next_pid += 1;
        let running = ServiceRun::Running { pid: self.next_pid, since: at };
        let Some(one) = self.partitions.get_mut(partition) else { return };
        let before = one.fact.services.get(&spec.name).filter(|fact| fact.fingerprint == spec.fingerprint).cloned();
        if before.as_ref().is_some_and(|fact| matches!(fact.state, ServiceRun::Running { .. })) {
            return;
        }
        let run = format!("run{}", self.next_pid);
        let loaded = spec.reload.as_ref().map(|reload| reload.files.clone()).unwrap_or_default();
        let fact = match before {
            Some(before) => ServiceFact { run, loaded, state: running, ..before },
            None => ServiceFact {
                fingerprint: spec.fingerprint.clone(),
                run,
                loaded,
                state: running,
                restarts: 0,
                short_runs: 0,
                last_exit: String::new(),
                last_lines: Vec::new(),
            },
        };
        one.fact.services.insert(spec.name.clone(), fact);
        self.tell(Event::Partition(partition.clone()));
    }

    pub fn apply(&mut self, action: &Action, now: Moment) -> Result<(), Problem> {
        match action {
            Action::InstallRelease { digest, .. } => {
                self.releases.insert(digest.clone());
            }
            Action::RemoveRelease { digest } => {
                self.releases.remove(digest);
                self.unused.remove(digest);
            }
            Action::NoteUnused { digest, since } => drop(self.unused.insert(digest.clone(), *since)),
            Action::NoteUsed { digest } => drop(self.unused.remove(digest)),
            Action::RemoveContent { .. } => {}
            Action::StartService { partition, spec } => self.start(spec, partition, now),
            _ => {
                let one = action.partition().and_then(|name| self.partitions.get_mut(name));
                let one = one.ok_or_else(|| Problem::new(codes::NOT_FOUND, "there is no such partition"))?;
                one.apply(action, now)?;
            }
        }
        Ok(())
    }
}

impl Partition {
    fn apply(&mut self, action: &Action, now: Moment) -> Result<(), Problem> {
        match action {
            Action::Occupy { instance, secrets, .. } => self.occupy(instance, secrets)?,
            Action::WriteFiles { files, .. } => {
                self.files.extend(files.iter().map(|file| (file.path.clone(), file.contents.clone())));
            }
            Action::Note { note, .. } => self.note(note),
            Action::StopService { service, .. } => {
                if let Some(fact) = self.fact.services.get_mut(service) {
                    fact.state = ServiceRun::Ended { at: now };
                    fact.short_runs = 0;
                }
            }
            Action::CheckPromise { promise, of, .. } => {
                let holds = !self.broken.contains(promise);
                let message = if holds { "ok" } else { "broken" }.to_owned();
                let result = PromiseFact::after(self.fact.promises.get(promise), of, holds, message, now);
                self.fact.promises.insert(promise.clone(), result);
            }
            Action::Erase { .. } => {
                self.fact.services.clear();
                self.fact.promises.clear();
                self.files.clear();
                self.memory = 0;
                if let Some(occupant) = &mut self.fact.occupant {
                    occupant.secrets.clear();
                    occupant.erased = true;
                }
            }
            Action::Free { .. } => {
                let (epoch, broken) = (self.epoch + 1, std::mem::take(&mut self.broken));
                *self = Self { epoch, broken, ..Self::default() };
            }
            // A hook does nothing here; the others are not about partitions.
            _ => {}
        }
        Ok(())
    }

    fn occupy(&mut self, instance: &InstanceId, secrets: &BTreeMap<String, u32>) -> Result<(), Problem> {
        if self.fact.occupant.as_ref().is_some_and(|occupant| &occupant.instance != instance) {
            return Err(Problem::new(codes::CONFLICT, "another instance holds the partition"));
        }
        let occupant = self.fact.occupant.get_or_insert_with(|| Occupant::new(instance.clone()));
        for name in secrets.keys() {
            occupant.secrets.entry(name.clone()).or_insert_with(|| Secret::new(format!("{name}-of-{instance}")));
        }
        Ok(())
    }

    fn note(&mut self, note: &Note) {
        let Some(occupant) = &mut self.fact.occupant else { return };
        occupant.note(note)
    }
}

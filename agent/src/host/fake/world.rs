//! What the fake host holds, and what each action changes in it.

use crate::aside::By;
use crate::host::Event;
use plat_agent_plan::action::{FileTemplate, ServiceSpec};
use plat_agent_plan::facts::{Ending, ServiceRun};
use plat_agent_plan::{Action, Begun, End, Ground, Moment, Outcomes, PartitionFact};
use plat_document::release::ServiceKind;
use plat_model::Problem;
use plat_model::Timestamp;
use plat_model::id::{Digest, InstanceId, PartitionName, PromiseName, ServiceName};
use plat_model::node::NodeFile;
use plat_model::parameters::Secret;
use plat_model::problem::codes;
use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::SocketAddr;
use std::time::Duration;
use tokio::sync::mpsc;

/// Process ids are above this one.
const FIRST_PID: u32 = 1000;

pub(super) struct World {
    pub node: NodeFile,
    pub releases: BTreeSet<Digest>,
    /// Of those that were noted as such.
    pub unused: BTreeMap<Digest, Timestamp>,
    /// Bytes on the disk.
    pub free: u64,
    /// Nothing can be written on it.
    pub is_full: bool,
    /// Bytes that are waited for on it.
    pub asked: Vec<u64>,
    pub partitions: BTreeMap<PartitionName, Partition>,
    /// Where the agent listens to each instance, or has listened last.
    pub doors: BTreeMap<PartitionName, SocketAddr>,
    pub reached_by: By,
    pub events: Option<mpsc::Sender<Event>>,
    /// Step → how many more times it fails.
    pub failing: BTreeMap<String, u32>,
    /// Those of them that fail for want of room.
    pub roomless: BTreeSet<String>,
    /// Steps at whose next attempt there is a panic.
    pub bugs: BTreeSet<String>,
    pub faults: Option<(StdRng, u32)>,
    pub performed: Vec<String>,
    /// How long a run that is asked for takes.
    pub run_time: Duration,
    /// How often each of them was begun.
    pub runs: BTreeMap<(InstanceId, u64), u32>,
    /// How often a fact may have become another.
    pub changes: u64,
    /// How many services were started.
    starts: u32,
}

#[derive(Default)]
pub(super) struct Partition {
    pub fact: PartitionFact,
    pub inside: Contents,
}

/// What of a partition is no fact.
#[derive(Default)]
pub(super) struct Contents {
    /// Promises that do not hold; all others do.
    pub broken: BTreeSet<PromiseName>,
    /// One-shots that go on until they are ended; all others succeed at once.
    pub slow: BTreeSet<ServiceName>,
    /// Those that fail at once.
    pub failing: BTreeSet<ServiceName>,
    pub files: BTreeMap<String, String>,
    pub cpu_micros: u64,
    pub memory: u64,
    pub epoch: u64,
    /// Why nobody knows what was used before this epoch.
    pub lost: Option<String>,
    /// What it uses cannot be read.
    pub is_hidden: bool,
}

impl World {
    pub fn new(node: NodeFile) -> Self {
        let partitions = node.partitions.iter().map(|p| (p.name.clone(), Partition::default())).collect();
        Self {
            node,
            releases: BTreeSet::new(),
            unused: BTreeMap::new(),
            free: 1 << 40,
            is_full: false,
            asked: Vec::new(),
            partitions,
            doors: BTreeMap::new(),
            reached_by: By::Us,
            events: None,
            failing: BTreeMap::new(),
            roomless: BTreeSet::new(),
            bugs: BTreeSet::new(),
            faults: None,
            performed: Vec::new(),
            run_time: Duration::ZERO,
            runs: BTreeMap::new(),
            changes: 0,
            starts: 0,
        }
    }

    pub fn tell(&self, event: Event) {
        if let Some(events) = &self.events {
            // A full channel means that nobody reads; the daemon looks at everything when it starts.
            let _full = events.try_send(event);
        }
    }

    /// Whether it was told to fail here.
    pub fn is_to_fail(&mut self, step: &str) -> bool {
        let times = self.failing.get_mut(step).filter(|times| **times > 0);
        times.is_some_and(|times| {
            *times -= 1;
            true
        })
    }

    /// Whether a step can be written down.
    pub fn has_room(&self) -> Result<(), Problem> {
        let full = || Problem::new(codes::DISK_FULL, "the journal cannot be written");
        if self.is_full { Err(full().because("a full disk was asked for")) } else { Ok(()) }
    }

    pub fn is_faulty(&mut self, step: &str) -> bool {
        if self.is_to_fail(step) {
            return true;
        }
        self.faults.as_mut().is_some_and(|(random, per_mille)| random.random_range(0..1000) < *per_mille)
    }

    /// As a host does: nothing that no plan could hold.
    pub fn permit(&self, action: &Action) -> Result<(), Problem> {
        let occupant = action.partition().and_then(|name| self.partitions.get(name)?.fact.occupant.as_ref());
        plat_agent_plan::permit(action, Ground { node: &self.node, occupant, logged: &BTreeSet::new() })
    }

    /// A run that was asked for begins, of the instance that is there.
    pub fn begins(&mut self, partition: &PartitionName, number: u64) {
        let occupant = self.partitions.get(partition).and_then(|one| one.fact.occupant.as_ref());
        if let Some(occupant) = occupant {
            *self.runs.entry((occupant.instance.clone(), number)).or_default() += 1;
        }
    }

    pub fn reboot(&mut self, now: Moment) {
        self.changes += 1;
        for one in self.partitions.values_mut() {
            one.inside.cpu_micros = 0;
            one.inside.epoch += 1;
            one.inside.lost = None;
            one.fact.limits = None;
            for service in one.fact.services.values_mut() {
                if matches!(service.state, ServiceRun::Running { .. } | ServiceRun::Stopping { .. }) {
                    service.state = ServiceRun::Ended { at: now, how: Ending::Told };
                }
            }
        }
    }

    pub fn apply(&mut self, action: &Action, now: Moment) -> Result<(), Problem> {
        self.changes += 1;
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
            Action::Occupy { .. }
            | Action::Limit { .. }
            | Action::PrepareVolumes { .. }
            | Action::WriteFiles { .. }
            | Action::Note { .. }
            | Action::Publish { .. }
            | Action::RunHook { .. }
            | Action::RunAsked { .. }
            | Action::StartService { .. }
            | Action::StopService { .. }
            | Action::Reload { .. }
            | Action::CheckPromise { .. }
            | Action::Erase { .. }
            | Action::Free { .. } => self.apply_inside(action, now)?,
        }
        Ok(())
    }

    fn apply_inside(&mut self, action: &Action, now: Moment) -> Result<(), Problem> {
        let started = self.starts;
        let found = action.partition().and_then(|name| Some((name, self.partitions.get_mut(name)?)));
        let (name, one) = found.ok_or_else(|| Problem::new(codes::NOT_FOUND, "there is no such partition"))?;
        one.fact.effect(action, now, &mut Inside { starts: &mut self.starts, inside: &mut one.inside })?;
        if self.starts != started {
            self.tell(Event::Partition(name.clone()));
        }
        Ok(())
    }
}

/// The part of the world that an action in one partition may touch.
struct Inside<'a> {
    starts: &'a mut u32,
    inside: &'a mut Contents,
}

impl Outcomes for Inside<'_> {
    fn start(&mut self, spec: &ServiceSpec) -> Begun {
        *self.starts += 1;
        let failed = || End { how: "exit code 1".into(), last_lines: vec![format!("{} cannot", spec.name)] };
        let end = match spec.kind {
            ServiceKind::Service => None,
            ServiceKind::Oneshot if self.inside.failing.contains(&spec.name) => Some(failed()),
            ServiceKind::Oneshot => Some(End::success()).filter(|_| !self.inside.slow.contains(&spec.name)),
        };
        Begun { run: format!("run{}", self.starts), pid: FIRST_PID + *self.starts, end }
    }

    fn check(&mut self, promise: &PromiseName) -> (bool, String) {
        let holds = !self.inside.broken.contains(promise);
        (holds, if holds { "ok" } else { "broken" }.into())
    }

    fn write(&mut self, files: &[FileTemplate], secrets: &BTreeMap<String, Secret>) {
        let filled = files.iter().map(|file| Some((file.path.clone(), file.template.fill(secrets).ok()?)));
        self.inside.files.extend(filled.flatten());
    }

    fn erase(&mut self) {
        self.inside.files.clear();
        self.inside.memory = 0;
    }

    fn free(&mut self) {
        let Contents { epoch, broken, slow, failing, is_hidden, .. } = std::mem::take(self.inside);
        *self.inside = Contents { epoch: epoch + 1, broken, slow, failing, is_hidden, ..Contents::default() };
    }
}

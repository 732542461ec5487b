//! A host that is a few maps: performing edits them, and faults come on demand or from a seed. What it holds outlives
//! the agent, as a machine does.

mod door;
mod world;

use super::{Counters, Event, Follow, Host, LogOf, LogsAsked, Wanted};
use crate::aside::{By, Reached};
use crate::clock::Clock;
use async_trait::async_trait;
use plat_agent_plan::action::Note;
use plat_agent_plan::{Action, Disk, End, PartitionFact, ReleaseFact, RunBegun, StoreFacts, Stored, StoredFact};
use plat_model::Problem;
use plat_model::id::{Digest, HookName, InstanceId, PartitionName, PromiseName, ServiceName};
use plat_model::node::NodeFile;
use plat_model::problem::codes;
use plat_model::resources::Enforced;
use plat_model::usage::{Amount, Meter};
use rand::SeedableRng;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use world::World;

/// Steps that are remembered for tests to look at.
const REMEMBERED: usize = 10_000;

/// The fake. All methods may be called at any time, while the agent runs too.
pub struct FakeHost {
    clock: Arc<dyn Clock>,
    world: Mutex<World>,
    /// Steps that wait until they are let go.
    blocked: watch::Sender<BTreeSet<String>>,
}

impl FakeHost {
    pub fn new(node: NodeFile, clock: Arc<dyn Clock>) -> Self {
        Self { clock, world: Mutex::new(World::new(node)), blocked: watch::Sender::new(BTreeSet::new()) }
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on `per_mille` of all steps fail, drawn from `seed`.
    pub fn set_faults(&self, seed: u64, per_mille: u32) {
        self.lock().faults = Some((StdRng::seed_from_u64(seed), per_mille));
    }

    /// The next `times` attempts at a step ([`Action::step`]) fail.
    pub fn fail(&self, step: &str, times: u32) {
        self.lock().failing.insert(step.into(), times);
    }

    /// The same, for want of room.
    pub fn fail_for_room(&self, step: &str, times: u32) {
        self.lock().roomless.insert(step.into());
        self.fail(step, times);
    }

    /// While its disk is full nothing that is to be written down is done.
    pub fn set_full(&self, is_full: bool) {
        self.lock().is_full = is_full;
    }

    /// The next attempt at a step finds a bug.
    pub fn panic_at(&self, step: &str) {
        self.lock().bugs.insert(step.into());
    }

    /// node.json is another from now on.
    pub fn set_node(&self, node: NodeFile) {
        let mut world = self.lock();
        world.node = node;
        world.tell(Event::NodeFile);
    }

    /// The step waits until [`FakeHost::unblock`], and so does a look at a partition: `observe PARTITION`.
    pub fn block(&self, step: &str) {
        self.blocked.send_modify(|blocked| {
            blocked.insert(step.into());
        });
    }

    pub fn unblock(&self, step: &str) {
        self.blocked.send_modify(|blocked| {
            blocked.remove(step);
        });
    }

    /// Returns once the step is not blocked.
    async fn open(&self, step: &str) {
        let mut blocked = self.blocked.subscribe();
        let _open = blocked.wait_for(|blocked| !blocked.contains(step)).await;
    }

    /// `PARTITION step` of all that was done or tried, oldest first.
    pub fn performed(&self) -> Vec<String> {
        self.lock().performed.clone()
    }

    /// What of that came after the first `known`.
    pub fn performed_after(&self, known: usize) -> Vec<String> {
        self.lock().performed.iter().skip(known).cloned().collect()
    }

    pub fn fact(&self, partition: &PartitionName) -> PartitionFact {
        self.lock().partitions.get(partition).map(|one| one.fact.clone()).unwrap_or_default()
    }

    /// Contents of a file that was written.
    pub fn file(&self, partition: &PartitionName, path: &str) -> Option<String> {
        self.lock().partitions.get(partition)?.inside.files.get(path).cloned()
    }

    pub fn is_installed(&self, digest: &Digest) -> bool {
        self.lock().releases.contains(digest)
    }

    /// So many bytes are free on the disk from now on.
    pub fn set_free(&self, bytes: u64) {
        self.lock().free = bytes;
    }

    /// Something waits for so many bytes of room.
    pub fn ask_for_room(&self, bytes: u64) {
        let mut world = self.lock();
        world.asked = vec![bytes];
        world.tell(Event::NoRoom);
    }

    /// What the next checks of a promise say. It holds unless this was called.
    pub fn set_promise(&self, partition: &PartitionName, promise: &PromiseName, holds: bool) {
        if let Some(one) = self.lock().partitions.get_mut(partition) {
            if holds {
                one.inside.broken.remove(promise);
            } else {
                one.inside.broken.insert(promise.clone());
            }
        }
    }

    /// From now on runs of a one-shot go on until [`FakeHost::end_service`], instead of succeeding at once.
    pub fn hold_service(&self, partition: &PartitionName, service: &ServiceName) {
        if let Some(one) = self.lock().partitions.get_mut(partition) {
            one.inside.slow.insert(service.clone());
        }
    }

    /// Whether the next runs of a one-shot fail.
    pub fn fail_service(&self, partition: &PartitionName, service: &ServiceName, fails: bool) {
        if let Some(one) = self.lock().partitions.get_mut(partition) {
            if fails {
                one.inside.failing.insert(service.clone());
            } else {
                one.inside.failing.remove(service);
            }
        }
    }

    /// A running service ends by itself.
    pub fn end_service(&self, partition: &PartitionName, service: &ServiceName, how: &str) {
        let now = self.clock.moment();
        let mut world = self.lock();
        let fact = world.partitions.get_mut(partition).and_then(|one| one.fact.services.get_mut(service));
        if let Some(fact) = fact {
            fact.end(End { how: how.into(), last_lines: vec![format!("{service}: {how}")] }, now);
        }
        world.changes += 1;
        world.tell(Event::Partition(partition.clone()));
    }

    /// The instance in a partition uses CPU time.
    pub fn use_cpu(&self, partition: &PartitionName, micros: u64) {
        if let Some(one) = self.lock().partitions.get_mut(partition) {
            one.inside.cpu_micros += micros;
        }
    }

    /// Somebody takes away the control group of a partition, and with it what it has counted.
    pub fn lose_group(&self, partition: &PartitionName) {
        if let Some(one) = self.lock().partitions.get_mut(partition) {
            one.inside.epoch += 1;
            one.inside.cpu_micros = 0;
            one.inside.lost = Some("the partition's control group was taken away".into());
        }
    }

    /// Whether the control group of a partition cannot be read; it counts on.
    pub fn hide_group(&self, partition: &PartitionName, is_hidden: bool) {
        if let Some(one) = self.lock().partitions.get_mut(partition) {
            one.inside.is_hidden = is_hidden;
        }
    }

    /// The instance in a partition writes a file of its own.
    pub fn put_file(&self, partition: &PartitionName, path: &str, text: &str) {
        if let Some(one) = self.lock().partitions.get_mut(partition) {
            one.inside.files.insert(path.into(), text.into());
        }
    }

    /// The instance in a partition holds so many bytes of memory from now on.
    pub fn hold_memory(&self, partition: &PartitionName, bytes: u64) {
        if let Some(one) = self.lock().partitions.get_mut(partition) {
            one.inside.memory = bytes;
        }
    }

    /// The machine is started again: what ran is gone, and so is what it was held to, the totals of all partitions start
    /// again from zero. What is on its disk stays.
    pub fn reboot(&self) {
        self.lock().reboot(self.clock.moment());
    }

    /// From now on each run that is asked for takes so long.
    pub fn set_run_time(&self, time: Duration) {
        self.lock().run_time = time;
    }

    /// How often each run that was asked for was begun.
    pub fn runs(&self) -> BTreeMap<(InstanceId, u64), u32> {
        self.lock().runs.clone()
    }

    /// A connection with the agent, as the instance in a partition opens it at its socket; nothing on it waits.
    ///
    /// # Errors
    /// Nobody listens there: no agent runs, or none has come to it yet.
    pub fn speak(&self, partition: &PartitionName) -> io::Result<UnixStream> {
        let address = self.lock().doors.get(partition).cloned().ok_or(io::ErrorKind::NotFound)?;
        let stream = UnixStream::connect_addr(&address)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    /// Sockets that are made from now on are reached by these; else by nobody but this process.
    pub fn reached_by(&self, by: By) {
        self.lock().reached_by = by;
    }

    /// Another number whenever a fact of a partition may be another.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }
}

#[async_trait]
impl Host for FakeHost {
    async fn node(&self) -> Result<NodeFile, Problem> {
        Ok(self.lock().node.clone())
    }

    fn runtime_name(&self) -> String {
        "fake".into()
    }

    fn enforces(&self) -> Enforced {
        Enforced { disk: false, cpu: true, memory: true, processes: true, confinement: true }
    }

    async fn observe_release(&self, digest: &Digest) -> ReleaseFact {
        if self.is_installed(digest) { ReleaseFact::Installed } else { ReleaseFact::Absent }
    }

    async fn observe_releases(&self) -> Result<Vec<Digest>, Problem> {
        Ok(self.lock().releases.iter().cloned().collect())
    }

    async fn observe_disks(&self) -> Result<BTreeMap<u64, Disk>, Problem> {
        let world = self.lock();
        Ok(BTreeMap::from([(1, Disk { place: "/srv".into(), free: world.free, asked: world.asked.clone() })]))
    }

    async fn observe_store(&self) -> Result<StoreFacts, Problem> {
        let disks = self.observe_disks().await?;
        let world = self.lock();
        let entries = world.releases.iter().map(|digest| StoredFact {
            what: Stored::Release(digest.clone()),
            disk: 1,
            bytes: None,
            unused_since: world.unused.get(digest).copied(),
            busy: false,
        });
        Ok(StoreFacts { entries: entries.collect(), disks })
    }

    async fn observe_partition(&self, partition: &PartitionName) -> Result<PartitionFact, Problem> {
        self.open(&format!("observe {partition}")).await;
        Ok(self.fact(partition))
    }

    async fn perform(&self, action: &Action) -> Result<(), Problem> {
        // As a host writes down that it begins, before it does.
        if let Action::RunAsked { partition, number, run } = action {
            let begun = RunBegun { number: *number, hook: HookName::parse(&run.name)?, at: self.clock.now() };
            let noted = Action::Note { partition: partition.clone(), note: Note::RunBegun(begun) };
            let time = {
                let mut world = self.lock();
                world.has_room()?;
                world.permit(action)?;
                world.apply(&noted, self.clock.moment())?;
                world.begins(partition, *number);
                world.run_time
            };
            if !time.is_zero() {
                tokio::time::sleep(time).await;
            }
        }
        let step = action.step();
        self.open(&step).await;
        let now = self.clock.moment();
        let mut world = self.lock();
        let place = action.partition().map_or("-", PartitionName::as_str);
        if world.performed.len() < REMEMBERED {
            let line = format!("{place} {step}");
            world.performed.push(line);
        }
        assert!(!world.bugs.remove(&step), "a bug was asked for");
        world.has_room()?;
        if world.is_faulty(&step) {
            let code = if world.roomless.contains(&step) { codes::DISK_FULL } else { codes::HOOK_FAILED };
            return Err(Problem::new(code, format!("{step} failed")).because("a fault was asked for"));
        }
        if !matches!(action, Action::RunAsked { .. }) {
            world.permit(action)?;
        }
        world.apply(action, now)
    }

    async fn counters(
        &self,
        partitions: &[PartitionName],
        _wanted: Wanted,
    ) -> Vec<(PartitionName, Result<Counters, Problem>)> {
        let world = self.lock();
        let read = partitions.iter().filter_map(|partition| {
            let one = world.partitions.get(partition)?;
            let hidden = || Amount::Unknown("the partition's control group cannot be read".into());
            let cpu = if one.inside.is_hidden { hidden() } else { Amount::Known(one.inside.cpu_micros) };
            let readings = [
                (Meter::CpuMicros, cpu),
                (Meter::MemoryByteSeconds, Amount::Known(one.inside.memory)),
                (Meter::NetworkBytes, Amount::Unknown("a fake has no network".into())),
            ];
            let counters = Counters {
                instance: one.fact.occupant.as_ref()?.instance.clone(),
                epoch: one.inside.epoch,
                taken: self.clock.moment(),
                readings: readings.into(),
                lost: one.inside.lost.clone(),
            };
            Some((partition.clone(), Ok(counters)))
        });
        read.collect()
    }

    async fn logs(&self, asked: &LogsAsked) -> Result<mpsc::Receiver<(ServiceName, String)>, Problem> {
        let (send, lines) = mpsc::channel(16);
        let wrote: Vec<ServiceName> = match &asked.of {
            LogOf::Services(partition, of) => self
                .fact(partition)
                .services
                .into_keys()
                .filter(|name| of.as_ref().is_none_or(|one| one == name))
                .collect(),
            LogOf::Hook(_, hook) => vec![ServiceName::parse(hook.as_str())?],
            LogOf::Release(digest) if self.is_installed(digest) => vec![ServiceName::parse(LogOf::BUILD)?],
            LogOf::Release(digest) => {
                return Err(Problem::new(codes::NOT_FOUND, format!("release {} has no log", digest.short())));
            }
        };
        for name in wrote.into_iter().take(16) {
            let text = format!("a line of {name}");
            let _full = send.try_send((name, text));
        }
        if asked.follow == Follow::Yes && !matches!(asked.of, LogOf::Release(_)) {
            // Nothing more is ever written, but the channel stays open for as long as somebody reads.
            tokio::spawn(async move { send.closed().await });
        }
        Ok(lines)
    }

    async fn door(&self, partition: &PartitionName) -> Result<Option<Reached>, Problem> {
        if self.lock().is_to_fail("open socket") {
            return Err(Problem::new(codes::DISK_FULL, "the socket cannot be made"));
        }
        let (listener, address) = door::open()?;
        let by = self.lock().reached_by;
        self.lock().doors.insert(partition.clone(), address);
        Ok(Some(Reached::new(listener, by)))
    }

    fn events(&self) -> mpsc::Receiver<Event> {
        let (send, events) = mpsc::channel(10_000);
        self.lock().events = Some(send);
        events
    }
}

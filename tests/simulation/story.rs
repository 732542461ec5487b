//! One seed from its beginning to the rest that the grid must come to.

use crate::books::Books;
use crate::client::{Client, Notes, Shared, lock, operate};
use crate::faults::{Faults, Struck};
use crate::instances::Instances;
use crate::kept::Kept;
use crate::logs::Logs;
use crate::trace::{Trace, as_traced};
use crate::world::{MASTER, NODE_MEMORY_MIB, PARTITIONS, World};
use plat_master_plan::{Change, desired};
use plat_model::id::{InstanceId, NodeId};
use plat_model::instance::{Instance, InstanceState, Wish};
use plat_tests::invariants::tree::{self, Children};
use plat_tests::invariants::{self, Seen, Times};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use turmoil::Sim;

const STEP: Duration = Duration::from_millis(20);
/// How long the grid may take to come to rest once everything is mended: steps that failed wait for their backoff.
const REST: Duration = Duration::from_secs(900);
const CLIENTS: u64 = 2;

/// What the checks remember from one step to the next.
struct Watch {
    world: Arc<World>,
    notes: Shared,
    before: Seen,
    books: Books,
    kept: Kept,
    /// What the last step that was looked at left behind.
    marks: (usize, Vec<u64>),
    logs: Logs,
    times: Times,
    instances: Instances,
    children: Children,
    /// How often services were restarted for a promise.
    revived: usize,
    trace: Trace,
    /// How much of what each machine performed is in the trace.
    traced: BTreeMap<NodeId, usize>,
}

/// How a run of a seed went.
pub struct Story {
    trace: Trace,
    /// What its faults and its clients did, and how often.
    happened: Vec<(usize, &'static str)>,
}

impl std::fmt::Display for Story {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.trace)?;
        self.happened.iter().try_for_each(|(times, what)| write!(f, "; {times} {what}"))
    }
}

/// Runs a seed.
///
/// # Panics
/// With what did not hold, when, and after which faults.
pub fn run(seed: u64) -> Story {
    let world = World::new(seed);
    let notes: Shared = Arc::default();
    let mut sim = simulation(&world, &notes);
    let mut faults = Faults::new(seed);
    let finished = Arc::new(AtomicUsize::new(0));
    let (operator, noted) = (world.clone(), notes.clone());
    sim.client("operator", async move {
        operate(operator, noted).await;
        Ok(())
    });
    for number in 1..=CLIENTS {
        let (world, notes, finished) = (world.clone(), notes.clone(), finished.clone());
        sim.client(format!("client{number}"), async move {
            let mut tokens = world.tokens.subscribe();
            let _ready = tokens.wait_for(|tokens| !tokens.is_empty()).await.map(drop);
            Client::new(world, notes, number).run().await;
            finished.fetch_add(1, Ordering::SeqCst);
            std::future::pending().await
        });
    }
    let mut watch = Watch::new(&world, &notes);
    let _collected = watch.logs.collect();
    let complain = |sim: &Sim<'_>, faults: &Faults, why: String| -> ! {
        let Notes { acknowledged, lost, .. } = &*lock(&notes);
        let at = sim.elapsed();
        panic!("seed {seed}, at {at:?}, {acknowledged} acknowledged, {lost} lost: {why}\nfaults:\n{}", faults.told())
    };
    while finished.load(Ordering::SeqCst) < CLIENTS as usize {
        faults.step(&mut sim, &world, &notes);
        if let Err(why) = step(&mut sim, &mut watch) {
            complain(&sim, &faults, why);
        }
    }
    faults.end(&mut sim, &world);
    let deadline = sim.elapsed() + REST;
    watch.quiet();
    while let Err(open) = watch.at_rest() {
        if sim.elapsed() > deadline {
            complain(&sim, &faults, format!("it does not come to rest: {open}"));
        }
        if let Err(why) = step(&mut sim, &mut watch) {
            complain(&sim, &faults, why);
        }
    }
    let happened = watch.happened(&faults.struck);
    Story { trace: watch.trace, happened }
}

fn simulation<'a>(world: &Arc<World>, notes: &Shared) -> Sim<'a> {
    let mut sim = turmoil::Builder::new()
        .rng_seed(world.seed)
        .tick_duration(STEP)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(100))
        .tcp_capacity(4096)
        .simulation_duration(Duration::from_secs(3600))
        // The sockets of instances; the grid's network is a simulated one.
        .enable_tokio_io()
        .build();
    let master = world.clone();
    sim.host(MASTER, move || master.clone().master());
    for node in world.hosts.keys() {
        let (world, notes, node) = (world.clone(), notes.clone(), node.clone());
        sim.host(node.to_string(), move || {
            let (world, node, revoked) = (world.clone(), node.clone(), lock(&notes).revoked.contains(&node));
            async move {
                // A node that was shut out before it ever joined has nothing to join with.
                if revoked && !world.folder.path().join(node.as_str()).join("enrolled").exists() {
                    return std::future::pending().await;
                }
                world.agent(node).await
            }
        });
    }
    sim
}

fn step(sim: &mut Sim<'_>, watch: &mut Watch) -> Result<(), String> {
    sim.step().map_err(|e| format!("a program ended: {e}"))?;
    watch.world.clock.set(sim.elapsed());
    watch.hear(sim.elapsed())?;
    watch.look()
}

impl Watch {
    fn new(world: &Arc<World>, notes: &Shared) -> Self {
        Self {
            world: world.clone(),
            notes: notes.clone(),
            before: world.seen(),
            books: Books::new(world.seed),
            kept: Kept::default(),
            marks: (0, Vec::new()),
            logs: Logs::default(),
            times: Times::default(),
            instances: Instances::new(world.seed),
            children: Children::default(),
            revived: 0,
            trace: Trace::new(),
            traced: BTreeMap::new(),
        }
    }

    fn happened(&self, struck: &Struck) -> Vec<(usize, &'static str)> {
        let Struck { ended, rebooted, forward, back, roomless, ungrouped } = *struck;
        vec![
            (ended, "services ended"),
            (rebooted, "machines rebooted"),
            (forward, "clocks far forward"),
            (back, "clocks far back"),
            (roomless, "writes without room"),
            (ungrouped, "groups taken away"),
            (self.books.unread(), "windows unread"),
            (self.revived, "restarts for promises"),
            (self.world.hosts.values().map(|host| host.runs().len()).sum(), "runs of hooks"),
            (self.instances.count, "answers to instances"),
            (self.children.count(), "children"),
            (self.kept.began, "kept for a time"),
            (self.kept.back, "wished again within it"),
            (self.kept.left, "destroyed after it"),
        ]
    }

    /// Writes down what has been done since it was looked at last.
    fn write_down(&mut self, seen: &Seen) -> Result<(), String> {
        let now = self.world.clock.now().0;
        let mut written = vec![self.logs.take()];
        // What an agent says of a file that it cannot write is where this run has it.
        let folder = self.world.folder.path().to_string_lossy();
        for (revision, changes) in self.world.store.take() {
            let text = |changes: &Vec<Change>| serde_json::to_string(changes).expect("records can be written");
            written.push(text(&changes));
            let traced = text(&as_traced(changes)).replace(&*folder, "");
            self.trace.add(&format!("{now} commit {revision} {traced}"));
        }
        for text in written.iter().filter(|text| !text.is_empty()) {
            invariants::no_secret_is_written(text, &self.world.secrets(seen))?;
        }
        for (node, host) in &self.world.hosts {
            let done = self.traced.entry(node.clone()).or_default();
            for line in host.performed_after(*done) {
                self.trace.add(&format!("{now} {node} {line}"));
                *done += 1;
            }
        }
        Ok(())
    }

    /// What instances say and hear.
    fn hear(&mut self, passed: Duration) -> Result<(), String> {
        let told = self.instances.step(passed, &self.world, &self.notes)?;
        for line in told {
            // Whose words these are knows its own secrets; nobody is to be told them again.
            invariants::no_secret_is_written(&line, &self.world.secrets(&self.before))?;
            self.trace.add(&line);
        }
        Ok(())
    }

    /// Everything that must always hold. Where nothing has happened, it holds as it did.
    fn look(&mut self) -> Result<(), String> {
        self.books.forget(&self.notes);
        let marks = (lock(&self.notes).acknowledged, self.world.marks()?);
        if marks == self.marks && self.logs.is_empty() {
            self.books.use_some(&self.world);
            return Ok(());
        }
        self.marks = marks;
        let now = self.world.seen();
        self.write_down(&now)?;
        let time = self.world.clock.now();
        {
            let mut notes = lock(&self.notes);
            notes.asked_to_change.extend(orphans(&now));
            invariants::a_generation_never_goes_back(&self.before, &now)?;
            invariants::a_partition_holds_one_instance_and_capacity_is_kept(&now)?;
            invariants::a_node_acts_on_the_whole_that_it_holds(&self.before, &now)?;
            invariants::a_service_goes_on(&self.before, &now, &notes.asked_to_change, &notes.ended)?;
            invariants::what_was_acknowledged_is_there(&now, &notes.told, time)?;
        }
        tree::what_an_instance_said_is_kept(&now, self.instances.answered())?;
        tree::a_requested_child_is_there(&now, self.instances.answered())?;
        self.children.are_made_once(&now, self.instances.answered())?;
        self.times.are_used_once(&now)?;
        self.revived += invariants::restarts_come_later_each_time(&self.before, &now, self.world.steady())?;
        self.world.hosts.values().try_for_each(|host| invariants::a_run_is_begun_once(&host.runs()))?;
        if now.revision != self.before.revision {
            invariants::decisions_follow_from_the_records(&now, &self.world.store.records(), time)?;
            invariants::everything_that_waits_says_on_what(&now, time)?;
        }
        self.kept.look(&self.before, &now, &self.world, &lock(&self.notes), time)?;
        self.books.look(&self.before, &now, &self.world)?;
        self.before = now;
        self.books.use_some(&self.world);
        Ok(())
    }

    /// From now on nothing is used any more, so that the books can be closed.
    fn quiet(&mut self) {
        self.books.quiet();
        self.instances.quiet();
    }

    /// Whether the grid is as everybody wished it to be, and every bit of use is booked.
    fn at_rest(&self) -> Result<(), String> {
        let state = &self.before.state;
        let revoked = lock(&self.notes).revoked.clone();
        for instance in state.instances.values() {
            let lost = instance.placement.as_ref().is_some_and(|place| revoked.contains(&place.node));
            if !lost {
                self.as_wished(instance)?;
            }
        }
        self.instances.at_rest()?;
        self.books.at_rest(&lock(&self.notes))?;
        self.kept.at_rest(&self.before, &lock(&self.notes))?;
        tree::what_was_said_is_shown(&self.before, self.instances.answered())?;
        Ok(())
    }

    fn as_wished(&self, instance: &Instance) -> Result<(), String> {
        let state = self.before.state.statuses.get(&instance.id).filter(|s| s.generation == instance.generation);
        let is = state.map(|status| status.state);
        let fits = match (instance.wish, is) {
            (Wish::Started, Some(InstanceState::Ready)) | (Wish::Stopped, Some(InstanceState::Stopped)) => true,
            // There is no room for it, as the rules have it.
            (Wish::Started | Wish::Stopped, None) => instance.placement.is_none() && self.is_full(instance),
            _ => false,
        };
        let open = instance.placement.as_ref().map(|place| desired::desired(&self.before.state, &place.node));
        let open = open.and_then(|desired| desired.instances.get(&instance.id).map(|one| one.runs.clone()));
        let open = open.filter(|open| instance.wish == Wish::Started && !open.is_empty());
        if fits && let Some(open) = open {
            return Err(format!("{} was asked for {open:?}, and nobody says how that went", instance.id));
        }
        if fits {
            return Ok(());
        }
        let everybody = self.world.hosts.keys().cloned().collect();
        let why = plat_master_plan::allocate::explain(&self.before.state, &everybody, &instance.id);
        let (name, wish, place) = (&instance.name, instance.wish, &instance.placement);
        let said = self.before.state.statuses.get(&instance.id);
        Err(format!("{name} ({}) is wished {wish} and is {is:?} in {place:?}; {why:?}; {said:?}", instance.id))
    }

    /// Whether no node has room for it.
    fn is_full(&self, instance: &Instance) -> bool {
        let revoked = lock(&self.notes).revoked.clone();
        let has_room = |node: &NodeId| {
            let all = self.before.state.instances.values();
            let here = all.filter(|one| one.placement.as_ref().is_some_and(|place| place.node == *node));
            let taken: Vec<u32> = here.filter_map(|one| one.resources.memory_mib).collect();
            let memory = taken.iter().sum::<u32>() + instance.resources.memory_mib.unwrap_or(0);
            taken.len() < PARTITIONS && memory <= NODE_MEMORY_MIB
        };
        !self.world.hosts.keys().filter(|node| !revoked.contains(*node)).any(has_room)
    }
}

/// Those that go, or stop to go, with whoever requested them.
fn orphans(now: &Seen) -> Vec<InstanceId> {
    let instances = &now.state.instances;
    let goes = |id: &InstanceId| {
        instances.get(id).is_none_or(|parent| parent.wish == Wish::Destroyed || parent.leaving.is_some())
    };
    let orphans = instances.values().filter(|one| one.parent.as_ref().is_some_and(|parent| goes(&parent.instance)));
    orphans.map(|one| one.id.clone()).collect()
}

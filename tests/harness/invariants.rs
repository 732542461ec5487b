//! What must hold after every step of a simulation: the invariants of the design, as functions, by their numbers.
//!
//! These have no form that a step could show, or only a part of one:
//! - 1, no planner does I/O or reads a clock, no executor chooses: which functions a planner may call shows in its
//!   source, and tidy's arrows and the plan crates' `clippy.toml` hold it. A step shows what follows from it: the same
//!   records, loaded in another order, decide the same. That nothing else decides is what two runs of a seed show.
//! - 4, level and not edge: that nothing more is needed than one sync shows only where the grid comes to rest after any
//!   faults. A step shows that what a node holds is the whole of what the master has it hold, and that it acts on that.
//! - 8, keys stay where they were made: the steps show that no secret and no key is in a record or a log. That one file
//!   reads the authority's key is in tidy; arguments and environments are checked by the tests of the agent's plan.
//! - 9 and 12, `node-format` and root's writes: neither has a part in a simulation, whose hosts are maps. The tests of
//!   node-format and of the agent's Linux host hold them, on a real kernel.
//! - 11, versions of what outlives a process: the steps show the agent's files, the only ones that a simulation writes.
//!   That those of before can be read is in the tests of each form, of the stores, and in the wire's lock.

mod times;
pub mod tree;

pub use times::Times;

use plat_agent_plan::facts::{Occupant, ServiceRun};
use plat_agent_plan::{PartitionFact, Steady};
use plat_master_plan::record::{Key, Record};
use plat_master_plan::{Change, State, allocate, desired, view};
use plat_model::id::{InstanceId, InstanceName, NodeId, PartitionName, PartitionRef, ProjectName, ServiceName};
use plat_model::instance::{Instance, InstanceDesired, InstanceState, Wish};
use plat_model::node::NodeDesired;
use plat_model::parameters::Parameters;
use plat_model::release::Release;
use plat_model::resources::Resources;
use plat_model::time::Timestamp;
use plat_model::usage::{Amount, LedgerEntry, Meter};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A grid at one moment.
#[derive(Clone)]
pub struct Seen {
    pub revision: u64,
    pub state: Arc<State>,
    pub machines: BTreeMap<NodeId, BTreeMap<PartitionName, PartitionFact>>,
    /// What each node's disk says that it is to hold; without those that were never told.
    pub held: BTreeMap<NodeId, Arc<NodeDesired>>,
}

/// What a client was told of an instance, the last time that it was told anything.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub id: InstanceId,
    pub wish: Wish,
    /// When it is destroyed, if it is kept until then.
    pub leaves: Option<Timestamp>,
    pub parameters: Parameters,
}

impl Told {
    fn of(instance: &Instance) -> Self {
        Self {
            id: instance.id.clone(),
            wish: instance.wish,
            leaves: instance.leaving.map(|leaving| leaving.at),
            parameters: instance.parameters.clone(),
        }
    }
}

type Held = Result<(), String>;

/// Invariant 1, as far as a step shows it: decisions follow from the records, and from nothing else that the master
/// remembers of how they came to be.
///
/// # Errors
/// What differs from a state that was made anew of the same records.
pub fn decisions_follow_from_the_records(now: &Seen, records: &BTreeMap<Key, Record>, time: Timestamp) -> Held {
    let mut anew = State::default();
    // To read the documents of releases takes long, and what is read depends on nothing else: those are kept.
    let is_kept = |release: &&Release| {
        let key = Key::Release(release.digest.clone());
        matches!(records.get(&key), Some(Record::Release(kept)) if kept == *release)
    };
    let kept = now.state.releases.values().filter(is_kept);
    anew.releases = kept.map(|release| (release.digest.clone(), release.clone())).collect();
    anew.documents = now.state.documents.clone();
    let changes: Vec<Change> = records.values().rev().cloned().map(Change::put).collect();
    for change in &changes {
        anew.apply(change, now.revision);
    }
    // When each change was made is not in the records: after loading, all of it counts as new.
    anew.desired_revision = now.state.desired_revision.clone();
    if anew != *now.state {
        return Err("the state is not that of its records".into());
    }
    let everybody = now.state.nodes.keys().cloned().collect();
    if allocate::allocate(&anew, &everybody, time) != allocate::allocate(&now.state, &everybody, time) {
        return Err("the same records are allocated in another way".into());
    }
    for node in now.state.nodes.keys() {
        if desired::desired(&anew, node) != desired::desired(&now.state, node) {
            return Err(format!("the same records have {node} hold something else"));
        }
    }
    Ok(())
}

/// Invariant 2: A generation never goes back, whatever the order of messages.
///
/// # Errors
/// What went back.
pub fn a_generation_never_goes_back(before: &Seen, now: &Seen) -> Held {
    if now.revision < before.revision {
        return Err(format!("revision {} after {}", now.revision, before.revision));
    }
    for (id, instance) in &now.state.instances {
        let was = before.state.instances.get(id).map(|instance| instance.generation);
        if was.is_some_and(|was| was > instance.generation) {
            return Err(format!("instance {id}: generation {} after {was:?}", instance.generation));
        }
        let status = now.state.statuses.get(id).map(|status| status.generation);
        let was = before.state.statuses.get(id).map(|status| status.generation);
        if status < was || status.is_some_and(|status| status > instance.generation) {
            return Err(format!("status of {id}: generation {status:?} after {was:?}, wished {}", instance.generation));
        }
    }
    for (id, node) in &now.state.nodes {
        let was = before.state.nodes.get(id).map(|node| node.certificates.generation);
        if was.is_some_and(|was| was > node.certificates.generation) {
            return Err(format!("certificates of {id}: generation {} after {was:?}", node.certificates.generation));
        }
    }
    for (id, held) in &before.held {
        let is = now.held.get(id).map(|held| held.generation);
        if is.is_none_or(|is| is < held.generation) {
            return Err(format!("{id} holds generation {is:?} after {}", held.generation));
        }
    }
    Ok(())
}

/// Invariant 3: A partition holds at most one instance; capacity is never exceeded, counting what is still being destroyed.
///
/// # Errors
/// The partition or the node where it is not so.
pub fn a_partition_holds_one_instance_and_capacity_is_kept(now: &Seen) -> Held {
    let mut holders: BTreeMap<&PartitionRef, &InstanceId> = BTreeMap::new();
    let mut taken: BTreeMap<&NodeId, Resources> = BTreeMap::new();
    for instance in now.state.instances.values() {
        let Some(place) = &instance.placement else { continue };
        if let Some(other) = holders.insert(place, &instance.id) {
            return Err(format!("{place} was given to {other} and to {}", instance.id));
        }
        let seat = now.state.seats.get(place).and_then(|seat| seat.instance.as_ref());
        if seat != Some(&instance.id) {
            return Err(format!("{} is in {place}, whose seat is held by {seat:?}", instance.id));
        }
        let sum = taken.entry(&place.node).or_default();
        *sum = sum.plus(instance.resources);
    }
    for (node, taken) in taken {
        let Some(row) = now.state.nodes.get(node) else { return Err(format!("{node} holds instances and is no node")) };
        let short = row.inventory.capacity.shortfalls(taken);
        if !short.is_empty() {
            return Err(format!("{node} has given more than it has: {}", short.join("; ")));
        }
    }
    // On the machines: who is really there is who was given the seat, until nothing of it is left.
    for (node, partitions) in &now.machines {
        // A node that was shut out is not believed any more and holds nothing, whatever still runs on it.
        if now.state.nodes.get(node).is_none_or(|row| row.revoked) {
            continue;
        }
        for (partition, fact) in partitions {
            let Some(occupant) = fact.occupant.as_ref().filter(|occupant| !occupant.erased) else { continue };
            let place = PartitionRef { node: node.clone(), partition: partition.clone() };
            let seat = now.state.seats.get(&place).and_then(|seat| seat.instance.as_ref());
            if seat != Some(&occupant.instance) {
                return Err(format!("{} is still in {place}, which was given to {seat:?}", occupant.instance));
            }
        }
    }
    Ok(())
}

/// Invariant 4, as far as a step shows it: what a node holds is the whole of what it is to hold, whichever messages
/// brought it there, and what begins or ends on its machine is what that says.
///
/// # Errors
/// The node that holds something else, or the partition in which something else was done.
pub fn a_node_acts_on_the_whole_that_it_holds(before: &Seen, now: &Seen) -> Held {
    for (node, held) in &now.held {
        let stands = now.state.nodes.get(node).is_some_and(|row| !row.revoked);
        let newest = desired::generation(&now.state, node);
        if stands && held.generation > newest {
            return Err(format!("{node} holds generation {}, the master is at {newest}", held.generation));
        }
        let is_same =
            before.revision == now.revision && before.held.get(node).is_some_and(|was| Arc::ptr_eq(was, held));
        if stands
            && !is_same
            && held.generation == newest
            && open(held, &now.state) != desired::desired(&now.state, node)
        {
            return Err(format!("{node} holds generation {newest}, and not what belongs to it"));
        }
    }
    for (node, partitions) in &now.machines {
        // Within one step it may have acted on what it held before, and then taken in what it holds now.
        let held = [before.held.get(node), now.held.get(node)];
        let says = |id: &InstanceId, fits: &dyn Fn(Option<&InstanceDesired>) -> bool| {
            held.iter().any(|held| fits(held.and_then(|held| held.instances.get(id))))
        };
        for (partition, fact) in partitions {
            let was = before.machines.get(node).and_then(|partitions| partitions.get(partition));
            let was_there = was.and_then(|was| was.occupant.as_ref());
            let Some(occupant) = &fact.occupant else { continue };
            let id = &occupant.instance;
            let is_new = was_there.is_none_or(|was| was.instance != *id);
            if is_new && !says(id, &|one| one.is_some_and(|one| one.partition == *partition)) {
                return Err(format!("{node} put {id} into {partition}, where nobody wanted it"));
            }
            let runs = |fact: &PartitionFact| {
                fact.services.values().any(|service| matches!(service.state, ServiceRun::Running { .. }))
            };
            let started = runs(fact) && (is_new || !was.is_some_and(runs));
            if started && !says(id, &|one| one.is_some_and(|one| one.wish == Wish::Started)) {
                return Err(format!("{node} started {id} in {partition}, and nobody wanted it"));
            }
            let erased = occupant.erased && !is_new && was_there.is_some_and(|was| !was.erased);
            let is_to_go = |one: Option<&InstanceDesired>| one.is_none_or(|one| one.wish == Wish::Destroyed);
            if erased && !says(id, &is_to_go) {
                return Err(format!("{node} erased {id} in {partition}, and nobody wanted it"));
            }
        }
    }
    Ok(())
}

/// What a node holds, without the runs that it has told the end of: those are wished no more, and nobody tells it so.
fn open(held: &NodeDesired, state: &State) -> NodeDesired {
    let mut open = held.clone();
    for (id, instance) in &mut open.instances {
        let ran = state.statuses.get(id).and_then(|status| status.ran.last()).map_or(0, |run| run.number);
        instance.runs.retain(|run| run.number > ran);
    }
    open
}

/// Invariant 5: Neither the master's nor the agent's absence stops a service: one that nobody asked to change runs on as the
/// same process, if it did not end by itself or with its machine, and its promises hold.
///
/// # Errors
/// The service that did not.
pub fn a_service_goes_on(
    before: &Seen,
    now: &Seen,
    asked_to_change: &BTreeSet<InstanceId>,
    ended: &BTreeSet<(NodeId, u32)>,
) -> Held {
    for ((place, instance, service), pid) in running(before) {
        if asked_to_change.contains(&instance) || ended.contains(&(place.node.clone(), pid)) {
            continue;
        }
        let fact = now.machines.get(&place.node).and_then(|machine| machine.get(&place.partition));
        let was = before.machines.get(&place.node).and_then(|machine| machine.get(&place.partition));
        let was = was.and_then(|was| was.occupant.as_ref());
        // They are counted anew from when it was configured last.
        let revived = |now: &Occupant| {
            now.revivals > was.filter(|was| was.configured == now.configured).map_or(0, |was| was.revivals)
        };
        // A bang before it has come up has it configured from the beginning.
        let banged = now.state.instances.get(&instance).is_some_and(|one| one.bang > 0);
        let anew = banged && was.is_some_and(|was| !was.started);
        if anew || fact.and_then(|fact| fact.occupant.as_ref()).is_some_and(revived) {
            continue;
        }
        let run = fact.and_then(|fact| fact.services.get(&service)).map(|service| service.state);
        match run {
            Some(ServiceRun::Running { pid: now, .. }) if now == pid => {}
            other => return Err(format!("{service} of {instance} in {place} ran as {pid}, now {other:?}")),
        }
    }
    Ok(())
}

/// Services that are restarted for a promise in vain are given longer each time. How many were restarted in this step.
///
/// # Errors
/// What was restarted too soon.
pub fn restarts_come_later_each_time(before: &Seen, now: &Seen, time: Steady) -> Result<usize, String> {
    let mut restarts = 0;
    for (node, partition, fact) in facts(now) {
        let was = before.machines.get(node).and_then(|partitions| partitions.get(partition));
        let Some((was, before)) = was.and_then(|was| Some((was, was.occupant.as_ref()?))) else { continue };
        let same = fact.occupant.as_ref().filter(|occupant| occupant.instance == before.instance);
        if same.is_none_or(|occupant| occupant.revivals <= before.revivals) {
            continue;
        }
        restarts += 1;
        let started = was.services.values().filter_map(|service| match service.state {
            ServiceRun::Running { since, .. } => Some(since.steady),
            _ => None,
        });
        let age = started.max().map(|started| time.since(started)).unwrap_or_default();
        let least = match before.revivals {
            0 => Duration::ZERO,
            times => Duration::from_secs(20) * (1 << (times - 1).min(4)),
        };
        if age < least {
            let times = before.revivals;
            return Err(format!("{partition} of {node} was restarted after {age:?}, {times} times before in a row"));
        }
    }
    Ok(restarts)
}

fn facts(seen: &Seen) -> impl Iterator<Item = (&NodeId, &PartitionName, &PartitionFact)> {
    let of = |(node, partitions)| std::iter::repeat(node).zip(partitions);
    seen.machines.iter().flat_map(of).map(|(node, (partition, fact))| (node, partition, fact))
}

/// What is asked for once is run at most once, whoever crashes meanwhile.
///
/// # Errors
/// The run that was begun again.
pub fn a_run_is_begun_once(runs: &BTreeMap<(InstanceId, u64), u32>) -> Held {
    match runs.iter().find(|(_, times)| **times > 1) {
        Some(((instance, number), times)) => Err(format!("run {number} of {instance} was begun {times} times")),
        None => Ok(()),
    }
}

fn running(seen: &Seen) -> impl Iterator<Item = ((PartitionRef, InstanceId, ServiceName), u32)> + '_ {
    seen.machines.iter().flat_map(|(node, partitions)| {
        partitions.iter().flat_map(move |(partition, fact)| {
            let instance = fact.occupant.as_ref().map(|occupant| occupant.instance.clone());
            let place = PartitionRef { node: node.clone(), partition: partition.clone() };
            fact.services.iter().filter_map(move |(name, service)| match service.state {
                ServiceRun::Running { pid, .. } => Some(((place.clone(), instance.clone()?, name.clone()), pid)),
                _ => None,
            })
        })
    })
}

/// Invariant 6: An acknowledged write survives.
///
/// # Errors
/// What a client was told and is not so.
pub fn what_was_acknowledged_is_there(
    now: &Seen,
    told: &BTreeMap<(ProjectName, InstanceName), Told>,
    time: Timestamp,
) -> Held {
    for (key, told) in told {
        let id = now.state.by_name.get(key);
        let instance = id.and_then(|id| now.state.instances.get(id));
        let has_left = told.leaves.is_some_and(|at| at <= time);
        let Some(instance) = instance else {
            if told.wish == Wish::Destroyed || has_left {
                continue;
            }
            return Err(format!("{} was acknowledged as {} and is gone", key.1, told.id));
        };
        let mut kept = Told::of(instance);
        if has_left && kept.wish == Wish::Destroyed {
            (kept.wish, kept.leaves) = (told.wish, told.leaves);
        }
        if kept != *told {
            return Err(format!("{}: {told:?} was acknowledged, {kept:?} is kept", key.1));
        }
    }
    Ok(())
}

/// Invariant 7: The ledger only grows, and every sum is that of its lines.
///
/// # Errors
/// The entry that changed or is missing, or the sum that is another.
pub fn the_ledger_only_grows(before: &[LedgerEntry], now: &[LedgerEntry], state: &State) -> Held {
    let held: BTreeMap<_, _> = now.iter().map(|entry| ((&entry.node, entry.sequence), entry)).collect();
    for entry in before {
        if held.get(&(&entry.node, entry.sequence)) != Some(&entry) {
            return Err(format!("entry {} of {} was booked and is not as it was", entry.sequence, entry.node));
        }
    }
    let mut nodes: BTreeMap<&NodeId, Vec<LedgerEntry>> = BTreeMap::new();
    for entry in now {
        nodes.entry(&entry.node).or_default().push(entry.clone());
    }
    for (node, entries) in nodes {
        plat_master_plan::ledger::verify_chain(&entries, None).map_err(|problem| format!("{node}: {problem}"))?;
    }
    let summed = booked(now);
    let mut kept: BTreeMap<(InstanceId, Meter), u64> = BTreeMap::new();
    for sum in state.sums.values().flat_map(|sums| sums.values()) {
        for (meter, one) in sum.meters.iter().filter(|(_, one)| one.amount > 0) {
            *kept.entry((sum.instance.clone(), *meter)).or_default() += one.amount;
        }
    }
    if summed != kept {
        return Err(format!("the lines come to {summed:?}, the sums to {kept:?}"));
    }
    Ok(())
}

/// What the lines of a ledger come to, where that is more than nothing.
pub fn booked(entries: &[LedgerEntry]) -> BTreeMap<(InstanceId, Meter), u64> {
    let mut sums = BTreeMap::new();
    for line in entries.iter().flat_map(|entry| &entry.lines) {
        for (meter, amount) in &line.record.amounts {
            if let Amount::Known(amount @ 1..) = amount {
                *sums.entry((line.record.instance.clone(), *meter)).or_default() += amount;
            }
        }
    }
    sums
}

/// Invariant 8, as far as a step shows it: neither a secret nor a private key is in what is written down.
///
/// # Errors
/// What it is in.
pub fn no_secret_is_written(text: &str, secrets: &[String]) -> Held {
    let found = secrets.iter().map(String::as_str).chain(["PRIVATE KEY"]).any(|secret| text.contains(secret));
    if found { Err(format!("a secret is in: {text}")) } else { Ok(()) }
}

/// Invariant 10: Everything that waits says on what, since when, and what to do.
///
/// # Errors
/// The instance that is not as it is wished and does not say why.
pub fn everything_that_waits_says_on_what(now: &Seen, time: Timestamp) -> Held {
    let everybody = now.state.nodes.keys().cloned().collect();
    for instance in now.state.instances.values() {
        let status = now.state.statuses.get(&instance.id).filter(|status| status.generation == instance.generation);
        let is_as_wished = matches!(
            (instance.wish, status.map(|status| status.state)),
            (Wish::Started, Some(InstanceState::Ready))
                | (Wish::Stopped, Some(InstanceState::Stopped))
                | (Wish::Destroyed, Some(InstanceState::Destroyed))
        );
        // With every node there, time alone may end a wait; with none, only somebody who brings one back.
        for (online, is_alone) in [(&everybody, false), (&BTreeSet::new(), true)] {
            let waiting = view::waiting(&now.state, online, instance);
            if waiting.is_empty() && !is_as_wished {
                return Err(format!("{} is wished {}, is not, and waits on nothing", instance.id, instance.wish));
            }
            for wait in waiting {
                let says = !(wait.who.is_empty() || wait.on.is_empty() || is_alone && wait.todo.is_empty());
                if !says || wait.since < instance.created || wait.since > time {
                    return Err(format!("{} waits and says {wait:?} at {time}", instance.id));
                }
            }
        }
    }
    Ok(())
}

/// Invariant 11, as far as a step shows it: a file that outlives its process says its form and version.
///
/// # Errors
/// What it begins with instead.
pub fn a_file_says_its_version(name: &str, text: &str) -> Held {
    let head: Vec<&str> = text.lines().next().unwrap_or_default().split(' ').collect();
    let version = match head[..] {
        [form, version, _hash] if form == format!("plat-{name}") => version,
        // Each line of the outbox is a record by itself.
        [version, _hash, _record, ..] if name == "outbox" => version,
        [""] if name == "outbox" => "1",
        _ => return Err(format!("{name} begins with {head:?}")),
    };
    version.parse::<u32>().map(|_| ()).map_err(|_| format!("{name} is of the version {version}"))
}

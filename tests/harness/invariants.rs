//! What must hold after every step of a simulation: the invariants of the design, as functions, by its numbers. Those
//! that are missing here are held elsewhere: 1, 8 and 11 by tidy tests and the wire's lock, 9 and 12 by the tests of
//! node-format and of the agent's host.

use plat_agent_plan::PartitionFact;
use plat_agent_plan::facts::ServiceRun;
use plat_master_plan::State;
use plat_model::id::{InstanceId, InstanceName, NodeId, PartitionName, PartitionRef, ProjectName, ServiceName};
use plat_model::instance::Wish;
use plat_model::parameters::Parameters;
use plat_model::resources::Resources;
use plat_model::usage::{Amount, LedgerEntry, Meter};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A grid at one moment.
#[derive(Clone)]
pub struct Seen {
    pub revision: u64,
    pub state: Arc<State>,
    pub machines: BTreeMap<NodeId, BTreeMap<PartitionName, PartitionFact>>,
}

/// What a client was told of an instance, the last time that it was told anything.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    pub id: InstanceId,
    pub wish: Wish,
    pub parameters: Parameters,
}

type Held = Result<(), String>;

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

/// Invariant 5: Neither the master's nor the agent's absence stops a service: one that nobody asked to change runs on as the
/// same process.
///
/// # Errors
/// The service that did not.
pub fn a_service_goes_on(before: &Seen, now: &Seen, asked_to_change: &BTreeSet<InstanceId>) -> Held {
    for ((place, instance, service), pid) in running(before) {
        if asked_to_change.contains(&instance) {
            continue;
        }
        let fact = now.machines.get(&place.node).and_then(|machine| machine.get(&place.partition));
        let run = fact.and_then(|fact| fact.services.get(&service)).map(|service| service.state);
        match run {
            Some(ServiceRun::Running { pid: now, .. }) if now == pid => {}
            other => return Err(format!("{service} of {instance} in {place} ran as {pid}, now {other:?}")),
        }
    }
    Ok(())
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
pub fn what_was_acknowledged_is_there(now: &Seen, told: &BTreeMap<(ProjectName, InstanceName), Told>) -> Held {
    for (key, told) in told {
        let id = now.state.by_name.get(key);
        let instance = id.and_then(|id| now.state.instances.get(id));
        let Some(instance) = instance else {
            if told.wish == Wish::Destroyed {
                continue;
            }
            return Err(format!("{} was acknowledged as {} and is gone", key.1, told.id));
        };
        if instance.id != told.id || instance.wish != told.wish || instance.parameters != told.parameters {
            let kept = Told { id: instance.id.clone(), wish: instance.wish, parameters: instance.parameters.clone() };
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

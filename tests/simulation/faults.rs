//! What goes wrong, drawn from the seed: lost connections, late and one-way messages, crashes, failing hosts,
//! clocks that are set, services that end by themselves, promises that do not hold, machines that are started again,
//! disks without room, control groups that cannot be read or are taken away.

use crate::client::{Shared, lock};
use crate::world::{MASTER, NODES, PARTITIONS, World, node_name, partitions};
use plat_agent_plan::facts::ServiceRun;
use plat_model::id::{NodeId, PartitionName, PromiseName, ServiceName};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::time::Duration;
use turmoil::Sim;

/// Mean time between two faults.
const BETWEEN_MS: u64 = 1000;
/// Longest time that one lasts.
const LAST_MS: u64 = 6000;
/// Longest time that a promise does not hold: services are restarted for it only every twenty seconds, or less often.
const BROKEN_MS: u64 = 45_000;
/// Longest time that a group cannot be read: usage is counted every few seconds.
const HIDDEN_MS: u64 = 15_000;

/// What a clock that is this much off says is booked, also when it was off as much in the other direction just before: then
/// it is an hour behind what is booked, and the next window would begin anew.
const NEAR_MINUTES: i64 = 29;
/// What is ahead by more than an hour is booked by nobody.
const FAR_MINUTES: i64 = 60;
/// Ten days.
const FARTHEST_MINUTES: i64 = 10 * 24 * 60;

#[derive(Debug, Clone, PartialEq)]
enum Mend {
    Repair(String, String),
    RepairOneWay(String, String),
    Release(String, String),
    Bounce(String),
    SetRight(NodeId),
    Hold(NodeId, PartitionName),
    MakeRoom(NodeId),
    Show(NodeId, PartitionName),
}

fn promise() -> PromiseName {
    PromiseName::parse("breathes").expect("a legal name")
}

pub struct Faults {
    random: StdRng,
    next: Duration,
    /// What is mended, by the number of the fault, and when.
    open: BTreeMap<u64, (Duration, Mend)>,
    made: u64,
    log: Vec<String>,
    pub struck: Struck,
}

/// How often that happened which does not happen whenever it is drawn.
#[derive(Default)]
pub struct Struck {
    /// Services that ended by themselves.
    pub ended: usize,
    pub rebooted: usize,
    /// Clocks that were set by more than an hour.
    pub forward: usize,
    pub back: usize,
    /// Writes of agents that found no room.
    pub roomless: usize,
    /// Control groups that were taken away from a running instance.
    pub ungrouped: usize,
}

impl Faults {
    pub fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            next: Duration::ZERO,
            open: BTreeMap::new(),
            made: 0,
            log: Vec::new(),
            struck: Struck::default(),
        }
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.random.random_range(1..most))
    }

    /// Makes and mends what is due.
    pub fn step(&mut self, sim: &mut Sim<'_>, world: &World, notes: &Shared) {
        let now = sim.elapsed();
        let due: Vec<u64> = self.open.iter().filter(|(_, (at, _))| *at <= now).map(|(n, _)| *n).collect();
        for n in due {
            self.mend(n, sim, world);
        }
        if now < self.next {
            return;
        }
        let wait = self.millis(2 * BETWEEN_MS);
        self.next = now + wait;
        let node = node_name(self.random.random_range(1..=NODES));
        self.make(sim, world, notes, &node);
    }

    fn make(&mut self, sim: &mut Sim<'_>, world: &World, notes: &Shared, node: &NodeId) {
        let mut until = sim.elapsed() + self.millis(LAST_MS);
        let (name, master) = (node.to_string(), MASTER.to_owned());
        let busy = |who: &str| self.open.values().any(|(_, mend)| matches!(mend, Mend::Bounce(one) if one == who));
        let linked = self.open.values().any(|(_, mend)| match mend {
            Mend::Repair(a, b) | Mend::RepairOneWay(a, b) | Mend::Release(a, b) => *a == name || *b == name,
            _ => false,
        });
        let what = self.random.random_range(0..19);
        let mend = match what {
            0 if !busy(MASTER) => {
                sim.crash(MASTER);
                Mend::Bounce(master)
            }
            1 | 2 if !busy(&name) => {
                sim.crash(name.as_str());
                Mend::Bounce(name)
            }
            3 if !linked => {
                sim.partition(name.as_str(), MASTER);
                Mend::Repair(name, master)
            }
            4 if !linked => {
                sim.hold(name.as_str(), MASTER);
                Mend::Release(name, master)
            }
            5 => {
                let per_mille = [0, 50, 300][self.random.random_range(0..3)];
                world.hosts[node].set_faults(self.random.random_range(0..u64::MAX), per_mille);
                return self.log.push(format!("{:?} {node}: {per_mille} of 1000 steps fail", sim.elapsed()));
            }
            6 => {
                sim.partition("client1", MASTER);
                Mend::Repair("client1".into(), master)
            }
            // What one says arrives, and what it hears does not; or the other way round.
            7 if !linked => {
                sim.partition_oneway(name.as_str(), MASTER);
                Mend::RepairOneWay(name, master)
            }
            8 if !linked => {
                sim.partition_oneway(MASTER, name.as_str());
                Mend::RepairOneWay(master, name)
            }
            9 => {
                sim.partition_oneway(MASTER, "client2");
                Mend::RepairOneWay(master, "client2".into())
            }
            10 => {
                let ahead = self.minutes();
                self.set_clock(world, notes, node, ahead);
                Mend::SetRight(node.clone())
            }
            11 | 12 => {
                let partition = self.partition();
                let counter = ServiceName::parse("counter").expect("a legal name");
                let fact = world.hosts[node].fact(&partition);
                let Some(ServiceRun::Running { pid, .. }) = fact.services.get(&counter).map(|one| one.state) else {
                    return;
                };
                lock(notes).ended.insert((node.clone(), pid));
                world.hosts[node].end_service(&partition, &counter, "exit code 1");
                self.struck.ended += 1;
                return self.log.push(format!("{:?} {node}: counter in {partition} ends", sim.elapsed()));
            }
            13 => {
                let partition = self.partition();
                world.hosts[node].set_promise(&partition, &promise(), false);
                until = sim.elapsed() + self.millis(BROKEN_MS);
                Mend::Hold(node.clone(), partition)
            }
            // The agent goes with its machine.
            14 if !busy(&name) => {
                sim.crash(name.as_str());
                for fact in partitions().map(|partition| world.hosts[node].fact(&partition)) {
                    let instance = fact.occupant.map(|occupant| (node.clone(), occupant.instance));
                    lock(notes).uncounted.extend(instance);
                    let pids = fact.services.values().filter_map(|service| match service.state {
                        ServiceRun::Running { pid, .. } => Some((node.clone(), pid)),
                        _ => None,
                    });
                    lock(notes).ended.extend(pids);
                }
                world.hosts[node].reboot();
                self.struck.rebooted += 1;
                self.log.push(format!("{:?} {node} is started again", sim.elapsed()));
                Mend::Bounce(name)
            }
            15 => {
                world.set_full(node, true);
                Mend::MakeRoom(node.clone())
            }
            16 => {
                let partition = self.partition();
                world.hosts[node].hide_group(&partition, true);
                until = sim.elapsed() + self.millis(HIDDEN_MS);
                Mend::Show(node.clone(), partition)
            }
            17 | 18 => {
                let partition = self.partition();
                let occupant = world.hosts[node].fact(&partition).occupant;
                let Some(occupant) = occupant.filter(|occupant| occupant.ready && !occupant.erased) else { return };
                world.hosts[node].lose_group(&partition);
                let mut notes = lock(notes);
                notes.uncounted.insert((node.clone(), occupant.instance.clone()));
                notes.ungrouped.insert((node.clone(), occupant.instance));
                self.struck.ungrouped += 1;
                return self.log.push(format!("{:?} {node}: {partition} loses its group", sim.elapsed()));
            }
            _ => return,
        };
        self.log.push(format!("{:?} until {until:?} {mend:?}", sim.elapsed()));
        self.made += 1;
        self.open.insert(self.made, (until, mend));
    }

    /// By how many minutes a clock is set, in either direction: one time in four by hours or days.
    fn minutes(&mut self) -> i64 {
        let is_far = self.random.random_range(0..4) == 0;
        let minutes =
            self.random.random_range(if is_far { FAR_MINUTES + 1..FARTHEST_MINUTES } else { 1..NEAR_MINUTES });
        if self.random.random_bool(0.5) { minutes } else { -minutes }
    }

    fn set_clock(&mut self, world: &World, notes: &Shared, node: &NodeId, ahead_minutes: i64) {
        world.clocks[node].set_ahead(ahead_minutes * 60_000);
        if ahead_minutes.abs() > FAR_MINUTES {
            lock(notes).far_off.insert(node.clone());
            self.struck.forward += usize::from(ahead_minutes > 0);
            self.struck.back += usize::from(ahead_minutes < 0);
        }
    }

    fn partition(&mut self) -> PartitionName {
        partitions().nth(self.random.random_range(0..PARTITIONS)).expect("there are some")
    }

    fn mend(&mut self, n: u64, sim: &mut Sim<'_>, world: &World) {
        match self.open.remove(&n) {
            Some((_, Mend::Repair(a, b))) => sim.repair(a, b),
            Some((_, Mend::RepairOneWay(from, to))) => sim.repair_oneway(from, to),
            Some((_, Mend::Release(a, b))) => sim.release(a, b),
            Some((_, Mend::Bounce(who))) => sim.bounce(who),
            Some((_, Mend::SetRight(node))) => world.clocks[&node].set_ahead(0),
            Some((_, Mend::Hold(node, partition))) => world.hosts[&node].set_promise(&partition, &promise(), true),
            Some((_, Mend::MakeRoom(node))) => self.struck.roomless += world.set_full(&node, false),
            Some((_, Mend::Show(node, partition))) => world.hosts[&node].hide_group(&partition, false),
            None => {}
        }
    }

    /// Mends everything.
    pub fn end(&mut self, sim: &mut Sim<'_>, world: &World) {
        for n in self.open.keys().copied().collect::<Vec<_>>() {
            self.mend(n, sim, world);
        }
        for host in world.hosts.values() {
            host.set_faults(0, 0);
        }
    }

    /// What was done, for whoever looks into a failure.
    pub fn told(&self) -> String {
        self.log.join("\n")
    }
}

//! What goes wrong, drawn from the seed: lost connections, late and one-way messages, crashes, failing hosts,
//! clocks that are set.

use crate::world::{MASTER, NODES, World, node_name};
use plat_model::id::NodeId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::time::Duration;
use turmoil::Sim;

/// Mean time between two faults.
const BETWEEN_MS: u64 = 1000;
/// Longest time that one lasts.
const LAST_MS: u64 = 6000;

#[derive(Debug, Clone, PartialEq)]
enum Mend {
    Repair(String, String),
    RepairOneWay(String, String),
    Release(String, String),
    Bounce(String),
    SetRight(NodeId),
}

pub struct Faults {
    random: StdRng,
    next: Duration,
    /// What is mended, by the number of the fault, and when.
    open: BTreeMap<u64, (Duration, Mend)>,
    made: u64,
    log: Vec<String>,
}

impl Faults {
    pub fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            next: Duration::ZERO,
            open: BTreeMap::new(),
            made: 0,
            log: Vec::new(),
        }
    }

    fn millis(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.random.random_range(1..most))
    }

    /// Makes and mends what is due.
    pub fn step(&mut self, sim: &mut Sim<'_>, world: &World) {
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
        self.make(sim, world, &node);
    }

    fn make(&mut self, sim: &mut Sim<'_>, world: &World, node: &NodeId) {
        let until = sim.elapsed() + self.millis(LAST_MS);
        let (name, master) = (node.to_string(), MASTER.to_owned());
        let busy = |who: &str| self.open.values().any(|(_, mend)| matches!(mend, Mend::Bounce(one) if one == who));
        let linked = self.open.values().any(|(_, mend)| match mend {
            Mend::Repair(a, b) | Mend::RepairOneWay(a, b) | Mend::Release(a, b) => *a == name || *b == name,
            Mend::Bounce(_) | Mend::SetRight(_) => false,
        });
        let what = self.random.random_range(0..11);
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
                world.clocks[node].set_behind(self.random.random_range(1..3600));
                Mend::SetRight(node.clone())
            }
            _ => return,
        };
        self.log.push(format!("{:?} until {until:?} {mend:?}", sim.elapsed()));
        self.made += 1;
        self.open.insert(self.made, (until, mend));
    }

    fn mend(&mut self, n: u64, sim: &mut Sim<'_>, world: &World) {
        match self.open.remove(&n) {
            Some((_, Mend::Repair(a, b))) => sim.repair(a, b),
            Some((_, Mend::RepairOneWay(from, to))) => sim.repair_oneway(from, to),
            Some((_, Mend::Release(a, b))) => sim.release(a, b),
            Some((_, Mend::Bounce(who))) => sim.bounce(who),
            Some((_, Mend::SetRight(node))) => world.clocks[&node].set_behind(0),
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

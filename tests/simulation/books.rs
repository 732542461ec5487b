//! What instances use, and what is booked of it.

use crate::client::{Notes, Shared, lock};
use crate::world::{NODES, PARTITIONS, World, node_name, partitions};
use plat_master::store::Store;
use plat_model::id::{InstanceId, NodeId};
use plat_model::usage::{Amount, LedgerEntry, Meter};
use plat_tests::invariants::{self, Seen};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;

type User = (NodeId, InstanceId);

/// All use there ever was.
pub struct Books {
    random: StdRng,
    ledger: Vec<LedgerEntry>,
    /// Microseconds of CPU time that each instance really used, and where.
    used: BTreeMap<User, u64>,
    /// How much of that may have gone before anybody had read it.
    forgotten: BTreeMap<User, u64>,
    /// Whose control group was taken away, and what of its node was booked then: somebody is to say so after that.
    ungrouped: BTreeMap<User, u64>,
    /// Instances use CPU time.
    in_use: bool,
}

impl Books {
    pub fn new(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed ^ 0x5eed);
        let (ledger, used, forgotten, ungrouped) = (Vec::new(), BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { random, ledger, used, forgotten, ungrouped, in_use: true }
    }

    /// From now on nothing is used any more, so that the books can be closed.
    pub fn quiet(&mut self) {
        self.in_use = false;
    }

    /// # Errors
    /// The entry that is not as it was, or not as the sums have it.
    pub fn look(&mut self, before: &Seen, now: &Seen, world: &World) -> Result<(), String> {
        if now.revision != before.revision && now.state.tails != before.state.tails {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made");
            let ledger = runtime.block_on(world.store.ledger(None, 0, usize::MAX)).expect("a store in memory answers");
            invariants::the_ledger_only_grows(&self.ledger, &ledger, &now.state)?;
            self.ledger = ledger;
        }
        Ok(())
    }

    /// What is not booked yet of a machine that was started again, or of a control group that is gone, may never be.
    pub fn forget(&mut self, notes: &Shared) {
        let mut notes = lock(notes);
        let (uncounted, ungrouped) = (std::mem::take(&mut notes.uncounted), std::mem::take(&mut notes.ungrouped));
        drop(notes);
        if uncounted.is_empty() {
            return;
        }
        let booked = invariants::booked(&self.ledger);
        for user in uncounted {
            let booked = booked.get(&(user.1.clone(), Meter::CpuMicros)).copied().unwrap_or(0);
            let used = self.used.get(&user).copied().unwrap_or(0);
            // With a machine that is started again nobody is left who could tell of a group that was taken away before.
            self.ungrouped.remove(&user);
            self.forgotten.insert(user, used.saturating_sub(booked));
        }
        for user in ungrouped {
            let of_node = self.ledger.iter().filter(|entry| entry.node == user.0);
            let last = of_node.map(|entry| entry.sequence).max().unwrap_or(0);
            self.ungrouped.insert(user, last);
        }
    }

    /// Some running instance uses CPU time.
    pub fn use_some(&mut self, world: &World) {
        if !self.in_use || self.random.random_range(0..20) > 0 {
            return;
        }
        let node = node_name(self.random.random_range(1..=NODES));
        let partition = partitions().nth(self.random.random_range(0..PARTITIONS)).expect("there are some");
        let fact = world.hosts[&node].fact(&partition);
        let Some(occupant) = fact.occupant.filter(|occupant| occupant.ready && !occupant.erased) else { return };
        let micros = self.random.random_range(1..1_000_000);
        world.hosts[&node].use_cpu(&partition, micros);
        *self.used.entry((node, occupant.instance)).or_default() += micros;
    }

    /// Whether every bit of use is booked, once; what nobody can know is booked as unknown.
    ///
    /// # Errors
    /// Whose is not.
    pub fn at_rest(&self, notes: &Notes) -> Result<(), String> {
        let booked = invariants::booked(&self.ledger);
        for (user, used) in self.used.iter().filter(|((node, _), _)| !notes.revoked.contains(node)) {
            let booked = booked.get(&(user.1.clone(), Meter::CpuMicros)).copied().unwrap_or(0);
            let mut forgotten = self.forgotten.get(user).copied().unwrap_or(0);
            // A clock that is off by more than an hour is not believed: what is used meanwhile is booked as unknown.
            if notes.far_off.contains(&user.0) && self.is_unknown_after(user, 0) || self.ends_unknown(user) {
                forgotten = *used;
            }
            if !(used - forgotten..=*used).contains(&booked) {
                let id = &user.1;
                return Err(format!("{id} used {used} us, of which {forgotten} may be lost; {booked} are booked"));
            }
        }
        let ungrouped = self.ungrouped.iter().filter(|((node, _), _)| !notes.revoked.contains(node));
        match ungrouped.map(|(user, last)| (user, self.is_unknown_after(user, *last))).find(|(_, is_told)| !is_told) {
            Some(((node, id), _)) => {
                Err(format!("nobody says that what {id} used is unknown, after its group on {node} went"))
            }
            None => Ok(()),
        }
    }

    /// Whether something is booked as unknown after a number of its node's reports.
    fn is_unknown_after(&self, user: &User, sequence: u64) -> bool {
        let (node, id) = user;
        let later = self.ledger.iter().filter(|entry| entry.node == *node && entry.sequence > sequence);
        let mut lines = later.flat_map(|entry| &entry.lines).filter(|line| line.record.instance == *id);
        lines.any(|line| matches!(line.record.amounts.get(&Meter::CpuMicros), Some(Amount::Unknown(_))))
    }

    /// Whether it ended before anybody could read its control group again, or count on from where that was taken away.
    fn ends_unknown(&self, user: &User) -> bool {
        let (node, id) = user;
        let mut of_node = self.ledger.iter().filter(|entry| entry.node == *node).flat_map(|entry| &entry.lines);
        let last = of_node.rfind(|line| line.record.instance == *id);
        let cpu = last.and_then(|line| line.record.amounts.get(&Meter::CpuMicros));
        matches!(cpu, Some(Amount::Unknown(_)))
    }

    /// How many lines say that a control group could not be read.
    pub fn unread(&self) -> usize {
        let lines = self.ledger.iter().flat_map(|entry| &entry.lines);
        let why = lines.filter_map(|line| match line.record.amounts.get(&Meter::CpuMicros)? {
            Amount::Unknown(why) => Some(why),
            Amount::Known(_) => None,
        });
        why.filter(|why| why.contains("cannot be read")).count()
    }
}

//! What of a node's word can be: amounts that no machine uses in the time there was, and use that was reported before,
//! are booked as unknown, with the reason. So a forged report costs nobody, and it shows.
//!
//! A node counts each meter on from where it could last be read, and says when in whole windows that follow each other.
//! So a reading may cover more than its window (before, the meter could not be read, or the agent was away), but never
//! time that an earlier reading covered.

use super::{REASON_MAX, SKEW_MAX};
use crate::record::Sum;
use crate::state::State;
use plat_model::id::{InstanceId, NodeId};
use plat_model::time::{Timestamp, Window};
use plat_model::usage::{Amount, Meter, UsageRecord};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

/// By how much a reading may be ahead of the time it covers: clocks are set, and not everything is read at once.
const SLACK: Duration = Duration::from_secs(60);

/// What one instance cannot use more of in a second, on any machine there is: 4096 cores, 64 TiB of memory, 1 EiB of
/// disk, 1 TiB moved. What a node offers is no bound: it is the node's own word, and may be less than the machine has.
fn most_in_a_second(meter: Meter) -> u128 {
    match meter {
        Meter::CpuMicros => 4096 * 1_000_000,
        Meter::WallMillis => 1000,
        Meter::MemoryByteSeconds => 64 << 40,
        Meter::DiskByteSeconds => 1 << 60,
        Meter::IoBytes | Meter::NetworkBytes | Meter::NetworkReceivedBytes | Meter::NetworkSentBytes => 1 << 40,
    }
}

/// Up to when each meter of an instance has been read by one node.
pub(super) struct Covered<'a> {
    state: &'a State,
    node: &'a NodeId,
    /// By this report.
    now: BTreeMap<(InstanceId, Meter), Timestamp>,
}

impl<'a> Covered<'a> {
    pub(super) fn before(state: &'a State, node: &'a NodeId) -> Self {
        Self { state, node, now: BTreeMap::new() }
    }

    /// The record with what can be, and the rest as unknown.
    pub(super) fn believed(&mut self, record: &UsageRecord) -> UsageRecord {
        let mut believed = record.clone();
        for (meter, amount) in &mut believed.amounts {
            let why = match amount {
                Amount::Unknown(why) => std::mem::take(why),
                Amount::Known(used) => match self.doubt(record, *meter, *used) {
                    Some(why) => why,
                    None => {
                        self.now.insert((record.instance.clone(), *meter), record.window.end);
                        continue;
                    }
                },
            };
            *amount = Amount::Unknown(why.chars().take(REASON_MAX).collect());
        }
        for amount in believed.others.values_mut() {
            if let Amount::Unknown(why) = amount {
                *why = why.chars().take(REASON_MAX).collect();
            }
        }
        believed
    }

    fn doubt(&self, record: &UsageRecord, meter: Meter, used: u64) -> Option<String> {
        let (instance, window) = (&record.instance, record.window);
        let created = self.state.instances.get(instance).map(|instance| instance.created);
        if created.is_some_and(|created| window.start < created.minus(SKEW_MAX)) {
            return Some("its window begins before the instance was made".into());
        }
        let until = self.until(instance, meter);
        if until.is_some_and(|until| window.start < until) {
            return Some("its window overlaps one that was reported before".into());
        }
        // Of an instance that is gone and was never read, the sum says at least the month.
        let month = || self.state.sums_of(instance).next().map(|sum| sum.period.window().start);
        let from = until.or(created).or_else(month).map_or(window.start, |from| from.min(window.start));
        let most = most_in_a_second(meter) * (window.end.since(from) + SLACK).as_millis() / 1000;
        (u128::from(used) > most).then(|| format!("{used} {meter} are more than there can be in its window"))
    }

    fn until(&self, instance: &InstanceId, meter: Meter) -> Option<Timestamp> {
        let now = self.now.get(&(instance.clone(), meter)).copied();
        now.or_else(|| {
            self.state.sums_of(instance).filter_map(|sum| sum.read.get(self.node)?.get(&meter)).max().copied()
        })
    }
}

/// A record whose window ends farther ahead than a clock may be, as what it says for sure: something was used before now.
pub(super) fn until_now(record: &UsageRecord, now: Timestamp) -> Cow<'_, UsageRecord> {
    let window = record.window;
    if window.end <= now.plus(SKEW_MAX) {
        return Cow::Borrowed(record);
    }
    let mut told = record.clone();
    for amount in told.amounts.values_mut().chain(told.others.values_mut()) {
        *amount = Amount::Unknown("its window ends in the future: the node's clock is wrong".into());
    }
    let start = if window.start < now { window.start } else { now.minus(window.duration()) };
    told.window = Window { start, end: now };
    Cow::Owned(told)
}

/// Notes in a sum up to when a node has read the meters of a record.
pub(super) fn note(sum: &mut Sum, node: &NodeId, record: &UsageRecord) {
    let read = sum.read.entry(node.clone()).or_default();
    for (meter, _) in record.amounts.iter().filter(|(_, amount)| matches!(amount, Amount::Known(_))) {
        let until = read.entry(*meter).or_insert(record.window.end);
        *until = record.window.end.max(*until);
    }
}

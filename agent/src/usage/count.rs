//! From readings to amounts: arithmetic only.

use crate::host::Counters;
use plat_model::Timestamp;
use plat_model::id::{InstanceId, PartitionName};
use plat_model::time::Window;
use plat_model::usage::{Amount, Meter, UsageRecord};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// How far a partition's counters are counted: kept in the outbox with the report that counted them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Baseline {
    pub instance: InstanceId,
    pub epoch: u64,
    pub taken: Timestamp,
    /// Totals that were counted last, of those meters that could be read.
    pub totals: BTreeMap<Meter, u64>,
    /// Levels then, of those meters that could be read.
    #[serde(default)]
    pub levels: BTreeMap<Meter, u64>,
    /// The instance was gone then: there is nothing more to count.
    #[serde(default)]
    pub ended: bool,
}

/// The levels of one partition since its baseline.
#[derive(Debug, Clone, Default)]
pub(crate) struct Levels {
    last: BTreeMap<Meter, (Timestamp, u64)>,
    /// Byte-milliseconds.
    sums: BTreeMap<Meter, u128>,
    unknown: BTreeMap<Meter, String>,
}

/// Meters whose readings are levels.
pub(crate) fn is_level(meter: Meter) -> bool {
    matches!(meter, Meter::MemoryByteSeconds | Meter::DiskByteSeconds)
}

impl Levels {
    /// Of an instance that comes into an empty partition now.
    pub fn of_new(now: Timestamp) -> Self {
        let last = Meter::ALL.into_iter().filter(|meter| is_level(*meter)).map(|meter| (meter, (now, 0)));
        Self { last: last.collect(), ..Self::default() }
    }

    /// Goes on from where was counted last.
    pub fn after(baseline: &Baseline) -> Self {
        let last = baseline.levels.iter().map(|(meter, level)| (*meter, (baseline.taken, *level)));
        Self { last: last.collect(), ..Self::default() }
    }

    /// Adds one sample: the area between it and the one before. A pause longer than `gap_max` is not bridged.
    pub fn sample(&mut self, counters: &Counters, gap_max: Duration) {
        for (meter, amount) in counters.readings.iter().filter(|(meter, _)| is_level(**meter)) {
            let level = match amount {
                Amount::Known(level) => *level,
                Amount::Unknown(why) => {
                    self.unknown.insert(*meter, why.clone());
                    self.last.remove(meter);
                    continue;
                }
            };
            let Some((at, before)) = self.last.insert(*meter, (counters.taken, level)) else {
                self.unknown.insert(*meter, "there is no sample of when it began".into());
                continue;
            };
            let pause = counters.taken.since(at);
            if pause > gap_max {
                self.unknown.insert(*meter, format!("no sample was taken for {} s", pause.as_secs()));
            } else {
                *self.sums.entry(*meter).or_default() +=
                    (u128::from(before) + u128::from(level)) / 2 * pause.as_millis();
            }
        }
    }

    /// What was integrated is counted: go on from the last sample.
    pub fn counted(&mut self) {
        self.sums.clear();
        self.unknown.clear();
    }

    fn amount(&self, meter: Meter) -> Amount {
        match (self.unknown.get(&meter), self.sums.get(&meter)) {
            (Some(why), _) => Amount::Unknown(why.clone()),
            (None, Some(sum)) => Amount::Known(u64::try_from(sum / 1000).unwrap_or(u64::MAX)),
            (None, None) => Amount::Unknown("no sample was taken".into()),
        }
    }
}

/// What an instance used since its baseline (`before`), and the baseline after it. A total that is smaller than it was,
/// or of another epoch, has started again from zero. `start`: when the instance came, if there is no baseline.
pub(crate) fn count(
    partition: &PartitionName,
    counters: &Counters,
    before: Option<&Baseline>,
    start: Timestamp,
    levels: &Levels,
) -> (UsageRecord, Baseline) {
    let before = before.filter(|before| before.instance == counters.instance);
    let same_epoch = before.is_some_and(|before| before.epoch == counters.epoch);
    let counted = |meter: &Meter| before.and_then(|before| before.totals.get(meter)).copied().filter(|_| same_epoch);
    let mut totals = before.filter(|_| same_epoch).map(|before| before.totals.clone()).unwrap_or_default();
    let bridges = counters.lost.is_some() && !same_epoch;
    let (mut amounts, mut present) = (BTreeMap::new(), BTreeMap::new());
    for (meter, reading) in &counters.readings {
        let amount = match reading {
            _ if is_level(*meter) => match reading {
                Amount::Unknown(why) => Amount::Unknown(why.clone()),
                Amount::Known(level) => {
                    present.insert(*meter, *level);
                    levels.amount(*meter)
                }
            },
            Amount::Unknown(why) => Amount::Unknown(why.clone()),
            Amount::Known(_) if bridges => Amount::Unknown(counters.lost.clone().unwrap_or_default()),
            Amount::Known(total) => {
                totals.insert(*meter, *total);
                let before = counted(meter).unwrap_or(0);
                Amount::Known(if *total < before { *total } else { total - before })
            }
        };
        amounts.insert(*meter, amount);
    }
    let start = before.map_or(start, |before| before.taken).min(counters.taken);
    let window = Window { start, end: counters.taken };
    let (instance, partition, others) = (counters.instance.clone(), partition.clone(), BTreeMap::new());
    let record = UsageRecord { instance, partition, window, amounts, others };
    let after = Baseline {
        instance: counters.instance.clone(),
        epoch: counters.epoch,
        taken: counters.taken,
        totals,
        levels: present,
        ended: false,
    };
    (record, after)
}

/// Whether a record says anything: something used, or something that could not be read.
pub(crate) fn says_something(record: &UsageRecord) -> bool {
    record.amounts.values().any(|amount| !matches!(amount, Amount::Known(0)))
}

#[cfg(test)]
mod tests;

//! From readings to amounts: arithmetic only.

use crate::host::Counters;
use plat_agent_plan::{Moment, Steady};
use plat_model::Timestamp;
use plat_model::id::{InstanceId, PartitionName};
use plat_model::time::Window;
use plat_model::usage::{Amount, Meter, UsageRecord};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The master takes a reading for true that is ahead of the time it covers by no more than a minute; so much shorter than
/// its time a window may be made.
const SHORTER_MAX: Duration = Duration::from_secs(30);
/// The master books what lies farther ahead than this as unknown.
const AHEAD_MAX: Duration = Duration::from_secs(3600);

/// How far a partition's counters are counted: kept in the outbox with the report that counted them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Baseline {
    pub instance: InstanceId,
    pub epoch: u64,
    /// The end of the last window that was reported. In the ledger time never goes back: where the clock is behind this,
    /// the next window begins here all the same.
    pub taken: Timestamp,
    /// When the counters were read for it; an older agent does not say.
    #[serde(default)]
    pub read: Option<Moment>,
    /// Totals that were counted last, of those meters that could be read.
    pub totals: BTreeMap<Meter, u64>,
    /// Levels then, of those meters that could be read.
    #[serde(default)]
    pub levels: BTreeMap<Meter, u64>,
    /// The instance was gone then: there is nothing more to count.
    #[serde(default)]
    pub ended: bool,
}

/// When levels were read last.
#[derive(Debug, Clone, Copy, Default)]
enum Sampled {
    #[default]
    Never,
    Here(Moment),
    /// By the agent before this one, perhaps before the machine was restarted.
    Before(Timestamp, Option<Steady>),
}

impl Sampled {
    fn wall(self) -> Option<Timestamp> {
        match self {
            Self::Never => None,
            Self::Here(Moment { wall, .. }) | Self::Before(wall, _) => Some(wall),
        }
    }

    /// How long ago that is.
    fn pause(self, now: Moment) -> Option<Duration> {
        match self {
            Self::Never => None,
            Self::Here(then) => Some(now.since(then)),
            // One of the clocks may have begun anew, or been set back, meanwhile.
            Self::Before(wall, steady) => {
                Some(now.wall.since(wall).max(steady.map_or(Duration::ZERO, |steady| now.steady.since(steady))))
            }
        }
    }
}

/// The levels of one partition since its baseline.
#[derive(Debug, Clone, Default)]
pub(crate) struct Levels {
    sampled: Sampled,
    last: BTreeMap<Meter, u64>,
    /// Byte-milliseconds.
    sums: BTreeMap<Meter, u128>,
    unknown: BTreeMap<Meter, String>,
    gap: Option<Gap>,
}

/// A time without samples.
#[derive(Debug, Clone)]
struct Gap {
    from: Timestamp,
    /// What was known of the time before it.
    before: BTreeMap<Meter, Amount>,
}

/// Meters whose readings are levels.
pub(crate) fn is_level(meter: Meter) -> bool {
    matches!(meter, Meter::MemoryByteSeconds | Meter::DiskByteSeconds)
}

fn level_meters() -> impl Iterator<Item = Meter> {
    Meter::ALL.into_iter().filter(|meter| is_level(*meter))
}

impl Levels {
    /// Of an instance that comes into an empty partition now.
    pub fn of_new(now: Moment) -> Self {
        Self { sampled: Sampled::Here(now), last: level_meters().map(|meter| (meter, 0)).collect(), ..Self::default() }
    }

    /// Goes on from where the agent before this one has counted.
    pub fn after(baseline: &Baseline) -> Self {
        let wall = baseline.read.map_or(baseline.taken, |read| read.wall);
        let sampled = Sampled::Before(wall, baseline.read.map(|read| read.steady));
        Self { sampled, last: baseline.levels.clone(), ..Self::default() }
    }

    /// Adds one sample: the area between it and the one before. A pause longer than `gap_max` is not bridged.
    pub fn sample(&mut self, counters: &Counters, gap_max: Duration) {
        let pause = self.sampled.pause(counters.taken).unwrap_or_default();
        let bridged = pause <= gap_max;
        if !bridged {
            self.begin_gap(counters.taken.wall);
        }
        self.sampled = Sampled::Here(counters.taken);
        for (meter, amount) in counters.readings.iter().filter(|(meter, _)| is_level(**meter)) {
            let level = match amount {
                Amount::Known(level) => *level,
                Amount::Unknown(why) => {
                    self.unknown.insert(*meter, why.clone());
                    self.last.remove(meter);
                    continue;
                }
            };
            match self.last.insert(*meter, level) {
                None => drop(self.unknown.insert(*meter, "there is no sample of when it began".into())),
                Some(before) if bridged => {
                    *self.sums.entry(*meter).or_default() +=
                        (u128::from(before) + u128::from(level)) / 2 * pause.as_millis();
                }
                Some(_) => {}
            }
        }
    }

    fn begin_gap(&mut self, to: Timestamp) {
        let from = self.gap.as_ref().map(|gap| gap.from).or(self.sampled.wall()).unwrap_or(to);
        let why = format!("the agent was away from {from} to {to}");
        if self.gap.is_none() {
            let seen = level_meters().filter(|meter| self.sums.contains_key(meter) || self.unknown.contains_key(meter));
            self.gap = Some(Gap { from, before: seen.map(|meter| (meter, self.amount(meter))).collect() });
        }
        self.sums.clear();
        self.unknown.extend(level_meters().map(|meter| (meter, why.clone())));
    }

    /// There was a time without samples: the sooner the rest is counted, the less is unknown.
    pub fn has_gap(&self) -> bool {
        self.gap.is_some()
    }

    /// What was integrated is counted: go on from the last sample.
    pub fn counted(&mut self) {
        self.sums.clear();
        self.unknown.clear();
        self.gap = None;
    }

    fn amount(&self, meter: Meter) -> Amount {
        match (self.unknown.get(&meter), self.sums.get(&meter)) {
            (Some(why), _) => Amount::Unknown(why.clone()),
            (None, Some(sum)) => Amount::Known(u64::try_from(sum / 1000).unwrap_or(u64::MAX)),
            (None, None) => Amount::Unknown("no sample was taken".into()),
        }
    }
}

/// A reading that is to be counted.
pub(crate) struct Taking<'a> {
    pub partition: &'a PartitionName,
    pub counters: &'a Counters,
    pub before: Option<&'a Baseline>,
    /// When the instance came, if there is no baseline.
    pub since: Moment,
    pub levels: &'a Levels,
    /// Where the window ends, by the clock.
    pub end: Timestamp,
}

impl Taking<'_> {
    /// What is counted from, if it was this instance's.
    fn base(&self) -> Option<&Baseline> {
        self.before.filter(|before| before.instance == self.counters.instance)
    }

    /// The window in the ledger: it begins where the last one ended and is as long as its time, or a little less while the
    /// clock is behind.
    fn window(&self) -> Window {
        let (mut start, read) = self.base().map_or((self.since.wall, Some(self.since)), |base| (base.taken, base.read));
        let elapsed = read.map_or(Duration::ZERO, |read| self.counters.taken.since(read));
        if start > self.end.plus(AHEAD_MAX) {
            // What was so far ahead is booked as unknown.
            start = self.end.minus(elapsed);
        }
        let least = start.plus(elapsed.saturating_sub((elapsed / 2).min(SHORTER_MAX)));
        // Never empty, nor too short to be divided: such a one would be refused with all that it says.
        Window { start, end: self.end.max(least).max(start.plus(Duration::from_millis(2))) }
    }
}

/// What an instance used since its baseline, and the baseline after it. A total that is smaller than it was, or of another
/// epoch, has started again from zero. After a gap there are two records: of levels before it, and of all the rest.
pub(crate) fn count(taking: &Taking<'_>) -> (Vec<UsageRecord>, Baseline) {
    let (counters, levels, before) = (taking.counters, taking.levels, taking.base());
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
    let mut window = taking.window();
    let record = |window, amounts| UsageRecord {
        instance: counters.instance.clone(),
        partition: taking.partition.clone(),
        window,
        amounts,
        others: BTreeMap::new(),
    };
    let mut records = Vec::new();
    if let Some(gap) = levels.gap.as_ref().filter(|gap| !gap.before.is_empty()) {
        let moment = Duration::from_millis(1);
        let from = gap.from.clamp(window.start.plus(moment), window.end.minus(moment));
        records.push(record(Window { end: from, ..window }, gap.before.clone()));
        window.start = from;
    }
    records.push(record(window, amounts));
    let after = Baseline {
        instance: counters.instance.clone(),
        epoch: counters.epoch,
        taken: window.end,
        read: Some(counters.taken),
        totals,
        levels: present,
        ended: false,
    };
    (records, after)
}

/// Whether a record says anything: something used, or something that could not be read.
pub(crate) fn says_something(record: &UsageRecord) -> bool {
    record.amounts.values().any(|amount| !matches!(amount, Amount::Known(0)))
}

#[cfg(test)]
mod tests;

//! Use over the end of a month is split there, by time.

use plat_model::time::{Period, Window};
use plat_model::usage::{Amount, UsageRecord};

/// The record, or its parts within each month. Known amounts are divided by time and add up exactly; an unknown one is
/// unknown in each.
pub(super) fn over_months(record: &UsageRecord) -> Vec<UsageRecord> {
    let whole = record.window;
    let span = u128::from(whole.end.0.abs_diff(whole.start.0)).max(1);
    let upto = |amount: u64, at: i64| -> u64 {
        let share = u128::from(amount) * u128::from(at.abs_diff(whole.start.0)) / span;
        u64::try_from(share).unwrap_or(u64::MAX)
    };
    let mut parts = Vec::new();
    let mut start = whole.start;
    while start < whole.end {
        let end = Period::of(start).window().end.min(whole.end);
        let part = |amount: &Amount| match amount {
            Amount::Known(all) => Amount::Known(upto(*all, end.0) - upto(*all, start.0)),
            Amount::Unknown(reason) => Amount::Unknown(reason.clone()),
        };
        parts.push(UsageRecord {
            instance: record.instance.clone(),
            partition: record.partition.clone(),
            window: Window { start, end },
            amounts: record.amounts.iter().map(|(meter, amount)| (*meter, part(amount))).collect(),
            others: record.others.iter().map(|(meter, amount)| (meter.clone(), part(amount))).collect(),
        });
        start = end;
    }
    parts
}

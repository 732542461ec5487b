//! Metered use. A meter that this version does not know is kept by its name, so that a node with a newer agent is booked
//! and nothing of its reports is lost.

use crate::convert::{IntoModel, Place, bounded, owned};
use crate::limits::{AMOUNTS_MAX, TEXT_MAX, USAGE_RECORDS_MAX};
use crate::v1;
use plat_model::Problems;
use plat_model::id::{InstanceId, PartitionName, shorten};
use plat_model::time::Window;
use plat_model::usage::{Amount, Meter, UsageRecord, UsageReport};
use std::collections::BTreeMap;

owned! {
    v1::UsageRecord, UsageRecord;
    v1::UsageReport, UsageReport;
}

/// Longest name of a meter.
const METER_MAX: usize = 64;

fn wire(meter: &str, amount: &Amount) -> v1::Amount {
    let reading = match amount {
        Amount::Known(amount) => v1::amount::Reading::Known(*amount),
        Amount::Unknown(why) => v1::amount::Reading::Unknown(bounded(why, TEXT_MAX)),
    };
    v1::Amount { meter: meter.into(), reading: Some(reading) }
}

impl From<(&Meter, &Amount)> for v1::Amount {
    fn from((meter, amount): (&Meter, &Amount)) -> Self {
        wire(meter.name(), amount)
    }
}

/// A meter's name may be one that this version does not know.
impl IntoModel for v1::Amount {
    type Model = (String, Amount);
    fn read(self, at: &Place, problems: &mut Problems) -> Option<(String, Amount)> {
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let is_name = (1..=METER_MAX).contains(&self.meter.len()) && self.meter.chars().all(letters);
        if !is_name {
            let what = format!("`{}` cannot be the name of a meter", shorten(&self.meter));
            problems.push(at.field("meter").wrong(what));
        }
        let amount = match self.reading {
            Some(v1::amount::Reading::Known(amount)) => Some(Amount::Known(amount)),
            Some(v1::amount::Reading::Unknown(why)) => {
                at.field("unknown").text(why, TEXT_MAX, problems).map(Amount::Unknown)
            }
            None => {
                problems.push(at.wrong("a meter has neither an amount nor a reason why there is none"));
                None
            }
        };
        is_name.then_some((self.meter, amount?))
    }
}

impl From<&UsageRecord> for v1::UsageRecord {
    fn from(record: &UsageRecord) -> Self {
        Self {
            instance: record.instance.to_string(),
            partition: record.partition.to_string(),
            start_ms: record.window.start.0,
            end_ms: record.window.end.0,
            amounts: record
                .amounts
                .iter()
                .map(Into::into)
                .chain(record.others.iter().map(|(meter, amount)| wire(meter, amount)))
                .collect(),
        }
    }
}

impl IntoModel for v1::UsageRecord {
    type Model = UsageRecord;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<UsageRecord> {
        let instance = at.field("instance").parse(&self.instance, InstanceId::parse, problems);
        let partition = at.field("partition").parse(&self.partition, PartitionName::parse, problems);
        let start = at.field("start_ms").time(self.start_ms, problems);
        let end = at.field("end_ms").time(self.end_ms, problems);
        if self.end_ms < self.start_ms {
            problems.push(at.field("end_ms").wrong("a window ends before it starts"));
        }
        let list = at.field("amounts").all(self.amounts, AMOUNTS_MAX, problems)?;
        let (mut amounts, mut others) = (BTreeMap::new(), BTreeMap::new());
        for (name, amount) in list {
            let twice = match Meter::parse(&name) {
                Some(meter) => amounts.insert(meter, amount).is_some(),
                None => others.insert(name.clone(), amount).is_some(),
            };
            if twice {
                at.field("amounts").twice(&name, problems);
            }
        }
        let window = Window { start: start?, end: end? };
        Some(UsageRecord { instance: instance?, partition: partition?, window, amounts, others })
    }
}

impl From<&UsageReport> for v1::UsageReport {
    fn from(report: &UsageReport) -> Self {
        Self {
            sequence: report.sequence,
            taken_ms: report.taken.0,
            records: report.records.iter().map(Into::into).collect(),
        }
    }
}

impl IntoModel for v1::UsageReport {
    type Model = UsageReport;
    fn read(self, at: &Place, problems: &mut Problems) -> Option<UsageReport> {
        if self.sequence == 0 {
            problems.push(at.field("sequence").wrong("a usage report has no number"));
        }
        let taken = at.field("taken_ms").time(self.taken_ms, problems);
        let records = at.field("records").all(self.records, USAGE_RECORDS_MAX, problems);
        Some(UsageReport { sequence: self.sequence, taken: taken?, records: records? })
    }
}

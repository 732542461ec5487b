//! Metered use. A meter that this version does not know is a problem, never dropped: a report that cannot be booked
//! whole stays in its node's outbox until the master knows the meter.

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

impl From<(&Meter, &Amount)> for v1::Amount {
    fn from((meter, amount): (&Meter, &Amount)) -> Self {
        let reading = match amount {
            Amount::Known(amount) => v1::amount::Reading::Known(*amount),
            Amount::Unknown(why) => v1::amount::Reading::Unknown(bounded(why, TEXT_MAX)),
        };
        Self { meter: meter.name().into(), reading: Some(reading) }
    }
}

impl IntoModel for v1::Amount {
    type Model = (Meter, Amount);
    fn read(self, at: &Place, problems: &mut Problems) -> Option<(Meter, Amount)> {
        let meter = Meter::parse(&self.meter);
        if meter.is_none() {
            problems.push(
                at.field("meter")
                    .wrong(format!("the meter `{}` is not known to this version", shorten(&self.meter)))
                    .fix("upgrade the master first; the report stays on its node until then"),
            );
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
        Some((meter?, amount?))
    }
}

impl From<&UsageRecord> for v1::UsageRecord {
    fn from(record: &UsageRecord) -> Self {
        Self {
            instance: record.instance.to_string(),
            partition: record.partition.to_string(),
            start_ms: record.window.start.0,
            end_ms: record.window.end.0,
            amounts: record.amounts.iter().map(Into::into).collect(),
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
        let mut amounts = BTreeMap::new();
        for (meter, amount) in list {
            if amounts.insert(meter, amount).is_some() {
                at.field("amounts").twice(meter.name(), problems);
            }
        }
        let window = Window { start: start?, end: end? };
        Some(UsageRecord { instance: instance?, partition: partition?, window, amounts })
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

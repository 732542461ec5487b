//! The ledger: each usage report of a node is booked once, in the order of its numbers, and never changed.
//!
//! A line's project comes from the master's rows. An instance that is gone is still known by its sums (see
//! [`Sum::nodes`]). A line about an instance that was never on the node, or with an impossible window, is booked under
//! no one: it is refused and told, and the report's number counts as booked, so that one bad line holds up nothing.
//! An amount that cannot be is booked as unknown, and so is all that a node tells whose clock is too far ahead.

use crate::change::Change;
use crate::record::{Key, MeterSum, Record, Sum, Tail};
use crate::state::State;
use plat_model::id::{Digest, InstanceId, InstanceName, NodeId, ProjectName};
use plat_model::problem::{Problem, codes};
use plat_model::time::{Period, Timestamp};
use plat_model::usage::{Amount, LedgerEntry, LedgerLine, UsageRecord, UsageReport};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

mod believe;
mod split;

/// Most records of one report.
pub const RECORDS_MAX: usize = 100_000;
/// Longest window of one record.
pub const WINDOW_MAX: Duration = Duration::from_secs(100 * 24 * 3600);
/// How far a node's clock may be ahead.
pub const SKEW_MAX: Duration = Duration::from_secs(3600);
/// How much of the reason that a meter could not be read is kept, in characters.
const REASON_MAX: usize = 300;

/// What a report comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Booking {
    Booked {
        changes: Vec<Change>,
        read: Vec<Key>,
        /// Lines that are booked under no one.
        refused: Vec<Problem>,
    },
    /// It was booked before. The node may forget everything up to `booked`.
    Duplicate { booked: u64 },
}

/// Books a report of `node`.
///
/// # Errors
/// [`codes::LEDGER_GAP`] if a report is missing before it; [`codes::TOO_LARGE`] past [`RECORDS_MAX`];
/// [`codes::NOT_FOUND`] for an unknown node.
pub fn book(state: &State, node: &NodeId, report: &UsageReport, now: Timestamp) -> Result<Booking, Problem> {
    if !state.nodes.contains_key(node) {
        return Err(Problem::new(codes::NOT_FOUND, format!("there is no node `{node}`")));
    }
    let tail = state.tails.get(node);
    let booked = tail.map_or(0, |tail| tail.sequence);
    if report.sequence <= booked {
        return Ok(Booking::Duplicate { booked });
    }
    if report.sequence != booked + 1 {
        return Err(Problem::new(codes::LEDGER_GAP, format!("usage report {} of `{node}` is early", report.sequence))
            .because(format!("report {} is expected next", booked + 1))
            .fix("send the reports in the order of their numbers"));
    }
    if report.records.len() > RECORDS_MAX {
        return Err(Problem::new(
            codes::TOO_LARGE,
            format!("usage report {} of `{node}` is too large", report.sequence),
        )
        .because(format!("{} records; {RECORDS_MAX} are allowed", report.records.len())));
    }
    let mut refused = Vec::new();
    let mut lines = Vec::new();
    let mut sums: BTreeMap<Key, Sum> = BTreeMap::new();
    let mut read = BTreeSet::new();
    let mut covered = believe::Covered::before(state, node);
    for record in &report.records {
        let (project, name) = match attribute(state, node, record) {
            Ok(owner) => owner,
            Err(problem) => {
                refused.push(problem);
                continue;
            }
        };
        let record = believe::until_now(record, now);
        for record in split::over_months(&covered.believed(&record)) {
            let own = Period::of(record.window.start);
            let period = open_period(state, &project, own, now);
            read.insert(Key::Statement(project.clone(), period));
            let key = Key::Sum(project.clone(), period, record.instance.clone());
            let sum = sums.entry(key).or_insert_with(|| sum_of(state, &project, period, &record.instance, &name));
            sum.nodes.insert(node.clone());
            believe::note(sum, node, &record);
            add(sum, &record, period != own);
            lines.push(LedgerLine { project: project.clone(), record });
        }
    }
    let hash = chain(tail.map(|tail| &tail.hash), node, report.sequence, &lines)?;
    let mut changes: Vec<Change> = sums.into_values().map(|sum| Change::put(Record::Sum(sum))).collect();
    let entry = LedgerEntry { node: node.clone(), sequence: report.sequence, booked: now, hash: hash.clone(), lines };
    changes.push(Change::put(Record::Ledger(entry)));
    changes.push(Change::put(Record::Tail(Tail { node: node.clone(), sequence: report.sequence, hash })));
    Ok(Booking::Booked { changes, read: read.into_iter().collect(), refused })
}

/// Whose a record is, by the master's rows.
fn attribute(state: &State, node: &NodeId, record: &UsageRecord) -> Result<(ProjectName, InstanceName), Problem> {
    let refuse = |code, why: &str| {
        Problem::new(code, format!("usage that `{node}` reported of instance {} is not booked", record.instance))
            .because(why)
    };
    let window = record.window;
    if window.start.0 < 0 || window.end <= window.start || window.duration() > WINDOW_MAX {
        return Err(refuse(codes::BAD_VALUE, "its window is empty or too long"));
    }
    if let Some(instance) = state.instances.get(&record.instance)
        && instance.placement.as_ref().is_some_and(|place| &place.node == node)
    {
        return Ok((instance.project.clone(), instance.name.clone()));
    }
    match state.sums_of(&record.instance).filter(|sum| sum.nodes.contains(node)).last() {
        Some(sum) => Ok((sum.project.clone(), sum.name.clone())),
        None => Err(refuse(codes::NOT_YOURS, "the instance was never on this node")),
    }
}

/// The period that use of `own` counts into: itself, or if that is closed the present one.
fn open_period(state: &State, project: &ProjectName, own: Period, now: Timestamp) -> Period {
    let is_closed = |period: Period| state.statements.contains_key(&(project.clone(), period));
    let mut period = if is_closed(own) { own.max(Period::of(now)) } else { own };
    while is_closed(period) {
        period = period.next();
    }
    period
}

fn sum_of(state: &State, project: &ProjectName, period: Period, instance: &InstanceId, name: &InstanceName) -> Sum {
    let known = state.sums.get(&(project.clone(), period)).and_then(|sums| sums.get(instance));
    known.cloned().unwrap_or_else(|| Sum {
        project: project.clone(),
        period,
        instance: instance.clone(),
        name: name.clone(),
        nodes: BTreeSet::new(),
        read: BTreeMap::new(),
        meters: BTreeMap::new(),
    })
}

fn add(sum: &mut Sum, record: &UsageRecord, is_late: bool) {
    for (meter, amount) in &record.amounts {
        let meter: &mut MeterSum = sum.meters.entry(*meter).or_default();
        match amount {
            Amount::Known(amount) => {
                meter.amount = meter.amount.saturating_add(*amount);
                if is_late {
                    meter.adjustment = meter.adjustment.saturating_add(*amount);
                }
            }
            Amount::Unknown(reason) => {
                meter.unknown_windows += 1;
                meter.unknown_reason.clone_from(reason);
            }
        }
    }
}

/// The hash of an entry: over the one before it (64 zeros before the first), its node, its number and its lines.
fn chain(before: Option<&Digest>, node: &NodeId, sequence: u64, lines: &[LedgerLine]) -> Result<Digest, Problem> {
    let lines = serde_json::to_string(lines).map_err(|error| {
        Problem::new(codes::INTERNAL, format!("report {sequence} of `{node}` cannot be written as JSON")).because(error)
    })?;
    let before = before.map_or("0".repeat(64), Digest::to_string);
    let text = format!("{before}\n{node}\n{sequence}\n{lines}");
    let hex: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    Digest::parse(&hex)
}

/// Checks a node's entries, in order: each follows `before` or the one before it, and is as it was booked. `before` is
/// the number and hash of the last entry that was checked already.
///
/// # Errors
/// [`codes::LEDGER_CHANGED`] naming the first entry that is not.
pub fn verify_chain(entries: &[LedgerEntry], before: Option<(u64, &Digest)>) -> Result<(), Problem> {
    let (mut sequence, mut hash) = before.map_or((0, None), |(sequence, hash)| (sequence, Some(hash)));
    for entry in entries {
        let changed = |why: &str| {
            Problem::new(codes::LEDGER_CHANGED, format!("entry {} of `{}` is not right", entry.sequence, entry.node))
                .because(why)
                .fix("compare with an export made earlier, and find who could write to the master's store")
        };
        if entry.sequence != sequence + 1 {
            return Err(changed("the entry before it is missing"));
        }
        if chain(hash, &entry.node, entry.sequence, &entry.lines)? != entry.hash {
            return Err(changed("its hash is not that of its lines and the entry before it"));
        }
        (sequence, hash) = (entry.sequence, Some(&entry.hash));
    }
    Ok(())
}

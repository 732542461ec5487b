use super::given::*;
use plat_master_plan::ledger::{Booking, book, verify_chain};
use plat_master_plan::record::{Rate, RateCard, Record};
use plat_master_plan::statement::{close, due, parse_price, set_rate_card, statement};
use plat_master_plan::{Change, Key};
use plat_model::Timestamp;
use plat_model::id::{InstanceId, PartitionName};
use plat_model::instance::{InstanceState, Wish};
use plat_model::problem::codes;
use plat_model::time::{Period, Window};
use plat_model::usage::{Amount, LedgerEntry, Meter, UsageRecord, UsageReport};
use std::collections::BTreeMap;
use std::time::Duration;

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn period(text: &str) -> Period {
    Period::parse(text).unwrap()
}

fn used(id: &InstanceId, start: &str, end: &str, micros: Option<u64>) -> UsageRecord {
    let amount = micros.map_or(Amount::Unknown("no controller".into()), Amount::Known);
    UsageRecord {
        instance: id.clone(),
        partition: PartitionName::parse("part0000").unwrap(),
        window: Window { start: at(start), end: at(end) },
        amounts: [(Meter::CpuMicros, amount)].into(),
        others: BTreeMap::new(),
    }
}

fn report(sequence: u64, records: Vec<UsageRecord>) -> UsageReport {
    UsageReport { sequence, taken: NOW, records }
}

fn placed() -> (Grid, InstanceId) {
    let mut grid = Grid::new();
    grid.now = at("2026-10-01T00:00:00Z");
    grid.node("n1", 2, memory(100));
    grid.release("pg");
    let id = grid.wants("db", memory(10));
    grid.wants("web", memory(10));
    grid.allocate();
    grid.now = NOW;
    (grid, id)
}

fn booked(grid: &mut Grid, report: &UsageReport) -> usize {
    match book(&grid.state, &node("n1"), report, grid.now).unwrap() {
        Booking::Booked { changes, refused, .. } => {
            grid.apply(&changes);
            refused.len()
        }
        Booking::Duplicate { booked } => panic!("{} was booked already, up to {booked}", report.sequence),
    }
}

fn sum(grid: &Grid, month: &str) -> u64 {
    let sums = grid.state.sums.get(&(project("shop"), period(month)));
    sums.into_iter()
        .flat_map(|sums| sums.values())
        .filter_map(|s| s.meters.get(&Meter::CpuMicros))
        .map(|m| m.amount)
        .sum()
}

fn entries(grid: &Grid) -> Vec<LedgerEntry> {
    let ledger = grid.records.iter().filter(|(key, _)| matches!(key, Key::Ledger(..)));
    ledger.filter_map(|(_, r)| if let Record::Ledger(entry) = r { Some(entry.clone()) } else { None }).collect()
}

const HOUR: (&str, &str) = ("2026-11-21T07:00:00Z", "2026-11-21T08:00:00Z");

#[test]
fn a_report_counts_once_however_often_it_comes_and_never_before_its_turn() {
    let (mut grid, id) = placed();
    let first = report(1, vec![used(&id, HOUR.0, HOUR.1, Some(5))]);
    let third = report(3, vec![]);
    booked(&mut grid, &first);
    let again = book(&grid.state, &node("n1"), &first, grid.now).unwrap();
    assert_eq!(again, Booking::Duplicate { booked: 1 });
    assert_eq!(book(&grid.state, &node("n1"), &third, grid.now).unwrap_err().code, codes::LEDGER_GAP);
    assert_eq!(sum(&grid, "2026-11"), 5);
}

#[test]
fn late_use_of_an_instance_that_is_gone_is_still_its_projects() {
    let (mut grid, id) = placed();
    grid.wish("db", Wish::Destroyed);
    grid.reports(&id, InstanceState::Destroyed);
    assert_eq!(booked(&mut grid, &report(1, vec![used(&id, HOUR.0, HOUR.1, Some(7))])), 0);
    assert_eq!(sum(&grid, "2026-11"), 7);
    grid.node("n2", 1, memory(1));
    let foreign = book(&grid.state, &node("n2"), &report(1, vec![used(&id, HOUR.0, HOUR.1, Some(7))]), grid.now);
    let Ok(Booking::Booked { refused, .. }) = foreign else { panic!("{foreign:?}") };
    assert_eq!(refused[0].code, codes::NOT_YOURS);
    grid.check();
}

#[test]
fn one_impossible_line_holds_up_nothing() {
    let (mut grid, id) = placed();
    let lines = vec![used(&id, HOUR.1, HOUR.0, Some(1)), used(&id, HOUR.0, "2027-11-21T08:00:00Z", Some(1))];
    assert_eq!(booked(&mut grid, &report(1, lines)), 2);
    assert_eq!(booked(&mut grid, &report(2, vec![used(&id, HOUR.0, HOUR.1, Some(1))])), 0);
    assert_eq!(sum(&grid, "2026-11"), 1);
}

#[test]
fn use_over_the_end_of_a_month_is_split_there_and_what_is_late_for_a_closed_one_is_an_adjustment() {
    let (mut grid, id) = placed();
    let split = used(&id, "2026-10-31T23:00:00Z", "2026-11-01T02:00:00Z", Some(100));
    booked(&mut grid, &report(1, vec![split]));
    assert_eq!((sum(&grid, "2026-10"), sum(&grid, "2026-11")), (33, 67));
    assert_eq!(due(&grid.state, grid.now), [(project("shop"), period("2026-10"))]);
    let closed = close(&grid.state, &project("shop"), period("2026-10"), grid.now).unwrap();
    let closed = grid.commit(closed);
    let web = grid.instance("web").id.clone();
    booked(&mut grid, &report(2, vec![used(&web, "2026-10-30T00:00:00Z", "2026-10-30T01:00:00Z", Some(9))]));
    assert_eq!(statement(&grid.state, &project("shop"), period("2026-10")), Ok(closed));
    let present = statement(&grid.state, &project("shop"), period("2026-11")).unwrap();
    let lines: Vec<_> = present.lines.iter().map(|line| (line.amount, line.adjustment)).collect();
    assert_eq!(lines, [(67, false), (9, true)]);
    assert!(close(&grid.state, &project("shop"), period("2026-10"), grid.now).unwrap().changes.is_empty());
    assert_eq!(close(&grid.state, &project("shop"), period("2026-11"), grid.now).unwrap_err().code, codes::BAD_VALUE);
}

#[test]
fn a_changed_or_missing_entry_shows() {
    let (mut grid, id) = placed();
    for n in 1..=3 {
        let (start, end) = (format!("2026-11-21T0{n}:00:00Z"), format!("2026-11-21T0{}:00:00Z", n + 1));
        booked(&mut grid, &report(n, vec![used(&id, &start, &end, Some(n))]));
    }
    let all = entries(&grid);
    assert_eq!(verify_chain(&all, None), Ok(()));
    assert_eq!(verify_chain(&all[1..], Some((1, &all[0].hash))), Ok(()));
    let mut changed = all.clone();
    changed[1].lines[0].record.amounts.insert(Meter::CpuMicros, Amount::Known(1));
    for wrong in [changed, vec![all[0].clone(), all[2].clone()]] {
        assert_eq!(verify_chain(&wrong, None).unwrap_err().code, codes::LEDGER_CHANGED);
    }
}

#[test]
fn a_price_is_exact_and_never_invented_and_unknown_is_not_zero() {
    let (mut grid, id) = placed();
    let lines = vec![used(&id, HOUR.0, HOUR.1, Some(5_400_000_000)), used(&id, HOUR.0, HOUR.1, None)];
    booked(&mut grid, &report(1, lines));
    let free = statement(&grid.state, &project("shop"), period("2026-11")).unwrap();
    assert_eq!((free.total.as_str(), free.lines[0].price.as_str()), ("0", ""));
    assert!(free.notes[0].contains("no rate card"), "{:?}", free.notes);
    let price_micros = parse_price("0.05").unwrap();
    let rate = Rate { meter: Meter::CpuMicros, unit: "core-hour".into(), per: 3_600_000_000, price_micros };
    let card = RateCard { currency: "EUR".into(), from: grid.now, rates: vec![rate] };
    let decision = set_rate_card(&grid.state, card).unwrap();
    grid.commit(decision);
    let priced = statement(&grid.state, &project("shop"), period("2026-11")).unwrap();
    let line = &priced.lines[0];
    assert_eq!((line.quantity.as_str(), line.price.as_str(), line.cost.as_str()), ("1.5", "0.05", "0.075"));
    assert_eq!((priced.total.as_str(), priced.currency.as_str(), line.unknown_windows), ("0.075", "EUR", 1));
    for wrong in ["-1", "1e3", "", ".", "1.", "0.1234567", "9999999999999"] {
        assert!(parse_price(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_change_that_comes_twice_changes_no_sum() {
    let (mut grid, id) = placed();
    let one = report(1, vec![used(&id, HOUR.0, HOUR.1, Some(5))]);
    let Booking::Booked { changes, .. } = book(&grid.state, &node("n1"), &one, grid.now).unwrap() else { panic!() };
    let twice: Vec<Change> = changes.iter().chain(&changes).cloned().collect();
    grid.apply(&twice);
    assert_eq!(sum(&grid, "2026-11"), 5);
    grid.later(Duration::from_secs(1));
    grid.check();
}

/// What is booked of CPU time in November: the sum, how many windows are unknown, and why.
fn cpu(grid: &Grid) -> (u64, u64, String) {
    let id = &grid.instance("db").id;
    let sum = &grid.state.sums[&(project("shop"), period("2026-11"))][id];
    let meter = &sum.meters[&Meter::CpuMicros];
    (meter.amount, meter.unknown_windows, meter.unknown_reason.clone())
}

#[test]
fn what_was_reported_before_is_booked_as_unknown_when_it_comes_under_a_new_number() {
    let (mut grid, id) = placed();
    booked(&mut grid, &report(1, vec![used(&id, HOUR.0, HOUR.1, Some(5))]));
    let again =
        vec![used(&id, HOUR.0, HOUR.1, Some(5)), used(&id, "2026-11-21T07:59:59Z", "2026-11-21T08:10:00Z", Some(5))];
    assert_eq!(booked(&mut grid, &report(2, again)), 0);
    let (amount, unknown, why) = cpu(&grid);
    assert_eq!((amount, unknown), (5, 2));
    assert!(why.contains("overlaps"), "{why}");
    booked(&mut grid, &report(3, vec![used(&id, HOUR.1, "2026-11-21T08:20:00Z", Some(2)); 2]));
    assert_eq!(cpu(&grid).0, 7, "the one that follows counts once");
    grid.check();
}

#[test]
fn more_than_any_machine_can_use_is_booked_as_unknown() {
    let (mut grid, id) = placed();
    let mut honest = used(&id, HOUR.0, HOUR.1, Some(5));
    honest.amounts.insert(Meter::WallMillis, Amount::Known(3_600_000));
    booked(&mut grid, &report(1, vec![honest]));
    let mut forged = used(&id, HOUR.1, "2026-11-21T08:10:00Z", Some(u64::MAX));
    forged.amounts.insert(Meter::WallMillis, Amount::Known(7 * 600_000));
    booked(&mut grid, &report(2, vec![forged]));
    let (amount, unknown, why) = cpu(&grid);
    assert_eq!((amount, unknown), (5, 1));
    assert!(why.contains("more than there can be"), "{why}");
    let forged = entries(&grid)[1].lines[0].record.amounts[&Meter::WallMillis].clone();
    assert!(matches!(forged, Amount::Unknown(_)), "{forged:?}");
}

#[test]
fn use_of_a_time_before_the_instance_was_made_is_booked_as_unknown() {
    let (mut grid, id) = placed();
    booked(&mut grid, &report(1, vec![used(&id, "2026-09-30T22:00:00Z", "2026-10-01T01:00:00Z", Some(5))]));
    assert_eq!((sum(&grid, "2026-09"), sum(&grid, "2026-10")), (0, 0));
}

#[test]
fn what_a_node_tells_whose_clock_is_days_ahead_is_booked_as_unknown_and_what_follows_counts() {
    let (mut grid, id) = placed();
    booked(&mut grid, &report(1, vec![used(&id, HOUR.0, HOUR.1, Some(5))]));
    grid.now = at("2026-11-21T08:10:00Z");
    let ahead = used(&id, HOUR.1, "2026-12-01T08:10:00Z", Some(7));
    let farther = used(&id, "2026-12-01T08:10:00Z", "2026-12-01T08:15:00Z", Some(7));
    assert_eq!(booked(&mut grid, &report(2, vec![ahead, farther])), 0);
    let (amount, unknown, why) = cpu(&grid);
    assert_eq!((amount, unknown), (5, 2));
    assert!(why.contains("clock"), "{why}");
    let windows: Vec<Window> = entries(&grid)[1].lines.iter().map(|line| line.record.window).collect();
    let until_now = |start: &str| Window { start: at(start), end: grid.now };
    assert_eq!(windows, [until_now(HOUR.1), until_now("2026-11-21T08:05:00Z")]);
    booked(&mut grid, &report(3, vec![used(&id, "2026-11-21T08:10:00Z", "2026-11-21T08:20:00Z", Some(2))]));
    assert_eq!(cpu(&grid).0, 7);
    grid.check();
}

#[test]
fn a_reading_may_cover_what_could_not_be_read_before() {
    let (mut grid, id) = placed();
    let wall = |start: &str, end: &str, amount| {
        let amounts = [(Meter::WallMillis, amount)].into();
        UsageRecord { amounts, ..used(&id, start, end, None) }
    };
    // The first report after the agent came back: its window is short, its reading is of all the time before.
    let first = wall(HOUR.0, "2026-11-21T07:01:00Z", Amount::Known(20 * 3_600_000));
    let second = wall("2026-11-21T07:01:00Z", HOUR.1, Amount::Unknown("r".repeat(1000)));
    let third = wall(HOUR.1, "2026-11-21T08:01:00Z", Amount::Known(3_600_000));
    booked(&mut grid, &report(1, vec![first, second, third]));
    let meter = grid.state.sums[&(project("shop"), period("2026-11"))][&id].meters[&Meter::WallMillis].clone();
    assert_eq!((meter.amount, meter.unknown_windows, meter.unknown_reason.len()), (21 * 3_600_000, 1, 300));
    let line = entries(&grid)[0].lines[1].record.amounts[&Meter::WallMillis].clone();
    assert_eq!(line, Amount::Unknown("r".repeat(300)));
}

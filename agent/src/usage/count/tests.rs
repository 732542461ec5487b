use super::*;

fn counters(epoch: u64, at_seconds: i64, cpu: u64, memory: Amount) -> Counters {
    Counters {
        instance: InstanceId::parse(&"a".repeat(32)).unwrap(),
        epoch,
        taken: at(at_seconds),
        readings: [(Meter::CpuMicros, Amount::Known(cpu)), (Meter::MemoryByteSeconds, memory)].into(),
        lost: None,
    }
}

/// Both clocks agree.
fn at(seconds: i64) -> Moment {
    Moment { wall: Timestamp::from_seconds(seconds), steady: Steady(seconds.unsigned_abs() * 1000) }
}

/// Up to the very moment of the reading.
fn taken(counters: &Counters, before: Option<&Baseline>, levels: &Levels) -> (Vec<UsageRecord>, Baseline) {
    let partition = &PartitionName::parse("part0").unwrap();
    count(&Taking { partition, counters, before, since: at(0), levels, end: counters.taken.wall })
}

fn cpu(counters: &Counters, before: Option<&Baseline>) -> (Amount, Baseline) {
    let (records, after) = taken(counters, before, &Levels::default());
    (records[0].amounts[&Meter::CpuMicros].clone(), after)
}

fn seconds(record: &UsageRecord) -> (i64, i64) {
    (record.window.start.seconds(), record.window.end.seconds())
}

#[test]
fn totals_are_counted_from_the_last_reading_and_from_zero_when_they_started_again() {
    let (first, base) = cpu(&counters(1, 10, 500, Amount::Known(0)), None);
    assert_eq!(first, Amount::Known(500));
    let (second, base) = cpu(&counters(1, 20, 700, Amount::Known(0)), Some(&base));
    assert_eq!(second, Amount::Known(200));
    let (smaller, base) = cpu(&counters(1, 30, 50, Amount::Known(0)), Some(&base));
    assert_eq!(smaller, Amount::Known(50));
    let (new_epoch, _) = cpu(&counters(2, 40, 900, Amount::Known(0)), Some(&base));
    assert_eq!(new_epoch, Amount::Known(900), "larger than before, but of another epoch");
}

#[test]
fn over_a_loss_on_the_host_the_amount_is_unknown_and_what_came_since_is_counted() {
    let (_, base) = cpu(&counters(1, 10, 500, Amount::Known(0)), None);
    let anew = |at, cpu| Counters { lost: Some("damaged".into()), ..counters(2, at, cpu, Amount::Known(0)) };
    let (bridge, base) = cpu(&anew(20, 30), Some(&base));
    assert_eq!(bridge, Amount::Unknown("damaged".into()));
    let (next, base) = cpu(&anew(30, 70), Some(&base));
    assert_eq!(next, Amount::Known(70), "all of the new epoch, and nothing of it twice");
    assert_eq!(cpu(&anew(40, 75), Some(&base)).0, Amount::Known(5));
}

#[test]
fn a_meter_that_cannot_be_read_is_unknown_and_what_it_missed_is_counted_later() {
    let (_, base) = cpu(&counters(1, 10, 500, Amount::Known(0)), None);
    let mut broken = counters(1, 20, 0, Amount::Known(0));
    broken.readings.insert(Meter::CpuMicros, Amount::Unknown("no such file".into()));
    let (unknown, base) = cpu(&broken, Some(&base));
    assert_eq!(unknown, Amount::Unknown("no such file".into()));
    assert_eq!(cpu(&counters(1, 30, 800, Amount::Known(0)), Some(&base)).0, Amount::Known(300));
}

#[test]
fn levels_are_integrated_over_samples_and_a_pause_is_unknown_without_what_was_before_it() {
    let mut levels = Levels::of_new(at(0));
    let gap = Duration::from_secs(30);
    for (second, memory) in [(0, 1000), (10, 1000), (20, 3000)] {
        levels.sample(&counters(1, second, 0, Amount::Known(memory)), gap);
    }
    let memory = |record: &UsageRecord| record.amounts[&Meter::MemoryByteSeconds].clone();
    let (records, base) = taken(&counters(1, 20, 0, Amount::Known(3000)), None, &levels);
    assert_eq!((records.len(), memory(&records[0])), (1, Amount::Known(10_000 + 20_000)));
    levels.counted();
    levels.sample(&counters(1, 30, 0, Amount::Known(3000)), gap);
    levels.sample(&counters(1, 100, 700, Amount::Known(3000)), gap);
    assert!(levels.has_gap());
    let (records, _) = taken(&counters(1, 100, 700, Amount::Known(3000)), Some(&base), &levels);
    assert_eq!(records.iter().map(seconds).collect::<Vec<_>>(), [(20, 30), (30, 100)]);
    let why = "the agent was away from 1970-01-01T00:00:30Z to 1970-01-01T00:01:40Z";
    assert_eq!([memory(&records[0]), memory(&records[1])], [Amount::Known(30_000), Amount::Unknown(why.into())]);
    assert!(!records[0].amounts.contains_key(&Meter::CpuMicros));
    assert_eq!(records[1].amounts[&Meter::CpuMicros], Amount::Known(700), "a total knows no gaps");
}

#[test]
fn a_level_that_can_be_read_again_is_unknown_up_to_then() {
    let mut levels = Levels::of_new(at(0));
    let gap = Duration::from_secs(30);
    levels.sample(&counters(1, 10, 0, Amount::Unknown("no such file".into())), gap);
    levels.counted();
    for second in [20, 30] {
        levels.sample(&counters(1, second, 0, Amount::Known(1000)), gap);
    }
    let (records, _) = taken(&counters(1, 30, 0, Amount::Known(1000)), None, &levels);
    assert!(matches!(records[0].amounts[&Meter::MemoryByteSeconds], Amount::Unknown(_)), "{records:?}");
}

#[test]
fn a_window_ends_where_the_clock_says_and_not_when_it_was_read() {
    let partition = &PartitionName::parse("part0").unwrap();
    let (levels, end) = (&Levels::default(), Timestamp::from_seconds(60));
    let counters = &Counters {
        taken: Moment { wall: Timestamp(60_040), steady: Steady(60_040) },
        ..counters(1, 0, 5, Amount::Known(0))
    };
    let (records, base) = count(&Taking { partition, counters, before: None, since: at(7), levels, end });
    assert_eq!((seconds(&records[0]), base.taken), ((7, 60), end));
}

#[test]
fn while_the_clock_is_behind_nothing_is_lost_and_no_window_overlaps_another() {
    let (_, mut base) = cpu(&counters(1, 7_000, 500, Amount::Known(0)), None);
    let (mut wall, mut steady, mut total, mut levels) = (7_000 - 1_800, 7_000, 500, Levels::after(&base));
    for _ in 0..70 {
        (wall, steady, total) = (wall + 60, steady + 60, total + 60);
        let taken_at = Moment { wall: Timestamp::from_seconds(wall), steady: Steady(steady * 1000) };
        let read = Counters { taken: taken_at, ..counters(1, 0, total, Amount::Known(1000)) };
        levels.sample(&read, Duration::from_secs(90));
        let (records, after) = taken(&read, Some(&base), &levels);
        levels.counted();
        let [record] = &records[..] else { panic!("{records:?}") };
        assert!(record.window.start == base.taken && record.window.duration() >= Duration::from_secs(30));
        assert_eq!(record.amounts[&Meter::CpuMicros], Amount::Known(60));
        base = after;
    }
    assert_eq!(base.taken, Timestamp::from_seconds(wall), "the clock has caught up");
    // As much as it took by the steady clock.
    levels.sample(
        &Counters { taken: at(steady as i64 + 10), ..counters(1, 0, total, Amount::Known(1000)) },
        Duration::from_secs(30),
    );
    assert_eq!(levels.amount(Meter::MemoryByteSeconds), Amount::Known(10_000));
}

#[test]
fn a_clock_that_was_hours_ahead_is_believed_when_it_was_set_right() {
    let (_, base) = cpu(&counters(1, 90_000, 500, Amount::Known(0)), None);
    let read = Moment { wall: Timestamp::from_seconds(1_000), steady: Steady(90_060_000) };
    let (records, _) =
        taken(&Counters { taken: read, ..counters(1, 0, 560, Amount::Known(0)) }, Some(&base), &Levels::default());
    assert_eq!(seconds(&records[0]), (940, 1_000), "the master has booked what was so far ahead as unknown");
    assert_eq!(records[0].amounts[&Meter::CpuMicros], Amount::Known(60));
}

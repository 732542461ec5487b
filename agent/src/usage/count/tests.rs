use super::*;

fn counters(epoch: u64, at_seconds: i64, cpu: u64, memory: Amount) -> Counters {
    Counters {
        instance: InstanceId::parse(&"a".repeat(32)).unwrap(),
        epoch,
        taken: Timestamp::from_seconds(at_seconds),
        readings: [(Meter::CpuMicros, Amount::Known(cpu)), (Meter::MemoryByteSeconds, memory)].into(),
        lost: None,
    }
}

fn cpu(counters: &Counters, before: Option<&Baseline>) -> (Amount, Baseline) {
    let part = PartitionName::parse("part0").unwrap();
    let (record, after) = count(&part, counters, before, Timestamp::ZERO, &Levels::default());
    (record.amounts[&Meter::CpuMicros].clone(), after)
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
fn levels_are_integrated_over_samples_and_a_pause_is_unknown() {
    let part = PartitionName::parse("part0").unwrap();
    let mut levels = Levels::of_new(Timestamp::ZERO);
    let gap = Duration::from_secs(30);
    for (at, memory) in [(0, 1000), (10, 1000), (20, 3000)] {
        levels.sample(&counters(1, at, 0, Amount::Known(memory)), gap);
    }
    let last = counters(1, 20, 0, Amount::Known(3000));
    let (record, base) = count(&part, &last, None, Timestamp::ZERO, &levels);
    assert_eq!(record.amounts[&Meter::MemoryByteSeconds], Amount::Known(10_000 + 20_000));
    levels.counted();
    levels.sample(&counters(1, 100, 0, Amount::Known(3000)), gap);
    let (record, _) = count(&part, &counters(1, 100, 0, Amount::Known(3000)), Some(&base), Timestamp::ZERO, &levels);
    assert_eq!(record.amounts[&Meter::MemoryByteSeconds], Amount::Unknown("no sample was taken for 80 s".into()));
    assert_eq!((record.window.start, record.window.end), (Timestamp::from_seconds(20), Timestamp::from_seconds(100)));
}

#[test]
fn a_level_that_can_be_read_again_is_unknown_up_to_then() {
    let part = PartitionName::parse("part0").unwrap();
    let mut levels = Levels::of_new(Timestamp::ZERO);
    let gap = Duration::from_secs(30);
    levels.sample(&counters(1, 10, 0, Amount::Unknown("no such file".into())), gap);
    levels.counted();
    for at in [20, 30] {
        levels.sample(&counters(1, at, 0, Amount::Known(1000)), gap);
    }
    let last = counters(1, 30, 0, Amount::Known(1000));
    let (record, _) = count(&part, &last, None, Timestamp::ZERO, &levels);
    assert!(matches!(record.amounts[&Meter::MemoryByteSeconds], Amount::Unknown(_)), "{record:?}");
}

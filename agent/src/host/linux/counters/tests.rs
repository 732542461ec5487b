use super::*;

fn totals() -> Totals {
    Totals {
        version: 1,
        epoch: 7,
        instance: InstanceId::parse(&"a".repeat(32)).unwrap(),
        cpu_micros: 0,
        io_bytes: 0,
        wall_millis: 0,
        wall_until: Timestamp(0),
        group: None,
        runs: BTreeMap::new(),
    }
}

fn reading(identity: &str, cpu_micros: u64) -> Reading {
    Reading { identity: identity.into(), cpu_micros, io_bytes: None, memory_bytes: None }
}

#[test]
fn a_control_group_that_is_made_again_loses_nothing_and_counts_nothing_twice() {
    let mut totals = totals();
    totals.add_group(&reading("one", 100));
    totals.add_group(&reading("one", 150));
    totals.add_group(&reading("two", 30));
    totals.add_group(&reading("two", 30));
    assert_eq!(totals.cpu_micros, 180);
}

#[test]
fn services_that_run_at_the_same_time_are_one_stretch_of_wall_time() {
    let mut totals = totals();
    totals.add_wall(Timestamp(100), Timestamp(200));
    totals.add_wall(Timestamp(150), Timestamp(250));
    totals.add_wall(Timestamp(120), Timestamp(180));
    totals.add_wall(Timestamp(400), Timestamp(410));
    assert_eq!(totals.wall_millis, 160);
}

//! One-shots, services that may end, and what runs at times.

use crate::world::{World, part};
use plat_agent_plan::PartitionFact;
use plat_model::Timestamp;
use plat_model::instance::{InstanceState, ServiceState, ServiceStatus, Wish};
use proptest::prelude::*;
use std::collections::BTreeSet;

const RELEASE: &str = r#"
version: 1
name: shop
parameters:
  type: object
  properties:
    greeting: {type: string, default: hello}
    lines: {type: integer, default: 1}
files:
  etc/greeting: {template: "{{ parameters.greeting }}"}
  etc/lines: {template: "{{ parameters.lines }}"}
services:
  web: {command: [/bin/web]}
  once: {command: [/bin/once], restart: on-failure, files: []}
  migrate: {command: [/bin/migrate], kind: oneshot, files: [etc/greeting]}
  backup: {command: [/bin/backup], kind: oneshot, schedule: "0 * * * *", files: []}
"#;

/// It is half past some hour.
fn ready() -> World {
    ready_with(RELEASE)
}

fn ready_with(release: &str) -> World {
    let mut world = World::with_release(release);
    world.now.wall = Timestamp::parse("2027-01-15T08:30:00Z").unwrap();
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    world.later(1);
    world.settle();
    assert_eq!(world.status(1).unwrap().state, InstanceState::Ready);
    world.take_done();
    world
}

fn service(world: &World, name: &str) -> ServiceStatus {
    let status = world.status(1).unwrap();
    status.services.iter().find(|one| one.name.as_str() == name).unwrap().clone()
}

/// How often a service was started since the last look.
fn starts(world: &mut World, name: &str) -> usize {
    let done = world.take_done();
    done.iter().filter(|step| **step == format!("part0 start service {name}")).count()
}

#[test]
fn an_instance_is_ready_once_its_one_shots_have_succeeded() {
    let mut world = World::with_release(RELEASE);
    world.slow.insert("migrate".parse().unwrap());
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    world.later(10);
    world.settle();
    let status = world.status(1).unwrap();
    assert_eq!((status.state, status.problem.is_none()), (InstanceState::Starting, true));
    assert!(status.detail.contains("migrate"), "{}", status.detail);
    assert_eq!(service(&world, "web").state, ServiceState::Running);
    world.finish(0, "migrate", "exit code 0");
    world.settle();
    assert_eq!(world.status(1).unwrap().state, InstanceState::Ready);
    assert_eq!(service(&world, "migrate").state, ServiceState::Done);
}

#[test]
fn a_one_shot_runs_again_when_its_files_change_and_for_nothing_else() {
    let mut world = ready();
    world.wish(1, 0, Wish::Started, r#"{"lines": 2}"#);
    world.settle();
    assert_eq!(starts(&mut world, "migrate"), 0);
    world.wish(1, 0, Wish::Stopped, r#"{"lines": 2}"#);
    world.settle();
    world.wish(1, 0, Wish::Started, r#"{"lines": 2}"#);
    world.settle();
    assert_eq!(starts(&mut world, "migrate"), 0, "it is done with this configuration");
    world.wish(1, 0, Wish::Started, r#"{"lines": 2, "greeting": "moin"}"#);
    world.settle();
    assert_eq!(starts(&mut world, "migrate"), 1);
}

#[test]
fn that_a_one_shot_has_succeeded_is_remembered_whatever_becomes_of_the_runtimes_records() {
    let mut world = ready();
    world.facts.partitions.get_mut(&part(0)).unwrap().services.remove("migrate");
    world.settle();
    assert_eq!(starts(&mut world, "migrate"), 0);
}

#[test]
fn a_failed_one_shot_is_tried_again_with_growing_pauses() {
    let mut world = World::with_release(RELEASE);
    world.crashing.insert("migrate".parse().unwrap());
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    for _ in 0..3 {
        world.later(5);
        world.settle();
    }
    let status = world.status(1).unwrap();
    assert_eq!(status.state, InstanceState::Failed);
    assert!(status.problem.as_ref().unwrap().what.contains("one-shot `migrate` failed"));
    assert!((3..5).contains(&starts(&mut world, "migrate")));
    world.crashing.clear();
    world.later(60);
    world.settle();
    assert_eq!(world.status(1).unwrap().state, InstanceState::Ready);
}

#[test]
fn a_service_that_may_end_well_stays_ended_until_the_instance_is_started_again() {
    let mut world = ready();
    world.finish(0, "once", "exit code 0");
    world.settle();
    assert_eq!(world.status(1).unwrap().state, InstanceState::Ready);
    assert_eq!((service(&world, "once").state, starts(&mut world, "once")), (ServiceState::Done, 0));
    world.wish(1, 0, Wish::Stopped, "{}");
    world.settle();
    assert_eq!(world.status(1).unwrap().state, InstanceState::Stopped);
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    assert_eq!(starts(&mut world, "once"), 1);
    world.finish(0, "once", "exit code 1");
    world.later(5);
    world.settle();
    assert_eq!(starts(&mut world, "once"), 1, "a failure is not how it may end");
}

#[test]
fn what_has_a_schedule_runs_at_its_times_and_says_when_the_next_is() {
    let mut world = ready();
    assert_eq!(service(&world, "backup").next.unwrap().to_string(), "2027-01-15T09:00:00Z");
    for hour in ["2027-01-15T10:00:00Z", "2027-01-15T11:00:00Z", "2027-01-15T12:00:00Z"] {
        world.later(3600);
        world.settle();
        assert_eq!(starts(&mut world, "backup"), 1);
        assert_eq!(service(&world, "backup").next.unwrap().to_string(), hour);
    }
    assert_eq!(service(&world, "backup").state, ServiceState::Done);
    assert_eq!(world.status(1).unwrap().state, InstanceState::Ready);
}

#[test]
fn a_stop_that_fails_holds_up_no_reload_and_no_run_whose_time_has_come() {
    let mut world = ready_with(&RELEASE.replace("[/bin/web]", "[/bin/web], files: [etc/lines], reload: {signal: HUP}"));
    let services = &mut world.facts.partitions.get_mut(&part(0)).unwrap().services;
    // One that the instance does not have, and files that it has not read yet.
    services.insert("old".parse().unwrap(), services["web"].clone());
    services.get_mut("web").unwrap().loaded = "others".into();
    world.failing.insert("stop service old".into());
    world.later(3600);
    world.settle();
    let done = world.take_done();
    for step in ["reload service web", "start service backup"] {
        assert!(done.contains(&format!("part0 {step}")), "{step}: {done:?}");
    }
}

#[test]
fn a_failed_run_degrades_the_instance_until_the_next_one_and_is_not_repeated_before() {
    let mut world = ready();
    world.crashing.insert("backup".parse().unwrap());
    world.later(3600);
    world.settle();
    world.later(600);
    world.settle();
    assert_eq!(starts(&mut world, "backup"), 1);
    let status = world.status(1).unwrap();
    assert_eq!(status.state, InstanceState::Degraded);
    assert!(status.problem.as_ref().unwrap().why.contains("exit code 1"));
    world.crashing.clear();
    world.later(3000);
    world.settle();
    assert_eq!(world.status(1).unwrap().state, InstanceState::Ready);
}

#[test]
fn a_run_that_goes_on_when_the_next_is_due_is_not_joined_by_another() {
    let mut world = ready();
    world.slow.insert("backup".parse().unwrap());
    for _ in 0..3 {
        world.later(3600);
        world.settle();
    }
    assert_eq!(starts(&mut world, "backup"), 1);
    assert_eq!((service(&world, "backup").skipped, world.status(1).unwrap().state), (2, InstanceState::Ready));
    world.finish(0, "backup", "exit code 0");
    world.later(3600);
    world.settle();
    assert_eq!((starts(&mut world, "backup"), service(&world, "backup").skipped), (1, 0));
}

#[test]
fn what_a_stopped_instance_did_not_run_it_does_not_run_later() {
    let mut world = ready();
    world.wish(1, 0, Wish::Stopped, "{}");
    world.settle();
    assert_eq!(service(&world, "backup").next, None);
    world.later(86_400);
    world.settle();
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    world.later(60);
    world.settle();
    assert_eq!(starts(&mut world, "backup"), 0);
}

#[test]
fn a_run_makes_no_promise_be_asked_anew() {
    let mut world = ready();
    let runs = |fact: &PartitionFact| fact.runs();
    let before = runs(&world.facts.partitions[&part(0)]);
    world.slow.insert("backup".parse().unwrap());
    world.later(3600);
    world.settle();
    assert_eq!(runs(&world.facts.partitions[&part(0)]), before);
}

#[test]
fn a_service_as_there_always_were_is_written_as_it_always_was_so_that_no_upgrade_restarts_it() {
    let mut world = World::with_release("version: 1\nname: a\nservices: {web: {command: [/bin/web]}}\n");
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    let occupant = world.facts.partitions[&part(0)].occupant.clone().unwrap();
    let written = serde_json::to_value(&occupant.upkeep.unwrap().services[0]).unwrap();
    let mut keys: Vec<_> = written.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    let of_before = [
        "command",
        "directory",
        "environment",
        "fingerprint",
        "instance",
        "name",
        "stop_signal",
        "stop_timeout_seconds",
    ];
    assert_eq!(keys, of_before);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    /// Steps of the steady clock, and what the wall clock is set by beside them.
    #[test]
    fn however_the_clock_is_set_no_hour_is_run_for_twice_and_a_gap_is_made_up_for_once(
        steps in prop::collection::vec((1..4000_u64, prop_oneof![3 => Just(0_i64), 1 => -7200..7200_i64]), 1..25)
    ) {
        let mut world = ready();
        let mut hours = BTreeSet::new();
        let mut latest = world.now.wall;
        for (later, set) in steps {
            world.later(later);
            world.set_clock(set);
            // Within a day of what it has shown, as clocks are that are set right now and then.
            if latest.since(world.now.wall).as_secs() >= 86_400 {
                world.now.wall = latest;
            }
            let passed = world.now.wall.seconds() / 3600 - latest.seconds() / 3600;
            latest = latest.max(world.now.wall);
            world.settle();
            let runs = starts(&mut world, "backup");
            prop_assert_eq!(runs, usize::from(passed > 0), "once for each gap, and not for what was shown before");
            if runs > 0 {
                prop_assert!(hours.insert(world.now.wall.seconds() / 3600));
            }
            prop_assert!(world.plan_of(0).actions.is_empty());
            let wake_at = world.plan_of(0).wake_at.unwrap();
            prop_assert!(wake_at > world.now.steady && wake_at.since(world.now.steady).as_secs() <= 60);
        }
    }
}

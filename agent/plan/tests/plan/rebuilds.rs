//! Releases that are to be built again.

use crate::world::{World, at, digest, release};
use plat_agent_plan::{Action, Disk, Moment, Rebuild, ReleaseFact, ReleaseGiven, is_roomier, plan_release};
use plat_model::instance::Wish;
use plat_model::problem::{Problem, codes};
use plat_model::release::InstallState;
use std::collections::BTreeMap;
use std::time::Duration;

fn supplied(fact: ReleaseFact) -> World {
    let mut world = World::new(1);
    world.wish(1, 0, Wish::Started, "{}");
    world.desired.instances.clear();
    world.facts.releases.insert(digest(), fact);
    world.desired.rebuilds.insert(digest(), 1);
    world
}

fn failed(code: plat_model::Code) -> ReleaseFact {
    let now = at(plat_model::Timestamp::from_seconds(1_800_000_000));
    ReleaseFact::Failed { attempts: 9, at: now, problem: Problem::new(code, "it failed") }
}

/// Whether the wish is used up by what is planned.
fn is_settled(world: &World) -> bool {
    world.plan().releases.remove(&digest()).unwrap().settles.is_some()
}

fn action(world: &World) -> Option<Action> {
    world.plan().releases.remove(&digest()).unwrap().action
}

#[test]
fn what_failed_is_tried_at_once_also_where_nobody_thought_that_it_would_help() {
    for code in [codes::BUILD_FAILED, codes::SOURCE_CHECKSUM] {
        let mut world = supplied(failed(code));
        assert!(matches!(action(&world), Some(Action::InstallRelease { .. })));
        assert!(is_settled(&world));
        world.facts.settled.insert(digest(), 1);
        assert_eq!(action(&world), None, "by itself it would wait");
    }
}

#[test]
fn what_waits_for_room_goes_on_waiting() {
    let mut world = supplied(failed(codes::DISK_FULL));
    world.facts.shortage = Some(Problem::new(codes::DISK_FULL, "no room"));
    assert_eq!((action(&world), is_settled(&world)), (None, false));
    world.facts.shortage = None;
    assert_eq!((action(&world).is_some(), is_settled(&world)), (true, true));
}

#[test]
fn what_ran_out_of_room_is_begun_again_when_there_is_more_than_it_had_or_after_long() {
    let fact = failed(codes::DISK_FULL);
    let ReleaseFact::Failed { at: then, .. } = fact else { unreachable!() };
    let (digest, document) = (digest(), release().to_canonical_json());
    let plan_after = |seconds: u64, roomier| {
        let passed = Duration::from_secs(seconds);
        let now = Moment { steady: then.steady.plus(passed), ..then };
        let rebuild = Rebuild::default();
        let given = ReleaseGiven {
            digest: &digest,
            document: Some(&document),
            in_use: true,
            garbage: false,
            rebuild,
            shortage: None,
            roomier,
            fact: &fact,
            now,
        };
        (plan_release(&given), now)
    };
    let (plan, now) = plan_after(301, false);
    assert_eq!(plan.action, None, "what it wrote is gone, so there is as much room as it had");
    assert!(plan.wake_at.unwrap() <= now.steady.plus(Duration::from_secs(10)), "whether there is more is looked at");
    assert!(plan.waiting[0].on.starts_with("more room on the disk"), "{:?}", plan.waiting);
    assert!(plan_after(301, true).0.action.is_some());
    assert_eq!(plan_after(299, true).0.action, None, "no sooner than what fails for another reason");
    assert!(plan_after(3600, false).0.action.is_some());
}

#[test]
fn more_room_is_more_than_what_comes_and_goes() {
    const MIB: u64 = 1 << 20;
    let disks = |free: [u64; 2]| {
        let disk = |free| Disk { place: "/srv".into(), free: free * MIB, asked: Vec::new() };
        BTreeMap::from([(1, disk(free[0])), (2, disk(free[1]))])
    };
    let had = disks([1600, 10]);
    for (free, more) in [([1600, 10], false), ([1799, 73], false), ([1800, 10], true), ([0, 74], true)] {
        assert_eq!(is_roomier(&had, &disks(free)), more, "{free:?}");
    }
    assert!(!is_roomier(&BTreeMap::new(), &had), "nobody knows what it had");
}

#[test]
fn what_is_there_and_unused_is_removed_first_and_what_is_built_now_is_left_alone() {
    let mut world = supplied(ReleaseFact::Installed);
    let plan = world.plan().releases.remove(&digest()).unwrap();
    assert!(matches!(plan.action, Some(Action::RemoveRelease { .. })));
    assert_eq!(plan.status.unwrap().state, InstallState::Installing);
    world.facts.releases.insert(digest(), ReleaseFact::Building("compiles".into()));
    assert_eq!((action(&world), is_settled(&world)), (None, false));
}

#[test]
fn what_an_instance_consists_of_is_never_removed() {
    let mut world = World::new(1);
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    world.desired.rebuilds.insert(digest(), 1);
    assert_eq!((action(&world), is_settled(&world)), (None, true), "it is declined, and not done later");
}

#[test]
fn a_number_is_new_until_it_is_settled_also_when_a_restored_master_counts_from_before() {
    let numbers = |wanted, settled| {
        let mut world = supplied(ReleaseFact::Installed);
        world.desired.rebuilds.insert(digest(), wanted);
        world.facts.settled.insert(digest(), settled);
        let plan = world.plan().releases.remove(&digest()).unwrap();
        (plan.settles, plan.status.unwrap().rebuild)
    };
    assert_eq!(numbers(0, 0), (None, 0), "nobody wished it");
    assert_eq!(numbers(2, 0), (Some(2), 2));
    assert_eq!(numbers(2, 2), (None, 2));
    assert_eq!(numbers(3, 5), (Some(3), 3), "the master has forgotten 5");
    assert_eq!(numbers(0, 5), (None, 0));
    let mut world = supplied(ReleaseFact::Building("compiles".into()));
    world.desired.rebuilds.insert(digest(), 3);
    world.facts.settled.insert(digest(), 5);
    let told = world.plan().releases.remove(&digest()).unwrap().status.unwrap();
    assert_eq!(told.rebuild, 0, "what the master never asked for is not said to be done");
    let rebuild = Rebuild { wanted: 3, settled: 2 };
    assert_eq!(rebuild.without_news(), Rebuild { wanted: 2, settled: 2 });
}

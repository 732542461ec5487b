//! Releases that are to be built again.

use crate::world::{World, at, digest, release};
use plat_agent_plan::{
    Action, Disk, InUse, Moment, Rebuild, ReleaseFact, ReleaseGiven, ReleasePlan, Settled, Settling, Unremoved,
    is_roomier, plan_release, plan_unsettled,
};
use plat_model::id::Digest;
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

/// Of a release that nothing uses and nobody asks for anew.
fn given<'a>(digest: &'a Digest, document: &'a str, fact: &'a ReleaseFact, now: Moment) -> ReleaseGiven<'a> {
    let (document, rebuild) = (Some(document), Rebuild::default());
    let (in_use, garbage, roomier, shortage, unremoved) = (InUse::No, false, false, None, None);
    ReleaseGiven { digest, document, in_use, garbage, rebuild, shortage, roomier, unremoved, fact, now }
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
        world.facts.settled.insert(digest(), Settled::begun(1));
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

/// What is planned so many seconds after the last of so many attempts that ran out of room, and when that is.
fn after_running_out_of_room(attempts: u32, seconds: u64, roomier: bool) -> (ReleasePlan, Moment) {
    let then = at(plat_model::Timestamp::from_seconds(1_800_000_000));
    let problem = Problem::new(codes::DISK_FULL, "no room");
    let fact = ReleaseFact::Failed { attempts, at: then, problem };
    let (digest, document) = (digest(), release().to_canonical_json());
    let now = Moment { steady: then.steady.plus(Duration::from_secs(seconds)), ..then };
    (plan_release(&ReleaseGiven { roomier, ..given(&digest, &document, &fact, now) }), now)
}

#[test]
fn what_failed_is_tried_again_after_pauses_that_grow_up_to_five_minutes() {
    let (digest, document) = (digest(), release().to_canonical_json());
    let then = at(plat_model::Timestamp::from_seconds(1_800_000_000));
    let planned = |code, attempts, seconds| {
        let fact = ReleaseFact::Failed { attempts, at: then, problem: Problem::new(code, "it failed") };
        let now = Moment { steady: then.steady.plus(Duration::from_secs(seconds)), ..then };
        plan_release(&given(&digest, &document, &fact, now))
    };
    for (wait, attempts) in [5, 10, 20, 40, 80, 160, 300, 300].into_iter().zip(1..) {
        for code in [codes::BUILD_FAILED, codes::SOURCE_FETCH] {
            let early = planned(code, attempts, wait - 1);
            assert_eq!(early.action, None, "{code} after {attempts}");
            assert_eq!(early.wake_at, Some(then.steady.plus(Duration::from_secs(wait))), "{code} after {attempts}");
            let due = planned(code, attempts, wait);
            assert!(matches!(due.action, Some(Action::InstallRelease { .. })), "{code} after {attempts}");
        }
    }
}

#[test]
fn what_ran_out_of_room_is_begun_again_when_there_is_more_than_it_had_or_after_long() {
    let (plan, now) = after_running_out_of_room(20, 301, false);
    assert_eq!(plan.action, None, "what it wrote is gone, so there is as much room as it had");
    assert!(plan.wake_at.unwrap() <= now.steady.plus(Duration::from_secs(10)), "whether there is more is looked at");
    assert!(plan.waiting[0].on.starts_with("more room on the disk"), "{:?}", plan.waiting);
    let is_begun = |seconds, roomier| after_running_out_of_room(20, seconds, roomier).0.action.is_some();
    assert!(is_begun(301, true));
    assert!(!is_begun(299, true), "no sooner than what fails for another reason");
    assert!(is_begun(3600, false) && !is_begun(3599, false));
}

#[test]
fn what_ran_out_of_room_that_somebody_gave_back_is_begun_again_soon_and_what_goes_on_doing_so_soon_waits_an_hour() {
    // There is as much room as when it began, and was less in between: nobody knows who took it.
    let waits = [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600];
    for (wait, attempts) in waits.into_iter().zip(1..) {
        let (plan, now) = after_running_out_of_room(attempts, wait - 1, false);
        assert_eq!(plan.action, None, "after {attempts}");
        assert!(plan.wake_at.unwrap() <= now.steady.plus(Duration::from_secs(1)));
        assert!(after_running_out_of_room(attempts, wait, false).0.action.is_some(), "after {attempts}");
        let waits_for_room = plan.waiting[0].on.starts_with("more room on the disk");
        assert_eq!(waits_for_room, wait > 300, "before, more has it begun no sooner");
    }
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
    assert_eq!(plan.settles, None, "who is killed meanwhile still has it to be built");
    let told = plan.status.unwrap();
    assert_eq!((told.state, told.rebuild), (InstallState::Installing, 0));
    world.facts.releases.insert(digest(), ReleaseFact::Building("compiles".into()));
    assert_eq!((action(&world), is_settled(&world)), (None, false));
    world.facts.releases.insert(digest(), ReleaseFact::Absent);
    assert!(matches!(action(&world), Some(Action::InstallRelease { .. })) && is_settled(&world));
}

#[test]
fn what_an_instance_consists_of_is_never_removed_and_that_is_told_until_it_is_asked_for_again() {
    let mut world = World::new(1);
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    world.desired.rebuilds.insert(digest(), 1);
    let told = |world: &World| {
        let plan = world.plan().releases.remove(&digest()).unwrap();
        let status = plan.status.unwrap();
        (plan.action, plan.settles, status.state, status.rebuild, status.problem.map(|problem| problem.code))
    };
    let declined = Settled { number: 1, how: Settling::Declined };
    let in_use = Some(codes::IN_USE);
    assert_eq!(told(&world), (None, Some(declined), InstallState::Installed, 1, in_use));
    world.facts.settled.insert(digest(), declined);
    assert_eq!(told(&world), (None, None, InstallState::Installed, 1, in_use));
    world.desired.instances.clear();
    world.empty(0);
    assert_eq!(told(&world), (None, None, InstallState::Installed, 1, in_use), "it is not done later");
    world.desired.rebuilds.insert(digest(), 2);
    assert!(matches!(told(&world).0, Some(Action::RemoveRelease { .. })));
    world.facts.settled.insert(digest(), Settled::begun(2));
    assert_eq!(told(&world), (None, None, InstallState::Installed, 2, None));
}

#[test]
fn nothing_is_removed_while_a_partition_that_may_use_it_has_not_been_looked_at() {
    let mut world = supplied(ReleaseFact::Installed);
    world.facts.partitions.clear();
    let plan = world.plan().releases.remove(&digest()).unwrap();
    assert_eq!((plan.action, plan.settles), (None, None));
    assert_eq!((plan.wake_at, plan.waiting.len()), (Some(world.now.steady.plus(Duration::from_secs(1))), 1));
    let told = plan.status.unwrap();
    assert_eq!((told.state, told.rebuild), (InstallState::Installed, 0));
    assert!(told.progress.contains("every partition"), "{}", told.progress);
    world.desired.releases.clear();
    world.facts.garbage.insert(digest());
    assert_eq!(action(&world), None);
    world.empty(0);
    assert!(matches!(action(&world), Some(Action::RemoveRelease { .. })));
}

#[test]
fn a_removal_that_failed_is_told_with_its_wish_and_tried_again_after_a_while() {
    let problem = Problem::new(codes::BUILD_FAILED, "it cannot be removed");
    let then = at(plat_model::Timestamp::from_seconds(1_800_000_000));
    let unremoved = Unremoved { attempts: 1, at: then, problem: problem.clone(), rebuild: 3 };
    let (digest, document) = (digest(), release().to_canonical_json());
    let plan = |wanted, in_use, seconds| {
        let now = Moment { steady: then.steady.plus(Duration::from_secs(seconds)), ..then };
        let rebuild = Rebuild { wanted, settled: Settled::begun(2) };
        let unremoved = Some(&unremoved);
        let given =
            ReleaseGiven { in_use, rebuild, unremoved, ..given(&digest, &document, &ReleaseFact::Installed, now) };
        plan_release(&given)
    };
    let waits = plan(3, InUse::No, 4);
    assert_eq!((waits.action, waits.settles), (None, None));
    assert_eq!(waits.wake_at, Some(then.steady.plus(Duration::from_secs(5))));
    let told = waits.status.unwrap();
    assert_eq!((told.state, told.rebuild, told.problem), (InstallState::Installed, 3, Some(problem.clone())));
    let is_removed = |plan: ReleasePlan| matches!(plan.action, Some(Action::RemoveRelease { .. }));
    assert!(is_removed(plan(3, InUse::No, 5)));
    assert!(is_removed(plan(4, InUse::No, 0)), "a new wish is not kept waiting");
    let declined = plan(3, InUse::Yes, 5);
    assert_eq!(declined.settles, Some(Settled { number: 3, how: Settling::Declined }));
    // One that is to be gone waits as well.
    let unremoved = Unremoved { rebuild: 0, ..unremoved.clone() };
    let unremoved = Some(&unremoved);
    let given = given(&digest, &document, &ReleaseFact::Installed, then);
    let given = ReleaseGiven { document: None, garbage: true, unremoved, ..given };
    let gone = plan_release(&given);
    assert_eq!((gone.action, gone.status.unwrap().problem), (None, Some(problem)));
}

#[test]
fn nothing_is_begun_for_a_wish_that_cannot_be_written_down() {
    let problem = Problem::new(codes::BAD_STATE_FILE, "it cannot be written");
    let (digest, document) = (digest(), release().to_canonical_json());
    for fact in [ReleaseFact::Absent, failed(codes::BUILD_FAILED), ReleaseFact::Installed] {
        let now = at(plat_model::Timestamp::from_seconds(1_800_001_000));
        let rebuild = Rebuild { wanted: 3, settled: Settled::begun(2) };
        let in_use = if fact == ReleaseFact::Installed { InUse::Yes } else { InUse::No };
        let given = ReleaseGiven { in_use, rebuild, ..given(&digest, &document, &fact, now) };
        let written = plan_release(&given);
        assert_eq!((written.action.is_some(), written.settles.is_some()), (in_use == InUse::No, true));
        let plan = plan_unsettled(&given, &problem);
        assert_eq!(
            (plan.action.clone(), plan.settles),
            (None, None),
            "or it would be built once more for it: {fact:?}"
        );
        let told = plan.status.unwrap();
        assert_eq!((told.rebuild, told.problem), (2, Some(problem.clone())));
        assert_eq!(plan.wake_at, Some(now.steady.plus(Duration::from_secs(10))), "it is tried again: {fact:?}");
        assert_eq!(plan.waiting.len(), 1);
    }
    // One that waits anyhow is told as what it is, and the wish is not forgotten for as long.
    let fact = failed(codes::SOURCE_CHECKSUM);
    let now = at(plat_model::Timestamp::from_seconds(1_800_000_001));
    let rebuild = Rebuild { wanted: 3, settled: Settled::begun(2) };
    let plan = plan_unsettled(&ReleaseGiven { rebuild, ..given(&digest, &document, &fact, now) }, &problem);
    assert_eq!(plan.wake_at, Some(now.steady.plus(Duration::from_secs(10))));
    assert_eq!(plan.status.unwrap().problem.unwrap().code, codes::SOURCE_CHECKSUM);
}

#[test]
fn a_number_is_new_until_it_is_settled_also_when_a_restored_master_counts_from_before() {
    let numbers = |wanted, settled| {
        let mut world = supplied(ReleaseFact::Absent);
        world.desired.rebuilds.insert(digest(), wanted);
        world.facts.settled.insert(digest(), Settled::begun(settled));
        let plan = world.plan().releases.remove(&digest()).unwrap();
        (plan.settles.map(|settled| settled.number), plan.status.unwrap().rebuild)
    };
    assert_eq!(numbers(0, 0), (None, 0), "nobody wished it");
    assert_eq!(numbers(2, 0), (Some(2), 2));
    assert_eq!(numbers(2, 2), (None, 2));
    assert_eq!(numbers(3, 5), (Some(3), 3), "the master has forgotten 5");
    assert_eq!(numbers(0, 5), (None, 0));
    let mut world = supplied(ReleaseFact::Building("compiles".into()));
    world.desired.rebuilds.insert(digest(), 3);
    world.facts.settled.insert(digest(), Settled::begun(5));
    let told = world.plan().releases.remove(&digest()).unwrap().status.unwrap();
    assert_eq!(told.rebuild, 0, "what the master never asked for is not said to be done");
}

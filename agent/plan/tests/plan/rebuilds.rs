//! Releases that are to be built again.

use crate::world::{World, at, digest};
use plat_agent_plan::{Action, ReleaseFact};
use plat_model::instance::Wish;
use plat_model::problem::{Problem, codes};
use plat_model::release::InstallState;

fn supplied(fact: ReleaseFact) -> World {
    let mut world = World::new(1);
    world.wish(1, 0, Wish::Started, "{}");
    world.desired.instances.clear();
    world.facts.releases.insert(digest(), fact);
    world.facts.again.insert(digest());
    world
}

fn failed(code: plat_model::Code) -> ReleaseFact {
    let now = at(plat_model::Timestamp::from_seconds(1_800_000_000));
    ReleaseFact::Failed { attempts: 9, at: now, problem: Problem::new(code, "it failed") }
}

/// Whether the wish is used up by what is planned.
fn is_settled(world: &World) -> bool {
    world.plan().releases.remove(&digest()).unwrap().settles_again
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
        world.facts.again.clear();
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
    world.facts.again.insert(digest());
    assert_eq!((action(&world), is_settled(&world)), (None, true), "it is declined, and not done later");
}

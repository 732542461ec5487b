//! Directories that are kept, or emptied at each start.

use crate::world::{RELEASE, World, part};
use plat_agent_plan::Action;
use plat_model::instance::{InstanceState, Wish};

const PREPARED: &str = "part0 prepare volumes";

fn ready() -> World {
    let text = RELEASE.replace("services:\n", "volumes: {data: {kind: kept}, work: {kind: scratch}}\nservices:\n");
    let text =
        text.replace("hooks:\n", "hooks:\n  configure: {command: [\"{{ release.directory }}/bin/configure\"]}\n");
    let mut world = World::with_release(&text.replace("bin/worker\"", "bin/worker\", \"{{ volumes.work }}\""));
    world.wish(1, 0, Wish::Started, "{}");
    world
}

/// Where in what was done since the last call volumes were prepared.
fn prepared(world: &mut World) -> Vec<usize> {
    let done = world.take_done();
    done.iter().enumerate().filter(|(_, step)| *step == PREPARED).map(|(at, _)| at).collect()
}

#[test]
fn volumes_are_there_before_any_hook_or_service_and_named_by_their_paths() {
    let mut world = ready();
    world.step();
    world.step();
    let plan = world.plan_of(0);
    let worker = plan.actions.iter().find_map(|action| match action {
        Action::StartService { spec, .. } if spec.name.as_str() == "worker" => spec.command.last(),
        _ => None,
    });
    assert_eq!(worker.map(String::as_str), Some("/srv/partitions/part0/volumes/work"), "{plan:?}");
    world.take_done();
    world.step();
    let done = world.take_done();
    let at = |what: &str| done.iter().position(|step| step == &format!("part0 {what}"));
    assert!(at("prepare volumes") < at("run hook init") && at("prepare volumes").is_some(), "{done:?}");
}

#[test]
fn they_are_prepared_once_for_each_start_of_the_instance_and_not_for_those_of_its_services() {
    let mut world = ready();
    world.settle();
    assert_eq!(prepared(&mut world).len(), 1);
    world.end(0, "web");
    world.later(600);
    world.settle();
    assert_eq!(prepared(&mut world), [] as [usize; 0], "a service that is started again finds what it had");
    for _ in 0..2 {
        world.wish(1, 0, Wish::Stopped, "{}");
        world.settle();
        assert_eq!(prepared(&mut world), [] as [usize; 0]);
        world.wish(1, 0, Wish::Started, "{}");
        world.settle();
        assert_eq!(prepared(&mut world).len(), 1);
    }
    assert_eq!(world.status(1).unwrap().state, InstanceState::Ready);
    world.wish(1, 0, Wish::Started, r#"{"port": 1}"#);
    world.settle();
    assert!(prepared(&mut world).len() <= 1);
}

#[test]
fn nothing_runs_while_they_are_prepared_whenever_the_agent_was_killed() {
    let mut world = ready();
    world.settle();
    world.wish(1, 0, Wish::Stopped, "{}");
    // It noted the stop, and was killed before any service was told.
    let stopped = world.plan_of(0).actions.into_iter().find(|action| action.step() == "note").unwrap();
    let fact = world.facts.partitions.get_mut(&part(0)).unwrap();
    let Action::Note { note, .. } = stopped else { panic!("{stopped:?}") };
    fact.occupant.as_mut().unwrap().note(&note);
    world.wish(1, 0, Wish::Started, "{}");
    world.take_done();
    world.step();
    let done = world.take_done();
    let at = |what: &str| done.iter().position(|step| step == &format!("part0 {what}"));
    assert!(at("stop service web").is_some() && at("stop service web") < at("prepare volumes"), "{done:?}");
}

#[test]
fn a_hook_that_fails_empties_nothing_until_its_next_try() {
    for step in ["write files", "run hook init", "run hook configure"] {
        let mut world = ready();
        world.failing.insert(step.into());
        world.settle();
        assert_eq!(prepared(&mut world).len(), 1, "{step}");
        world.later(1);
        world.settle();
        assert_eq!(prepared(&mut world).len(), 1, "{step}");
    }
}

//! Hooks that somebody asks for.

use crate::world::{World, part};
use plat_agent_plan::{Action, Ground, permit};
use plat_model::instance::{InstanceState, Wish};
use plat_model::problem::codes;
use plat_model::run::{RUNS_MAX, RunEnd};
use std::collections::BTreeSet;

fn ready() -> World {
    let mut world = World::new(1);
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    world.take_done();
    world
}

fn ends(world: &World) -> Vec<(u64, RunEnd)> {
    world.status(1).unwrap().ran.iter().map(|run| (run.number, run.end)).collect()
}

#[test]
fn what_is_asked_for_is_run_once_in_its_order_and_told() {
    let mut world = ready();
    world.ask(1, "start").unwrap();
    world.ask(1, "start").unwrap();
    let told = world.plan_of(0).status.unwrap();
    assert_eq!(
        (told.state, told.detail.contains("start hook") && told.detail.contains("run 1")),
        (InstanceState::Ready, true)
    );
    world.settle();
    assert_eq!(world.take_done(), ["part0 run hook start as run 1", "part0 run hook start as run 2"]);
    assert_eq!(ends(&world), [(1, RunEnd::Exited(0)), (2, RunEnd::Exited(0))]);
    world.later(3600);
    world.settle();
    assert!(!world.take_done().iter().any(|step| step.contains("as run")), "what is over stays over");
}

#[test]
fn a_run_whose_agent_was_killed_is_interrupted_and_the_next_one_goes_on() {
    let mut world = ready();
    world.ask(1, "start").unwrap();
    assert!(world.killed_in_a_run(0));
    world.settle();
    assert_eq!(ends(&world), [(1, RunEnd::Interrupted)]);
    world.ask(1, "start").unwrap();
    world.settle();
    assert_eq!(ends(&world), [(1, RunEnd::Interrupted), (2, RunEnd::Exited(0))]);
    let runs = world.take_done().into_iter().filter(|step| step.contains("as run")).collect::<Vec<_>>();
    assert_eq!(runs, ["part0 run hook start as run 2"]);
}

#[test]
fn a_step_that_fails_again_and_again_holds_back_nothing_that_was_asked_for() {
    let mut world = ready();
    world.wish(1, 0, Wish::Started, r#"{"port": 1}"#);
    world.failing.insert("publish".into());
    world.step();
    world.step();
    world.ask(1, "start").unwrap();
    for _ in 0..10 {
        world.step();
    }
    assert_eq!(ends(&world), [(1, RunEnd::Exited(0))]);
}

#[test]
fn only_the_last_results_are_kept() {
    let mut world = ready();
    for _ in 0..RUNS_MAX + 3 {
        world.ask(1, "start").unwrap();
        world.settle();
    }
    let numbers: Vec<u64> = ends(&world).into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, (4..=RUNS_MAX as u64 + 3).collect::<Vec<_>>());
}

#[test]
fn no_number_is_run_again_whoever_asks_for_it() {
    let mut world = ready();
    world.ask(1, "start").unwrap();
    let plan = world.plan_of(0);
    let again = plan.actions.iter().find(|action| matches!(action, Action::RunAsked { .. })).unwrap();
    world.settle();
    let occupant = world.facts.partitions[&part(0)].occupant.as_ref();
    let ground = Ground { node: &world.file, occupant, logged: &BTreeSet::new() };
    assert_eq!(permit(again, ground).unwrap_err().code, codes::FORGED);
}

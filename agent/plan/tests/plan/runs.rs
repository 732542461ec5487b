//! Hooks that somebody asks for.

use crate::world::{World, part};
use plat_agent_plan::action::Note;
use plat_agent_plan::{Action, Ground, permit};
use plat_document::Release;
use plat_document::release::Hooks;
use plat_model::Timestamp;
use plat_model::instance::{InstanceState, Wish};
use plat_model::problem::codes;
use plat_model::run::{RUNS_MAX, RunEnd, RunResult};
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

#[test]
fn what_the_master_lets_be_asked_for_is_what_a_node_plans_and_its_host_permits() {
    let every = ["init", "configure", "start", "stop", "clean"];
    let hooks = every.map(|hook| format!("  {hook}: {{command: [/bin/{hook}]}}\n")).concat();
    let text = format!("version: 1\nname: shop\nhooks:\n{hooks}services:\n  web: {{command: [/bin/web]}}\n");
    assert_eq!(Release::parse_yaml(&text, "shop.yaml").unwrap().hooks.asked(), Hooks::ASKED);
    for hook in every {
        let mut world = World::with_release(&text);
        world.wish(1, 0, Wish::Started, "{}");
        world.settle();
        world.ask(1, hook).unwrap();
        // The world holds each action against the host's table.
        world.settle();
        let end = if Hooks::ASKED.contains(&hook) { RunEnd::Exited(0) } else { RunEnd::NotRun };
        assert_eq!(ends(&world), [(1, end)], "{hook}");
    }
}

/// What is said of a run that is not known to have ended.
fn over(number: u64) -> Note {
    let at = Timestamp::from_seconds(1_800_000_000);
    let (hook, how) = ("start".parse().unwrap(), "said".to_owned());
    Note::RunOver(RunResult { number, hook, began: at, ended: at, end: RunEnd::Interrupted, how, tail: Vec::new() })
}

#[test]
fn what_is_over_is_over_once_however_often_it_is_said() {
    let mut world = ready();
    for _ in 0..2 {
        world.ask(1, "start").unwrap();
        world.settle();
    }
    let before = ends(&world);
    let occupant = world.facts.partitions.get_mut(&part(0)).unwrap().occupant.as_mut().unwrap();
    occupant.note(&over(1));
    occupant.note(&over(2));
    world.settle();
    assert_eq!(ends(&world), before);
}

#[test]
fn that_a_run_is_over_is_said_only_of_one_that_has_begun_or_never_will() {
    let mut world = ready();
    for _ in 0..2 {
        world.ask(1, "start").unwrap();
        world.settle();
    }
    let may_say = |world: &World, number| {
        let occupant = world.facts.partitions[&part(0)].occupant.as_ref();
        let ground = Ground { node: &world.file, occupant, logged: &BTreeSet::new() };
        permit(&Action::Note { partition: part(0), note: over(number) }, ground).map_err(|problem| problem.code)
    };
    let told = [1, 2, 3].map(|number| may_say(&world, number));
    assert_eq!(told, [Err(codes::FORGED), Err(codes::FORGED), Ok(())]);
    world.ask(1, "start").unwrap();
    assert!(world.killed_in_a_run(0));
    assert_eq!([2, 3].map(|number| may_say(&world, number)), [Err(codes::FORGED), Ok(())]);
}

#[test]
fn an_instance_that_is_destroyed_in_the_middle_of_a_run_is_destroyed() {
    let mut world = ready();
    world.ask(1, "start").unwrap();
    assert!(world.killed_in_a_run(0));
    world.wish(1, 0, Wish::Destroyed, "{}");
    world.step();
    world.settle();
    assert_eq!(world.status(1).unwrap().state, InstanceState::Destroyed);
    assert_eq!(ends(&world), [(1, RunEnd::Interrupted)]);
}

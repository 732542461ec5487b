//! What holds of every history.

use crate::world::{RELEASE, World, instance_id, part};
use plat_model::instance::{InstanceState, Wish};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Event {
    Wish(usize, Wish, &'static str),
    ForgetGone(usize),
    Later(u64),
    Step,
    Ask(usize, &'static str),
    KillInRun(usize),
    Break(bool),
    Fail(Option<&'static str>),
}

impl Event {
    /// Whether a node of one partition has it too.
    fn is_of_the_first(&self) -> bool {
        match self {
            Self::Wish(n, ..) | Self::ForgetGone(n) | Self::Ask(n, _) | Self::KillInRun(n) => *n == 0,
            Self::Later(_) | Self::Step | Self::Break(_) | Self::Fail(_) => true,
        }
    }
}

const PARTITIONS: usize = 3;

fn events() -> impl Strategy<Value = Vec<Event>> {
    let wish = prop_oneof![Just(Wish::Started), Just(Wish::Stopped), Just(Wish::Destroyed)];
    let parameters = prop_oneof![Just("{}"), Just(r#"{"port": 1}"#), Just(r#"{"greeting": "x"}"#)];
    let steps = prop_oneof![
        Just(None),
        Just(Some("run hook init")),
        Just(Some("start service web")),
        Just(Some("erase")),
        Just(Some("check promise answers"))
    ];
    let event = prop_oneof![
        (0..PARTITIONS, wish, parameters).prop_map(|(n, wish, text)| Event::Wish(n, wish, text)),
        (0..PARTITIONS).prop_map(Event::ForgetGone),
        (0..100_u64).prop_map(Event::Later),
        Just(Event::Step),
        (0..PARTITIONS, prop_oneof![Just("start"), Just("configure")]).prop_map(|(n, hook)| Event::Ask(n, hook)),
        (0..PARTITIONS).prop_map(Event::KillInRun),
        any::<bool>().prop_map(Event::Break),
        steps.prop_map(Event::Fail),
    ];
    prop::collection::vec(event, 0..40)
}

/// As the master does: nothing leaves `Destroyed`, and a seat is free once its instance is gone.
fn play(world: &mut World, event: &Event) {
    match event {
        Event::Wish(n, wish, parameters) => {
            let before = world.desired.instances.get(&instance_id(*n)).map(|instance| instance.wish);
            if before.is_none_or(|before| before.may_become(*wish)) {
                world.wish(*n, *n, *wish, parameters);
            }
        }
        Event::ForgetGone(n) => {
            if world.status(*n).is_some_and(|status| status.state == InstanceState::Destroyed) {
                world.forget(*n);
                world.facts.reported.remove(&instance_id(*n));
            }
        }
        Event::Later(seconds) => world.later(*seconds),
        Event::Step => drop(world.step()),
        Event::Ask(n, hook) => drop(world.ask(*n, hook)),
        Event::KillInRun(n) => drop(world.killed_in_a_run(*n)),
        Event::Break(true) => drop(world.broken.insert("answers".into())),
        Event::Break(false) => world.broken.clear(),
        Event::Fail(step) => world.failing = step.iter().map(ToString::to_string).collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happened_the_node_comes_to_what_is_desired_and_then_rests(history in events()) {
        let mut world = World::new(PARTITIONS);
        history.iter().for_each(|event| play(&mut world, event));
        world.failing.clear();
        world.broken.clear();
        for _ in 0..4 {
            world.later(120);
            world.settle();
        }
        for (name, plan) in world.plan().partitions {
            prop_assert!(plan.actions.is_empty(), "{name}: {:?}", plan.actions);
        }
        for (id, desired) in &world.desired.instances {
            let state = world.facts.reported[id].state;
            let expected = match desired.wish {
                Wish::Started => InstanceState::Ready,
                Wish::Stopped => InstanceState::Stopped,
                Wish::Destroyed => InstanceState::Destroyed,
            };
            prop_assert_eq!(state, expected, "{}", desired.name);
            let ran: Vec<u64> = world.facts.reported[id].ran.iter().map(|run| run.number).collect();
            prop_assert!(ran.is_sorted_by(|a, b| a < b), "each is over once: {ran:?}");
            let open = desired.runs.iter().find(|run| !ran.contains(&run.number));
            // One that was never here has nothing that it could be written down in: the run waits for its first start.
            let was_here = world.facts.partitions[&desired.partition].occupant.is_some();
            let ends = desired.wish == Wish::Started || desired.wish == Wish::Stopped && was_here;
            prop_assert!(open.is_none() || !ends, "{open:?} of {ran:?}");
        }
    }

    #[test]
    fn while_a_step_fails_the_node_rests_until_its_next_try(
        history in events(),
        step in prop_oneof![Just("write files"), Just("run hook init"), Just("prepare volumes"), Just("erase")],
    ) {
        let mut world = World::with_release(&RELEASE.replace("services:\n", "volumes: {work: {kind: scratch}}\nservices:\n"));
        history.iter().filter(|event| event.is_of_the_first()).for_each(|event| play(&mut world, event));
        world.failing = [step.to_owned()].into();
        // It panics if there is always something to do.
        world.settle();
        world.later(1);
        world.settle();
    }

    #[test]
    fn what_happens_in_one_partition_changes_no_other_plan(history in events()) {
        let mut world = World::new(PARTITIONS);
        history.iter().for_each(|event| play(&mut world, event));
        let before = world.plan();
        let wrecked = world.facts.partitions.get_mut(&part(0)).unwrap();
        wrecked.services.clear();
        wrecked.promises.clear();
        wrecked.occupant = None;
        let mut after = world.plan();
        for n in 1..PARTITIONS {
            prop_assert_eq!(&before.partitions[&part(n)], &after.partitions.remove(&part(n)).unwrap());
        }
    }

    #[test]
    fn the_order_of_partitions_in_node_json_is_irrelevant(history in events()) {
        let mut world = World::new(PARTITIONS);
        history.iter().for_each(|event| play(&mut world, event));
        let before = world.plan();
        world.file.partitions.reverse();
        prop_assert_eq!(before, world.plan());
    }
}

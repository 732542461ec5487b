//! One instance through its life.

use crate::world::{RELEASE, World, digest, instance_id, part};
use plat_agent_plan::facts::{Ending, ServiceRun};
use plat_agent_plan::{Action, Disk, KeepPolicy, ReleaseFact, shortage};
use plat_model::Problem;
use plat_model::id::{PromiseName, ServiceName};
use plat_model::instance::{InstanceState, ServiceState, Wish};
use plat_model::parameters::Secret;
use plat_model::problem::codes;
use plat_model::release::InstallState;
use std::collections::BTreeMap;
use std::time::Duration;

fn ready() -> World {
    let mut world = World::new(2);
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    world.take_done();
    world
}

#[test]
fn an_instance_is_brought_up_in_order_and_published_once_its_promises_hold() {
    let mut world = World::new(1);
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    assert_eq!(
        world.take_done(),
        [
            "part0 occupy",
            "part0 write files",
            "part0 run hook init",
            "part0 note",
            "part0 start service web",
            "part0 start service worker",
            "part0 run hook start",
            "part0 note",
            "part0 check promise answers",
            "part0 check promise breathes",
            "part0 publish",
        ]
    );
    let status = world.status(1).unwrap();
    assert_eq!(status.state, InstanceState::Ready);
    assert_eq!(status.connection.to_json(), r#"{"url":"http://[fd00::1]:8080/"}"#);
    assert_eq!(status.services[0].state, ServiceState::Running);
    let upkeep = world.facts.partitions[&part(0)].occupant.as_ref().unwrap().upkeep.clone().unwrap();
    assert!(upkeep.publish.constant().is_some(), "without a secret in it no process fills it in");
}

#[test]
fn a_secret_is_named_in_the_file_that_holds_it_and_in_no_argument_or_environment() {
    let mut world = World::new(1);
    world.wish(1, 0, Wish::Started, "{}");
    world.step();
    world.step();
    let plan = world.plan_of(0);
    let file = plan.actions.iter().find_map(|action| match action {
        Action::WriteFiles { files, .. } => Some(&files[0]),
        _ => None,
    });
    let template = &file.unwrap().template;
    let secrets = [("password".to_owned(), Secret::new("s3cret"))].into();
    assert_eq!(template.fill(&secrets).unwrap(), "password=s3cret\ngreeting=hello\n");
    let others = plan.actions.iter().filter(|action| !matches!(action, Action::WriteFiles { .. }));
    assert!(!serde_json::to_string(&others.collect::<Vec<_>>()).unwrap().contains("secrets."));
}

#[test]
fn nothing_is_done_before_the_release_is_installed() {
    let mut world = World::new(1);
    world.wish(1, 0, Wish::Started, "{}");
    world.facts.releases.insert(digest(), ReleaseFact::Building("fetching (1 of 2)".into()));
    let plan = world.plan_of(0);
    assert_eq!(plan.actions, []);
    assert_eq!(plan.waiting.len(), 1);
    let status = plan.status.unwrap();
    assert_eq!((status.state, status.detail.as_str()), (InstanceState::Installing, "fetching (1 of 2)"));
}

#[test]
fn while_another_release_is_built_or_cannot_be_the_instance_is_kept_up_with_the_one_it_has() {
    let failed = ReleaseFact::Failed {
        attempts: 9,
        at: World::new(1).now,
        problem: plat_model::Problem::new(codes::BUILD_FAILED, "it cannot be built"),
    };
    for (fact, state) in
        [(ReleaseFact::Building("step 1 of 2".into()), InstanceState::Installing), (failed, InstanceState::Failed)]
    {
        let mut world = ready();
        // What the services were last started with, not what was configured once.
        world.wish(1, 0, Wish::Started, r#"{"port": 9090}"#);
        world.settle();
        let next = world.upgrade(1, fact);
        world.settle();
        world.take_done();
        assert_eq!(world.plan_of(0).actions, [], "what runs is left alone");
        world.end(0, "web");
        world.broken.insert("answers".into());
        world.later(31);
        let start = world.plan_of(0).actions.remove(0);
        assert!(matches!(&start, Action::StartService { spec, .. } if spec.command[1..] == ["--port", "9090"]));
        world.settle();
        assert_eq!(
            world.take_done(),
            ["part0 start service web", "part0 check promise answers", "part0 check promise breathes"]
        );
        let status = world.status(1).unwrap();
        assert_eq!(status.state, state);
        assert!(status.problem.is_some() && !status.connection.is_empty());
        world.broken.clear();
        world.facts.releases.insert(next, ReleaseFact::Installed);
        world.later(31);
        world.settle();
        assert!(world.take_done().contains(&"part0 write files".to_owned()));
        assert_eq!(world.status(1).unwrap().state, InstanceState::Ready);
    }
}

#[test]
fn with_parameters_that_make_no_sense_the_instance_is_kept_up_as_it_was() {
    let mut world = ready();
    world.wish(1, 0, Wish::Started, r#"{"port": "high"}"#);
    world.end(0, "web");
    world.settle();
    assert_eq!(world.take_done()[0], "part0 start service web");
    assert_eq!(world.status(1).unwrap().state, InstanceState::Failed);
}

#[test]
fn what_was_stopped_waits_for_its_next_release_before_it_is_started() {
    let mut world = ready();
    world.wish(1, 0, Wish::Stopped, "{}");
    world.settle();
    world.wish(1, 0, Wish::Started, "{}");
    world.upgrade(1, ReleaseFact::Building("step 1 of 2".into()));
    assert_eq!(world.plan_of(0).actions, []);
}

#[test]
fn only_the_service_whose_command_changed_restarts() {
    let mut world = ready();
    world.wish(1, 0, Wish::Started, r#"{"port": 9090}"#);
    world.later(1);
    world.settle();
    let done = world.take_done();
    assert_eq!(done[..2], ["part0 stop service web", "part0 start service web"]);
    assert!(!done.iter().any(|step| step.contains("worker") || step.contains("hook")), "{done:?}");
    assert_eq!(world.status(1).unwrap().connection.to_json(), r#"{"url":"http://[fd00::1]:9090/"}"#);
}

#[test]
fn changed_files_are_written_while_nothing_runs_and_init_is_not_run_again() {
    let mut world = ready();
    world.wish(1, 0, Wish::Started, r#"{"greeting": "good morning"}"#);
    world.later(1);
    world.settle();
    let done = world.take_done();
    assert_eq!(
        done[..8],
        [
            "part0 run hook stop",
            "part0 note",
            "part0 stop service web",
            "part0 stop service worker",
            "part0 write files",
            "part0 note",
            "part0 start service web",
            "part0 start service worker",
        ]
    );
    assert!(!done.contains(&"part0 run hook init".to_owned()));
    assert_eq!(world.status(1).unwrap().state, InstanceState::Ready);
}

#[test]
fn a_service_that_exits_again_and_again_is_failed_with_its_last_lines_and_waits_longer_each_time() {
    let mut world = World::new(1);
    world.crashing.insert(ServiceName::parse("web").unwrap());
    world.wish(1, 0, Wish::Started, "{}");
    let mut starts = Vec::new();
    let begin = world.now;
    for _ in 0..40 {
        world.settle();
        if world.take_done().contains(&"part0 start service web".to_owned()) {
            starts.push(world.now.since(begin).as_secs());
        }
        world.later(1);
    }
    assert_eq!(starts, [0, 1, 3, 7, 15, 31]);
    let status = world.status(1).unwrap();
    assert_eq!(status.state, InstanceState::Failed);
    let problem = status.problem.clone().unwrap();
    assert_eq!(problem.code, codes::SERVICE_EXITED);
    assert!(problem.why.contains("exit code 1") && problem.why.contains("cannot open the shop"), "{problem}");
    let service = &status.services[0];
    assert_eq!((service.state, service.restarts), (ServiceState::Backoff, 5), "started once, and five times again");
    world.crashing.clear();
    world.later(60);
    world.settle();
    world.later(10);
    world.settle();
    assert_eq!(world.status(1).unwrap().state, InstanceState::Ready);
}

#[test]
fn a_promise_that_fails_degrades_and_one_that_holds_again_heals() {
    let mut world = ready();
    world.broken.insert("answers".into());
    world.later(31);
    world.settle();
    let status = world.status(1).unwrap();
    assert_eq!(status.state, InstanceState::Degraded);
    assert_eq!(status.problem.as_ref().unwrap().code, codes::PROMISE_FAILED);
    assert!(!status.connection.is_empty(), "what was published stays published");
    world.broken.clear();
    world.later(31);
    world.settle();
    assert_eq!(world.status(1).unwrap().state, InstanceState::Ready);
}

#[test]
fn a_failed_alive_promise_restarts_the_services_but_not_again_at_once() {
    let mut world = ready();
    world.broken.insert("breathes".into());
    world.take_done();
    for _ in 0..120 {
        world.later(1);
        world.settle();
    }
    let done = world.take_done();
    let restarts = done.iter().filter(|step| *step == "part0 stop service web").count();
    assert!((1..=3).contains(&restarts), "{restarts} restarts in two minutes");
    assert!(!done.iter().any(|step| step.contains("hook")), "{done:?}");
}

#[test]
fn what_cannot_be_stopped_does_not_count_as_restarted_again_and_again() {
    let mut world = ready();
    world.later(3600);
    world.settle();
    world.broken.insert("breathes".into());
    world.failing.insert("stop service web".into());
    let revivals = |world: &World| world.facts.partitions[&part(0)].occupant.as_ref().unwrap().revivals;
    for _ in 0..120 {
        world.later(1);
        world.settle();
        if revivals(&world) > 0 {
            break;
        }
    }
    assert_eq!(revivals(&world), 1, "it is written down with each try, and with nothing else");
}

#[test]
fn stopping_runs_the_stop_hook_first_and_keeps_everything() {
    let mut world = ready();
    world.wish(1, 0, Wish::Stopped, "{}");
    world.settle();
    assert_eq!(
        world.take_done(),
        ["part0 run hook stop", "part0 note", "part0 stop service web", "part0 stop service worker"]
    );
    assert_eq!(world.status(1).unwrap().state, InstanceState::Stopped);
    assert!(world.facts.partitions[&part(0)].occupant.is_some());
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    let done = world.take_done();
    assert!(done.contains(&"part0 run hook start".to_owned()) && !done.contains(&"part0 run hook init".to_owned()));
}

#[test]
fn a_destroyed_instance_is_stopped_cleaned_and_erased_and_freed_when_the_master_forgets_it() {
    let mut world = ready();
    world.wish(1, 0, Wish::Destroyed, "{}");
    world.settle();
    assert_eq!(
        world.take_done(),
        [
            "part0 run hook stop",
            "part0 note",
            "part0 stop service web",
            "part0 stop service worker",
            "part0 run hook clean",
            "part0 note",
            "part0 erase",
        ]
    );
    assert_eq!(world.status(1).unwrap().state, InstanceState::Destroyed);
    world.forget(1);
    world.settle();
    assert_eq!(world.take_done(), ["part0 free"]);
    assert!(world.facts.partitions[&part(0)].occupant.is_none());
}

#[test]
fn a_broken_stop_hook_does_not_keep_an_instance_from_its_end() {
    let mut world = ready();
    world.failing.insert("run hook stop".into());
    world.wish(1, 0, Wish::Destroyed, "{}");
    for _ in 0..10 {
        world.settle();
        world.later(1);
    }
    let done = world.take_done();
    assert_eq!(done.iter().filter(|step| *step == "part0 run hook stop").count(), 3);
    assert_eq!(world.status(1).unwrap().state, InstanceState::Destroyed);
}

#[test]
fn a_failing_step_waits_longer_each_time_and_says_so() {
    let mut world = World::new(1);
    world.failing.insert("run hook init".into());
    world.wish(1, 0, Wish::Started, "{}");
    let (begin, mut tries) = (world.now, Vec::new());
    for _ in 0..20 {
        world.settle();
        if world.take_done().contains(&"part0 run hook init".to_owned()) {
            tries.push(world.now.since(begin).as_secs());
        }
        world.later(1);
    }
    assert_eq!(tries, [0, 1, 3, 7, 15]);
    let status = world.status(1).unwrap();
    assert_eq!(status.state, InstanceState::Failed);
    assert_eq!(status.detail, "run hook init failed 5 times");
    assert!(world.plan_of(0).wake_at.unwrap() > world.now.steady);
}

#[test]
fn what_the_master_forgot_keeps_running() {
    let mut world = ready();
    world.forget(1);
    world.later(3600);
    let plan = world.plan_of(0);
    assert_eq!(plan.actions, []);
    assert!(plan.waiting[0].on.contains(instance_id(1).as_str()));
}

#[test]
fn a_partition_given_to_another_is_emptied_first() {
    let mut world = ready();
    world.forget(1);
    world.wish(2, 0, Wish::Started, "{}");
    world.settle();
    let done = world.take_done();
    assert_eq!(
        done[..6],
        [
            "part0 note",
            "part0 stop service web",
            "part0 stop service worker",
            "part0 erase",
            "part0 free",
            "part0 occupy"
        ]
    );
    assert_eq!(world.status(2).unwrap().state, InstanceState::Ready);
}

#[test]
fn a_service_that_cannot_be_observed_is_neither_started_nor_stopped() {
    let mut world = ready();
    let web = ServiceName::parse("web").unwrap();
    world.facts.partitions.get_mut(&part(0)).unwrap().services.get_mut(&web).unwrap().state = ServiceRun::Unknown;
    let plan = world.plan_of(0);
    assert_eq!(plan.actions, []);
    assert!(plan.wake_at.is_some() && !plan.waiting.is_empty());
}

#[test]
fn a_release_that_nobody_uses_any_more_is_removed_and_not_before() {
    let mut world = ready();
    world.desired.releases.clear();
    assert!(world.plan().releases[&digest()].action.is_none(), "an instance consists of it");
    world.forget(1);
    assert!(world.plan().releases[&digest()].action.is_none(), "a forgotten instance still runs from it");
    world.empty(0);
    assert!(world.plan().releases[&digest()].action.is_none(), "it may be wanted again");
    world.facts.garbage.insert(digest());
    assert!(matches!(world.plan().releases[&digest()].action, Some(Action::RemoveRelease { .. })));
}

#[test]
fn a_release_waits_for_room_and_is_begun_once_there_is_some() {
    let mut world = ready();
    world.facts.releases.insert(digest(), ReleaseFact::Absent);
    let policy = KeepPolicy::default();
    let disk = |free| BTreeMap::from([(1, Disk { place: "/srv".into(), free, asked: Vec::new() })]);
    world.facts.shortage = shortage(&disk(policy.min_free - 1), &policy);
    let plan = &world.plan().releases[&digest()];
    assert!(plan.action.is_none() && plan.wake_at.is_some());
    let status = plan.status.as_ref().unwrap();
    let why = status.problem.as_ref().unwrap().to_string();
    assert!(status.state == InstallState::Installing && why.contains("/srv") && why.contains("256 MiB"), "{why}");
    assert_eq!(plan.waiting.len(), 1);
    world.facts.shortage = shortage(&disk(policy.min_free), &policy);
    assert!(matches!(world.plan().releases[&digest()].action, Some(Action::InstallRelease { .. })));
}

#[test]
fn a_result_of_before_the_last_start_does_not_count() {
    let mut world = ready();
    let answers = PromiseName::parse("answers").unwrap();
    let web = ServiceName::parse("web").unwrap();
    world.later(5);
    let fact = world.facts.partitions.get_mut(&part(0)).unwrap();
    fact.services.get_mut(&web).unwrap().state = ServiceRun::Running { pid: 9, since: world.now };
    fact.services.get_mut(&web).unwrap().run = "another".into();
    let plan = world.plan_of(0);
    let checks = |action: &Action| matches!(action, Action::CheckPromise { promise, .. } if *promise == answers);
    assert!(plan.actions.iter().any(checks));
    assert_eq!(plan.status.unwrap().state, InstanceState::Degraded);
}

#[test]
fn a_step_of_the_wall_clock_changes_nothing_of_what_is_done_and_when() {
    for step in [-3600, 3600] {
        let mut world = ready();
        world.set_clock(step);
        assert_eq!(world.plan_of(0).actions, [], "nothing is due yet");
        assert_eq!(world.plan_of(0).wake_at, Some(world.now.plus(Duration::from_secs(30)).steady));
        world.later(30);
        world.settle();
        assert_eq!(world.take_done(), ["part0 check promise answers", "part0 check promise breathes"]);
        assert_eq!(world.status(1).unwrap().state, InstanceState::Ready);
        world.failing.insert("run hook stop".into());
        world.wish(1, 0, Wish::Stopped, "{}");
        world.settle();
        world.set_clock(step);
        world.take_done();
        world.later(1);
        world.settle();
        assert_eq!(world.take_done(), ["part0 run hook stop"], "tried again when a second has passed");
    }
}

#[test]
fn two_steps_that_fail_wait_longer_each_time_and_neither_has_the_other_tried_again() {
    let steps = ["part0 start service web", "part0 start service worker"];
    let mut world = World::new(1);
    for step in steps {
        world.failing.insert(step.replace("part0 ", ""));
    }
    world.wish(1, 0, Wish::Started, "{}");
    let mut tries = [0, 0];
    for _ in 0..600 {
        world.settle();
        let done = world.take_done();
        for (tries, step) in tries.iter_mut().zip(steps) {
            *tries += done.iter().filter(|done| *done == step).count();
        }
        world.later(1);
    }
    assert!(tries.iter().all(|tries| (4..=20).contains(tries)), "{tries:?} in ten minutes");
    world.failing.remove("start service web");
    world.later(600);
    world.settle();
    let done = world.take_done();
    assert!(steps.iter().all(|step| done.contains(&(*step).to_owned())), "{done:?}");
    assert!(matches!(
        world.facts.partitions[&part(0)].services[&ServiceName::parse("web").unwrap()].state,
        ServiceRun::Running { .. }
    ));
}

#[test]
fn a_service_that_could_not_be_started_says_why_also_while_it_waits() {
    let mut world = World::new(1);
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    let name = ServiceName::parse("web").unwrap();
    let fact = world.facts.partitions.get_mut(&part(0)).unwrap().services.get_mut(&name).unwrap();
    fact.state = ServiceRun::Ended { at: world.now, how: Ending::Failure };
    fact.short_runs = 3;
    fact.refused = Some(Problem::new(codes::SERVICE_START, "service web cannot be started").fix("mend it"));
    world.settle();
    let problem = world.status(1).unwrap().problem.as_ref().unwrap();
    assert_eq!((problem.code, problem.todo.as_str()), (codes::SERVICE_START, "mend it"));
}

#[test]
fn a_check_whose_result_cannot_be_kept_waits_longer_each_time() {
    let mut world = World::new(1);
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    world.later(60);
    world.settle();
    world.failing.insert("check promise breathes".into());
    world.take_done();
    let mut tries = 0;
    for _ in 0..600 {
        world.later(1);
        world.settle();
        tries += world.take_done().iter().filter(|done| *done == "part0 check promise breathes").count();
    }
    assert!((4..=15).contains(&tries), "{tries} in ten minutes, of twenty periods");
}

#[test]
fn a_service_that_cannot_be_stopped_keeps_no_other_from_being_stopped() {
    let mut world = World::new(1);
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    world.failing = ["stop service web", "stop service worker"].map(str::to_owned).into();
    world.wish(1, 0, Wish::Destroyed, "{}");
    for _ in 0..10 {
        world.settle();
        world.later(10);
    }
    world.failing.remove("stop service worker");
    world.later(60);
    // As it may be while the one is not due: it is waited for, and the other is stopped.
    let services = &mut world.facts.partitions.get_mut(&part(0)).unwrap();
    services.failures.iter_mut().find(|failure| failure.step == "stop service web").unwrap().at = world.now;
    world.take_done();
    world.settle();
    assert_eq!(world.take_done(), ["part0 stop service worker"]);
    let runs = |world: &World, name: &str| {
        let services = &world.facts.partitions[&part(0)].services;
        services
            .get(&ServiceName::parse(name).unwrap())
            .is_some_and(|fact| matches!(fact.state, ServiceRun::Running { .. }))
    };
    assert_eq!((runs(&world, "web"), runs(&world, "worker")), (true, false));
    world.failing.clear();
    world.later(600);
    world.settle();
    assert!(!runs(&world, "web"));
    assert!(world.take_done().contains(&"part0 erase".to_owned()));
}

/// When it was restarted in an hour, in seconds; `between` happens every five seconds.
fn restarts_in_an_hour(world: &mut World, mut between: impl FnMut(&mut World)) -> Vec<u64> {
    let (begin, mut restarts) = (world.now, Vec::new());
    for _ in 0..720 {
        world.later(5);
        between(world);
        world.settle();
        if world.take_done().contains(&"part0 stop service web".to_owned()) {
            restarts.push(world.now.since(begin).as_secs());
        }
    }
    restarts
}

#[test]
fn who_bangs_all_the_time_is_not_restarted_more_often_for_a_promise() {
    const HOOK: &str = "  configure: {command: [\"{{ release.directory }}/bin/configure\"]}\n  start:";
    let broken = || {
        let mut world = World::with_release(&RELEASE.replace("  start:", HOOK));
        world.wish(1, 0, Wish::Started, "{}");
        world.settle();
        world.take_done();
        world.broken.insert("breathes".into());
        world
    };
    let bang = |world: &mut World| {
        if world.now.steady.0.is_multiple_of(60_000) {
            let desired = world.desired.instances.get_mut(&instance_id(1)).unwrap();
            (desired.bang, desired.generation) = (desired.bang + 1, desired.generation.next());
        }
    };
    let (quiet, loud) = (restarts_in_an_hour(&mut broken(), |_| {}), restarts_in_an_hour(&mut broken(), bang));
    assert!(!loud.is_empty() && loud.len() <= quiet.len(), "{loud:?} {quiet:?}");
}

#[test]
fn restarts_for_a_promise_come_further_and_further_apart_until_the_services_last() {
    let mut world = ready();
    world.broken.insert("breathes".into());
    let restarts = restarts_in_an_hour(&mut world, |_| {});
    let pauses: Vec<u64> = restarts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.is_sorted() && pauses.len() >= 5, "{restarts:?}");
    assert!(*pauses.last().unwrap() >= 600, "{restarts:?}");
    world.broken.clear();
    world.later(600);
    world.settle();
    let occupant = |world: &World| world.facts.partitions[&part(0)].occupant.clone().unwrap();
    assert_eq!((occupant(&world).revivals, world.status(1).unwrap().state), (0, InstanceState::Ready));
    world.broken.insert("breathes".into());
    for _ in 0..18 {
        world.later(5);
        world.settle();
    }
    assert!(world.take_done().contains(&"part0 stop service web".to_owned()), "it is not waited for long any more");
}

#[test]
fn services_start_once_what_they_are_built_from_holds_and_not_before() {
    let mut world = World::new(1);
    world.promise("laid-out", r#"{role: built, exec: ["/bin/true"]}"#);
    world.broken.insert("laid-out".into());
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    let done = world.take_done();
    assert_eq!(done[4..], ["part0 check promise laid-out"], "{done:?}");
    let status = world.status(1).unwrap();
    assert_eq!(status.state, InstanceState::Starting);
    assert_eq!(status.detail, "its services wait: promise `laid-out` does not hold");
    assert_eq!(status.problem.as_ref().unwrap().code, codes::PROMISE_FAILED);
    world.broken.clear();
    world.later(1);
    world.settle();
    assert_eq!(world.status(1).unwrap().state, InstanceState::Ready);
    // It is asked of what was written, so not again while that stays.
    world.take_done();
    world.end(0, "web");
    world.later(100);
    world.settle();
    assert!(!world.take_done().contains(&"part0 check promise laid-out".to_owned()));
    world.wish(1, 0, Wish::Started, r#"{"greeting": "good morning"}"#);
    world.settle();
    assert!(world.take_done().contains(&"part0 check promise laid-out".to_owned()));
}

#[test]
fn a_test_that_fails_is_told_and_changes_nothing() {
    let mut world = World::new(1);
    world.promise("fast", r#"{role: test, exec: ["/bin/true"]}"#);
    world.broken.insert("fast".into());
    world.wish(1, 0, Wish::Started, "{}");
    for _ in 0..20 {
        world.settle();
        world.later(10);
    }
    let status = world.status(1).unwrap();
    assert_eq!(status.state, InstanceState::Ready);
    let told = status.promises.iter().find(|promise| promise.name.as_str() == "fast").unwrap();
    assert!(!told.holds);
    assert!(!world.take_done().contains(&"part0 stop service web".to_owned()));
}

#[test]
fn a_promise_is_asked_after_its_delay_and_degrades_from_its_threshold_on() {
    let mut world = World::new(1);
    world.promise("serves", r#"{delay_seconds: 20, threshold: 3, period_seconds: 5, exec: ["/bin/true"]}"#);
    world.wish(1, 0, Wish::Started, "{}");
    world.settle();
    assert!(!world.take_done().contains(&"part0 check promise serves".to_owned()));
    world.later(19);
    world.settle();
    assert_eq!(world.status(1).unwrap().state, InstanceState::Starting);
    world.later(1);
    world.settle();
    assert_eq!(world.status(1).unwrap().state, InstanceState::Ready);
    world.broken.insert("serves".into());
    let mut states = Vec::new();
    for _ in 0..3 {
        world.later(5);
        world.settle();
        states.push(world.status(1).unwrap().state);
    }
    assert_eq!(states, [InstanceState::Ready, InstanceState::Ready, InstanceState::Degraded]);
}

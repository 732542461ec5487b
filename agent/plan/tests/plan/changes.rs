//! What happens when files, parameters and commands change: only what uses them restarts, or reloads.

use crate::world::World;
use plat_model::instance::{InstanceState, Wish};

const SHOP: &str = r#"
version: 1
name: shop
parameters: {type: object, additionalProperties: {type: string}}
files:
  etc/a: {template: "{{ parameters.a|default('a') }}"}
  etc/b: {template: "{{ parameters.b|default('b') }}"}
  etc/c: {template: "{{ parameters.c|default('c') }}"}
hooks:
  stop: {command: ["/bin/stop"]}
services:
  one: {command: ["/bin/one", "{{ parameters.one|default('1') }}"], files: [etc/a]}
  two: {command: ["/bin/two"], files: [etc/a, etc/b], reload: {signal: HUP}}
  three: {command: ["/bin/three"], files: []}
"#;

const PROMISES: &str = "
promises:
  answers: {exec: [/bin/answers]}
  breathes: {role: alive, exec: [/bin/breathes]}
publish:
  one: \"{{ parameters.b|default('b') }}\"
";

/// What is done to a ready instance when its parameters change.
fn done(release: &str, parameters: &str) -> Vec<String> {
    let mut world = World::with_release(release);
    world.wish(1, 0, Wish::Started, "{}");
    ready(&mut world);
    world.wish(1, 0, Wish::Started, parameters);
    ready(&mut world)
}

fn ready(world: &mut World) -> Vec<String> {
    world.settle();
    world.later(1);
    world.settle();
    assert_eq!(world.status(1).unwrap().state, InstanceState::Ready);
    let done = world.take_done().into_iter().map(|step| step.replace("part0 ", ""));
    done.filter(|step| !["note", "publish"].contains(&step.as_str())).collect()
}

#[test]
fn a_file_restarts_the_service_that_uses_it_and_reloads_the_one_that_can() {
    assert_eq!(
        done(SHOP, r#"{"a": "A"}"#),
        ["stop service one", "write files", "start service one", "reload service two"]
    );
}

#[test]
fn a_file_that_only_reloads_stops_nothing() {
    assert_eq!(done(SHOP, r#"{"b": "B"}"#), ["write files", "reload service two"]);
}

#[test]
fn a_file_that_no_service_uses_is_written_and_no_more() {
    assert_eq!(done(SHOP, r#"{"c": "C"}"#), ["write files"]);
}

#[test]
fn a_command_that_changed_with_a_file_restarts_its_service_once() {
    assert_eq!(
        done(SHOP, r#"{"a": "A", "one": "2"}"#),
        ["stop service one", "write files", "start service one", "reload service two"]
    );
}

#[test]
fn a_service_that_does_not_say_what_it_uses_restarts_for_any_file() {
    let shop = SHOP.replace("files: []", "directory: d");
    assert_eq!(done(&shop, r#"{"c": "C"}"#), ["stop service three", "write files", "start service three"]);
}

#[test]
fn a_reload_by_a_command_runs_it() {
    let shop = SHOP.replace("{signal: HUP}", r#"{command: ["/bin/reload"]}"#);
    assert_eq!(done(&shop, r#"{"b": "B"}"#), ["write files", "reload service two"]);
}

#[test]
fn what_has_read_its_files_by_a_restart_is_not_told_to_reload() {
    let mut world = World::with_release(SHOP);
    world.wish(1, 0, Wish::Started, "{}");
    ready(&mut world);
    world.end(0, "two");
    world.wish(1, 0, Wish::Started, r#"{"b": "B"}"#);
    assert_eq!(ready(&mut world), ["write files", "start service two"]);
}

/// A file of a service is another, and its reload fails.
fn with_a_reload_that_fails(promises: &str) -> World {
    let mut world = World::with_release(&format!("{SHOP}{promises}"));
    world.wish(1, 0, Wish::Started, "{}");
    ready(&mut world);
    world.failing.insert("reload service two".into());
    world.wish(1, 0, Wish::Started, r#"{"b": "B"}"#);
    world.settle();
    world
}

#[test]
fn a_reload_that_failed_is_tried_again_and_one_that_was_done_is_not() {
    let mut world = with_a_reload_that_fails("");
    assert_eq!(world.status(1).unwrap().state, InstanceState::Failed);
    world.take_done();
    world.failing.clear();
    assert_eq!(ready(&mut world), ["reload service two"]);
    world.end(0, "two");
    assert_eq!(ready(&mut world), ["start service two"]);
    // Back to what it read when it was first started: another run, so its own files count.
    world.wish(1, 0, Wish::Started, "{}");
    assert_eq!(ready(&mut world), ["write files", "reload service two"]);
}

#[test]
fn a_reload_that_fails_keeps_no_other_service_from_being_started_again() {
    let mut world = with_a_reload_that_fails("");
    world.take_done();
    for _ in 0..3 {
        world.end(0, "three");
        world.later(90);
        world.settle();
        let done = world.take_done();
        assert!(done.contains(&"part0 start service three".to_owned()), "{done:?}");
    }
}

#[test]
fn while_a_reload_fails_promises_are_checked_and_nothing_is_published() {
    let mut world = with_a_reload_that_fails(PROMISES);
    let holds = |world: &World| world.status(1).unwrap().promises.iter().map(|one| one.holds).collect::<Vec<_>>();
    world.broken.insert("answers".into());
    world.later(90);
    world.settle();
    assert_eq!(holds(&world), [false, true]);
    world.broken.clear();
    world.later(90);
    world.settle();
    assert_eq!((holds(&world), world.status(1).unwrap().state), (vec![true, true], InstanceState::Failed));
    assert!(!world.take_done().contains(&"part0 publish".to_owned()), "it is not as it is to be");
    world.failing.clear();
    world.later(90);
    world.settle();
    let done = world.take_done();
    assert!(done.contains(&"part0 publish".to_owned()), "{done:?}");
    assert_eq!(world.status(1).unwrap().state, InstanceState::Ready);
}

#[test]
fn what_is_not_alive_is_restarted_also_while_a_reload_fails() {
    let mut world = with_a_reload_that_fails(PROMISES);
    world.broken.insert("breathes".into());
    world.take_done();
    for _ in 0..20 {
        world.later(10);
        world.settle();
    }
    let done = world.take_done();
    assert!(done.contains(&"part0 stop service one".to_owned()), "{done:?}");
}

#[test]
fn the_example_of_nginx_goes_on_with_another_text_and_reloads_with_another_port() {
    let nginx = include_str!("../../../../examples/releases/nginx.yaml");
    let checked = "check promise serves-the-page";
    assert_eq!(done(nginx, r#"{"text": "Good morning"}"#), ["write files", checked]);
    assert_eq!(done(nginx, r#"{"port": 9090}"#), ["write files", "reload service nginx", checked]);
}

//! What instances say over their socket, and what it makes of their plans.

use super::world::*;
use plat_agent_plan::action::Note;
use plat_agent_plan::facts::Occupant;
use plat_agent_plan::inside::{Answer, LINE_MAX, answer, parse, reply};
use plat_agent_plan::{Rendered, render};
use plat_document::Release;
use plat_model::Problem;
use plat_model::instance::{InstanceDesired, Wish};
use plat_model::parameters::{Parameters, Secret};
use plat_model::problem::codes;
use plat_model::tree::{Kind, SAID_MAX, SharedDesired, TreeAsk};
use proptest::prelude::*;
use serde_json::{Value, json};

const HOOK: &str = "  configure: {command: [\"{{ release.directory }}/bin/configure\"]}\n  start:";

fn here() -> (InstanceDesired, Occupant) {
    let mut desired = InstanceDesired::bare(instance_id(0), part(0), release().digest());
    desired.parameters = Parameters::parse_json(r#"{"port": 1}"#).unwrap();
    desired.shared = vec![shared(7, "{}")];
    (desired, Occupant::new(instance_id(0)))
}

fn shared(n: usize, parameters: &str) -> SharedDesired {
    SharedDesired {
        id: instance_id(n),
        name: plat_model::id::InstanceName::parse(&format!("shared{n}")).unwrap(),
        parameters: Parameters::parse_json(parameters).unwrap(),
    }
}

fn said(line: &Value) -> Result<Answer, Problem> {
    let (desired, occupant) = here();
    answer(parse(line.to_string().as_bytes())?, &desired, &occupant)
}

#[test]
fn an_instance_is_told_what_it_is_to_be() {
    let Answer::Now(known) = said(&json!({ "v": 1, "ask": "get" })).unwrap() else { panic!("it is known here") };
    assert_eq!(known["parameters"], json!({ "port": 1 }));
    assert_eq!(known["shared"][0]["name"], "shared7");
    assert_eq!(known["instance"]["name"], "bare");
}

#[test]
fn what_is_published_is_laid_over_what_was_and_taken_back_by_null() {
    let (desired, mut occupant) = here();
    let mut publish = |connection: Value| {
        let line = json!({ "v": 1, "ask": "publish", "connection": connection }).to_string();
        let answered = answer(parse(line.as_bytes()).unwrap(), &desired, &occupant).unwrap();
        if let Answer::Note(note) = &answered {
            occupant.note(note);
        }
        (answered, occupant.spoken.to_json())
    };
    assert_eq!(publish(json!({ "a": 1, "b": "x" })).1, r#"{"a":1,"b":"x"}"#);
    assert_eq!(publish(json!({ "b": null, "c": [2] })).1, r#"{"a":1,"c":[2]}"#);
    // What is known is not written down again.
    assert_eq!(publish(json!({ "a": 1 })).0, Answer::Now(json!({})));
}

#[test]
fn what_came_late_says_nothing_of_the_next_instance() {
    let mut next = Occupant::new(instance_id(1));
    let spoken = Parameters::parse_json(r#"{"a": 1}"#).unwrap();
    next.note(&Note::Told { instance: instance_id(0), spoken, said: None });
    assert!(next.spoken.is_empty());
}

#[test]
fn what_the_grid_decides_is_asked_of_the_master() {
    let asked = said(&json!({ "v": 1, "ask": "request", "name": "db", "shared": true, "on": "server" })).unwrap();
    let Answer::Master(TreeAsk::Request(ask)) = asked else { panic!("{asked:?}") };
    assert!(matches!(ask.kind, Kind::Shared { on: Some(on) } if on.as_str() == "server"));
    assert_eq!(said(&json!({ "v": 1, "ask": "bang" })).unwrap(), Answer::Master(TreeAsk::Bang));
    let publish = |id: usize| said(&json!({ "v": 1, "ask": "publish", "shared": instance_id(id), "connection": {} }));
    assert!(matches!(publish(7).unwrap(), Answer::Master(TreeAsk::Publish { .. })));
    assert_eq!(publish(8).unwrap_err().code, codes::NOT_FOUND);
}

#[test]
fn what_is_wrong_is_told() {
    let code = |line: Value| said(&line).unwrap_err().code;
    assert_eq!(code(json!({ "ask": "get" })), codes::BAD_MESSAGE);
    assert_eq!(code(json!({ "v": 2, "ask": "get" })), codes::BAD_MESSAGE);
    assert_eq!(code(json!({ "v": 1, "ask": "format" })), codes::BAD_MESSAGE);
    assert_eq!(code(json!({ "v": 1, "ask": "get", "of": "others" })), codes::BAD_MESSAGE);
    assert_eq!(code(json!({ "v": 1, "ask": "request", "name": "../x" })), codes::BAD_MESSAGE);
    assert_eq!(code(json!({ "v": 1, "ask": "request", "name": "db", "on": "x" })), codes::BAD_VALUE);
    assert_eq!(
        code(json!({ "v": 1, "ask": "status", "well": true, "text": "x".repeat(SAID_MAX + 1) })),
        codes::TOO_LARGE
    );
    let large = json!({ "a": "x".repeat(LINE_MAX / 2) });
    assert_eq!(code(json!({ "v": 1, "ask": "publish", "connection": large })), codes::TOO_LARGE);
    let mut deep = json!(1);
    for _ in 0..40 {
        deep = json!([deep]);
    }
    assert_eq!(code(json!({ "v": 1, "ask": "publish", "connection": { "a": deep } })), codes::TOO_LARGE);
    let (desired, occupant) = here();
    let ends = InstanceDesired { wish: Wish::Destroyed, ..desired };
    let late = answer(parse(br#"{"v": 1, "ask": "bang"}"#).unwrap(), &ends, &occupant);
    assert_eq!(late.unwrap_err().code, codes::DESTROYED);
}

proptest! {
    #[test]
    fn no_bytes_from_an_instance_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let (desired, occupant) = here();
        let answered = parse(&bytes).and_then(|ask| answer(ask, &desired, &occupant)).map(|_| Value::Null);
        let line = reply(&answered);
        prop_assert!(line.ends_with('\n') && line.matches('\n').count() == 1);
    }
}

/// A world in which one instance of a release with a configure hook is ready.
fn configured() -> World {
    let mut world = World::with_release(&RELEASE.replace("  start:", HOOK));
    world.wish(0, 0, Wish::Started, "{}");
    world.settle();
    world.done.clear();
    world
}

fn occupant(world: &mut World) -> &mut Occupant {
    world.facts.partitions.get_mut(&part(0)).unwrap().occupant.as_mut().unwrap()
}

fn rendered(world: &mut World) -> Rendered {
    let (desired, occupant) = (world.desired.instances[&instance_id(0)].clone(), occupant(world).clone());
    let release = Release::from_canonical_json(&world.desired.releases[&desired.release]).unwrap();
    render(&world.place, &world.file.partitions[0], &desired, &release, &occupant).unwrap()
}

fn again(world: &mut World, change: impl FnOnce(&mut InstanceDesired)) -> Vec<String> {
    let desired = world.desired.instances.get_mut(&instance_id(0)).unwrap();
    desired.generation = desired.generation.next();
    change(desired);
    world.settle();
    std::mem::take(&mut world.done)
}

#[test]
fn a_bang_has_the_configure_hook_run_once_and_restarts_nothing() {
    let mut world = configured();
    let done = again(&mut world, |desired| desired.bang = 1);
    assert_eq!(done.iter().filter(|step| step.contains("run hook configure")).count(), 1, "{done:?}");
    assert!(!done.iter().any(|step| step.contains("service")), "{done:?}");
    assert!(again(&mut world, |_| {}).is_empty());
}

#[test]
fn a_bang_before_the_start_hook_has_run_stops_nothing() {
    let mut world = World::with_release(&RELEASE.replace("  start:", HOOK));
    world.failing.insert("run hook start".into());
    world.wish(0, 0, Wish::Started, "{}");
    world.settle();
    world.done.clear();
    let done = again(&mut world, |desired| desired.bang = 1);
    assert!(done.iter().any(|step| step.contains("run hook configure")), "{done:?}");
    assert!(!done.iter().any(|step| step.contains("service") || step.contains("hook stop")), "{done:?}");
    world.failing.clear();
    world.later(600);
    world.settle();
    assert!(occupant(&mut world).started);
}

#[test]
fn the_configure_hook_runs_when_what_is_shared_changes_and_nothing_is_restarted() {
    let mut world = configured();
    for list in [vec![shared(7, "{}")], vec![shared(7, r#"{"a": 1}"#), shared(8, "{}")], vec![]] {
        let done = again(&mut world, |desired| desired.shared = list);
        assert!(done.iter().any(|step| step.contains("run hook configure")), "{done:?}");
        assert!(!done.iter().any(|step| step.contains("service")), "{done:?}");
    }
}

#[test]
fn a_file_says_what_is_shared() {
    let text = RELEASE.replace(
        "      greeting=",
        "      {% for one in shared %}{{ one.name }}={{ one.parameters.a }};{% endfor %}\n      greeting=",
    );
    let mut world = World::with_release(&text);
    world.wish(0, 0, Wish::Started, "{}");
    world.settle();
    world.desired.instances.get_mut(&instance_id(0)).unwrap().shared = vec![shared(7, r#"{"a": 5}"#)];
    let filled =
        rendered(&mut world).files[0].template.fill(&[("password".to_owned(), Secret::new("s3cret"))].into()).unwrap();
    assert!(filled.contains("shared7=5;"), "{filled}");
}

#[test]
fn every_program_knows_the_socket_and_no_fingerprint_does() {
    let mut world = configured();
    let rendered = rendered(&mut world);
    let socket = format!("{}/run/plat.sock", world.place.partition_directory(&part(0)));
    assert_eq!(rendered.configure.unwrap().environment["PLAT_SOCKET"], socket);
    assert!(rendered.upkeep.services.iter().all(|spec| spec.environment["PLAT_SOCKET"] == socket));
    // As an agent wrote it down that told of no socket.
    let occupant = occupant(&mut world);
    let mut before = occupant.upkeep.clone().unwrap();
    before.environment.remove("PLAT_SOCKET");
    before.services.iter_mut().for_each(|spec| drop(spec.environment.remove("PLAT_SOCKET")));
    occupant.upkeep = Some(before);
    let done = again(&mut world, |_| {});
    assert_eq!(done, ["part0 note"]);
}

#[test]
fn what_an_instance_says_is_reported_at_once_and_wins_over_its_release() {
    let mut world = configured();
    let spoken = Parameters::parse_json(r#"{"url": "mine", "token": "t"}"#).unwrap();
    let told = Note::Told {
        instance: instance_id(0),
        spoken,
        said: Some(plat_model::tree::Said { well: false, text: "no licence".into() }),
    };
    occupant(&mut world).note(&told);
    world.step();
    let status = world.status(0).unwrap().clone();
    assert_eq!(status.connection, Parameters::parse_json(r#"{"token": "t", "url": "mine"}"#).unwrap());
    assert_eq!(status.said.unwrap().text, "no licence");
}

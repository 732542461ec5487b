//! What is said of things: why they wait, who did what, when.

use crate::world::World;
use plat_tests::eventually::eventually;
use std::time::Duration;

#[test]
fn an_instance_that_waits_says_what_would_give_it_a_place() {
    let world = World::new();
    world.release();
    world.done(&["request", "db", "--release", "quiet"]);
    let no_node = world.done(&["show", "db"]).out;
    assert!(no_node.contains("plat token create --node"), "{no_node}");
    world.node("n1");
    let offline = world.done(&["show", "db"]).out;
    assert!(offline.contains("bring a node back") && offline.contains("plat supply quiet --all"), "{offline}");
    world.done(&["request", "other", "--release", "quiet", "--node", "n9"]);
    let missing = world.done(&["show", "other"]).out;
    assert!(missing.contains("there is no node `n9`"), "{missing}");
}

#[test]
fn an_instance_that_no_node_holds_is_stopped_and_destroyed_at_once() {
    let world = World::new();
    world.release();
    world.done(&["request", "db", "--release", "quiet"]);
    world.done(&["stop", "db", "--wait", "--timeout", "30s"]);
    world.done(&["request", "cold", "--release", "quiet", "--stopped", "--wait", "--timeout", "30s"]);
    world.done(&["destroy", "db", "cold", "--yes", "--wait", "--timeout", "30s"]);
}

#[test]
fn an_instance_is_kept_before_it_is_destroyed_and_can_be_had_back() {
    let world = World::new();
    world.release();
    world.done(&["request", "db", "--release", "quiet"]);
    world.done(&["destroy", "db", "--keep-for", "1h", "--wait", "--timeout", "30s"]);
    let shown = world.plat.json(&["show", "db"]);
    assert_eq!(shown["wish"], "stopped");
    assert!(shown["leaves"].is_string(), "{shown}");
    assert!(world.done(&["show", "db"]).out.contains("plat undestroy db"));
    world.done(&["undestroy", "db"]);
    let shown = world.plat.json(&["show", "db"]);
    assert_eq!((&shown["wish"], &shown["leaves"]), (&"started".into(), &serde_json::Value::Null));
    let again = world.done(&["undestroy", "db"]);
    assert!(again.errors.contains("db is not to be destroyed"), "{}", again.errors);
    // Its time comes by itself.
    world.done(&["destroy", "db", "--keep-for", "1"]);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while world.plat.run(&["show", "db"]).code == 0 {
        assert!(std::time::Instant::now() < deadline, "it is never destroyed");
        std::thread::yield_now();
    }
}

#[test]
fn the_audit_log_names_things_and_shows_the_newest() {
    let world = World::new();
    world.release();
    world.done(&["request", "db", "--release", "quiet"]);
    for verb in ["stop", "start"] {
        world.done(&[verb, "db"]);
    }
    let told = world.plat.json(&["audit"]);
    let told: Vec<_> = told.as_array().unwrap().iter().map(|e| format!("{} {}", e["verb"], e["subject"])).collect();
    for expected in
        ["\"AddRelease\" \"release/quiet\"", "\"Stop\" \"instance/default/db\"", "\"Start\" \"instance/default/db\""]
    {
        assert!(told.iter().any(|line| line == expected), "{expected} is missing: {told:#?}");
    }
    let newest = world.plat.json(&["audit", "-n", "1", "--user", "ada"]);
    assert_eq!((newest.as_array().unwrap().len(), &newest[0]["verb"]), (1, &"Start".into()));
    assert_eq!(world.plat.json(&["audit", "--user", "nobody"]), serde_json::json!([]));
}

#[test]
fn times_are_typed_as_people_write_them() {
    let world = World::new();
    world.token(&["--valid", "30m"]);
    world.token(&["--valid", "7d"]);
    for wrong in ["0", "0m", "soon"] {
        assert_eq!(world.plat.run(&["token", "create", "--valid", wrong]).code, 2, "{wrong}");
    }
    world.done(&["usage", "--from", "2026-11-21"]);
    assert_eq!(world.plat.run(&["usage", "--from", "yesterday"]).code, 2);
}

#[test]
fn usage_of_nothing_says_so_and_of_an_unknown_instance_fails() {
    let world = World::new();
    world.release();
    world.done(&["request", "db", "--release", "quiet"]);
    assert!(world.done(&["usage", "db"]).errors.contains("no usage was booked"));
    world.plat.refused(3, "P0301", &["usage", "nothing"]);
    assert!(world.done(&["statement"]).errors.contains("plat rates set"));
    assert!(world.done(&["ledger"]).out.starts_with("node,sequence,booked,hash,project,"));
}

#[test]
fn what_is_destroyed_on_a_revoked_node_may_still_run() {
    let world = World::new();
    world.release();
    world.done(&["supply", "quiet", "--all"]);
    world.node("n1");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let here = runtime.block_on(world.present("n1"));
    world.done(&["request", "db", "--release", "quiet"]);
    eventually("placed", Duration::from_secs(30), || match world.plat.json(&["show", "db"]) {
        shown if shown["node"] == "n1" => Ok(()),
        shown => Err(shown.to_string()),
    });
    world.done(&["node", "revoke", "n1", "--yes"]);
    drop(here);
    let waits = world.done(&["show", "db"]).out;
    assert!(waits.contains("may still run there"), "{waits}");
    let said = world.done(&["destroy", "db", "--yes"]).errors;
    assert!(said.contains("may still run there"), "{said}");
}

#[test]
fn there_is_a_manual_page_for_each_command() {
    let world = World::new();
    let folder = world.path("man").display().to_string();
    world.done(&["man", "--dir", &folder]);
    for page in ["plat.1", "plat-request.1", "plat-token-create.1"] {
        let text = std::fs::read_to_string(world.path("man").join(page)).unwrap_or_else(|e| panic!("{page}: {e}"));
        assert!(text.contains(".SH"), "{page}");
    }
    assert!(!world.done(&["--help"]).out.contains("  man "));
}

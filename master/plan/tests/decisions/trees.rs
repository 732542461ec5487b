use super::given::*;
use plat_master_plan::request::{RequestAsk, destroy_later, overdue, set_wish};
use plat_master_plan::{Change, tree};
use plat_model::instance::{InstanceState, Wish};
use plat_model::parameters::Parameters;
use plat_model::problem::codes;
use plat_model::tree::{ChildAsk, DEPTH_MAX, Kind, SHARED_BYTES, TREE_MAX};
use std::time::Duration;

fn grid() -> Grid {
    let mut grid = Grid::new();
    grid.node("n1", 8, memory(8000));
    grid.release("pg");
    grid.wants("web", memory(100));
    grid
}

fn json(text: &str) -> Option<Parameters> {
    Some(Parameters::parse_json(text).unwrap())
}

fn shared(on: Option<&str>) -> Kind {
    Kind::Shared { on: on.map(name) }
}

#[test]
fn an_instance_that_asks_twice_by_one_name_has_one_child_and_may_change_it() {
    let mut grid = grid();
    let first = grid.asks("web", &grid.child_ask("db")).unwrap();
    let before = grid.instance("web-db").clone();
    let again = grid.asks("web", &grid.child_ask("db")).unwrap();
    assert_eq!((&again, grid.instance("web-db")), (&first, &before));
    let changed = ChildAsk { parameters: json(r#"{"port": 7}"#), ..grid.child_ask("db") };
    assert_eq!(grid.asks("web", &changed).unwrap(), first);
    assert_eq!(grid.instance("web-db").generation, before.generation.next());
    assert_eq!(grid.instance("web-db").project, project("shop"));
    grid.allocate();
    grid.check();
}

#[test]
fn a_child_may_be_destroyed_again_when_it_is_gone() {
    let mut grid = grid();
    let (gone, fresh) = (ChildAsk { wish: Some(Wish::Destroyed), ..grid.child_ask("db") }, grid.fresh());
    let ask =
        |grid: &Grid| tree::request_child(&grid.state, grid.instance("web"), &gone, fresh.clone(), grid.now).unwrap();
    let never = ask(&grid);
    assert_eq!((never.changes.len(), never.answer), (0, None));
    let child = grid.asks("web", &grid.child_ask("db")).unwrap();
    let decision = ask(&grid);
    assert_eq!(decision.answer.as_ref(), Some(&child));
    // It has no place, so nothing is left of it to wait for.
    grid.commit(decision);
    let again = ask(&grid);
    assert_eq!((again.changes.len(), again.answer), (0, None));
}

#[test]
fn nobody_else_reaches_a_child_by_its_name() {
    let mut grid = grid();
    grid.wants("other", memory(100));
    let child = grid.asks("web", &grid.child_ask("db")).unwrap();
    let others = grid.asks("other", &grid.child_ask("db")).unwrap();
    assert_ne!(child, others);
    let seen =
        |of| tree::children(&grid.state, grid.instance(of)).into_iter().map(|child| child.id).collect::<Vec<_>>();
    assert_eq!((seen("web"), seen("other")), (vec![child], vec![others]));
    // A name that people took is not taken over.
    grid.wants("web-cache", memory(100));
    assert_eq!(code(grid.asks("web", &grid.child_ask("cache"))), codes::EXISTS);
}

#[test]
fn a_node_speaks_for_the_instances_on_it_alone() {
    let mut grid = grid();
    grid.node("n2", 1, memory(10));
    grid.allocate();
    let id = grid.instance("web").id.clone();
    assert!(tree::asking(&grid.state, &node("n1"), &id).is_ok());
    assert_eq!(tree::asking(&grid.state, &node("n2"), &id).unwrap_err().code, codes::NOT_YOURS);
    grid.wish("web", Wish::Destroyed);
    assert_eq!(tree::asking(&grid.state, &node("n1"), &id).unwrap_err().code, codes::DESTROYED);
}

#[test]
fn a_tree_is_destroyed_with_its_top_in_one_commit() {
    let mut grid = grid();
    grid.asks("web", &grid.child_ask("a")).unwrap();
    grid.asks("web-a", &grid.child_ask("b")).unwrap();
    grid.allocate();
    grid.asks("web-a", &grid.child_ask("late")).unwrap();
    let (top, low) = (grid.instance("web").id.clone(), grid.instance("web-a-b").id.clone());
    grid.wish("web", Wish::Destroyed);
    assert_eq!(grid.instance("web-a-b").wish, Wish::Destroyed);
    assert!(grid.state.instance(&project("shop"), &name("web-a-late")).is_none(), "it was nowhere yet");
    grid.reports(&top, InstanceState::Destroyed);
    grid.reports(&low, InstanceState::Destroyed);
    grid.check();
}

#[test]
fn a_tree_that_is_kept_before_it_is_destroyed_comes_back_as_it_was() {
    let mut grid = grid();
    grid.asks("web", &grid.child_ask("a")).unwrap();
    grid.asks("web", &ChildAsk { wish: Some(Wish::Stopped), ..grid.child_ask("b") }).unwrap();
    grid.allocate();
    let hour = Duration::from_secs(3600);
    let kept = destroy_later(&grid.state, &project("shop"), &name("web"), hour, grid.now).unwrap();
    grid.commit(kept);
    assert_eq!(grid.instance("web-a").wish, Wish::Stopped);
    grid.wish("web", Wish::Started);
    assert_eq!((grid.instance("web-a").wish, grid.instance("web-b").wish), (Wish::Started, Wish::Stopped));
    assert!(grid.instance("web-a").leaving.is_none());
    let kept = destroy_later(&grid.state, &project("shop"), &name("web"), hour, grid.now).unwrap();
    grid.commit(kept);
    grid.later(hour);
    while let Some(decision) = overdue(&grid.state, grid.now) {
        grid.commit(decision);
    }
    assert_eq!(grid.instance("web-b").wish, Wish::Destroyed);
    grid.check();
}

#[test]
fn a_tree_is_bounded_in_depth_and_in_number() {
    let mut grid = grid();
    let mut top = "web".to_owned();
    for _ in 1..DEPTH_MAX {
        grid.asks(&top, &grid.child_ask("x")).unwrap();
        top += "-x";
    }
    assert_eq!(code(grid.asks(&top, &grid.child_ask("x"))), codes::TOO_MANY);
    for n in DEPTH_MAX..TREE_MAX {
        grid.asks("web", &grid.child_ask(&format!("c{n}"))).unwrap();
    }
    assert_eq!(code(grid.asks("web", &grid.child_ask("more"))), codes::TOO_MANY);
    // What is there can still be changed.
    grid.asks("web", &ChildAsk { parameters: json(r#"{"port": 7}"#), ..grid.child_ask("x") }).unwrap();
}

#[test]
fn two_that_make_one_tree_larger_at_once_conflict() {
    let mut grid = grid();
    grid.asks("web", &grid.child_ask("a")).unwrap();
    let fresh = (grid.fresh(), grid.fresh());
    let (top, low) = (grid.instance("web"), grid.instance("web-a"));
    let one = tree::request_child(&grid.state, top, &grid.child_ask("x"), fresh.0, grid.now).unwrap();
    let two = tree::request_child(&grid.state, low, &grid.child_ask("y"), fresh.1, grid.now).unwrap();
    let gone = set_wish(&grid.state, &project("shop"), &name("web-a"), Wish::Destroyed, grid.now).unwrap();
    let both = |one: &[Change], other: &[Change]| {
        one.iter().any(|change| other.iter().any(|other| other.key() == change.key()))
    };
    assert!(both(&one.changes, &two.changes));
    assert!(both(&two.changes, &gone.changes));
}

#[test]
fn a_bang_reaches_the_whole_tree_and_nothing_else() {
    let mut grid = grid();
    grid.wants("other", memory(100));
    grid.asks("web", &grid.child_ask("a")).unwrap();
    grid.asks("web-a", &grid.child_ask("b")).unwrap();
    let bang = tree::bang(&grid.state, grid.instance("web-a-b"), grid.now);
    grid.commit(bang);
    let bangs = ["web", "web-a", "web-a-b", "other"].map(|name| grid.instance(name).bang);
    assert_eq!(bangs, [1, 1, 1, 0]);
    grid.allocate();
    assert!(grid.desired("n1").instances.values().filter(|one| one.bang == 1).count() == 3);
}

#[test]
fn a_shared_instance_is_in_another_one_which_is_told_and_publishes_for_it() {
    let mut grid = grid();
    grid.allocate();
    let before = grid.instance("web").generation;
    let ask = RequestAsk { kind: shared(Some("web")), parameters: json(r#"{"database": "a"}"#), ..grid.ask("part") };
    let id = grid.request(ask).unwrap().id;
    assert_eq!(grid.instance("web").generation, before.next());
    assert!(grid.allocate().changes.is_empty(), "it has no partition");
    let host = grid.instance("web").id.clone();
    let told = grid.desired("n1").instances[&host].shared.clone();
    assert_eq!((told.len(), told[0].parameters.clone()), (1, json(r#"{"database": "a"}"#).unwrap()));
    let connection = json(r#"{"url": "db://a"}"#).unwrap();
    let said = tree::publish_shared(&grid.state, grid.instance("web"), &id, &connection, grid.now).unwrap();
    grid.commit(said);
    assert_eq!(tree::child(&grid.state, grid.instance("part")).connection, connection);
    // One that is asked for anew is not as it was published.
    grid.request(RequestAsk { kind: shared(None), parameters: json("{}"), ..grid.ask("part") }).unwrap();
    assert!(!tree::child(&grid.state, grid.instance("part")).current);
    grid.wish("part", Wish::Destroyed);
    assert!(grid.desired("n1").instances[&host].shared.is_empty());
    let late = tree::publish_shared(&grid.state, grid.instance("web"), &id, &connection, grid.now);
    assert_eq!(late.unwrap_err().code, codes::NOT_FOUND);
    grid.check();
}

#[test]
fn shared_instances_end_with_the_one_that_they_are_in() {
    let mut grid = grid();
    grid.allocate();
    grid.wants("other", memory(100));
    grid.request(RequestAsk { kind: shared(Some("web")), ..grid.ask("part") }).unwrap();
    grid.asks("other", &ChildAsk { kind: shared(Some("web")), ..grid.child_ask("part") }).unwrap();
    grid.wish("web", Wish::Destroyed);
    for gone in ["part", "other-part"] {
        assert!(grid.state.instance(&project("shop"), &name(gone)).is_none(), "{gone}");
    }
    assert_eq!(grid.instance("other").wish, Wish::Started);
    grid.check();
}

#[test]
fn only_who_says_so_takes_shared_instances_in_and_only_of_its_project() {
    let mut grid = grid();
    let plain = plat_document::Release::parse_yaml(
        "version: 1\nname: plain\nservices:\n  db:\n    command: [/bin/db]\n",
        "release.yaml",
    );
    let added = plat_master_plan::release::add(&grid.state, &plain.unwrap(), grid.now).unwrap();
    let digest = grid.commit(added);
    grid.request(RequestAsk { release: Some(digest), ..grid.ask("plain") }).unwrap();
    let on = |grid: &Grid, host| RequestAsk { kind: shared(Some(host)), ..grid.ask("part") };
    assert_eq!(code(grid.request(on(&grid, "plain"))), codes::NOT_FOUND);
    let foreign = RequestAsk { project: project("bank"), ..on(&grid, "web") };
    assert_eq!(code(grid.request(foreign)), codes::NOT_FOUND);
    let foreign = RequestAsk { project: project("bank"), kind: shared(None), ..grid.ask("part") };
    assert_eq!(code(grid.request(foreign)), codes::NOT_FOUND);
    let wrong = RequestAsk { parameters: json(r#"{"port": 1}"#), ..on(&grid, "web") };
    assert_eq!(code(grid.request(wrong)), codes::BAD_PARAMETERS);
    let stopped = RequestAsk { wish: Some(Wish::Stopped), ..on(&grid, "web") };
    assert_eq!(code(grid.request(stopped)), codes::BAD_VALUE);
    grid.request(on(&grid, "web")).unwrap();
    // It neither becomes an instance of its own, nor is it in another one.
    grid.wants("second", memory(100));
    assert_eq!(code(grid.request(on(&grid, "second"))), codes::BAD_VALUE);
    let own = RequestAsk { kind: shared(None), ..grid.ask("second") };
    assert_eq!(code(grid.request(own)), codes::BAD_VALUE);
    let stop = set_wish(&grid.state, &project("shop"), &name("part"), Wish::Stopped, grid.now);
    assert_eq!(stop.unwrap_err().code, codes::BAD_VALUE);
}

#[test]
fn what_shared_instances_say_together_is_bounded() {
    let mut grid = grid();
    let large = format!(r#"{{"database": "{}"}}"#, "x".repeat(200 * 1024));
    let part = |grid: &Grid, n: usize| RequestAsk {
        kind: shared(Some("web")),
        parameters: json(&large),
        ..grid.ask(&format!("part{n}"))
    };
    let fit = SHARED_BYTES / large.len();
    for n in 0..fit {
        grid.request(part(&grid, n)).unwrap();
    }
    assert_eq!(code(grid.request(part(&grid, fit))), codes::TOO_MANY);
}

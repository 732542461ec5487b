use super::given::*;
use plat_master_plan::allocate::{PLACEMENTS_MAX, allocate, explain};
use plat_master_plan::request::{RequestAsk, request};
use plat_model::instance::{InstanceState, Wish};
use plat_model::release::{InstallState, Installation};
use plat_model::resources::Resources;
use std::time::{Duration, Instant};

#[test]
fn allocating_twice_places_nothing_new() {
    let mut grid = Grid::new();
    grid.node("n1", 2, memory(100));
    grid.release("pg");
    grid.wants("db", memory(10));
    assert!(!grid.allocate().changes.is_empty());
    let again = grid.allocate();
    assert!(again.changes.is_empty() && again.waiting.is_empty() && !again.more);
    grid.check();
}

#[test]
fn what_is_being_destroyed_still_counts() {
    let mut grid = Grid::new();
    grid.node("n1", 2, memory(100));
    grid.release("pg");
    let old = grid.wants("old", memory(80));
    grid.allocate();
    grid.wish("old", Wish::Destroyed);
    let new = grid.wants("new", memory(80));
    let on = &grid.allocate().waiting[&new].on;
    assert!(on.contains("1 node: memory: 80 MiB asked, less is free"), "{on}");
    grid.reports(&old, InstanceState::Destroyed);
    grid.allocate();
    assert!(grid.instance("new").placement.is_some());
    grid.check();
}

#[test]
fn a_node_where_the_release_is_installed_is_preferred_then_the_emptier_one() {
    let mut grid = Grid::new();
    for n in ["n1", "n2", "n3"] {
        grid.node(n, 3, memory(1000));
    }
    let digest = grid.release("pg");
    for n in 0..3 {
        grid.wants(&format!("i{n}"), memory(1));
    }
    grid.allocate();
    for n in ["n1", "n2", "n3"] {
        assert_eq!(grid.state.placed[&node(n)].len(), 1, "{n}");
    }
    let installed =
        Installation { digest, state: InstallState::Installed, progress: String::new(), problem: None, rebuild: 0 };
    let report = plat_model::node::NodeReport { installations: vec![installed], ..Default::default() };
    grid.report("n3", report);
    let id = grid.wants("next", memory(1));
    let verdicts = explain(&grid.state, &grid.online, &id);
    assert_eq!(verdicts.iter().filter(|v| v.chosen).map(|v| v.node.as_str()).collect::<Vec<_>>(), ["n3"]);
    grid.allocate();
    assert_eq!(grid.instance("next").placement.as_ref().unwrap().node, node("n3"));
}

#[test]
fn a_request_takes_no_longer_on_a_grid_of_many_instances() {
    let mut grid = Grid::new();
    grid.release("pg");
    let one = |grid: &Grid, n: u64| {
        let id = plat_model::id::InstanceId::parse(&format!("{n:032x}")).unwrap();
        request(&grid.state, RequestAsk { ..grid.ask(&format!("i{n}")) }, id, grid.now).unwrap()
    };
    let time = |grid: &Grid| {
        let start = Instant::now();
        (0..200).for_each(|n| drop(one(grid, 1_000_000 + n)));
        start.elapsed()
    };
    let small = time(&grid);
    for n in 0..20_000 {
        let decision = one(&grid, n);
        grid.state.apply(&decision.changes[1], 1);
    }
    // A scan of twenty thousand instances would be hundreds of times slower.
    let large = time(&grid);
    println!("200 requests: {small:?} on an empty grid, {large:?} on one of 20,000 instances");
    assert!(large < small * 20 + Duration::from_millis(50), "{small:?} became {large:?}");
}

#[test]
fn a_thousand_instances_are_placed_on_a_thousand_partitions_in_one_round() {
    let mut grid = Grid::new();
    for n in 0..10 {
        grid.node(&format!("n{n}"), 100, memory(100_000));
    }
    grid.release("pg");
    for n in 0..=PLACEMENTS_MAX {
        grid.wants(&format!("i{n}"), memory(1));
    }
    let start = Instant::now();
    let round = grid.allocate();
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    println!("a round of {PLACEMENTS_MAX} placements: {:?}", start.elapsed());
    assert!(round.more);
    let full = grid.allocate();
    assert_eq!((full.waiting.len(), full.changes.len(), full.more), (1, 0, false));
    grid.check();
}

#[test]
fn the_same_state_gives_the_same_round_and_nobody_is_placed_on_an_offline_node() {
    let mut grid = Grid::new();
    grid.node("n1", 2, Resources::default());
    grid.release("pg");
    let id = grid.wants("db", memory(1));
    let rounds = [0, 1].map(|_| allocate(&grid.state, &grid.online, grid.now));
    assert_eq!(rounds[0], rounds[1]);
    grid.online.clear();
    assert!(grid.allocate().waiting[&id].on.contains("1 node: it is offline"));
}

//! Small stories on a grid of one or two nodes, with releases that take no time to build.

use plat_tests::eventually::eventually;
use plat_tests::grid::{Grid, PATIENCE};
use plat_tests::namespace::root_or_skip;
use std::fs;

/// A service that does nothing but be there.
pub const QUIET: &str = "
version: 1
name: quiet
parameters:
  type: object
  properties: {greeting: {type: string, maxLength: 20, default: hello}}
sources:
  files: {directory: {path: \"{folder}/source\"}}
files:
  etc/greeting: {template: \"{{ parameters.greeting }}\\n\"}
services:
  quiet: {command: [/bin/sh, \"{{ release.directory }}/quiet.sh\"]}
promises:
  greets: {exec: [/bin/grep, -q, \"{{ parameters.greeting }}\", \"{{ partition.directory }}/srv/said\"]}
publish: {greeting: \"{{ parameters.greeting }}\"}
resources: {memory_mib: 16}
";

/// A grid with the release `quiet` supplied to its nodes.
pub fn quiet_grid(name: &str, nodes: &[u32]) -> Grid {
    let mut grid = Grid::new(name);
    fs::create_dir_all(grid.folder.path().join("source")).expect("a folder can be made");
    grid.write("source/quiet.sh", "cp etc/greeting srv/said && exec sleep 100000\n");
    for partitions in nodes {
        grid.add_node(*partitions);
    }
    grid.release("quiet", QUIET);
    grid
}

#[test]
fn an_instance_is_requested_changed_stopped_started_and_destroyed() {
    if !root_or_skip("the life of an instance") {
        return;
    }
    let grid = quiet_grid("life", &[2]);
    let ready = grid.plat.json(&["request", "one", "--release", "quiet", "--wait", "--timeout", "60"]);
    assert_eq!((ready["state"].as_str(), ready["connection"]["greeting"].as_str()), (Some("ready"), Some("hello")));
    let again = grid.plat.json(&["request", "one", "--release", "quiet"]);
    assert_eq!(again["id"], ready["id"], "the same request twice is one instance");
    let (node, partition) = (grid.node_of(&ready), ready["partition"].as_str().expect("it is placed"));
    assert_eq!(fs::read_to_string(node.partition(partition).join("srv/said")).expect("it ran"), "hello\n");

    grid.plat.json(&["request", "one", "--param", "greeting=moin", "--wait", "--timeout", "60"]);
    assert_eq!(grid.plat.json(&["show", "one"])["connection"]["greeting"], "moin");
    let told = grid.plat.run(&["show", "one", "--promises"]);
    let last = told.out.lines().last().unwrap_or_default();
    assert!(told.code == 0 && last.starts_with("greets: ") && last.contains(", held "), "{told:?}");

    grid.plat.json(&["stop", "one", "--wait", "--timeout", "60"]);
    assert_eq!(node.processes_of(partition), Vec::<u32>::new());
    assert!(node.partition(partition).join("srv/said").exists(), "its data stays");
    grid.plat.json(&["start", "one", "--wait", "--timeout", "60"]);
    assert_eq!(node.processes_of(partition).len(), 1);

    grid.plat.run(&["destroy", "--yes", "one"]);
    grid.until_gone("one", PATIENCE);
    assert_eq!(node.processes_of(partition), Vec::<u32>::new());
    assert!(!node.partition(partition).join("srv/said").exists(), "nothing of it is left");
}

#[test]
fn killing_the_agent_or_the_master_stops_no_service_and_both_come_back() {
    if !root_or_skip("the death of daemons") {
        return;
    }
    let mut grid = quiet_grid("deaths", &[2]);
    let ready = grid.plat.json(&["request", "one", "--release", "quiet", "--wait", "--timeout", "60"]);
    let partition = ready["partition"].as_str().expect("it is placed").to_owned();
    let before = grid.nodes[0].processes_of(&partition);
    assert_eq!(before.len(), 1);

    grid.nodes[0].agent.kill();
    assert_eq!(grid.nodes[0].processes_of(&partition), before);
    grid.master.kill();
    grid.nodes[0].agent.start();
    grid.master.start();
    grid.until_master_answers();
    grid.plat.json(&["request", "two", "--release", "quiet", "--wait", "--timeout", "60"]);
    assert_eq!(grid.nodes[0].processes_of(&partition), before, "the same process as before");
    assert_eq!(grid.plat.json(&["show", "one"])["services"][0]["pid"], before[0]);

    // The service itself is another matter: it is started again.
    grid.nodes[0].signal("KILL", before[0]);
    let after = eventually("started again", PATIENCE, || {
        let now = grid.nodes[0].processes_of(&partition);
        if now.len() == 1 && now != before { Ok(now) } else { Err(format!("{now:?}")) }
    });
    assert_ne!(after, before);
}

#[test]
fn a_service_that_exits_at_once_is_told_with_its_last_lines_and_tried_again_later() {
    if !root_or_skip("a service that exits") {
        return;
    }
    let grid = quiet_grid("exits", &[1]);
    let release =
        "version: 1\nname: brief\nservices:\n  brief: {command: [/bin/sh, -c, \"echo the disk is on fire; exit 7\"]}\n";
    grid.release("brief", release);
    grid.plat.json(&["request", "brief", "--release", "brief"]);
    let seen = eventually("told", PATIENCE, || {
        let seen = grid.plat.json(&["show", "brief"]);
        let text = seen.to_string();
        let told =
            seen["services"][0]["state"] == "backoff" && text.contains("exit code 7") && text.contains("on fire");
        if told { Ok(seen) } else { Err(text) }
    });
    // Without promises a release is ready once its services run, so it may have been for a moment.
    assert!(["starting", "degraded", "failed"].iter().any(|state| seen["state"] == *state), "{seen}");
    let restarts = || grid.plat.json(&["show", "brief"])["services"][0]["restarts"].as_u64().unwrap_or(0);
    let first = restarts();
    eventually("tried again", PATIENCE, || if restarts() > first { Ok(()) } else { Err("not yet") });
    assert!(grid.plat.run(&["logs", "brief"]).out.contains("on fire"));
}

#[test]
fn a_node_shows_what_keeps_its_services_and_what_it_holds_them_to_and_nothing_that_it_does_not() {
    if !root_or_skip("what a node shows") {
        return;
    }
    let grid = quiet_grid("shows", &[1]);
    let seen = grid.plat.json(&["node", "show", "n1"]);
    let enforced: Vec<_> = seen["enforced"].as_array().into_iter().flatten().filter_map(|one| one.as_str()).collect();
    // The controllers of either version that its machine has; partitions have users, and no limits of disk.
    let groups = grid.nodes[0].space.sh("for place in $(awk '$3 == \"cgroup2\" { print $2 }' /proc/mounts); do
             cat $place/cgroup.controllers; done; awk '$3 == \"cgroup\" { print $4 }' /proc/mounts | tr , ' '");
    let has = |controller: &str| groups.split_whitespace().any(|one| one == controller);
    for (amount, is_held) in [("cpu", has("cpu")), ("memory", has("memory")), ("processes", true), ("disk", false)] {
        assert_eq!(enforced.contains(&amount), is_held, "{amount}: {seen}\n{groups}");
    }
    assert_eq!(seen["runtime"], "shim");
    let shown = grid.plat.run(&["node", "show", "n1"]).out;
    let line = |of: &str| shown.lines().find_map(|line| line.strip_prefix(of)).map(str::trim);
    assert_eq!((line("runtime"), line("enforces")), (Some("shim"), Some(enforced.join(" ").as_str())), "{shown}");

    // Who insists on what it does not enforce gets no place there.
    grid.plat.json(&["request", "strict", "--release", "quiet", "--enforced", "disk"]);
    eventually("told why it waits", PATIENCE, || {
        let seen = grid.plat.json(&["show", "strict"]);
        let on = seen["waiting"][0]["on"].as_str().unwrap_or_default();
        if on.contains("it holds nobody to what was asked for of disk") { Ok(()) } else { Err(seen.to_string()) }
    });
    grid.plat.json(&["request", "easy", "--release", "quiet", "--enforced", "processes", "--wait", "--timeout", "60"]);
}

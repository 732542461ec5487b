//! What instances write, read by their users while it is written.

use crate::grid::quiet_grid;
use plat_tests::daemon::Daemon;
use plat_tests::eventually::eventually;
use plat_tests::grid::PATIENCE;
use plat_tests::namespace::root_or_skip;
use std::fs::OpenOptions;
use std::io::Write;

/// Says what it is told through a pipe.
const ECHO: &str = "
version: 1
name: echo
services:
  mouth:
    command:
      - /bin/sh
      - -c
      - 'mkfifo srv/ear; exec 3<>srv/ear; echo it listens; while read -r line <&3; do echo \"$line\"; done'
  other: {command: [/bin/sh, -c, 'echo it is the other; exec sleep 100000']}
promises:
  listens: {exec: [/usr/bin/test, -p, \"{{ partition.directory }}/srv/ear\"]}
resources: {memory_mib: 16}
";

#[test]
fn who_follows_the_log_of_an_instance_reads_what_it_writes_afterwards_once_and_in_order() {
    if !root_or_skip("logs that are followed") {
        return;
    }
    let grid = quiet_grid("follows", &[1]);
    grid.release("echo", ECHO);
    let ready = grid.plat.json(&["request", "one", "--release", "echo", "--wait", "--timeout", "60"]);
    let home = grid.nodes[0].partition(ready["partition"].as_str().expect("it is placed"));
    let mut ear = OpenOptions::new().write(true).open(home.join("srv/ear")).expect("it listens");
    let reader = |name: &str, arguments: &'static [&str]| {
        let plat = grid.plat_of(grid.folder.path().join("operator"));
        let mut reader = Daemon::new(name, &grid.logs(), move || plat.command(arguments));
        reader.start();
        reader
    };
    let mut all = reader("reads-all", &["logs", "one", "-f"]);
    let mut mouth = reader("reads-the-mouth", &["logs", "one", "-s", "mouth", "-f", "-o", "json"]);
    let until = |reader: &Daemon, wished: &str| {
        let said = || reader.said();
        eventually(wished, PATIENCE, || if said().contains(wished) { Ok(()) } else { Err(said()) });
    };
    until(&all, "mouth: it listens\n");
    until(&all, "other: it is the other\n");
    until(&mouth, "it listens");
    for line in ["first", "second"] {
        writeln!(ear, "{line}").expect("it can be told something");
        until(&all, &format!("mouth: {line}\n"));
        until(&mouth, line);
    }
    assert!(all.runs() && mouth.runs(), "it is followed until the reader goes");
    let of_mouth: Vec<_> =
        all.said().lines().filter_map(|line| line.strip_prefix("mouth: ").map(str::to_owned)).collect();
    assert_eq!(of_mouth, ["it listens", "first", "second"]);
    let texts: Vec<_> = mouth
        .said()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("each line is an object")["text"].clone())
        .collect();
    assert_eq!(texts, ["it listens", "first", "second"]);
}

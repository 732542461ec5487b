//! What instances do by systemd besides running: at times, when they are asked, and through their sockets.

use crate::node::{bare_machine, join};
use plat_model::Timestamp;
use plat_tests::binaries::binary;
use plat_tests::eventually::eventually;
use plat_tests::grid::{Grid, PATIENCE};
use plat_tests::machine::machine_or_skip;
use serde_json::Value;

/// Asks for a child, strikes each minute, and is configured as often as it is asked to be.
const CLOCK: &str = "
version: 1
name: clock
sources:
  files: {directory: {path: /usr/local/share/clock}}
hooks:
  configure: {command: [/bin/sh, \"{{ release.directory }}/configure.sh\"]}
services:
  clock: {command: [/bin/sh, \"{{ release.directory }}/clock.sh\"]}
  strikes: {kind: oneshot, schedule: '* * * * *', command: [/bin/sh, -c, 'echo it struck; date +%s >> srv/struck']}
promises:
  asked: {exec: [/usr/bin/test, -e, \"{{ partition.directory }}/srv/asked\"]}
resources: {memory_mib: 16}
";

const CONFIGURE_SH: &str = "echo it is wound up
echo once more >> srv/wound
if [ -e srv/fail ]; then exit 7; fi
";

const CLOCK_SH: &str = "set -e
said=$(plat-instance request hand --release hand -p points=up --wait --get points)
plat-instance publish \"hand=$said\"
touch srv/asked
exec sleep inf
";

const HAND: &str = "
version: 1
name: hand
parameters: {type: object, properties: {points: {type: string}}}
services: {hand: {command: [/bin/sleep, inf]}}
publish: {points: \"{{ parameters.points }}\"}
resources: {memory_mib: 16}
";

#[test]
fn timers_hooks_that_are_asked_for_and_what_instances_ask_for_work_under_systemd() {
    if !machine_or_skip("what instances do by systemd") {
        return;
    }
    let grid = Grid::new("work");
    let machine = bare_machine(&grid, "edge-6", "fd00:5::16/64");
    machine.install(&binary("plat-instance"), "/usr/bin/plat-instance", 0o755);
    machine.write("/usr/local/share/clock/configure.sh", CONFIGURE_SH, 0o644);
    machine.write("/usr/local/share/clock/clock.sh", CLOCK_SH, 0o644);
    join(&grid, &machine, "edge-6", 2);
    grid.release("hand", HAND);
    grid.release("clock", CLOCK);

    // What asks through the socket is the unit's program, as the partition's user.
    let ready = grid.plat.json(&["request", "one", "--release", "clock", "--wait", "--timeout", "120"]);
    assert_eq!((&ready["connection"]["hand"], &ready["children"][0]), (&"up".into(), &"one-hand".into()));
    let hand = grid.plat.json(&["show", "one-hand"]);
    assert_eq!((&hand["state"], &hand["parent"]), (&"ready".into(), &"one".into()));
    let (partition, of_hand) = (ready["partition"].as_str(), hand["partition"].as_str());
    let (partition, of_hand) = (partition.expect("it is placed"), of_hand.expect("it is placed"));
    let group = machine.sh(&format!("cat /proc/$(pgrep --uid {of_hand} sleep)/cgroup"));
    assert!(group.trim().ends_with(".service") && group.contains(of_hand), "{group}");

    let srv = format!("/srv/plat/partitions/{partition}/srv");
    let wound = || machine.sh(&format!("cat {srv}/wound")).lines().count();
    assert_eq!(wound(), 1, "it is run when the instance is configured");
    let ran = grid.plat.run(&["run", "configure", "one"]);
    assert_eq!((ran.code, ran.out.as_str(), wound()), (0, "it is wound up\n", 2), "{}", ran.errors);
    machine.sh(&format!("touch {srv}/fail"));
    assert_eq!((grid.plat.run(&["run", "configure", "one"]).code, wound()), (7, 3));
    let logs = grid.plat.run(&["logs", "one", "--hook", "configure"]).out;
    assert_eq!(logs.matches("it is wound up").count(), 3, "{logs}");

    let strikes = |seen: &Value| {
        let of = seen["services"].as_array().into_iter().flatten().find(|one| one["name"] == "strikes");
        of.cloned().unwrap_or_else(|| panic!("it has no timer: {seen}"))
    };
    let timer = strikes(&grid.plat.json(&["show", "one"]));
    assert_eq!((&timer["kind"], &timer["schedule"]), (&"oneshot".into(), &"* * * * *".into()));
    let next = Timestamp::parse(timer["next"].as_str().expect("it comes")).expect("a time");
    eventually("it strikes at its time", 2 * PATIENCE, || {
        let struck = machine.run(&format!("tail -n 1 {srv}/struck")).1;
        if struck.trim().parse().is_ok_and(|at: i64| 1000 * at >= next.0) { Ok(()) } else { Err(struck) }
    });
    assert_eq!(machine.sh(&format!("stat -c %U {srv}/struck")).trim(), partition);
    eventually("its next time is told", PATIENCE, || {
        let timer = strikes(&grid.plat.json(&["show", "one"]));
        let then = timer["next"].as_str().and_then(|at| Timestamp::parse(at).ok());
        if then.is_some_and(|then| then > next) { Ok(()) } else { Err(timer.to_string()) }
    });
    eventually("it strikes at the next time too", 2 * PATIENCE, || {
        let struck = machine.sh(&format!("cat {srv}/struck"));
        let minutes: Vec<i64> = struck.lines().filter_map(|at| at.parse::<i64>().ok()).map(|at| at / 60).collect();
        if minutes.len() >= 2 && minutes.windows(2).all(|pair| pair[0] < pair[1]) { Ok(()) } else { Err(struck) }
    });
    eventually("its log", PATIENCE, || match grid.plat.run(&["logs", "one", "--service", "strikes"]) {
        said if said.out.contains("it struck") => Ok(()),
        said => Err(format!("{said:?}")),
    });
    grid.until("one", "ready", PATIENCE);
}

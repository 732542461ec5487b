//! Hooks that people ask for.

use crate::grid::quiet_grid;
use plat_tests::eventually::eventually;
use plat_tests::grid::PATIENCE;
use plat_tests::namespace::root_or_skip;
use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};

/// Its hook does as the files in `srv` say, and counts.
const HOOKED: &str = "
version: 1
name: hooked
sources:
  files: {directory: {path: \"{folder}/hooked\"}}
hooks:
  init: {command: [/usr/bin/touch, srv/made]}
  configure: {command: [/bin/sh, \"{{ release.directory }}/configure.sh\"]}
services:
  quiet: {command: [/bin/sleep, \"100000\"]}
resources: {memory_mib: 16}
";

const CONFIGURE: &str = "echo once more >> srv/times
if [ -e srv/hang ]; then echo it hangs; sleep 100000; fi
echo it was here
if [ -e srv/fail ]; then exit 7; fi
";

#[test]
fn a_hook_is_run_once_when_it_is_asked_for_whoever_is_killed_meanwhile() {
    if !root_or_skip("hooks that are asked for") {
        return;
    }
    let mut grid = quiet_grid("hooks", &[1]);
    fs::create_dir_all(grid.folder.path().join("hooked")).expect("a folder can be made");
    grid.write("hooked/configure.sh", CONFIGURE);
    grid.release("hooked", HOOKED);
    let ready = grid.plat.json(&["request", "one", "--release", "hooked", "--wait", "--timeout", "60"]);
    let partition = ready["partition"].as_str().expect("it is placed").to_owned();
    let home = grid.nodes[0].partition(&partition);
    let times = || fs::read_to_string(home.join("srv/times")).unwrap_or_default().lines().count();
    assert_eq!(times(), 1, "it is run when the instance is configured");

    let ran = grid.plat.run(&["run", "configure", "one"]);
    assert_eq!((ran.code, ran.out.as_str(), times()), (0, "it was here\n", 2), "{}", ran.errors);
    fs::write(home.join("srv/fail"), "").expect("it can be written");
    let ran = grid.plat.run(&["-o", "json", "run", "configure", "one"]);
    let told: Value = serde_json::from_str(&ran.out).expect("it is JSON");
    assert_eq!(
        (ran.code, &told["number"], &told["exit_code"], &told["tail"][0]),
        (7, &2.into(), &7.into(), &"it was here".into())
    );
    assert_eq!(grid.plat.json(&["show", "one"])["state"], "ready", "that it failed changes nothing of the instance");
    fs::remove_file(home.join("srv/fail")).expect("it can be removed");

    // The agent is killed in the middle: it is told, and never run again by itself.
    fs::write(home.join("srv/hang"), "").expect("it can be written");
    let asked = grid.plat.json(&["run", "configure", "one", "--no-wait"]);
    assert_eq!((&asked["number"], &asked["state"]), (&3.into(), &"asked".into()));
    let logs = || grid.plat.run(&["logs", "one", "--hook", "configure"]).out;
    eventually("it hangs", PATIENCE, || if logs().contains("it hangs") { Ok(()) } else { Err(logs()) });
    assert_eq!((times(), logs().matches("it was here").count()), (4, 3));
    grid.nodes[0].agent.kill();
    grid.nodes[0].agent.start();
    let last = || {
        grid.plat.json(&["show", "one"])["ran"].as_array().and_then(|ran| ran.last().cloned()).unwrap_or(Value::Null)
    };
    let ran = eventually("it is told", PATIENCE, || {
        let last = last();
        if last["number"] == 3 { Ok(last) } else { Err(last.to_string()) }
    });
    assert_eq!(ran["state"], "interrupted");
    assert_eq!(grid.nodes[0].processes_of(&partition).len(), 1, "nothing of it is left but the service");
    fs::remove_file(home.join("srv/hang")).expect("it can be removed");
    let ran = grid.plat.run(&["run", "configure", "one"]);
    assert_eq!((ran.code, times()), (0, 5), "{}", ran.errors);
    assert_eq!(last()["number"], 4);

    let said = grid.plat.refused(3, "P0301", &["run", "init", "one"]);
    assert!(said.contains("configure"), "{said}");
    grid.plat.json(&["stop", "one", "--wait", "--timeout", "60"]);
    grid.plat.refused(5, "P0316", &["run", "configure", "one"]);
}

/// Counts its starts in both kinds of volumes.
const COUNTS: &str = "
version: 1
name: counts
volumes: {data: {kind: kept}, work: {kind: scratch}}
services:
  counts:
    command:
      - /bin/sh
      - -c
      - 'for d in \"$0\" \"$1\"; do echo once >> \"$d/starts\"; done; exec sleep 100000'
      - \"{{ volumes.data }}\"
      - \"{{ volumes.work }}\"
resources: {memory_mib: 16}
";

const FAILS: &str = "
version: 1
name: fails
build: {commands: [[/bin/false]]}
services: {none: {command: [/bin/true]}}
";

#[test]
fn a_release_is_built_again_while_nothing_uses_it_and_an_instance_of_it_keeps_what_is_to_be_kept() {
    if !root_or_skip("volumes and builds") {
        return;
    }
    let grid = quiet_grid("volumes", &[1]);
    grid.release("counts", COUNTS);
    let digest = grid.plat.json(&["release", "show", "counts"])["digest"].as_str().expect("it has one").to_owned();
    let step = format!("install release {}", &digest[..12]);
    let installed = || grid.nodes[0].agent.said().matches(&step).count();
    let state = || grid.plat.json(&["release", "show", "counts"])["nodes"][0]["state"].clone();
    eventually("it is installed", PATIENCE, || if state() == "installed" { Ok(()) } else { Err(state().to_string()) });
    assert_eq!(installed(), 1);
    let told = grid.plat.json(&["release", "rebuild", "counts", "--wait", "--timeout", "60"]);
    let told = (&told[0]["node"], &told[0]["asked"], &told[0]["why"]);
    assert_eq!(told, (&"n1".into(), &true.into(), &"it is built again".into()));
    assert_eq!(installed(), 2);

    grid.release("fails", FAILS);
    let failed = || grid.plat.json(&["release", "show", "fails"])["nodes"][0]["state"].clone();
    eventually("it has failed", PATIENCE, || if failed() == "failed" { Ok(()) } else { Err(failed().to_string()) });
    let said = grid.plat.refused(1, "P0403", &["release", "rebuild", "fails", "--wait", "--timeout", "60"]);
    assert!(said.contains("n1: P0403"), "{said}");

    let ready = grid.plat.json(&["request", "one", "--release", "counts", "--wait", "--timeout", "60"]);
    let home = grid.nodes[0].partition(ready["partition"].as_str().expect("it is placed"));
    let starts = |volume: &str| {
        let text = fs::read_to_string(home.join("volumes").join(volume).join("starts"));
        text.unwrap_or_default().lines().count()
    };
    let until = |data, work| {
        let seen = || (starts("data"), starts("work"));
        eventually("it has started", PATIENCE, || {
            if seen() == (data, work) { Ok(()) } else { Err(format!("{:?}", seen())) }
        });
    };
    until(1, 1);
    grid.plat.refused(5, "P0303", &["release", "rebuild", "counts"]);
    grid.plat.json(&["stop", "one", "--wait", "--timeout", "60"]);
    assert_eq!((starts("data"), starts("work")), (1, 1), "they are left alone until it is started again");
    grid.plat.json(&["start", "one", "--wait", "--timeout", "60"]);
    until(2, 1);
    assert_eq!(installed(), 2);
    grid.plat.run(&["destroy", "--yes", "one"]);
    grid.until_gone("one", PATIENCE);
    assert!(!home.join("volumes").exists());
}

#[test]
fn what_is_to_be_destroyed_later_keeps_its_data_till_then_may_be_taken_back_and_is_erased_when_its_time_is_over() {
    if !root_or_skip("what is destroyed later") {
        return;
    }
    let grid = quiet_grid("later", &[1]);
    grid.release("counts", COUNTS);
    let ready = grid.plat.json(&["request", "one", "--release", "counts", "--wait", "--timeout", "60"]);
    let partition = ready["partition"].as_str().expect("it is placed").to_owned();
    let home = grid.nodes[0].partition(&partition);
    let kept = home.join("volumes/data/kept");
    fs::write(&kept, "forty-two").expect("it can be written");

    grid.plat.json(&["destroy", "one", "--keep-for", "1h", "--wait", "--timeout", "60"]);
    assert_eq!(grid.nodes[0].processes_of(&partition), Vec::<u32>::new());
    assert_eq!(fs::read_to_string(&kept).expect("it is kept"), "forty-two");
    let again = grid.plat.json(&["undestroy", "one", "--wait", "--timeout", "60"]);
    let again = again.as_array().map_or(&again, |list| &list[0]);
    assert_eq!((&again["id"], &again["partition"]), (&ready["id"], &ready["partition"]), "it is the same instance");
    assert_eq!(fs::read_to_string(&kept).expect("it is kept"), "forty-two");
    let starts = || fs::read_to_string(home.join("volumes/data/starts")).unwrap_or_default();
    eventually("it has started", PATIENCE, || if starts() == "once\nonce\n" { Ok(()) } else { Err(starts()) });

    // And for good.
    let asked = Instant::now();
    grid.plat.json(&["destroy", "one", "--keep-for", "2"]);
    grid.until_gone("one", PATIENCE);
    assert!(asked.elapsed() >= Duration::from_secs(2), "gone after {:?}", asked.elapsed());
    assert!(!home.join("volumes").exists());
    assert_eq!(grid.nodes[0].processes_of(&partition), Vec::<u32>::new());
}

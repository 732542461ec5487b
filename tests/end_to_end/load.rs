//! Under load, without room, and on the bill.

use crate::grid::quiet_grid;
use plat_tests::eventually::eventually;
use plat_tests::grid::{Grid, PATIENCE};
use plat_tests::namespace::root_or_skip;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const CLIENTS: usize = 32;
const REQUESTS: usize = 3;

#[test]
fn no_request_that_was_acknowledged_is_lost_when_the_master_is_killed() {
    if !root_or_skip("killing a busy master") {
        return;
    }
    let mut grid = quiet_grid("busy", &[1]);
    let Grid { plat, master, .. } = &mut grid;
    let (acknowledged, running) = (Mutex::new(BTreeMap::new()), AtomicUsize::new(CLIENTS));
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (plat, acknowledged, running) = (&*plat, &acknowledged, &running);
            scope.spawn(move || {
                for n in 0..REQUESTS {
                    let name = format!("c{client}-{n}");
                    // What was not acknowledged is asked again: the same request twice is one instance.
                    let id = eventually("a request is acknowledged", PATIENCE, || {
                        let ran = plat.run(&["--output", "json", "request", &name, "--release", "quiet"]);
                        if ran.code == 0 { Ok(ran.json()["id"].clone()) } else { Err(ran.errors) }
                    });
                    acknowledged.lock().expect("nobody panics with it").insert(name, id);
                }
                running.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let (mut kills, mut before) = (0, 0);
        while running.load(Ordering::SeqCst) > 0 {
            std::thread::park_timeout(std::time::Duration::from_millis(50));
            let now = acknowledged.lock().expect("nobody panics with it").len();
            // Each kill falls among requests that are being acknowledged.
            if kills < 5 && now >= before + 5 {
                master.kill();
                master.start();
                (kills, before) = (kills + 1, now);
            }
        }
        assert_eq!(kills, 5, "the master was killed while it was busy");
    });
    grid.until_master_answers();
    let acknowledged = acknowledged.into_inner().expect("nobody panics with it");
    assert_eq!(acknowledged.len(), CLIENTS * REQUESTS);
    let list = grid.plat.json(&["list"]);
    let kept: BTreeMap<&str, &Value> =
        list.as_array().into_iter().flatten().filter_map(|one| Some((one["name"].as_str()?, &one["id"]))).collect();
    for (name, id) in &acknowledged {
        assert_eq!(kept.get(name.as_str()), Some(&id), "{name} was acknowledged");
    }
}

#[test]
fn a_release_that_finds_no_room_fails_with_the_reason_and_harms_no_other() {
    if !root_or_skip("a full disk") {
        return;
    }
    let grid = quiet_grid("full", &[1]);
    grid.plat.json(&["request", "one", "--release", "quiet", "--wait", "--timeout", "60"]);
    let node = &grid.nodes[0];
    // The node's disk is one of 4 GiB in memory: it is filled up to the last 2 MiB.
    node.space.sh("free=$(df --output=avail -k /mnt | tail -1); fallocate -l $((free - 2048))K /mnt/filled");
    fs::create_dir_all(grid.folder.path().join("large")).expect("a folder can be made");
    fs::write(grid.folder.path().join("large/file"), vec![7; 8 << 20]).expect("a file can be written");
    let large = "version: 1\nname: large\nsources:\n  files: {directory: {path: \"{folder}/large\"}}\n\
                 services:\n  large: {command: [/bin/sleep, \"1000\"]}\n";
    grid.release("large", large);
    eventually("told", PATIENCE, || {
        let seen = grid.plat.json(&["release", "show", "large"]);
        let node = &seen["nodes"][0];
        if node["problem"]["code"] == "P0404" { Ok(()) } else { Err(node.to_string()) }
    });
    assert_eq!(grid.plat.json(&["show", "one"])["state"], "ready");
    node.space.sh("rm /mnt/filled");
    eventually("installed after all", 2 * PATIENCE, || {
        let seen = grid.plat.json(&["release", "show", "large"]);
        if seen["nodes"][0]["state"] == "installed" { Ok(()) } else { Err(seen["nodes"][0].to_string()) }
    });
}

/// CPU time of all groups of this name below `folder`, in microseconds, as the kernel counts it.
fn kernel_micros(folder: &Path, name: &str) -> Option<u64> {
    for entry in fs::read_dir(folder).ok()?.flatten().filter(|entry| entry.path().is_dir()) {
        if entry.file_name() == name {
            let stat = fs::read_to_string(entry.path().join("cpu.stat")).ok()?;
            return stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?.trim().parse().ok();
        }
        if let Some(found) = kernel_micros(&entry.path(), name) {
            return Some(found);
        }
    }
    None
}

#[test]
fn the_ledger_agrees_with_the_kernel_about_cpu_time() {
    if !root_or_skip("the ledger and the kernel") {
        return;
    }
    let grid = quiet_grid("bill", &[1]);
    let burner = "version: 1\nname: burner\nservices:\n  burner:\n    command: [/bin/sh, -c, \
                  \"i=0; while [ $i -lt 3000000 ]; do i=$((i+1)); done; echo burnt > srv/burnt; exec sleep 100000\"]\n";
    grid.release("burner", burner);
    let placed = grid.plat.json(&["request", "burner", "--release", "burner", "--wait", "--timeout", "60"]);
    let partition = placed["partition"].as_str().expect("it is placed");
    let node = &grid.nodes[0];
    let burnt = node.partition(partition).join("srv/burnt");
    eventually("burnt", 2 * PATIENCE, || if burnt.exists() { Ok(()) } else { Err("it still burns") });
    let groups = node.space.cgroup().expect("cgroup v2 is mounted here");
    let kernel = kernel_micros(groups, partition).expect("the partition has a group");
    assert!(kernel > 500_000, "it burnt {kernel} us only");
    let agrees = |booked: u64| booked.abs_diff(kernel) * 50 <= kernel;
    eventually(&format!("within 2 % of {kernel} us"), PATIENCE, || {
        let usage = grid.plat.json(&["usage", "burner"]);
        let cpu = usage.as_array().into_iter().flatten().find(|sum| sum["meter"] == "cpu-micros");
        let booked = cpu.and_then(|sum| sum["amount"].as_u64()).unwrap_or(0);
        if agrees(booked) { Ok(()) } else { Err(usage.to_string()) }
    });
}

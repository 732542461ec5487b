//! The story that counts: real software on three nodes, killed from all sides, and nothing lost.

use crate::grid::quiet_grid;
use plat_tests::eventually::eventually;
use plat_tests::grid::{Grid, Node, PATIENCE};
use plat_tests::namespace::root_or_skip;
use plat_tests::plat::Plat;
use plat_tests::relay;
use plat_tests::source::root;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Fetching and unpacking packages takes this long at most.
const INSTALL: &str = "400";
const KILLS: usize = 10;

/// Points apt of a node to the relay, and to Debian's archives alone.
pub fn reach_debian(node: &Node) {
    fs::write(node.space.path("/etc/apt/apt.conf.d/99relay"), relay::settings())
        .expect("a namespace's file can be written");
    node.space.sh("cd /etc/apt && grep -L deb.debian.org sources.list sources.list.d/* 2>/dev/null | xargs -r rm -f");
}

/// Asks the database from another node than its own, by the URL that it published.
fn sql(from: &Node, instance: &Value, question: &str) -> Result<String, String> {
    let release = format!("/srv/plat/releases/{}", instance["release_digest"].as_str().unwrap_or_default());
    let url = instance["connection"]["url"].as_str().unwrap_or_default();
    let mut psql = from.space.command(format!("{release}/usr/lib/postgresql/15/bin/psql"));
    psql.env("LD_LIBRARY_PATH", format!("{release}/usr/lib/x86_64-linux-gnu:{release}/lib/x86_64-linux-gnu"))
        .env("PGCONNECT_TIMEOUT", "5");
    let out = psql.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-c", question, url]).output();
    let out = out.expect("psql can be run");
    if out.status.success() {
        return Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned());
    }
    Err(String::from_utf8_lossy(&out.stderr).into_owned())
}

/// Requests one instance after the other, stopped, so that they take no partition; what was acknowledged.
fn keep_requesting(plat: &Plat, stop: &AtomicBool) -> BTreeMap<String, Value> {
    let mut acknowledged = BTreeMap::new();
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let name = format!("wave-{n}");
        let place = ["--where", "zone=nowhere"];
        let ran = plat.run(&[&["--output", "json", "request", &name, "--release", "quiet"], &place[..]].concat());
        if ran.code == 0 {
            acknowledged.insert(name, ran.json()["id"].clone());
        }
    }
    acknowledged
}

/// The processes that watch over services: the agent's own program, but not the agent.
fn shims(node: &Node) -> Vec<u32> {
    let agent = node.agent.pid();
    let is_shim = |host: u32| {
        let line = fs::read(format!("/proc/{host}/cmdline")).unwrap_or_default();
        host != agent && String::from_utf8_lossy(&line).contains("plat-agent")
    };
    node.space.processes().into_iter().filter(|(host, _)| is_shim(*host)).map(|(_, inner)| inner).collect()
}

fn kill_one_of(node: &Node, processes: &[u32], random: &mut StdRng) {
    if !processes.is_empty() {
        let chosen = processes[random.random_range(0..processes.len())];
        // It may have ended by itself meanwhile.
        node.space.sh(&format!("kill -KILL {chosen} || true"));
    }
}

/// Kills master, agents, service and its shim in turn at random moments while requests go on; what was acknowledged.
fn kill_from_all_sides(grid: &mut Grid, home: usize, partition: &str, random: &mut StdRng) -> BTreeMap<String, Value> {
    let Grid { plat, master, nodes, .. } = grid;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| keep_requesting(plat, &stop));
        for _ in 0..KILLS {
            std::thread::park_timeout(Duration::from_millis(random.random_range(50..1000)));
            match random.random_range(0..4) {
                0 => {
                    master.kill();
                    master.start();
                }
                1 => {
                    let node = random.random_range(0..nodes.len());
                    nodes[node].agent.kill();
                    nodes[node].agent.start();
                }
                2 => kill_one_of(&nodes[home], &nodes[home].processes_of(partition), random),
                _ => kill_one_of(&nodes[home], &shims(&nodes[home]), random),
            }
        }
        stop.store(true, Ordering::SeqCst);
        asking.join().expect("requests are made")
    })
}

#[test]
fn postgresql_answers_on_its_own_address_and_survives_kills_from_all_sides() {
    if !root_or_skip("the story of PostgreSQL") {
        return;
    }
    let seed = std::env::var("PLAT_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("the kills are those of PLAT_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut grid = quiet_grid("pg", &[2, 2, 2]);
    relay::start(&grid.hub, relay::DEBIAN);
    grid.nodes.iter().for_each(reach_debian);
    let document = root().join("examples/releases/postgresql.yaml").display().to_string();
    grid.plat.json(&["release", "add", &document]);
    grid.plat.json(&["supply", "postgresql", "--all", "--wait", "--timeout", INSTALL]);

    let ready = grid.plat.json(&["request", "db", "--release", "postgresql", "--wait", "--timeout", "120"]);
    let home = grid.nodes.iter().position(|node| ready["node"] == *node.name).expect("it is somewhere");
    let away = (home + 1) % grid.nodes.len();
    let partition = ready["partition"].as_str().expect("it is placed").to_owned();
    assert!(ready["connection"]["host"].as_str().is_some_and(|host| host.starts_with("fd00:5:")), "{ready}");
    sql(&grid.nodes[away], &ready, "create table kept (n int); insert into kept values (42)").expect("it answers");

    let name = grid.nodes[away].name.clone();
    let calm = ["request", "calm", "--release", "quiet", "--node", &name, "--wait", "--timeout", "60"];
    let calm = grid.plat.json(&calm)["partition"].as_str().expect("it is placed").to_owned();
    let untouched = grid.nodes[away].processes_of(&calm);
    assert_eq!(untouched.len(), 1);

    let acknowledged = kill_from_all_sides(&mut grid, home, &partition, &mut random);

    grid.until_master_answers();
    assert!(acknowledged.len() > 5, "too few requests were made: {acknowledged:?}");
    for (name, id) in &acknowledged {
        assert_eq!(grid.plat.json(&["show", name])["id"], *id, "{name} was acknowledged");
    }
    assert_eq!(grid.nodes[away].processes_of(&calm), untouched, "nobody touched it");
    let kept = eventually("answering again", 2 * PATIENCE, || sql(&grid.nodes[away], &ready, "select n from kept"));
    assert_eq!(kept, "42");
    grid.until("db", "ready", PATIENCE);

    assert_eq!(grid.plat.run(&["destroy", "--yes", "db"]).code, 0);
    grid.until_gone("db", PATIENCE);
    assert_eq!(grid.nodes[home].processes_of(&partition), Vec::<u32>::new());
    let left = grid.nodes[home].space.sh(&format!("find /srv/plat/partitions/{partition} -type f"));
    assert_eq!(left, "", "the partition is empty");
}

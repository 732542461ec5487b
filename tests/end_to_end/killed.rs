//! The agent killed at any instant of its work: what it has begun is finished, and nothing is begun twice.

use crate::grid::quiet_grid;
use plat_tests::daemon::send;
use plat_tests::eventually::eventually;
use plat_tests::grid::{Grid, Node, PATIENCE};
use plat_tests::namespace::root_or_skip;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

const KILLS: usize = 15;
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// After something was wished, the agent is killed within this time, which is what its work takes; more often soon than late:
/// most is done at once.
const BUSY: Duration = Duration::from_millis(1500);

/// Two services, each of which says so if another of its kind runs.
const ALONE: &str = "
version: 1
name: alone
parameters:
  type: object
  properties: {word: {type: string, default: none}}
files:
  etc/alone.sh:
    template: |
      exec 9> srv/$1.lock
      flock --nonblock 9 || echo $1 >> srv/twice
      echo {{ parameters.word }} > srv/$1.word
      exec sleep 100000
hooks:
  init: {command: [/bin/sh, -c, 'mkdir -p srv/made']}
  configure: {command: [/bin/sh, -c, 'test -d srv/made && echo {{ parameters.word }} > srv/configured']}
services:
  one: {command: [/bin/sh, etc/alone.sh, one]}
  two: {command: [/bin/sh, etc/alone.sh, two]}
promises:
  one: {exec: [/bin/grep, -qx, \"{{ parameters.word }}\", \"{{ partition.directory }}/srv/one.word\"]}
  two: {exec: [/bin/grep, -qx, \"{{ parameters.word }}\", \"{{ partition.directory }}/srv/two.word\"]}
resources: {memory_mib: 16}
";

/// What is wished of an instance.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wished {
    Gone,
    Started(usize),
    Stopped(usize),
}

/// Brings an instance to the next part of its life: brought up, changed, stopped, started, destroyed. `round` is a word that
/// nobody has had.
fn next(grid: &Grid, name: &str, wished: Wished, round: usize) -> Wished {
    let word = format!("word=w{round}");
    let (arguments, then) = match wished {
        Wished::Gone => (vec!["request", name, "--release", "alone", "--param", &word], Wished::Started(round)),
        Wished::Started(before) if before % 3 == 0 => (vec!["stop", name], Wished::Stopped(before)),
        Wished::Started(before) if before % 3 == 1 => (vec!["destroy", "--yes", name], Wished::Gone),
        Wished::Started(_) => (vec!["request", name, "--param", &word], Wished::Started(round)),
        Wished::Stopped(before) if before % 2 == 0 => (vec!["start", name], Wished::Started(before)),
        Wished::Stopped(_) => (vec!["destroy", "--yes", name], Wished::Gone),
    };
    let ran = grid.plat.run(&arguments);
    // What is being destroyed keeps its name until it is gone.
    let is_taken = wished == Wished::Gone && ran.code == 5;
    assert!(ran.code == 0 || is_taken, "plat {}: {ran:?}", arguments.join(" "));
    if is_taken { wished } else { then }
}

/// The host's pids of a node's processes whose command line ends in this word.
fn running(node: &Node, word: &str) -> Vec<u32> {
    let end = format!("\0{word}\0");
    let is = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.ends_with(end.as_bytes()));
    node.space.processes().into_iter().map(|(host, _)| host).filter(is).collect()
}

/// Kills root's part, and with it the agent; or the part with the network alone, which is started again.
fn kill(node: &mut Node, random: &mut StdRng) {
    if random.random_bool(0.3) {
        running(node, "network").into_iter().for_each(|pid| send(rustix::process::Signal::KILL, pid));
    } else {
        node.agent.kill();
        node.agent.start();
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn an_agent_that_is_killed_at_any_instant_starts_nothing_twice_leaves_nothing_and_does_what_is_wished() {
    if !root_or_skip("an agent that is killed at any instant") {
        return;
    }
    let seed = std::env::var("PLAT_TESTS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| SystemTime::UNIX_EPOCH.elapsed().map_or(0, |now| u64::from(now.subsec_nanos())));
    eprintln!("PLAT_TESTS_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut grid = quiet_grid("killed", &[5]);
    grid.release("alone", ALONE);
    let partitions: Vec<_> = (0..NAMES.len()).map(|number| format!("part{number}")).collect();
    let mut wished = [Wished::Gone; NAMES.len()];
    for round in 1..=KILLS {
        let start = Instant::now();
        for (name, wished) in NAMES.into_iter().zip(&mut wished) {
            if random.random_bool(0.7) {
                *wished = next(&grid, name, *wished, round);
            }
        }
        let moment = start.elapsed() + BUSY.mul_f64(random.random::<f64>().powi(3));
        while start.elapsed() < moment {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        kill(&mut grid.nodes[0], &mut random);
        for partition in &partitions {
            assert_eq!(read(&grid.nodes[0].partition(partition).join("srv/twice")), "", "{partition}: it runs twice");
        }
    }

    let mut held = BTreeSet::new();
    for (name, wished) in NAMES.into_iter().zip(wished) {
        let state = match wished {
            Wished::Gone => {
                grid.until_gone(name, PATIENCE);
                continue;
            }
            Wished::Started(_) => "ready",
            Wished::Stopped(_) => "stopped",
        };
        let seen = grid.until(name, state, PATIENCE);
        if let Wished::Started(word) = wished {
            let partition = seen["partition"].as_str().expect("it is placed").to_owned();
            let home = grid.nodes[0].partition(&partition);
            for file in ["configured", "one.word", "two.word"] {
                assert_eq!(read(&home.join("srv").join(file)), format!("w{word}\n"), "{name}: {file}");
            }
            // Who runs is who is known to run, and nobody else.
            eventually("its services are as they are told", PATIENCE, || {
                let seen = grid.plat.json(&["show", name]);
                let told = seen["services"].as_array().into_iter().flatten().filter_map(|one| one["pid"].as_u64());
                let told: BTreeSet<_> = told.collect();
                let run = grid.nodes[0].processes_of(&partition).into_iter().map(u64::from).collect::<BTreeSet<_>>();
                if told.len() == 2 && told == run { Ok(()) } else { Err(format!("{run:?} run: {seen}")) }
            });
            held.insert(partition);
        }
    }
    for partition in &partitions {
        assert_eq!(read(&grid.nodes[0].partition(partition).join("srv/twice")), "", "{partition}: it runs twice");
        if !held.contains(partition) {
            assert_eq!(grid.nodes[0].processes_of(partition), Vec::<u32>::new(), "{partition} runs nothing");
        }
    }
    // A shim for each service, and the process that makes them.
    eventually("as many shims as services", PATIENCE, || match running(&grid.nodes[0], "shim").len() {
        shims if shims == 2 * held.len() + 1 => Ok(()),
        shims => Err(format!("{shims} for the services of {held:?}")),
    });
}

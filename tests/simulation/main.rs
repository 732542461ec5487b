//! The whole grid in one process, on a simulated network, with faults from a seed; the invariants are checked after
//! every step (`plat_tests::invariants` says which have no such form, and where they are held instead).
//! `PLAT_SEEDS=1000` runs more seeds, `PLAT_SEED=17` that one alone, which does the same each time;
//! `PLAT_TRACE=FILE` beside it writes what it did. What a seed decides is in docs/decisions/0004.

mod books;
mod client;
mod disk;
mod faults;
mod instances;
mod kept;
mod logs;
mod os;
mod story;
mod trace;
mod world;

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds that every run of the tests tries.
const SEEDS: u64 = 200;
/// Seeds of which each is run twice, to see the same.
const TWICE: [u64; 4] = [1, 2, 3, 4];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} must be a number")))
}

/// Runs a seed in a process of its own, where nothing was drawn yet that a seed must decide.
fn run(seed: u64) -> Output {
    let mut this = Command::new(std::env::current_exe().expect("this program has a file"));
    this.args(["--exact", "one_seed", "--nocapture", "--ignored"]).env("PLAT_SEED", seed.to_string());
    this.output().expect("this program can be started")
}

/// What a run that went well says of its trace.
fn trace(seed: u64, ended: &Output) -> String {
    let said = String::from_utf8_lossy(&ended.stdout);
    let line = said.lines().find(|line| line.starts_with("seed "));
    assert!(ended.status.success(), "seed {seed}:\n{said}{}", String::from_utf8_lossy(&ended.stderr));
    line.expect("a run tells its trace").to_owned()
}

/// What its faults and its clients did besides, and how often, by what it says of its trace.
fn happened(trace: &str) -> impl Iterator<Item = (String, usize)> {
    let counts = trace.split("; ").skip(1).filter_map(|count| count.split_once(' '));
    counts.map(|(times, what)| (what.to_owned(), times.parse().expect("a number is told")))
}

#[test]
#[ignore = "the other tests run it, in a process for each seed"]
fn one_seed() {
    let seed = number("PLAT_SEED").expect("PLAT_SEED says which");
    let run = std::thread::spawn(move || {
        os::seed(seed);
        story::run(seed)
    });
    match run.join() {
        // On a line of its own, whatever the test runner has begun to write.
        Ok(trace) => println!("\nseed {seed}: {trace}"),
        Err(why) => std::panic::resume_unwind(why),
    }
}

#[test]
fn whatever_goes_wrong_the_invariants_hold_and_the_grid_comes_to_rest() {
    let only = number("PLAT_SEED");
    let first = only.unwrap_or(0);
    let end = only.map_or_else(|| number("PLAT_SEEDS").unwrap_or(SEEDS), |only| only + 1);
    let (next, failed, sums) =
        (AtomicU64::new(first), Mutex::new(Vec::new()), Mutex::new(BTreeMap::<String, usize>::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    match std::panic::catch_unwind(|| trace(seed, &run(seed))) {
                        Ok(trace) => {
                            let mut sums = sums.lock().expect("nobody panics here");
                            happened(&trace).for_each(|(what, times)| *sums.entry(what).or_default() += times);
                        }
                        Err(_) => failed.lock().expect("nobody panics here").push(seed),
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics here");
    let again =
        failed.iter().map(|seed| format!("\n    PLAT_SEED={seed} cargo test -p plat-tests --test simulation whatever"));
    let sums = sums.into_inner().expect("nobody panics here");
    println!("{sums:?}");
    assert!(failed.is_empty(), "these seeds failed; each is repeated by its line:{}", again.collect::<String>());
    let is_whole = only.is_none() && end - first >= SEEDS;
    assert!(!is_whole || sums.values().all(|sum| *sum > 0), "what never happens is not tested: {sums:?}");
}

#[test]
fn a_seed_does_the_same_each_time() {
    for seed in TWICE {
        assert_eq!(trace(seed, &run(seed)), trace(seed, &run(seed)), "seed {seed} did something else the second time");
    }
}

//! The whole grid in one process, on a simulated network, with faults from a seed; the invariants are checked after
//! every step. `PLAT_SEEDS=1000` runs more seeds, `PLAT_SEED=17` that one alone.

mod client;
mod faults;
mod story;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds that every run of the tests tries.
const SEEDS: u64 = 200;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable} must be a number")))
}

#[test]
fn whatever_goes_wrong_the_invariants_hold_and_the_grid_comes_to_rest() {
    if let Some(seed) = number("PLAT_SEED") {
        return story::run(seed);
    }
    let (seeds, next, failed) = (number("PLAT_SEEDS").unwrap_or(SEEDS), AtomicU64::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    if std::panic::catch_unwind(|| story::run(seed)).is_err() {
                        failed.lock().expect("nobody panics here").push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("nobody panics here");
    assert!(failed.is_empty(), "these seeds failed: {failed:?}; run one with PLAT_SEED={}", failed[0]);
}

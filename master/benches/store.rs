//! Durable commits per second, by engine and number of writers, and the time that a store with many records takes to
//! open. Run with `cargo bench -p plat-master --bench store`; `PLAT_BENCH_DIR` sets the disk (default: the temporary
//! folder), `PLAT_BENCH_RUNS` (default 3) the runs whose median is printed.
//!
//! Method: each writer commits one record of 1 KiB of its own and one audit entry, and waits for the acknowledgement
//! before its next; snapshots are taken as a decision takes them. A run lasts until a fixed number of commits.

use plat_master::store::conformance::sample::{audit, user};
use plat_master::store::{EngineKind, MemoryStore, Store, open};
use plat_master_plan::Expected;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const WRITERS: [u64; 4] = [1, 32, 64, 256];
const RECORDS: u64 = 100_000;

async fn commit(store: &dyn Store, name: &str, value: &str) {
    let expected = Expected { at: store.snapshot().revision, read: Vec::new() };
    store.commit(expected, vec![user(name, value), audit(name)]).await.expect("nobody else writes this record");
}

/// Commits per second.
async fn commits(store: Arc<dyn Store>, writers: u64, total: u64) -> f64 {
    let left = Arc::new(AtomicU64::new(total));
    let start = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|w| {
            let (store, left) = (store.clone(), left.clone());
            tokio::spawn(async move {
                let mut n = 0_u64;
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    n += 1;
                    commit(&*store, &format!("w{w}-{}", n % 1000), &format!("{n:01024}")).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a writer does not panic");
    }
    total as f64 / start.elapsed().as_secs_f64()
}

fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    values[values.len() / 2]
}

fn scratch() -> tempfile::TempDir {
    match std::env::var_os("PLAT_BENCH_DIR") {
        Some(folder) => tempfile::tempdir_in(PathBuf::from(folder)),
        None => tempfile::tempdir(),
    }
    .expect("a folder to write in")
}

fn main() {
    let runs = std::env::var("PLAT_BENCH_RUNS").ok().and_then(|text| text.parse().ok()).unwrap_or(3).max(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    println!("durable commits per second (one record of 1 KiB and one audit entry each), median of {runs} runs");
    println!("{:<8} {:>10} {:>10} {:>10} {:>10}", "store", "1 writer", "32", "64", "256");
    for kind in [None, Some(EngineKind::Redb), Some(EngineKind::Sled)] {
        let mut line = format!("{:<8}", kind.map_or("memory", EngineKind::name));
        for writers in WRITERS {
            let rates = (0..runs).map(|_| {
                let home = scratch();
                let store = match kind {
                    None => Arc::new(MemoryStore::new()) as Arc<dyn Store>,
                    Some(kind) => open(home.path(), Some(kind)).expect("an empty folder opens"),
                };
                runtime.block_on(commits(store, writers, if writers == 1 { 4_000 } else { 40_000 }))
            });
            line.push_str(&format!(" {:>10.0}", median(rates.collect())));
        }
        println!("{line}");
    }
    println!("\nopening a store of {RECORDS} records of 1 KiB and as many audit entries, median of {runs} runs");
    for kind in EngineKind::ALL {
        let home = scratch();
        let store = open(home.path(), Some(kind)).expect("an empty folder opens");
        runtime.block_on(async {
            let changes: Vec<_> =
                (0..RECORDS).flat_map(|n| [user(&format!("r{n}"), &format!("{n:01024}")), audit("fill")]).collect();
            for part in changes.chunks(2000) {
                let expected = Expected { at: store.snapshot().revision, read: Vec::new() };
                store.commit(expected, part.to_vec()).await.expect("nobody else writes");
            }
        });
        drop(store);
        let times: Vec<Duration> = (0..runs)
            .map(|_| {
                let start = Instant::now();
                let store = open(home.path(), None).expect("it opens again");
                let taken = start.elapsed();
                assert_eq!(store.snapshot().state.users.len() as u64, RECORDS);
                taken
            })
            .collect();
        println!("{:<8} {:>8.0?}", kind.name(), median(times));
    }
}

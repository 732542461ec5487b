//! Waiting for a condition with a deadline. A condition is a level, never an edge: it is looked at again and again,
//! and what was seen last is told when time is up.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until it is so.
///
/// # Panics
/// With what was seen last, when it is not so within `limit`.
#[track_caller]
pub fn eventually<T, E: Display>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(seen) if start.elapsed() >= limit => panic!("after {limit:?}: not {what}; seen last: {seen}"),
            Err(_) => std::thread::park_timeout(PAUSE),
        }
    }
}

/// Looks for `span`, and fails as soon as it is not so: for what must stay as it is.
///
/// # Panics
/// With what was seen.
#[track_caller]
pub fn throughout<E: Display>(what: &str, span: Duration, mut look: impl FnMut() -> Result<(), E>) {
    let start = Instant::now();
    while start.elapsed() < span {
        if let Err(seen) = look() {
            panic!("after {:?}: not {what} any more: {seen}", start.elapsed());
        }
        std::thread::park_timeout(PAUSE);
    }
}

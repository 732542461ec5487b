//! What the master does by itself. Each round is a shell round one pure decision: it wakes on a nudge or a timer and
//! does the same work from the whole state each time.

mod allocate;
mod certificate;
mod expire;
mod leave;

pub use certificate::{issue, renew};

use crate::grid::Grid;
use std::sync::Arc;

/// Runs all rounds until one of them ends: only a store that broke makes it.
pub async fn run(grid: Arc<Grid>) {
    tokio::select! {
        () = grid.run_nudges() => {}
        () = allocate::run(&grid) => {}
        () = expire::run(&grid) => {}
        () = leave::run(&grid) => {}
    }
}

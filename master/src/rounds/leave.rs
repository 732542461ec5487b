//! Destroys what was kept long enough.

use crate::grid::Grid;
use std::time::Duration;

/// How late it may be.
const EVERY: Duration = Duration::from_secs(10);

pub(super) async fn run(grid: &Grid) {
    loop {
        if let Err(problem) = grid.destroy_overdue().await {
            tracing::error!(problem = problem.one_line(), "what was kept long enough cannot be destroyed");
        }
        tokio::time::sleep(EVERY).await;
    }
}

//! Ends what is due: old tokens, and periods whose late use has had its time.

use crate::grid::Grid;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(600);

pub(super) async fn run(grid: &Grid) {
    loop {
        if let Err(problem) = grid.expire().await {
            tracing::error!(problem = problem.one_line(), "what is due cannot be ended");
        }
        tokio::time::sleep(EVERY).await;
    }
}

//! Destroys what was kept long enough. Woken by every durable commit, and when the time of the next one has come.

use crate::grid::Grid;
use std::time::Duration;

/// How long the next one's time is believed to be right: the clock may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// After a commit that failed for another reason than a conflict.
const RETRY: Duration = Duration::from_secs(5);

pub(super) async fn run(grid: &Grid) {
    let mut wake = grid.wake();
    loop {
        if let Err(problem) = grid.destroy_overdue().await {
            tracing::error!(problem = problem.one_line(), "what was kept long enough cannot be destroyed");
            tokio::time::sleep(RETRY).await;
        }
        tokio::select! {
            () = after(grid.until_leaving()) => {}
            more = wake.changed() => if !more { return },
        }
    }
}

/// Never, if there is nothing to wait for.
async fn after(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait.min(LOOK_AGAIN)).await,
        None => std::future::pending().await,
    }
}

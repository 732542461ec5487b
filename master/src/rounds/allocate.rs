//! Places what waits. Woken by every durable commit and whenever a node comes or goes; looks closer only if something
//! that placement depends on has changed.

use crate::grid::Grid;
use std::time::Duration;

/// After a round that placed nothing: many requests that fit nowhere must not each cost a look at all of them.
const PAUSE: Duration = Duration::from_millis(20);
/// After a commit that failed for another reason than a conflict.
const RETRY: Duration = Duration::from_secs(5);

pub(super) async fn run(grid: &Grid) {
    let mut wake = grid.wake();
    loop {
        match grid.place().await {
            Ok(placed) if placed.again => continue,
            Ok(placed) if placed.tried => tokio::time::sleep(PAUSE).await,
            Ok(_) => {}
            Err(problem) => {
                tracing::error!(problem = problem.one_line(), "instances cannot be placed");
                tokio::time::sleep(RETRY).await;
            }
        }
        if !wake.changed().await {
            return;
        }
    }
}

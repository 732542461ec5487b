//! Waiting for what becomes of a release.

use crate::Result;
use crate::args::Wait;
use crate::commands::Context;
use crate::session::Session;
use crate::view::ReleaseView;
use crate::wait::Progress;
use plat_model::Problem;
use plat_model::problem::codes;
use plat_wire::v1;
use std::ops::ControlFlow;

/// Looks each time that something changes in the grid, until `judge` has what is waited for; till then it says how it is.
///
/// # Errors
/// WAIT_TIMEOUT, told as `late`, when that takes too long.
pub async fn until<T>(
    context: &Context,
    session: &Session,
    key: v1::ShowReleaseRequest,
    wait: &Wait,
    late: &str,
    judge: impl Fn(ReleaseView) -> ControlFlow<T, String>,
) -> Result<T> {
    let mut progress = Progress::new(context.printer);
    let release = key.release.clone();
    let look = async {
        let mut nudges = context.ask(session.grid().watch_grid(v1::WatchGridRequest {})).await?;
        loop {
            let view = context.ask(session.grid().show_release(key.clone())).await?;
            match judge(ReleaseView::from(view)) {
                ControlFlow::Break(found) => return Ok(found),
                ControlFlow::Continue(how) => progress.say(&how),
            }
            if context.next(&mut nudges).await?.is_none() {
                return Err(Problem::new(codes::UNREACHABLE, "the master ended the watch")
                    .fix("repeat the command")
                    .into());
            }
        }
    };
    let waited = tokio::time::timeout(wait.timeout, look).await;
    progress.end();
    waited.unwrap_or_else(|_| {
        let fix = format!("nothing was undone: it goes on; `plat release show {release}` tells where it is");
        Err(Problem::new(codes::WAIT_TIMEOUT, late).fix(fix).into())
    })
}

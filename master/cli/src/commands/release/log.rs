//! How a node built a release, as it wrote that down.

use super::Context;
use crate::Result;
use crate::output::{self, clean};
use crate::view::LogLineView;
use plat_model::Problem;
use plat_model::problem::codes;
use plat_wire::v1;

pub async fn run(context: &Context, ask: v1::ReleaseLogRequest) -> Result<()> {
    let session = context.session().await?;
    let mut stream = context.ask(session.grid().release_log(ask.clone())).await?;
    let mut last = None;
    while let Some(chunk) = context.next(&mut stream).await? {
        for line in chunk.lines.into_iter().map(LogLineView::from) {
            context.printer.line(&line, |line| clean(&line.text) + "\n")?;
            last = Some(line.text);
        }
    }
    match last {
        None => output::note(&format!("node {} has written nothing about release {} yet", ask.node, ask.release)),
        // Who waits for a build goes on when there is one, not when it has failed or when nothing more is heard of it.
        Some(last) if ask.follow && !is_of_success(&last) => {
            let what = format!("node {} does not say that it has built release {}", ask.node, ask.release);
            return Err(Problem::new(codes::BUILD_FAILED, what)
                .because("its log ended with another line: the build failed, or its node was heard no more, or an hour was over")
                .fix(format!("see `plat release show {}`; if it is still being built, ask again", ask.release))
                .into());
        }
        Some(_) => {}
    }
    Ok(())
}

/// As a node writes it behind a build that it has published; a program's own line cannot begin so.
fn is_of_success(line: &str) -> bool {
    line.starts_with("> release ") && line.ends_with(" is built")
}

//! How a node built a release, as it wrote that down.

use super::Context;
use crate::Result;
use crate::output::{self, clean};
use crate::view::LogLineView;
use plat_wire::v1;

pub async fn run(context: &Context, ask: v1::ReleaseLogRequest) -> Result<()> {
    let session = context.session().await?;
    let mut stream = context.ask(session.grid().release_log(ask.clone())).await?;
    let mut silent = true;
    while let Some(chunk) = context.next(&mut stream).await? {
        silent &= chunk.lines.is_empty();
        for line in chunk.lines.into_iter().map(LogLineView::from) {
            context.printer.line(&line, |line| clean(&line.text) + "\n")?;
        }
    }
    if silent {
        output::note(&format!("node {} has written nothing about release {} yet", ask.node, ask.release));
    }
    Ok(())
}

//! `plat dev`: a whole grid on this machine, made of the real daemons, in a folder of its own.
//!
//! `grid` makes and ends it, `demo` deploys something on it and uses it, `binaries` finds what it is made of.

mod binaries;
mod client;
mod demo;
mod grid;
mod place;

use crate::Result;
use crate::args::DevArgs;
use crate::commands::Context;
use crate::output;
use plat_model::problem::codes;
use tokio::signal::unix::{SignalKind, signal};

pub async fn run(context: &Context, args: DevArgs) -> Result<()> {
    // Found first: making the place may drop root's rights.
    let binaries = binaries::find()?;
    let place = place::Place::make(&args)?;
    let mut grid = grid::Grid::new(place, binaries, context.printer, &args);
    let ended = tokio::select! {
        ended = story(context, &mut grid, &args) => ended,
        () = interrupted() => {
            output::note("\ninterrupted: cleaning up");
            Ok(())
        }
    };
    if ended.is_err() {
        grid.show_logs();
    }
    let down = grid.down().await;
    ended.and(down.map_err(Into::into))
}

async fn story(context: &Context, grid: &mut grid::Grid, args: &DevArgs) -> Result<()> {
    grid.up().await?;
    demo::write_examples(grid.place())?;
    if args.demo {
        return demo::run(context, grid, &args.release).await;
    }
    let place = grid.place();
    let end = if place.is_temporary() {
        format!("Ctrl-C ends it and removes {}; --folder keeps one.", place.path("").display())
    } else {
        format!("Ctrl-C ends it; `plat dev --folder {}` goes on.", place.path("").display())
    };
    output::note(&format!(
        "\nThe grid is up. In another terminal:\n\n    export PLAT_PROFILE={} PATH={}:$PATH\n    plat node list\n    \
         plat release add {}\n\n{end}",
        place.profile().display(),
        place.path("bin").display(),
        place.path("examples/nginx.yaml").display()
    ));
    Ok(grid.until_something_ends().await?)
}

/// Returns when somebody wants an end.
async fn interrupted() {
    let both = signal(SignalKind::interrupt()).and_then(|int| Ok((int, signal(SignalKind::terminate())?)));
    match both {
        Ok((mut int, mut term)) => {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
        }
        // Without signals the default action ends this process, and the next run cleans up after it.
        Err(_) => std::future::pending().await,
    }
}

/// What is missing on this machine.
fn prerequisite(what: impl Into<String>, why: impl std::fmt::Display, todo: &str) -> plat_model::Problem {
    plat_model::Problem::new(codes::PREREQUISITE, what).because(why).fix(todo)
}

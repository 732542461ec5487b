//! `plat`: the grid's command line, a client like any other.
//!
//! Read [`args`] (what can be typed), then `commands` (what each does). `session` reaches the grid, `view` and `output`
//! print. It knows nothing of the master's insides: everything goes through the public services.

pub mod args;
mod commands;
mod dev;
mod document;
mod exit;
mod output;
mod parameters;
mod profile;
mod session;
mod view;
mod wait;

use args::Cli;
use plat_model::Problems;
use std::process::ExitCode;

/// A command fails with everything that went wrong.
pub(crate) type Result<T, E = Problems> = std::result::Result<T, E>;

/// Runs one command to its end, and says how it ended.
pub fn run(cli: Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            output::note(&format!("error: cannot start: {e}"));
            return ExitCode::FAILURE;
        }
    };
    let format = cli.global.output;
    match runtime.block_on(commands::run(cli)) {
        Ok(code) => code,
        Err(problems) => {
            output::problems(&problems, format);
            exit::code(&problems)
        }
    }
}

//! `node-format`: arguments → configuration → plan, apply, verify, reset or show → exit code.

mod args;
mod enrol;
mod run;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let outcome = match args::Args::try_parse() {
        Ok(args) => run::run(&args),
        Err(usage) => {
            let _ = usage.print();
            return if usage.use_stderr() { ExitCode::from(run::Exit::Wrong as u8) } else { ExitCode::SUCCESS };
        }
    };
    ExitCode::from(outcome as u8)
}

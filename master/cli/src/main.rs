//! The binary `plat`: arguments → run → exit code.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    plat_cli::run(plat_cli::args::Cli::parse())
}

//! `node-format`: arguments → configuration → plan, apply, verify, reset or show → exit code.

mod args;
mod enrol;
mod run;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    allow_files();
    let outcome = match args::Args::try_parse() {
        Ok(args) => run::run(&args),
        Err(usage) => {
            let _ = usage.print();
            return if usage.use_stderr() { ExitCode::from(run::Exit::Wrong as u8) } else { ExitCode::SUCCESS };
        }
    };
    ExitCode::from(outcome as u8)
}

/// As many open files as this process may have: namespaces that are made together are held open together, and there may be
/// a thousand of them.
fn allow_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

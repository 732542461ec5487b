//! The agent of a node.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: processes that the agent forks must have one thread.
    if let Some(code) = plat_agent::host::linux::subcommand() {
        return code;
    }
    ExitCode::FAILURE
}

//! What software inside a partition says to its agent, for scripts: a thin client of the socket in `PLAT_SOCKET`.

use plat_agent::inside::client;
use std::process::ExitCode;

fn main() -> ExitCode {
    client::main()
}

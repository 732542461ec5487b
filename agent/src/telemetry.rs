//! Where log lines go: standard error, one line each; `PLAT_LOG` says which (default `info`).

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// To be called once, by `main`.
pub fn init() {
    let filter = EnvFilter::try_from_env("PLAT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Who reads them may be gone, and what would then be said of that ends whoever says it.
    lines.log_internal_errors(false).with_ansi(colours).with_target(false).init();
}

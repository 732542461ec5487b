//! `init`: a configuration that fits this machine.

use super::{Exit, print};
use crate::args::Args;
use node_format::{Host, LinuxHost};
use node_format_plan::{proposal, proposal_scope};
use plat_model::problem::{Problem, Problems, codes};
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

pub(super) fn run(args: &Args, host: &mut LinuxHost, amount: Option<u32>, stdout: bool) -> Result<Exit, Problems> {
    let facts = host.observe(&proposal_scope())?;
    let text = proposal(&facts, &host.machine_id()?, amount);
    if stdout {
        return print(&text);
    }
    let name = args.config.display();
    write(&args.config, &text).map_err(|e| {
        let there = e.kind() == std::io::ErrorKind::AlreadyExists;
        let fix =
            if there { "keep it, move it away, or print another with `--stdout`" } else { "give another `--config`" };
        Problem::new(codes::FILE, format!("{name} cannot be written")).because(e).fix(fix)
    })?;
    print(&format!("{name} written: look it over, then `node-format plan`\n"))
}

/// A configuration that is there already is somebody's.
fn write(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    if let Some(above) = path.parent().filter(|above| !above.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o755).create(above)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(text.as_bytes())
}

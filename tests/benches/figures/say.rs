//! The service that is started: as small as one can be, so that it is not what is measured. It says by a datagram that it
//! runs. Needs a C compiler.

use anyhow::{Result, ensure};
use std::path::Path;
use std::process::Command;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/figures/say.c");

/// Builds it as `say` in the folder.
pub fn build(folder: &Path) -> Result<()> {
    let built = Command::new("cc").args(["-O2", SOURCE, "-o"]).arg(folder.join("say")).status()?;
    ensure!(built.success(), "{SOURCE} cannot be built");
    Ok(())
}

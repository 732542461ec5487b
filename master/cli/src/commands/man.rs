//! `plat man`: the manual pages, from the same words as `--help`.

use crate::Result;
use crate::args::Cli;
use clap::CommandFactory;
use plat_model::Problem;
use plat_model::problem::codes;
use std::path::Path;

/// Writes `plat.1`, `plat-request.1`, … to a folder, which is made if it is missing.
pub fn write(folder: &Path) -> Result<()> {
    let wrong = |e| Problem::new(codes::FILE, format!("cannot write to {}", folder.display())).because(e);
    std::fs::create_dir_all(folder).map_err(wrong)?;
    Ok(clap_mangen::generate_to(Cli::command(), folder).map_err(wrong)?)
}

//! The daemons that a grid is made of: beside `plat` itself; in a source tree they are built first.

use super::prerequisite;
use crate::output;
use plat_model::Result;
use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

/// Each by its name, open: whoever runs them may not be able to reach where they were built.
pub struct Binaries(pub Vec<(&'static str, File)>);

pub fn find() -> Result<Binaries> {
    let own =
        std::env::current_exe().map_err(|e| prerequisite("plat cannot find itself", e, "start it by its full path"))?;
    let folder = own.parent().map(PathBuf::from).unwrap_or_default();
    if let (Some(cargo), Some(manifest)) = (std::env::var_os("CARGO"), std::env::var_os("CARGO_MANIFEST_DIR")) {
        output::note("building the daemons (the first time takes minutes)");
        let mut build = Command::new(cargo);
        build.current_dir(manifest).args([
            "build",
            "--quiet",
            "--bins",
            "-p",
            "plat-master",
            "-p",
            "plat-agent",
            "-p",
            "node-format",
        ]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().map_err(|e| prerequisite("the daemons cannot be built", e, "install cargo"))?;
        if !status.success() {
            return Err(prerequisite("the daemons cannot be built", status, "look at what cargo said above"));
        }
    }
    // For whoever tries the grid, who may not have it on his path.
    let client = File::open(&own).map_err(|e| prerequisite("plat cannot read itself", e, "look at its permissions"));
    let client = client.map(|opened| ("plat", opened));
    let binary = |name: &'static str| {
        let opened = File::open(folder.join(name)).map_err(|e| {
            let todo = "install the plat packages whole, or run `cargo build --bins` in a source tree";
            prerequisite(format!("`{name}` is missing"), format!("{}: {e}", folder.join(name).display()), todo)
        })?;
        Ok((name, opened))
    };
    ["plat-master", "plat-agent", "node-format"]
        .into_iter()
        .map(binary)
        .chain([client])
        .collect::<Result<_>>()
        .map(Binaries)
}

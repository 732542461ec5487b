//! The daemons that a grid is made of: beside `plat` itself; in a source tree they are built first.

use super::prerequisite;
use crate::output;
use plat_model::Result;
use std::path::PathBuf;
use std::process::Command;

/// Where each of them is.
pub struct Binaries {
    pub master: PathBuf,
    pub agent: PathBuf,
    pub node_format: PathBuf,
}

impl Binaries {
    pub fn all(&self) -> [&PathBuf; 3] {
        [&self.master, &self.agent, &self.node_format]
    }
}

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
    let binary = |name: &str| {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
        let todo = "install the plat packages whole, or run `cargo build --bins` in a source tree";
        Err(prerequisite(format!("`{name}` is missing"), format!("it is not in {}", folder.display()), todo))
    };
    Ok(Binaries { master: binary("plat-master")?, agent: binary("plat-agent")?, node_format: binary("node-format")? })
}

//! The agent's enrolment, by the agent's own program: node-format opens no connection.

use plat_model::problem::{Problem, Result, codes};
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAM: &str = "plat-agent";

/// Checked before anything is formatted, run after.
pub struct Enrolment<'a> {
    program: PathBuf,
    master: &'a str,
    token_file: &'a Path,
}

impl<'a> Enrolment<'a> {
    /// # Errors
    /// If the agent's program or the token cannot be found, or `root` is not this machine's own.
    pub fn prepare(master: &'a str, token_file: &'a Path, root: &Path) -> Result<Self> {
        if root != Path::new("/") {
            return Err(Problem::new(codes::USAGE, "`--master` does not go with `--root`")
                .because("the agent that is enrolled is the one of this machine")
                .fix("format first, then run `plat-agent enroll` in the other root"));
        }
        if token_file != Path::new("-") {
            std::fs::File::open(token_file).map_err(|e| {
                Problem::new(codes::FILE, format!("the token file {} cannot be read", token_file.display()))
                    .because(e)
                    .fix("`plat token create` prints a token; put it into a file that only root can read")
            })?;
        }
        let program = find().ok_or_else(|| {
            Problem::new(codes::PREREQUISITE, format!("{PROGRAM} cannot be found"))
                .because("it is neither beside node-format nor on PATH")
                .fix("install it, or run `apply` without `--master` and enrol later")
        })?;
        Ok(Self { program, master, token_file })
    }

    /// Runs `plat-agent enroll --master URL --token-file FILE`; it speaks for itself.
    ///
    /// # Errors
    /// [`codes::ENROLMENT`].
    pub fn run(&self) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("enroll").arg("--master").arg(self.master).arg("--token-file").arg(self.token_file);
        let failed = |why: String| {
            Problem::new(codes::ENROLMENT, "the machine is formatted, but the agent could not be enrolled")
                .because(why)
                .fix("see to what the agent said, then run `plat-agent enroll` with the same arguments")
        };
        let status =
            command.status().map_err(|e| failed(format!("{} cannot be started: {e}", self.program.display())))?;
        if status.success() { Ok(()) } else { Err(failed(format!("{} ended with {status}", self.program.display()))) }
    }
}

fn find() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(PROGRAM)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(PROGRAM));
    beside.into_iter().chain(on_path).find(|program| program.is_file())
}

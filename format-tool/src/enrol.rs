//! The agent's enrolment, by the agent's own program: node-format opens no connection.

use plat_model::parameters::Secret;
use plat_model::problem::{Problem, Result, codes};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

const PROGRAM: &str = "plat-agent";
/// Most bytes of a token that are read, as the agent does.
const TOKEN_MAX: u64 = 4096;
/// What `plat-agent enroll --check` ends with where this machine is a node of the token's grid.
const ENROLLED_ALREADY: i32 = 3;

/// Checked before anything is formatted, run after.
pub struct Enrolment<'a> {
    program: PathBuf,
    master: &'a str,
    /// Read once: it may come from a pipe, and is shown to the agent twice.
    token: Secret,
}

impl<'a> Enrolment<'a> {
    /// `None`: this machine is a node of the token's grid already. The agent's own program says what is wrong with the
    /// token or the address; nobody else is asked.
    ///
    /// # Errors
    /// If the agent's program or the token cannot be found, if `root` is not this machine's own, or [`codes::PREREQUISITE`]
    /// if the agent would not try.
    pub fn prepare(master: &'a str, token_file: &Path, root: &Path) -> Result<Option<Self>> {
        if root != Path::new("/") {
            return Err(Problem::new(codes::USAGE, "`--master` does not go with `--root`")
                .because("the agent that is enrolled is the one of this machine")
                .fix("format first, then run `plat-agent enroll` in the other root"));
        }
        let token = read(token_file).map_err(|e| {
            Problem::new(codes::FILE, format!("the token file {} cannot be read", token_file.display()))
                .because(e)
                .fix("`plat token create` prints a token; put it into a file that only root can read")
        })?;
        let program = find().ok_or_else(|| {
            Problem::new(codes::PREREQUISITE, format!("{PROGRAM} cannot be found"))
                .because("it is neither beside node-format nor on PATH")
                .fix("install it, or run `apply` without `--master` and enrol later")
        })?;
        let enrolment = Self { program, master, token };
        let refused = |why: String| {
            Problem::new(codes::PREREQUISITE, "the agent could not be enrolled, so nothing was formatted")
                .because(why)
                .fix("see to what the agent said, or run `apply` without `--master` and enrol later")
        };
        match enrolment.call(&["--check"]).map_err(refused)? {
            status if status.success() => Ok(Some(enrolment)),
            status if status.code() == Some(ENROLLED_ALREADY) => Ok(None),
            status => Err(refused(format!("`{PROGRAM} enroll --check` ended with {status}"))),
        }
    }

    /// Runs `plat-agent enroll`; it speaks for itself.
    ///
    /// # Errors
    /// [`codes::ENROLMENT`].
    pub fn run(&self) -> Result<()> {
        let failed = |why: String| {
            Problem::new(codes::ENROLMENT, "the machine is formatted, but the agent could not be enrolled")
                .because(why)
                .fix("see to what the agent said, then run `node-format apply` with the same arguments again")
        };
        match self.call(&[]).map_err(failed)? {
            status if status.success() => Ok(()),
            status => Err(failed(format!("{} ended with {status}", self.program.display()))),
        }
    }

    /// The token goes by standard input: it was read already, and may come from a pipe itself.
    fn call(&self, more: &[&str]) -> std::result::Result<ExitStatus, String> {
        let mut command = Command::new(&self.program);
        command.args(["enroll", "--master", self.master, "--token-file", "-"]).args(more).stdin(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("{} cannot be started: {e}", self.program.display()))?;
        // One that ends without reading it says why by itself.
        let _ = child.stdin.take().map(|mut stdin| stdin.write_all(self.token.reveal().as_bytes()));
        child.wait().map_err(|e| e.to_string())
    }
}

fn read(path: &Path) -> std::io::Result<Secret> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().take(TOKEN_MAX).read_to_string(&mut text)?;
    } else {
        File::open(path)?.take(TOKEN_MAX).read_to_string(&mut text)?;
    }
    Ok(Secret::new(text.trim()))
}

fn find() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(PROGRAM)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(PROGRAM));
    beside.into_iter().chain(on_path).find(|program| program.is_file())
}

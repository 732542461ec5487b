//! Other programs: where they are, how they are started, what they said.

use super::failed;
use plat_model::problem::Result;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Where a program is: on PATH, or where root's are, which the PATH of a service may lack.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let roots = ["/usr/sbin", "/sbin"].map(|folder| Path::new(folder).join(program));
    on_path(program).or_else(|| roots.into_iter().find(|file| is_program(file)))
}

/// Where a program is on PATH, whose relative entries count for nothing: root may stand anywhere.
pub(super) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).filter(|folder| folder.is_absolute());
    folders.find_map(|folder| Some(folder.join(program)).filter(|file| is_program(file)))
}

/// A program of PATH, to be started.
///
/// # Errors
/// If there is none.
pub(super) fn command(program: &str) -> io::Result<Command> {
    on_path(program)
        .map(Command::new)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no {program} on PATH")))
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Starts a program that inherits `held`: a copy without close-on-exec, which is ours only while it starts.
pub(super) fn spawn(command: &mut Command, held: Option<&File>) -> io::Result<Child> {
    let _inherited = held.map(nix::unistd::dup).transpose()?;
    command.spawn()
}

/// Runs a program that reads `input` whole or not at all, whatever becomes of this process, in this thread's network namespace. Outer failure: it could not be started.
///
/// # Errors
/// Inner failure: it failed; says what it said.
pub(super) fn run(command: &mut Command, input: &str, held: Option<&File>) -> io::Result<Result<Output>> {
    // Through a pipe it would have the first part of it if this process were killed, and take that for all.
    command.stdin(held_text(input)?).stderr(Stdio::piped());
    let output = spawn(command, held)?.wait_with_output()?;
    Ok(said(&command.get_program().to_string_lossy(), &output).map(|()| output))
}

/// A file without a name, to be read from its beginning.
fn held_text(text: &str) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("node-format", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// A problem if it failed: with the last lines it wrote, where the reason is.
pub(super) fn said(program: &str, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let last: Vec<&str> = errors.lines().rev().take(3).collect();
    Err(failed(format!("{program} failed ({})", output.status), last.into_iter().rev().collect::<Vec<_>>().join("; ")))
}

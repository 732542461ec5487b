//! Programs of the node that fetch: found where programs are, run with an environment of their own, within limits.

use super::pypi;
use crate::host::linux::account::assume;
use crate::host::linux::disk::{io_problem, random_hex};
use crate::host::linux::release::build::{failed, program, run_program};
use crate::host::linux::release::cache::{FETCH_MAX, FILE_MAX};
use crate::host::linux::task::{Line, Ran};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use plat_document::release::Source;
use plat_model::Problem;
use plat_model::node::Account;
use plat_model::problem::codes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Where programs are looked for, the first first.
const FOLDERS: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];
/// Longest run of one program, in seconds.
const SECONDS: u32 = FETCH_MAX.as_secs() as u32;

/// A program of the node.
pub struct Tool {
    pub path: PathBuf,
}

impl Tool {
    /// # Errors
    /// PREREQUISITE if this node does not have it.
    pub fn find(name: &str) -> Result<Self, Problem> {
        look_for(name, &FOLDERS).map(|path| Self { path }).ok_or_else(|| {
            Problem::new(codes::PREREQUISITE, format!("this node does not have the program `{name}`"))
                .because("a source of the release is fetched with it")
                .fix(format!("install it (`apt-get install {name}`), or supply the release to other nodes"))
        })
    }

    /// Runs it to its end, as this process's user. None of its files grows larger than one that is fetched.
    pub fn run(
        &self,
        arguments: Vec<String>,
        environment: BTreeMap<String, String>,
        folder: &Path,
        line: &Line,
    ) -> Result<Ran, Problem> {
        let command = std::iter::once(self.path.display().to_string()).chain(arguments).collect();
        let before = getrlimit(Resource::RLIMIT_FSIZE);
        if let Ok((_, hard)) = before {
            let _ = setrlimit(Resource::RLIMIT_FSIZE, FILE_MAX.min(hard), hard);
        }
        let ran = run_program(program(command, environment, folder), &folder.join("log"), SECONDS, line);
        if let Ok((soft, hard)) = before {
            let _ = setrlimit(Resource::RLIMIT_FSIZE, soft, hard);
        }
        ran
    }

    /// What it means that it failed to fetch.
    pub fn failed(&self, what: String, ran: &Ran) -> Problem {
        let problem = failed(&what, ran, SECONDS);
        if problem.code == codes::DISK_FULL { problem } else { Problem { code: codes::SOURCE_FETCH, ..problem } }
    }
}

/// A program's absolute path.
pub fn find(name: &str) -> Option<PathBuf> {
    look_for(name, &FOLDERS)
}

fn look_for(name: &str, folders: &[&str]) -> Option<PathBuf> {
    folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists())
}

/// Whether all is here that a source is fetched with: asked for all sources before the first is fetched.
///
/// # Errors
/// PREREQUISITE.
pub fn check(source: &Source) -> Result<(), Problem> {
    match source {
        Source::Git { .. } => Tool::find("git").map(drop),
        Source::Pypi { .. } => pypi::prerequisite(),
        // apt says itself what it lacks; the others need no program.
        Source::Archive { .. }
        | Source::Crate { .. }
        | Source::Deb { .. }
        | Source::Directory { .. }
        | Source::Npm { .. }
        | Source::Oci { .. } => Ok(()),
    }
}

/// Looks for all that a release's sources need of this node, before the first file of them is fetched.
#[derive(Serialize, Deserialize)]
pub struct LookTask {
    pub sources: BTreeMap<String, Source>,
    /// Who looks; `None`: who the agent is.
    pub account: Option<Account>,
}

impl LookTask {
    pub fn perform(&self) -> Result<(), Problem> {
        assume(self.account.as_ref())?;
        self.sources.iter().try_for_each(|(name, source)| check(source).map_err(|p| p.at(format!("sources.{name}"))))
    }
}

/// Gives `what` an empty folder beneath `staging`, which is gone when it is done. If it fails, the staging folder goes.
pub fn scratch<T>(staging: &Path, what: impl FnOnce(&Path) -> Result<T, Problem>) -> Result<T, Problem> {
    let folder = staging.join(format!(".plat-scratch-{}", random_hex(8)?));
    let wrong =
        |e: io::Error| io_problem(codes::BUILD_FAILED, format!("cannot use {} for a while", folder.display()), &e);
    DirBuilder::new().mode(0o700).create(&folder).map_err(wrong)?;
    let done = what(&folder)?;
    fs::remove_dir_all(&folder).map_err(wrong)?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_a_prerequisite() {
        assert_eq!(look_for("sh", &["/nowhere", "/bin"]), Some("/bin/sh".into()));
        let problem = Tool::find("plat-no-such-program").err().unwrap();
        assert_eq!(problem.code, codes::PREREQUISITE);
        assert!(problem.todo.contains("install it"), "{problem}");
    }
}

//! Building a release, as the builder: sources in the order of their names, then the build's commands.

use super::sources::{archive, deb, directory, tree};
use crate::host::linux::account::assume;
use crate::host::linux::disk::{io_problem, now, random_hex};
use crate::host::linux::shim::RunTask;
use crate::host::linux::shim::launch::Program;
use crate::host::linux::shim::tree::Exit;
use crate::host::linux::task::{Line, Ran};
use minijinja::{Environment, UndefinedBehavior, context};
use plat_document::Release;
use plat_document::release::{Build, Source};
use plat_model::id::Digest;
use plat_model::node::Account;
use plat_model::problem::codes;
use plat_model::{Problem, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Name of the file that says that a release is whole, and what went into it.
pub const MANIFEST: &str = ".plat-release.json";

#[derive(Debug, Serialize, Deserialize)]
pub struct Manifest {
    pub version: u32,
    pub digest: Digest,
    pub built: Timestamp,
    /// Source → what was used of it, with checksums.
    pub sources: BTreeMap<String, Vec<Ingredient>>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Ingredient {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    pub sha256: String,
}

#[derive(Serialize, Deserialize)]
pub struct BuildTask {
    pub digest: Digest,
    pub document: String,
    /// An empty folder of the builder's.
    pub staging: PathBuf,
    /// Where it will be.
    pub published: PathBuf,
    /// The package tools' own folder, shared by all builds.
    pub packages: PathBuf,
    pub builder: Option<Account>,
}

impl BuildTask {
    pub fn perform(&self, line: &Line) -> Result<(), Problem> {
        assume(self.builder.as_ref())?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        let release: Release = serde_json::from_str(&self.document)
            .map_err(|e| Problem::new(codes::BUILD_FAILED, "the release document cannot be read").because(e))?;
        let mut used = BTreeMap::new();
        for (name, source) in &release.sources {
            let ingredients = self
                .lay(source, line)
                .map_err(|p| if p.at.is_empty() { p.at(format!("sources.{name}")) } else { p })?;
            used.insert(name.clone(), ingredients);
        }
        if let Some(build) = &release.build {
            self.run_commands(build, line)?;
        }
        let manifest = Manifest { version: 1, digest: self.digest.clone(), built: now(), sources: used };
        let path = self.staging.join(MANIFEST);
        let _ = fs::remove_file(&path);
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| Problem::new(codes::INTERNAL, "cannot write a manifest").because(e))?;
        fs::write(&path, text).map_err(|e| io_problem(codes::BUILD_FAILED, "cannot write the release's manifest", &e))
    }

    fn lay(&self, source: &Source, line: &Line) -> Result<Vec<Ingredient>, Problem> {
        let place = |into: &str| tree::Tree::open(&self.staging, into);
        match source {
            Source::Archive { url, sha256, strip, into } => {
                archive::lay(url, sha256, *strip, &place(into)?, &self.staging, line)
            }
            Source::Directory { path, sha256, into } => directory::lay(path, sha256.as_deref(), &place(into)?, line),
            Source::Deb { packages, into } => {
                place(into)?;
                deb::lay(packages, &self.packages, &self.staging.join(into), line)
            }
        }
    }

    fn run_commands(&self, build: &Build, line: &Line) -> Result<(), Problem> {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        let place = context! { release => context! { directory => self.published.display().to_string() } };
        for (n, command) in build.commands.iter().enumerate() {
            let at = format!("build.commands[{n}]");
            let words =
                command.iter().map(|word| templates.render_str(word, &place)).collect::<Result<Vec<_>, _>>().map_err(
                    |e| Problem::new(codes::BAD_TEMPLATE, "a build command cannot be rendered").because(e).at(&at),
                )?;
            let name = words.first().cloned().unwrap_or_default();
            line.progress(format!("> running {name} ({} of {})", n + 1, build.commands.len()))?;
            let environment = BTreeMap::from([
                ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
                ("HOME".to_owned(), self.staging.display().to_string()),
                ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ]);
            let ran = run_program(find(words), environment, &self.staging, build.timeout_seconds, line)?;
            if ran.timed_out || ran.exit != Exit::Code(0) {
                return Err(failed(&format!("the build command {name} failed"), &ran, build.timeout_seconds).at(at));
            }
        }
        Ok(())
    }
}

/// A program's absolute path, looked for where programs are.
fn find(mut words: Vec<String>) -> Vec<String> {
    if let Some(first) = words.first_mut()
        && !first.contains('/')
    {
        let folders = ["/usr/local/bin", "/usr/bin", "/bin"];
        if let Some(found) = folders.iter().map(|f| Path::new(f).join(&first)).find(|p| p.exists()) {
            *first = found.display().to_string();
        }
    }
    words
}

/// Runs a program to its end; its last lines are in the result, all of it in the release's log.
pub fn run_program(
    command: Vec<String>,
    environment: BTreeMap<String, String>,
    directory: &Path,
    timeout_seconds: u32,
    line: &Line,
) -> Result<Ran, Problem> {
    let log = directory.join(format!(".plat-log-{}", random_hex(4)?));
    let program = Program {
        command,
        environment,
        directory: directory.to_owned(),
        within: String::new(),
        account: None,
        cgroup: None,
        cgroup_is_own: false,
        processes: None,
        mark: String::new(),
    };
    let ran = crate::host::linux::shim::run(&RunTask { program, timeout_seconds, log: log.clone() }, line);
    for (_, text) in crate::host::linux::shim::line_log::last_lines(&log, 5000) {
        line.progress(text)?;
    }
    for leftover in [log.clone(), log.with_extension("1")] {
        let _ = fs::remove_file(leftover);
    }
    ran
}

/// A program's failure, with its last lines.
pub fn failed(what: &str, ran: &Ran, timeout_seconds: u32) -> Problem {
    let how = if ran.timed_out { format!("it took longer than {timeout_seconds} s") } else { ran.exit.to_string() };
    let full = ran.tail.iter().any(|text| text.contains("No space left on device"));
    Problem::new(if full { codes::DISK_FULL } else { codes::BUILD_FAILED }, what)
        .because(format!("{how}\n{}", ran.tail.join("\n")).trim_end())
}

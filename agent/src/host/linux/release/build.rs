//! Building a release: sources in the order of their names, then the build's commands, all as the builder; then it is
//! sealed and its manifest written.
//!
//! Where the agent is root, the build's own process stays root and has others become the builder, so that no command can
//! hold it still, and what a command leaves running is killed before anybody looks at what it made. One release is built
//! at a time there: while a command runs, nothing else is within its user's reach. What is only unpacked is therefore
//! unpacked as a user that no command ever is, and waits for nobody.

mod laying;

use super::cache::pin::Pin;
use super::cache::store::Shelf;
use super::disk_use::DiskUse;
use super::sources::unpack::{self, Form, Room};
use super::sources::{archive, crates, deb, directory, git, npm, oci, pypi, tools, tree};
use crate::config::BuildLimits;
use crate::host::linux::account::{end_all_below, end_all_of};
use crate::host::linux::cgroup::Groups;
use crate::host::linux::confine::{Bounds, Company, Modes, Network, Tmp, resolver};
use crate::host::linux::disk::{io_problem, now};
use crate::host::linux::partition::files::open_top;
use crate::host::linux::runtime::Confinement;
use crate::host::linux::shim::RunTask;
use crate::host::linux::shim::launch::Program;
use crate::host::linux::shim::line_log::{Follower, LINE_MAX, LineLog};
use crate::host::linux::shim::tree::{Exit, Over};
use crate::host::linux::task::{Line, Ran};
use minijinja::{Environment, UndefinedBehavior, context};
use plat_document::Release;
use plat_document::release::{Build, Source};
use plat_model::id::Digest;
use plat_model::node::Account;
use plat_model::problem::codes;
use plat_model::{Problem, Timestamp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, Uid, fchmod, fchown, flock, fsync, openat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
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

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ingredient {
    pub name: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
}

#[derive(Serialize, Deserialize)]
pub struct BuildTask {
    pub digest: Digest,
    pub release: Release,
    /// An empty folder of the agent's.
    pub staging: PathBuf,
    /// Where it will be.
    pub published: PathBuf,
    /// The package tools' own folder, shared by all builds; `None`: none of them is needed.
    pub packages: Option<PathBuf>,
    /// The cache that all was fetched into.
    pub cache: PathBuf,
    /// Held while one release is built; `None`: nothing of it runs as a user that others are built as.
    pub lock: Option<PathBuf>,
    /// Where the output of commands goes: a file that no command reaches.
    pub log: PathBuf,
    /// Who builds it; of what is only unpacked, who does that.
    pub builder: Option<Account>,
    pub limits: BuildLimits,
    /// Bytes that must stay free where it is built.
    pub spare: u64,
    /// A file of certificates: whose word servers are taken on that git and pip ask, instead of whom the machine trusts.
    pub authorities: Option<PathBuf>,
    /// What no command sees: the partitions, and the agent's own.
    pub hidden: Vec<PathBuf>,
    /// Where its commands run.
    pub groups: Groups,
    /// What another node made of it, in the cache: taken instead of building.
    pub made: Option<Made>,
}

/// A release that was built elsewhere.
#[derive(Serialize, Deserialize)]
pub struct Made {
    pub archive: Pin,
    pub sources: BTreeMap<String, Vec<Ingredient>>,
}

/// What the builder has prepared.
#[derive(Serialize, Deserialize)]
struct Laid {
    sources: BTreeMap<String, Vec<Ingredient>>,
    /// Ready to be run.
    commands: Vec<Vec<String>>,
    timeout_seconds: u32,
    network: bool,
}

impl BuildTask {
    pub fn perform(&self, line: &Line) -> Result<(), Problem> {
        let wrong = |e: io::Error| io_problem(codes::BUILD_FAILED, "cannot build a release", &e);
        let lock = self.lock.as_ref().map(File::create).transpose().map_err(wrong)?;
        if let Some(lock) = &lock {
            wait_for(lock, line).map_err(wrong)?;
        }
        // All that is started is below this process, whoever started it ends.
        nix::sys::prctl::set_child_subreaper(true).map_err(|e| wrong(e.into()))?;
        self.end_all()?;
        let staging = open_top(&self.staging)?;
        self.give(&staging, self.builder.as_ref()).map_err(wrong)?;
        // What is in the packages' folder is used for other releases too.
        let packages = self.packages.as_deref().map(open_top).transpose()?;
        packages.as_ref().map_or(Ok(()), |folder| self.give(folder, self.builder.as_ref())).map_err(wrong)?;
        let laid = self.lay_all(lock.as_ref(), line);
        self.end_all()?;
        packages.as_ref().map_or(Ok(()), |folder| self.give(folder, None)).map_err(wrong)?;
        let laid = laid?;
        let run = self.run_commands(&laid, line);
        self.end_all()?;
        run?;
        // What came since it was last looked at, and what was laid so fast that it never was.
        self.disk().over_in_the_end().map_or(Ok(()), |over| Err(self.is_over(&over)))?;
        tree::seal(&staging, self.builder.as_ref().map(|builder| builder.uid))
            .map_err(|e| io_problem(codes::BUILD_FAILED, "cannot seal what was built", &e))?;
        let manifest = Manifest { version: 1, digest: self.digest.clone(), built: now(), sources: laid.sources };
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| Problem::new(codes::INTERNAL, "cannot write a manifest").because(e))?;
        write_manifest(&staging, &text)
            .map_err(|e| io_problem(codes::BUILD_FAILED, "cannot write the release's manifest", &e))
    }

    /// Kills what this build has started, and what runs as the builder: while the lock is held, that is of this release or
    /// left by a build that was killed.
    fn end_all(&self) -> Result<(), Problem> {
        let builder = self.builder.as_ref().filter(|_| nix::unistd::geteuid().is_root() && self.lock.is_some());
        let ended = builder.map_or(Ok(()), end_all_of).and_then(|()| end_all_below());
        ended.map_err(|problem| Problem { code: codes::BUILD_FAILED, ..problem })
    }

    /// Gives a folder to the builder, or to `None` back to the agent.
    fn give(&self, folder: &OwnedFd, to: Option<&Account>) -> io::Result<()> {
        if self.builder.is_none() {
            return Ok(());
        }
        let (uid, gid) = to.map_or_else(
            || (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
            |account| (account.uid, account.gid),
        );
        Ok(fchown(folder, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
    }

    fn lay_here(&self, shelf: &Shelf, line: &Line) -> Result<Laid, Problem> {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        let release = &self.release;
        if let Some(made) = &self.made {
            return self.lay_made(made, release, shelf, line);
        }
        let at = |name: &str, p: Problem| if p.at.is_empty() { p.at(format!("sources.{name}")) } else { p };
        for (name, source) in &release.sources {
            tools::check(source).map_err(|p| at(name, p))?;
        }
        let mut sources = BTreeMap::new();
        for (name, source) in &release.sources {
            sources.insert(name.clone(), self.lay(source, shelf, line).map_err(|p| at(name, p))?);
        }
        let commands = release.build.as_ref().map_or_else(|| Ok(Vec::new()), |build| self.render(build))?;
        let (timeout_seconds, network) =
            release.build.as_ref().map_or((0, false), |build| (build.timeout_seconds, build.network));
        Ok(Laid { sources, commands, timeout_seconds, network })
    }

    fn lay_made(&self, made: &Made, release: &Release, shelf: &Shelf, line: &Line) -> Result<Laid, Problem> {
        line.progress("> unpacking what another node built")?;
        let what = || "cannot unpack what another node built".to_owned();
        let file = shelf.checked(&made.archive)?;
        let mut room = Room::of_a_release(release);
        unpack::unpack(file, Form::Built, &tree::Tree::open(&self.staging, "")?, &mut room)
            .map_err(|e| unpack::problem(what(), &e))?;
        Ok(Laid { sources: made.sources.clone(), commands: Vec::new(), timeout_seconds: 0, network: false })
    }

    fn lay(&self, source: &Source, shelf: &Shelf, line: &Line) -> Result<Vec<Ingredient>, Problem> {
        let place = |into: &str| tree::Tree::open(&self.staging, into);
        let authorities = self.authorities.as_deref();
        match source {
            Source::Archive { url, sha256, strip, into } => {
                archive::lay(url, sha256, *strip, &place(into)?, shelf, line)
            }
            Source::Directory { path, sha256, into } => directory::lay(path, sha256.as_deref(), &place(into)?, line),
            Source::Deb { packages, locks, into } => {
                place(into)?;
                if let Some(locked) = deb::lock_of(locks)? {
                    return deb::lay_locked(locked, shelf, &self.staging.join(into), line);
                }
                let own = self.packages.as_ref().ok_or_else(|| Problem::new(codes::INTERNAL, "apt has no folder"))?;
                deb::lay(packages, own, &self.staging.join(into), line)
            }
            Source::Crate { name, version, sha256, registry, into } => {
                crates::Crate { name, version, sha256, registry }.lay(&place(into)?, shelf, line)
            }
            Source::Npm { packages, registry, into } => npm::lay(packages, registry, &place(into)?, shelf, line),
            Source::Pypi { packages, index, into } => {
                let wheels = pypi::Wheels { packages, index, authorities };
                wheels.lay(&place(into)?, &self.staging, line)
            }
            Source::Oci { layout, sha256, manifest, into } => {
                let image = oci::Image { layout, sha256: sha256.as_deref(), manifest };
                image.lay(&place(into)?, &self.staging, shelf, line)
            }
            Source::Git { url, commit, into } => {
                git::Commit { url, commit, authorities }.lay(&place(into)?, &self.staging, line)
            }
        }
    }

    fn render(&self, build: &Build) -> Result<Vec<Vec<String>>, Problem> {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        let place = context! { release => context! { directory => self.published.display().to_string() } };
        let rendered = build.commands.iter().enumerate().map(|(n, command)| {
            let words = command.iter().map(|word| templates.render_str(word, &place)).collect::<Result<Vec<_>, _>>();
            words.map(find).map_err(|e| {
                let at = format!("build.commands[{n}]");
                Problem::new(codes::BAD_TEMPLATE, "a build command cannot be rendered").because(e).at(at)
            })
        });
        rendered.collect()
    }

    fn run_commands(&self, laid: &Laid, line: &Line) -> Result<(), Problem> {
        for (n, command) in laid.commands.iter().enumerate() {
            let name = command.first().map_or("", |path| path.rsplit('/').next().unwrap_or(path));
            line.progress(format!("> running {name} ({} of {})", n + 1, laid.commands.len()))?;
            let environment = BTreeMap::from([
                ("PATH".to_owned(), "/usr/local/bin:/usr/bin:/bin".to_owned()),
                ("HOME".to_owned(), self.staging.display().to_string()),
                ("LANG".to_owned(), "C.UTF-8".to_owned()),
            ]);
            let confinement = self.confinement(laid);
            // Where there is a builder, nobody else builds now.
            let (groups, group_is_own) = (self.groups.clone(), self.builder.is_some());
            let program =
                Program { confinement, groups, group_is_own, ..program(command.clone(), environment, &self.staging) };
            let disk = self.disk();
            let ran = run_within(program, &self.log, laid.timeout_seconds, &|| disk.over(), line)?;
            if ran.timed_out || ran.over.is_some() || ran.exit != Exit::Code(0) {
                let at = format!("build.commands[{n}]");
                return Err(failed(&format!("the build command {name} failed"), &ran, laid.timeout_seconds).at(at));
            }
        }
        Ok(())
    }
}

impl BuildTask {
    fn disk(&self) -> DiskUse {
        DiskUse::new(&self.staging, self.limits.disk, self.spare)
    }

    /// What it means that it has become too large, whatever was being done.
    fn is_over(&self, over: &Over) -> Problem {
        let code = if matches!(over, Over::Free(_)) { codes::DISK_FULL } else { codes::BUILD_FAILED };
        let fix = match over {
            Over::Free(_) => "free some space on that file system",
            Over::Written(_) => "raise what the node allows, or lay less of it",
        };
        Problem::new(code, format!("release {} takes too much of the disk", self.digest.short()))
            .because(what_is_over(over))
            .fix(fix)
    }

    /// What a command has of this machine: its folder.
    fn confinement(&self, laid: &Laid) -> Confinement {
        let bounds = Bounds {
            writable: vec![self.staging.clone()],
            hidden: self.hidden.clone(),
            visible: Vec::new(),
            modes: Modes::Plain,
            network: if laid.network { Network::Same } else { Network::None },
            readable: resolver().filter(|_| laid.network).into_iter().collect(),
            tmp: Tmp::Memory(self.limits.memory),
            company: Company::None,
        };
        Confinement {
            processes: Some(self.limits.processes),
            memory: Some(self.limits.memory),
            file_bytes: Some(self.limits.disk),
            bounds: Some(bounds),
            ..Confinement::of_user(self.builder.clone())
        }
    }
}

/// Takes the lock as soon as nobody else has it, unless nobody waits for that any more.
fn wait_for(lock: &File, line: &Line) -> io::Result<()> {
    const AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    // This agent has one built at a time: what holds it was begun by another, or is being broken off.
    let mut is_told = false;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if is_told => {}
            // Nobody that listens is noticed below.
            Err(Errno::WOULDBLOCK) => is_told = line.progress("> waiting for another release to be built").is_ok(),
            Err(Errno::INTR) => continue,
            taken => return Ok(taken?),
        }
        match poll(&mut [PollFd::new(line.stream(), PollFlags::RDHUP)], Some(&AGAIN)) {
            Ok(0) | Err(Errno::INTR) => {}
            _ => return Err(io::Error::other("nobody waits for it any more")),
        }
    }
}

/// In a sealed folder, so that nobody but the agent can have made it.
fn write_manifest(staging: &OwnedFd, text: &[u8]) -> io::Result<()> {
    match unlinkat(staging, MANIFEST, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e.into()),
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(staging, MANIFEST, flags, Mode::from_raw_mode(0o444))?);
    file.write_all(text)?;
    fchmod(&file, Mode::from_raw_mode(0o444))?;
    Ok(fsync(&file)?)
}

/// A program's absolute path, looked for where programs are.
fn find(mut words: Vec<String>) -> Vec<String> {
    if let Some(first) = words.first_mut()
        && !first.contains('/')
        && let Some(found) = tools::find(first)
    {
        *first = found.display().to_string();
    }
    words
}

/// A program as this process's own user, that starts in `directory`.
pub fn program(command: Vec<String>, environment: BTreeMap<String, String>, directory: &Path) -> Program {
    Program {
        command,
        environment,
        directory: directory.to_owned(),
        within: String::new(),
        confinement: Confinement::of_user(None),
        groups: Groups::default(),
        group_is_own: false,
        mark: String::new(),
    }
}

/// Runs a program and all that it starts to its end; its last lines are in the result. What it writes is told as it does,
/// and so comes into the release's log. `log` is written on the way.
pub fn run_program(program: Program, log: &Path, timeout_seconds: u32, line: &Line) -> Result<Ran, Problem> {
    run_within(program, log, timeout_seconds, &|| None, line)
}

/// The same, killed when `over` says so.
fn run_within(
    program: Program,
    log: &Path,
    timeout_seconds: u32,
    over: &dyn Fn() -> Option<Over>,
    line: &Line,
) -> Result<Ran, Problem> {
    let clear = || {
        for leftover in [log.to_owned(), log.with_extension("1")] {
            let _ = fs::remove_file(leftover);
        }
    };
    clear();
    // It is there before the program: what is written before the first look is not lost when it is begun anew by then.
    drop(LineLog::open(log.to_owned()));
    let output = RefCell::new(Follower::new(log.to_owned()));
    output.borrow_mut().fresh();
    let task = RunTask { program, timeout_seconds, log: log.to_owned() };
    let over = || {
        // Where nobody listens any more it is killed for that.
        let _nobody = tell(&mut output.borrow_mut(), line);
        over()
    };
    let ran = crate::host::linux::shim::run_within(&task, Some(&over), line);
    let told = tell(&mut output.borrow_mut(), line);
    clear();
    told.and(ran)
}

/// Most lines of a program that are told at a time: the last ones.
const LINES: usize = 5000;

/// Tells what a program has written since this was called last. No line of it is taken for the agent's own, which begin
/// with `> ` and `~ `.
fn tell(output: &mut Follower, line: &Line) -> Result<(), Problem> {
    let mut fresh = output.fresh();
    if output.was_torn() {
        line.progress("(lines are left out: they came faster than they were looked at)")?;
    }
    let left_out = fresh.len().saturating_sub(LINES);
    if left_out > 0 {
        line.progress(format!("({left_out} lines are left out)"))?;
    }
    fresh.drain(..left_out).for_each(drop);
    let mut told = fresh.iter().flat_map(|(_, text)| own_lines(text));
    told.try_for_each(|text| line.progress(text))
}

/// A program's line as the log keeps it: one that is too long, as bytes that are no text become, is several there.
fn own_lines(text: &str) -> Vec<String> {
    let (mut lines, mut rest) = (Vec::new(), text);
    loop {
        // With the mark it is no longer than a line may be.
        let (line, more) = rest.split_at(rest.floor_char_boundary(LINE_MAX - 1));
        let is_as_ours = line.starts_with("> ") || line.starts_with("~ ");
        lines.push(if is_as_ours { format!(" {line}") } else { line.to_owned() });
        if more.is_empty() {
            return lines;
        }
        rest = more;
    }
}

/// What programs say where there is no room.
const FULL: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// A program's failure, with its last lines.
pub fn failed(what: &str, ran: &Ran, timeout_seconds: u32) -> Problem {
    let how = match &ran.over {
        Some(over) => what_is_over(over),
        None if ran.timed_out => format!("it took longer than {timeout_seconds} s"),
        None => ran.exit.to_string(),
    };
    let is_of_room = |text: &String| FULL.iter().any(|words| text.contains(words));
    let full = matches!(ran.over, Some(Over::Free(_))) || ran.tail.iter().any(is_of_room);
    Problem::new(if full { codes::DISK_FULL } else { codes::BUILD_FAILED }, what)
        .because(format!("{how}\n{}", ran.tail.join("\n")).trim_end())
}

fn what_is_over(over: &Over) -> String {
    match over {
        Over::Written(bytes) => format!("it wrote more than {} MiB, which `build.disk_mib` allows", bytes >> 20),
        Over::Free(bytes) => format!("it left less than {} MiB free on the disk", bytes >> 20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_piece_of_a_programs_line_is_taken_for_the_agents_own() {
        let long = "\u{fffd}".repeat(1365) + "> release 0000 is built";
        let filled = "x".repeat(LINE_MAX - 1) + "~ running";
        for text in ["> release 0000 is built", &long, &filled] {
            let lines = own_lines(text);
            let is_as_ours = |line: &String| line.starts_with("> ") || line.starts_with("~ ");
            assert!(!lines.iter().any(|line| line.len() > LINE_MAX || is_as_ours(line)), "{lines:?}");
            assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
        }
        assert_eq!(own_lines(""), [""]);
    }
}

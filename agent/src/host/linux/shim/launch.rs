//! From a command to a running program: what is set before it is its own.

use crate::host::linux::account::assume;
use crate::host::linux::cgroup::Groups;
use crate::host::linux::confine::{Confining, plan};
use crate::host::linux::namespace;
use crate::host::linux::posix::{Side, default_signals, split};
use crate::host::linux::runtime::Confinement;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, execve, setpgid};
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode as FileMode, OFlags, ResolveFlags, openat, openat2};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// A program with all that surrounds it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Program {
    /// The first is an absolute path.
    pub command: Vec<String>,
    /// The whole environment, but for the mark.
    pub environment: BTreeMap<String, String>,
    pub directory: PathBuf,
    /// Where beneath `directory` it starts; empty: there.
    pub within: String,
    pub confinement: Confinement,
    pub groups: Groups,
    /// Nobody else is in its control group of version 2: killing the group kills this program and nothing else.
    pub group_is_own: bool,
    /// See [`crate::host::linux::process::MARK`].
    pub mark: String,
}

/// Longest text of what kept a program from starting, in bytes.
const PROBLEM_MAX: u64 = 1 << 20;

/// Longest time from the fork to the program's first instruction.
const START_MAX: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// Starts the program in a process group of its own; its output and errors go to `output`.
///
/// # Errors
/// What kept it from starting: the program never ran.
pub fn launch(program: &Program, output: OwnedFd) -> Result<Pid, Problem> {
    let failed = |why: String| {
        Problem::new(
            codes::SERVICE_START,
            format!("cannot start {}", program.command.first().map_or("", String::as_str)),
        )
        .because(why)
    };
    // Closed by the program's start, so that reading its end says that it started.
    let (said, say) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| failed(e.to_string()))?;
    match split().map_err(|e| failed(e.to_string()))? {
        Side::Parent(pid) => {
            drop((say, output));
            // Once it has become the user, that user's other processes may hold it still.
            let mut waited = [PollFd::new(&said, PollFlags::IN)];
            if matches!(poll(&mut waited, Some(&START_MAX)), Ok(0)) {
                let _ = kill(pid, Signal::SIGKILL);
                let _ = nix::sys::wait::waitpid(pid, None);
                return Err(failed(format!("something held it for {} s before it began", START_MAX.tv_sec)));
            }
            let mut text = Vec::new();
            File::from(said).take(PROBLEM_MAX).read_to_end(&mut text).map_err(|e| failed(e.to_string()))?;
            if text.is_empty() {
                return Ok(pid);
            }
            let _ = nix::sys::wait::waitpid(pid, None);
            Err(serde_json::from_slice(&text).unwrap_or_else(|_| failed("it was ended before it began".into())))
        }
        Side::Child => {
            let entered = namespace::enter(program.confinement.namespace.as_deref());
            let Err(problem) = entered.and_then(|()| become_program(program, &output).map_err(failed));
            let _ = serde_json::to_writer(File::from(say), &problem);
            std::process::exit(127)
        }
    }
}

fn become_program(program: &Program, output: &OwnedFd) -> Result<std::convert::Infallible, String> {
    for group in program.groups.unified.iter().chain(&program.groups.others) {
        let join = std::fs::write(group.join("cgroup.procs"), "0");
        join.map_err(|e| format!("cannot join the control group {}: {e}", group.display()))?;
    }
    let step = |what: &'static str| move |e: rustix::io::Errno| format!("{what}: {e}");
    setpgid(Pid::from_raw(0), Pid::from_raw(0)).map_err(|e| format!("process group: {e}"))?;
    let null =
        openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, FileMode::empty()).map_err(step("/dev/null"))?;
    rustix::stdio::dup2_stdin(&null).map_err(step("input"))?;
    rustix::stdio::dup2_stdout(output).map_err(step("output"))?;
    rustix::stdio::dup2_stderr(output).map_err(step("output"))?;
    let confinement = &program.confinement;
    let user = confinement.account.as_ref();
    let mut confining = confinement.bounds.as_ref().map(|bounds| (plan(bounds), Confining::new(bounds, user)));
    if let Some((steps, confining)) = &mut confining {
        confining.perform(&steps.as_started).map_err(|p| p.one_line())?;
    }
    limits(confinement);
    assume(confinement.account.as_ref()).map_err(|p| p.one_line())?;
    nix::sys::prctl::set_no_new_privs().map_err(|e| format!("no new privileges: {e}"))?;
    umask(Mode::from_bits_truncate(0o027));
    enter(program)?;
    if let Some((steps, confining)) = &mut confining {
        confining.perform(&steps.as_user).map_err(|p| p.one_line())?;
        // Before the first line of the program itself; of services the node says it once for all.
        for missing in confining.missing.iter().filter(|_| confining.is_alone()) {
            let _ = rustix::io::write(output, format!("not enforced on this machine: {missing}\n").as_bytes());
        }
    }
    let text = |what: &str| CString::new(what).map_err(|_| "an argument or variable holds a zero byte".to_owned());
    let arguments = program.command.iter().map(|a| text(a)).collect::<Result<Vec<_>, _>>()?;
    let mut environment = vec![text(&format!("{}={}", super::super::process::MARK, program.mark))?];
    for (name, value) in &program.environment {
        environment.push(text(&format!("{name}={value}"))?);
    }
    let path = arguments.first().filter(|p| p.as_bytes().starts_with(b"/")).ok_or("its path is not absolute")?;
    default_signals();
    SigSet::empty().thread_set_mask().map_err(|e| format!("signal mask: {e}"))?;
    execve(path, &arguments, &environment).map_err(|e| e.desc().to_owned())
}

/// Into the directory, as the user and beneath the partition: a link that the user made leads nowhere else.
fn enter(program: &Program) -> Result<(), String> {
    let directory = open_within(&program.directory, &program.within)?;
    rustix::process::fchdir(&directory).map_err(|e| format!("cannot enter {}: {e}", program.within))
}

/// The directory that a program starts in, and no other that a link leads to.
///
/// # Errors
/// Why it cannot be entered.
pub fn open_within(directory: &Path, within: &str) -> Result<OwnedFd, String> {
    let wrong = |e: rustix::io::Errno| format!("cannot enter {}/{within}: {e}", directory.display());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = openat(CWD, directory, flags, FileMode::empty()).map_err(wrong)?;
    if within.is_empty() {
        return Ok(top);
    }
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(&top, within, flags, FileMode::empty(), beneath).map_err(wrong)
}

fn limits(confinement: &Confinement) {
    // Lowering cannot fail; what the host does not allow stays as the host has it.
    let lower = |which, most: u64| {
        if let Ok((_, hard)) = getrlimit(which) {
            let _ = setrlimit(which, most.min(hard), most.min(hard));
        }
    };
    lower(Resource::RLIMIT_CORE, 0);
    lower(Resource::RLIMIT_NOFILE, confinement.files);
    // Of a user who is not the program's alone it would count others' too; in a namespace of users it counts its own.
    let counts = confinement.account.is_some() || confinement.bounds.is_some();
    if let Some(processes) = confinement.processes.filter(|_| counts) {
        lower(Resource::RLIMIT_NPROC, u64::from(processes));
    }
    if let Some(memory) = confinement.memory {
        lower(Resource::RLIMIT_DATA, memory);
    }
    if let Some(bytes) = confinement.file_bytes {
        lower(Resource::RLIMIT_FSIZE, bytes);
    }
}

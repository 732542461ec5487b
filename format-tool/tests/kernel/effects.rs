//! A run of node-format that is killed, or waits for somebody else, just before one of its effects: before a system call that
//! would change the machine, counted from 1 over all threads of the process. The programs that it starts are not counted, and live on.

use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::c_long;
use std::io::{Read, Seek, Write};
use std::process::{Command, Stdio};

/// How a run ended that was to be killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Before this system call.
    Killed(String),
    /// By itself, with this exit code: it has fewer effects.
    Whole(i32),
}

/// Calls that change something whatever their arguments.
const ALWAYS: [(c_long, &str); 16] = [
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_fchmod, "fchmod"),
    (libc::SYS_fchmodat, "fchmodat"),
    (libc::SYS_fchown, "fchown"),
    (libc::SYS_fchownat, "fchownat"),
    (libc::SYS_unlinkat, "unlinkat"),
    (libc::SYS_renameat, "renameat"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_fsetxattr, "fsetxattr"),
    (libc::SYS_fremovexattr, "fremovexattr"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_mount, "mount"),
    (libc::SYS_umount2, "umount2"),
    (libc::SYS_unshare, "unshare"),
    (libc::SYS_wait4, "wait4"),
    (libc::SYS_waitid, "waitid"),
];

/// Older forms of these, which newer machines lack.
#[cfg(target_arch = "x86_64")]
const OLDER: [(c_long, &str); 5] = [
    (libc::SYS_mkdir, "mkdir"),
    (libc::SYS_chmod, "chmod"),
    (libc::SYS_unlink, "unlink"),
    (libc::SYS_rmdir, "rmdir"),
    (libc::SYS_rename, "rename"),
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: [(c_long, &str); 0] = [];

/// Runs a command, which must not read its standard input, and kills it before its effect number `at`.
pub fn killed_at(at: usize, command: &Command) -> Ended {
    killed(command, &mut |effects| effects == at)
}

/// As [`killed_at`], before the first effect at which it is time.
pub fn killed_once(command: &Command, mut is_time: impl FnMut() -> bool) -> Ended {
    killed(command, &mut |_| is_time())
}

fn killed(command: &Command, is_time: &mut dyn FnMut(usize) -> bool) -> Ended {
    match traced(command, Stdio::null(), &mut |effects, _| is_time(effects)) {
        (Some(call), WaitStatus::Signaled(_, Signal::SIGKILL, _)) => Ended::Killed(call),
        (None, WaitStatus::Exited(_, code)) => Ended::Whole(code),
        (killed, status) => panic!("{killed:?}, and then {status:?}"),
    }
}

/// Runs a command, and does something just before the first of its effects that is described so; what it said, and its exit
/// code.
pub fn acting_before(call: &str, command: &Command, act: impl FnOnce()) -> (i32, String) {
    let mut act = Some(act);
    acting_once(call, command, || {
        act.take().into_iter().for_each(|act| act());
        true
    })
}

/// As [`acting_before`], before each of them until it says that it did what it was to do.
pub fn acting_once(call: &str, command: &Command, mut act: impl FnMut() -> bool) -> (i32, String) {
    let mut said = tempfile::tempfile().unwrap();
    let mut acted = false;
    let (_, status) = traced(command, said.try_clone().unwrap().into(), &mut |_, seen| {
        acted = acted || (seen.starts_with(call) && act());
        false
    });
    assert!(acted, "it never came to {call}");
    let WaitStatus::Exited(_, code) = status else { panic!("{status:?}") };
    let mut text = String::new();
    said.rewind().unwrap();
    said.read_to_string(&mut text).unwrap();
    (code, text)
}

/// `is_last`: whether it is to be killed before an effect, of which it is told the number and what it is.
#[expect(clippy::zombie_processes, reason = "it is waited for with its threads, by number")]
fn traced(
    command: &Command,
    said: Stdio,
    is_last: &mut dyn FnMut(usize, &str) -> bool,
) -> (Option<String>, WaitStatus) {
    // A shell that waits until it is traced, and then becomes the program.
    let mut waiting = Command::new("/bin/sh");
    waiting.args(["-c", "read go; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    let mut child = waiting.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(said).spawn().unwrap();
    let leader = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let options = Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_TRACESYSGOOD;
    ptrace::seize(leader, options | Options::PTRACE_O_EXITKILL).unwrap();
    ptrace::interrupt(leader).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut run = Traced { leader, is_last, effects: 0, started: false, killed: None };
    let status = loop {
        // The tracees of this thread alone.
        let status = waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).unwrap();
        if status.pid() == Some(leader) && matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..)) {
            break status;
        }
        run.on(status);
    };
    (run.killed, status)
}

struct Traced<'a> {
    leader: Pid,
    is_last: &'a mut dyn FnMut(usize, &str) -> bool,
    effects: usize,
    /// Whether the shell has become the program.
    started: bool,
    killed: Option<String>,
}

impl Traced<'_> {
    fn on(&mut self, status: WaitStatus) {
        let (thread, signal) = match status {
            WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
            WaitStatus::PtraceEvent(thread, _, event) => {
                self.started |= event == libc::PTRACE_EVENT_EXEC;
                (thread, None)
            }
            WaitStatus::PtraceSyscall(thread) => {
                self.on_call(thread);
                (thread, None)
            }
            _ => return, // A thread that has ended.
        };
        // One that has been killed meanwhile need not go on.
        let _ = ptrace::syscall(thread, signal);
    }

    fn on_call(&mut self, thread: Pid) {
        let entering = ptrace::syscall_info(thread).is_ok_and(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY);
        if !self.started || !entering || self.killed.is_some() {
            return;
        }
        let Some(call) = effect(thread) else { return };
        self.effects += 1;
        if (self.is_last)(self.effects, &call) {
            // A call that is entered by a killed thread is not made.
            kill(self.leader, Signal::SIGKILL).unwrap();
            self.killed = Some(call);
        }
    }
}

/// The call that a thread is about to make, if it changes something.
fn effect(thread: Pid) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{thread}/syscall")).ok()?;
    let mut words = text.split_whitespace();
    let number: c_long = words.next()?.parse().ok()?;
    let arguments: Vec<u64> =
        words.filter_map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok()).collect();
    let file = || std::fs::read_link(format!("/proc/{thread}/fd/{}", arguments[0])).unwrap_or_default();
    let flag = |argument: usize, bit: i32| arguments[argument] & u64::try_from(bit).unwrap() != 0;
    if let Some((_, name)) = ALWAYS.iter().chain(&OLDER).find(|(always, _)| *always == number) {
        return Some((*name).to_owned());
    }
    match number {
        libc::SYS_openat if flag(2, libc::O_CREAT) => Some("openat with O_CREAT".into()),
        libc::SYS_write => {
            let file = file().display().to_string();
            // Neither what it says nor how it wakes its own threads.
            let changes = file.starts_with("pipe:") || (file.starts_with('/') && file != "/dev/null");
            changes.then(|| format!("write to {file}"))
        }
        libc::SYS_ioctl => {
            (file().as_os_str() == "/dev/net/tun").then(|| format!("ioctl {:#x} of a tap", arguments[1]))
        }
        libc::SYS_sendto => {
            // The first word of a netlink message: its length, its type and its flags.
            let address = usize::try_from(arguments[1]).ok()?;
            let word = ptrace::read(thread, std::ptr::with_exposed_provenance_mut(address)).ok()?;
            let kind = u16::from_ne_bytes(*word.to_ne_bytes()[4..].first_chunk().unwrap());
            // Of four types of messages about a thing the third asks for it.
            (kind % 4 != 2).then(|| format!("netlink message of type {kind}"))
        }
        _ => None,
    }
}

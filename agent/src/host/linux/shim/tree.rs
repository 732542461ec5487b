//! One program and all that it starts, watched to the end: the last process of it is gone before this is done.

use super::launch::{Program, launch};
use super::line_log::LineLog;
use super::notify::Notices;
use super::pace::Pace;
use crate::host::linux::process::descendants;
use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeValLike;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use serde::{Deserialize, Serialize};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "signal {number} ({})", signal.as_str()),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

/// What all processes of a tree that have ended used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Used {
    pub cpu_micros: u64,
    /// Read from and written to storage.
    pub io_bytes: u64,
}

/// When a tree is made to end, and how.
pub struct Policy<'a> {
    pub stop_signal: Signal,
    /// Between the stop signal and the kill.
    pub stop_timeout: Duration,
    /// Longest run, after which it is stopped.
    pub longest: Option<Duration>,
    /// When the program has ended by itself: how long what it left running is given.
    pub rest: Duration,
    /// When the other end of this closes, everything is killed.
    pub hangup: Option<BorrowedFd<'a>>,
    /// When nothing is heard here for as long as it says, everything is aborted, then killed.
    pub notices: Option<&'a Notices>,
    /// Asked every second: why everything is to be killed, if it is.
    pub over: Option<&'a dyn Fn() -> Option<Over>>,
}

/// A bound of a program that no limit of the kernel keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Over {
    /// It wrote more than so many bytes.
    Written(u64),
    /// Less than so many bytes are free on the disk that it writes to.
    Free(u64),
}

/// How often that is asked.
const OVER: Duration = Duration::from_secs(1);

/// Where a tree is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    Running,
    /// Told to stop; killed when its time is over.
    Stopping,
    Killing,
    Ended,
}

/// A finished tree.
pub struct Finished {
    pub exit: Exit,
    pub timed_out: bool,
    pub over: Option<Over>,
    /// It was told to end, and did not end by itself.
    pub told: bool,
    /// Whoever told this process to end its tree, ended by itself or not, waits for this process to end.
    pub awaited: bool,
    /// It was ended because nothing was heard of it.
    pub unheard: bool,
}

pub struct Tree {
    pub main: Pid,
    cgroup: Option<PathBuf>,
    signals: SignalFd,
    output: Option<OwnedFd>,
    pace: Pace,
    exit: Option<Exit>,
    childless: bool,
}

/// Asks a shim to stop its tree.
pub const STOP: Signal = Signal::SIGTERM;
/// Asks a shim to kill its tree at once.
pub const KILL: Signal = Signal::SIGINT;

/// Waits until this process is told to end its tree, if that comes within `time`. For when there is no tree any more.
pub fn told_within(time: Duration) -> bool {
    let mut told = SigSet::empty();
    told.add(STOP);
    told.add(KILL);
    // What came before is still there to be read: a tree has them blocked, too.
    let signals = told.thread_block().and_then(|()| SignalFd::with_flags(&told, SfdFlags::SFD_NONBLOCK));
    let Ok(signals) = signals else { return true };
    let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], Some(&timeout));
    matches!(signals.read_signal(), Ok(Some(_)))
}

impl Tree {
    /// Starts the program. From here on all that it starts belongs to this process, however it detaches.
    pub fn start(program: &Program) -> Result<Self, Problem> {
        let wrong = |e: Errno| Problem::new(codes::SERVICE_START, "cannot supervise a program").because(e.desc());
        nix::sys::prctl::set_child_subreaper(true).map_err(wrong)?;
        let mut watched = SigSet::empty();
        for signal in [Signal::SIGCHLD, STOP, KILL, Signal::SIGHUP, Signal::SIGPIPE] {
            watched.add(signal);
        }
        watched.thread_block().map_err(wrong)?;
        let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map_err(wrong)?;
        let (output, input) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|e| Problem::new(codes::SERVICE_START, "cannot supervise a program").because(e))?;
        let main = launch(program, input)?;
        let _ = fcntl_setfl(&output, OFlags::NONBLOCK);
        Ok(Self {
            main,
            cgroup: program.groups.unified.clone().filter(|_| program.group_is_own),
            signals,
            output: Some(output),
            pace: Pace::new(Instant::now()),
            exit: None,
            childless: false,
        })
    }

    /// Watches to the end. `note` is told of each phase once, and at most every second of what ended processes used.
    pub fn watch(&mut self, policy: &Policy<'_>, log: &mut LineLog, mut note: impl FnMut(Phase, Used)) -> Finished {
        let started = Instant::now();
        let (mut phase, mut until) = (Phase::Running, policy.longest.and_then(|longest| started.checked_add(longest)));
        let (mut timed_out, mut told, mut noted, mut reaped) = (false, false, started, false);
        let mut heard_until = policy.notices.and_then(|notices| started.checked_add(notices.longest()));
        let (mut unheard, mut awaited) = (false, false);
        let (mut over, mut asked) = (None, started);
        loop {
            let pause = match phase {
                Phase::Killing => Some(Duration::from_millis(5)),
                phase => {
                    let heard_until = heard_until.filter(|_| phase == Phase::Running);
                    until.into_iter().chain(heard_until).min().map(|at| at.saturating_duration_since(Instant::now()))
                }
            };
            let pause = if reaped {
                Some(pause.map_or(Duration::from_secs(1), |p| p.min(Duration::from_secs(1))))
            } else {
                pause
            };
            let pause = match policy.over {
                Some(_) => Some(pause.map_or(OVER, |pause| pause.min(OVER))),
                None => pause,
            };
            let rest = self.pace.rest(Instant::now());
            let deaf = policy.notices.and_then(Notices::deaf);
            let woken = self.wait(pause.into_iter().chain(rest).chain(deaf).min(), policy);
            self.copy_output(log, Copied::Due);
            if let Some(notices) = policy.notices
                && notices.heard()
            {
                heard_until = Instant::now().checked_add(notices.longest());
            }
            awaited |= woken.stop || woken.kill;
            told |= (woken.stop || woken.kill || woken.hangup) && self.exit.is_none() && !unheard;
            reaped |= self.reap();
            if self.childless {
                break;
            }
            if reaped && noted.elapsed() >= Duration::from_secs(1) {
                note(phase, used());
                (noted, reaped) = (Instant::now(), false);
            }
            let silent = phase == Phase::Running && self.exit.is_none() && !told;
            if silent && heard_until.is_some_and(|at| Instant::now() >= at) {
                // As systemd does: with a signal that leaves a trace, and after the time of a stop by force.
                (unheard, phase) = (true, Phase::Stopping);
                until = Instant::now().checked_add(policy.stop_timeout);
                self.signal_rest(Signal::SIGABRT);
                continue;
            }
            if let Some(ask) = policy.over.filter(|_| over.is_none() && asked.elapsed() >= OVER) {
                (over, asked) = (ask(), Instant::now());
            }
            let late = until.is_some_and(|at| Instant::now() >= at);
            let next = if woken.kill || woken.hangup || over.is_some() || (late && phase == Phase::Stopping) {
                Phase::Killing
            } else if (woken.stop || late) && phase == Phase::Running {
                timed_out = late && !woken.stop;
                Phase::Stopping
            } else {
                phase
            };
            if next == Phase::Stopping && phase == Phase::Running {
                until = Instant::now().checked_add(policy.stop_timeout);
                let _ = kill(self.main, policy.stop_signal);
                note(next, used());
            }
            if self.exit.is_some() && phase == Phase::Running && next == Phase::Running {
                // It ended by itself; what it left behind is told, and given a moment.
                phase = Phase::Stopping;
                until = Instant::now().checked_add(policy.rest);
                self.signal_rest(policy.stop_signal);
                continue;
            }
            phase = if phase == Phase::Killing { Phase::Killing } else { next };
            if phase == Phase::Killing {
                self.kill_all();
            }
        }
        self.copy_output(log, Copied::Left);
        log.finish();
        Finished { exit: self.exit.unwrap_or(Exit::Code(0)), timed_out, over, told, awaited, unheard }
    }

    fn wait(&mut self, pause: Option<Duration>, policy: &Policy<'_>) -> Woken {
        let mut fds = vec![PollFd::new(&self.signals, PollFlags::IN)];
        if let Some(output) = self.output.as_ref().filter(|_| self.pace.rest(Instant::now()).is_none()) {
            fds.push(PollFd::new(output, PollFlags::IN));
        }
        let peer = fds.len();
        if let Some(hangup) = &policy.hangup {
            fds.push(PollFd::from_borrowed_fd(*hangup, PollFlags::RDHUP));
        }
        if let Some(notices) = policy.notices {
            fds.push(PollFd::new(notices, PollFlags::IN));
        }
        let timeout = pause.map(|p| Timespec { tv_sec: p.as_secs() as i64, tv_nsec: i64::from(p.subsec_nanos()) });
        let _ = poll(&mut fds, timeout.as_ref());
        let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::RDHUP;
        let mut woken = Woken {
            hangup: policy.hangup.is_some() && fds.get(peer).is_some_and(|fd| fd.revents().intersects(gone)),
            ..Woken::default()
        };
        while let Ok(Some(info)) = self.signals.read_signal() {
            woken.stop |= info.ssi_signo == STOP as u32;
            woken.kill |= info.ssi_signo == KILL as u32;
        }
        woken
    }

    /// Copies what there is, within a bound, so that a flood does not keep the rest from being looked at, and no faster than
    /// its pace while the tree lives.
    fn copy_output(&mut self, log: &mut LineLog, what: Copied) {
        let mut buffer = [0; 16 * 1024];
        for _ in 0..64 {
            let now = Instant::now();
            let Some(output) = &self.output else { return };
            if what == Copied::Due && self.pace.rest(now).is_some() {
                return;
            }
            match rustix::io::read(output, &mut buffer) {
                Ok(0) => self.output = None,
                Ok(n) => {
                    self.pace.count(&buffer[..n], now);
                    log.write(&buffer[..n]);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Collects ended processes; whether there were any.
    fn reap(&mut self) -> bool {
        let mut any = false;
        loop {
            let (pid, exit) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Exit::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, Exit::Signal(signal as i32)),
                Ok(WaitStatus::StillAlive) => return any,
                Err(Errno::ECHILD) => {
                    self.childless = true;
                    return any;
                }
                Ok(_) | Err(_) => continue,
            };
            any = true;
            if pid == self.main {
                self.exit = Some(exit);
            }
        }
    }

    fn signal_rest(&self, signal: Signal) {
        for pid in descendants(std::process::id()) {
            let _ = kill(Pid::from_raw(pid as i32), signal);
        }
    }

    /// Kills all there is at this moment. Processes are held still first, so that none starts another meanwhile.
    fn kill_all(&self) {
        if let Some(cgroup) = &self.cgroup
            && std::fs::write(cgroup.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        let mut held = Vec::new();
        for _ in 0..20 {
            let fresh: Vec<u32> = descendants(std::process::id()).into_iter().filter(|p| !held.contains(p)).collect();
            if fresh.is_empty() {
                break;
            }
            for pid in fresh {
                let _ = kill(Pid::from_raw(pid as i32), Signal::SIGSTOP);
                held.push(pid);
            }
        }
        for pid in held {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
    }
}

/// How much of a program's output is copied.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Copied {
    /// No more than its pace allows.
    Due,
    /// All: its processes are gone, and no more than a pipe holds can be left.
    Left,
}

#[derive(Default)]
struct Woken {
    stop: bool,
    kill: bool,
    hangup: bool,
}

/// What this process's ended children used, and theirs.
pub fn used() -> Used {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return Used::default() };
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    // The kernel counts blocks of 512 bytes here, whatever the disk's.
    let blocks = usage.block_reads() + usage.block_writes();
    Used { cpu_micros: u64::try_from(micros).unwrap_or(0), io_bytes: u64::try_from(blocks).unwrap_or(0) * 512 }
}

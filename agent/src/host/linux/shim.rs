//! The process that stands by one service: starts it, copies its output, writes down how it goes, makes it stop. It
//! outlives the agent, and it decides nothing: when the service ends, so does the shim.

pub mod launch;
pub mod line_log;
mod notify;
pub mod pace;
pub mod tree;

use super::cgroup::Counted;
use super::disk::{Durability, replace_json};
use super::process::{Process, tick_micros};
use super::task::{Answer, Line, Ran};
use crate::clock::{Clock, SystemClock};
use launch::Program;
use line_log::LineLog;
use notify::Notices;
use plat_agent_plan::facts::Ending;
use plat_agent_plan::{Moment, Steady};
use plat_model::id::InstanceId;
use plat_model::{Problem, Timestamp};
use serde::{Deserialize, Serialize};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tree::{Exit, Finished, Over, Phase, Policy, Tree, Used, used};

/// A service to stand by.
#[derive(Serialize, Deserialize)]
pub struct ServiceTask {
    pub program: Program,
    pub stop_signal: i32,
    pub stop_timeout_seconds: u32,
    /// Folder of the agent's state where its log and its state are.
    pub folder: PathBuf,
    pub run: String,
    pub instance: InstanceId,
    pub fingerprint: String,
    /// What it reads now that it could reload.
    #[serde(default)]
    pub loaded: String,
    /// Runs before this one, and how the last of them ended.
    pub restarts: u32,
    pub last_exit: String,
    /// Short runs in a row before this one.
    pub short_runs: u32,
    #[serde(default)]
    pub watchdog_seconds: Option<u32>,
}

/// What a shim writes down about its service; the agent reads it. Kept for the last run of each service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunState {
    pub version: u32,
    /// Random, one for each run.
    pub run: String,
    /// In which boot of the machine this was; the processes are of no other.
    pub boot: String,
    pub shim: Process,
    pub main: Option<Process>,
    pub instance: InstanceId,
    pub fingerprint: String,
    #[serde(default)]
    pub loaded: String,
    pub phase: Phase,
    pub started: Timestamp,
    pub ended: Option<Timestamp>,
    /// The same on the steady clock of this boot; an older shim does not say.
    #[serde(default)]
    pub began: Option<Steady>,
    #[serde(default)]
    pub finished: Option<Steady>,
    pub exit: Option<Exit>,
    /// Why it did not start, or was lost; else empty.
    pub error: String,
    /// The same of one that could not be started, whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Problem>,
    pub restarts: u32,
    pub last_exit: String,
    pub short_runs: u32,
    /// It was told to stop.
    pub told: bool,
    /// It was ended because it did not say for so many seconds that it is alive.
    #[serde(default)]
    pub unheard: Option<u32>,
    /// Nobody saw how it ended: its shim was gone.
    #[serde(default)]
    pub lost: bool,
    /// Its control group of version 2, if it has one.
    pub cgroup: Option<PathBuf>,
    /// What of it the partition's groups count; an older shim does not say.
    #[serde(default)]
    pub counted: Option<Counted>,
    /// Whom it runs as; what was written before there was this does not say.
    #[serde(default)]
    pub uid: Option<u32>,
    /// Of its processes that have ended.
    pub used: Used,
    pub tail: Vec<String>,
    /// How long it has to end when its shim is told to stop it; an older shim does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_seconds: Option<u32>,
    /// If systemd keeps it and no shim, whose place its first process has here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub systemd: Option<BySystemd>,
}

/// What is kept of a run whose unit systemd keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct BySystemd {
    /// How often systemd itself had started the unit again.
    pub restarts: u32,
    /// How long it may be silent.
    pub watchdog_seconds: Option<u32>,
    /// How long it has to end when it is told to.
    pub stop_seconds: u32,
}

impl RunState {
    pub const VERSION: u32 = 1;

    /// Whether its shim is there and will write how it ends.
    pub fn is_attended(&self, boot: &str) -> bool {
        self.phase != Phase::Ended && self.boot == boot && self.shim.is_alive()
    }

    /// How long it has to end when its shim is told to stop it, if the shim has noted that.
    pub fn stop_timeout(&self) -> Option<Duration> {
        self.stop_seconds.map(|seconds| Duration::from_secs(seconds.into()))
    }

    /// How the last run that ended did so; empty if none has.
    pub fn last_exit(&self) -> String {
        match (self.phase, self.exit) {
            (Phase::Ended, Some(exit)) => match self.unheard {
                Some(seconds) => format!("watchdog: it said nothing for {seconds} s; {exit}"),
                None => exit.to_string(),
            },
            (Phase::Ended, None) => self.error.clone(),
            _ => self.last_exit.clone(),
        }
    }

    /// How the run ended, if it has.
    pub fn ending(&self) -> Ending {
        match self.exit {
            _ if self.told || self.lost => Ending::Told,
            Some(Exit::Code(0)) if self.unheard.is_none() => Ending::Success,
            _ => Ending::Failure,
        }
    }

    /// Runs in a row that ended by themselves when they were young.
    pub fn short_runs(&self) -> u32 {
        let young = Duration::from_secs(plat_agent_plan::facts::STABLE_SECONDS.into());
        let Some(ended) = self.ended else { return self.short_runs };
        let lasted = match (self.began, self.finished) {
            (Some(began), Some(finished)) => finished.since(began),
            // Of an older shim, or over a restart of the machine.
            _ => ended.since(self.started),
        };
        match self.told || lasted >= young {
            true => 0,
            false => self.short_runs.saturating_add(1),
        }
    }

    /// When it started. What was in another boot was before all of this one.
    pub fn start(&self, boot: &str) -> Moment {
        // The kernel knows it as well, of the shim.
        let kernel = || Steady(self.shim.start.saturating_mul(tick_micros()) / 1000);
        let steady = if self.boot == boot { self.began.unwrap_or_else(kernel) } else { Steady::ZERO };
        Moment { wall: self.started, steady }
    }

    /// When it ended; if it has not, when it started.
    pub fn end(&self, boot: &str) -> Moment {
        let start = self.start(boot);
        let Some(wall) = self.ended else { return start };
        let after = || start.steady.plus(wall.since(self.started));
        let steady = if self.boot == boot { self.finished.unwrap_or_else(after) } else { Steady::ZERO };
        Moment { wall, steady }
    }

    /// It ends now.
    pub fn ends(&mut self, now: Moment, boot: &str) {
        (self.phase, self.ended) = (Phase::Ended, Some(now.wall));
        self.finished = (self.boot == boot).then_some(now.steady);
    }

    pub fn restarts(&self) -> u32 {
        self.restarts.saturating_add(u32::from(self.phase == Phase::Ended))
    }
}

/// Stands by the service to its end.
pub fn serve(mut task: ServiceTask, line: Line) {
    let (path, boot, begins) = (task.folder.join("state.json"), super::process::boot_id(), SystemClock.moment());
    let mut state = RunState {
        version: RunState::VERSION,
        run: task.run.clone(),
        boot: boot.clone(),
        shim: Process::of(std::process::id()).unwrap_or(Process { pid: std::process::id(), start: 0 }),
        main: None,
        instance: task.instance.clone(),
        fingerprint: task.fingerprint.clone(),
        loaded: task.loaded.clone(),
        phase: Phase::Running,
        started: begins.wall,
        ended: None,
        began: Some(begins.steady),
        finished: None,
        exit: None,
        error: String::new(),
        refused: None,
        restarts: task.restarts,
        last_exit: task.last_exit.clone(),
        short_runs: task.short_runs,
        told: false,
        unheard: None,
        lost: false,
        cgroup: task.program.groups.unified.clone(),
        counted: Some(task.program.groups.counted),
        uid: task.program.confinement.account.as_ref().map(|account| account.uid),
        used: Used::default(),
        tail: Vec::new(),
        stop_seconds: Some(task.stop_timeout_seconds),
        systemd: None,
    };
    let write = |state: &RunState| replace_json(&path, state, Durability::Process);
    // Before anything runs: a shim that dies from here on is missed, and what it started is found by its mark.
    let mut notices = None;
    let noted = write(&state);
    let is_noted = noted.is_ok();
    let started = noted.and_then(|()| {
        if let Some(seconds) = task.watchdog_seconds {
            notices = Some(Notices::open(&mut task.program, seconds)?);
        }
        Tree::start(&task.program)
    });
    let mut tree = match started {
        Ok(tree) => tree,
        Err(problem) => {
            state.ends(SystemClock.moment(), &boot);
            (state.error, state.refused) = (problem.one_line(), Some(problem.clone()));
            state.used = used();
            // Without a note there is nothing to correct: whoever asked is told, and no record speaks of this run.
            let is_over = !is_noted || write(&state).is_ok();
            let _ = line.say(&Answer::Failed(problem));
            drop(line);
            if !is_over {
                write_end(&state, &path, &mut None);
            }
            return;
        }
    };
    state.main = Process::of(tree.main.as_raw() as u32).ok();
    let _ = write(&state);
    let _ = line.say(&Answer::Started { pid: tree.main.as_raw() as u32 });
    // From now on the agent may come and go.
    drop(line);
    let mut room = Room::take(&path);
    let mut log = LineLog::open(task.folder.join("log"));
    let policy = Policy {
        stop_signal: nix::sys::signal::Signal::try_from(task.stop_signal).unwrap_or(tree::STOP),
        stop_timeout: Duration::from_secs(task.stop_timeout_seconds.into()),
        longest: None,
        rest: Duration::from_secs(task.stop_timeout_seconds.min(5).into()),
        hangup: None,
        notices: notices.as_ref(),
        over: None,
    };
    drop(task);
    if let Some(notices) = &notices {
        notices.listen();
    }
    let finished = tree.watch(&policy, &mut log, |phase, used| {
        (state.phase, state.used) = (phase, used);
        state.told |= phase != Phase::Running;
        let _ = write(&state);
    });
    state.ends(SystemClock.moment(), &boot);
    state.exit = Some(finished.exit);
    (state.used, state.tail, state.told) = (used(), log.tail(), state.told || finished.told);
    state.unheard = notices.filter(|_| finished.unheard).map(|notices| notices.seconds);
    // It was not told before it was silent.
    state.told &= state.unheard.is_none();
    // Whoever told it to end knows that it has, and has nothing to learn from this.
    if finished.awaited {
        note_end(&state, &path, &mut room);
    } else {
        write_end(&state, &path, &mut room);
    }
}

/// How long between two attempts.
const AGAIN: Duration = Duration::from_secs(1);

/// Writes down how the service ended, also where the disk is full. Where there is not even the room that was taken for it
/// this process stays till there is, for without it nobody would know, and what has succeeded would be done again. It
/// stays no longer than until it is told to end, or the place of what it would write is gone.
fn write_end(state: &RunState, path: &Path, room: &mut Option<Room>) {
    while !note_end(state, path, room) {
        if !path.parent().is_some_and(Path::is_dir) || tree::told_within(AGAIN) {
            break;
        }
    }
}

/// Whether it is written down, at worst without the last lines of the log. Whoever reads that may start the next run at once,
/// which keeps room under the same name: what is there of this run's is gone before.
fn note_end(state: &RunState, path: &Path, room: &mut Option<Room>) -> bool {
    if let Some(room) = room.take() {
        let brief = || RunState { tail: Vec::new(), ..state.clone() };
        if room.become_record(state, path).or_else(|_| room.become_record(&brief(), path)).is_ok() {
            return true;
        }
        room.give_up();
    }
    replace_json(path, state, Durability::Process).is_ok()
}

/// Room on the disk that is kept for how a service ends: what is full by then takes no more, but lets be written over.
struct Room(PathBuf);

impl Room {
    const BYTES: usize = 8192;

    /// None where there is no room already.
    fn take(path: &Path) -> Option<Self> {
        let room = Self(path.with_extension("room"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&room.0).ok()?;
        if file.write_all(&[b' '; Self::BYTES]).is_err() {
            room.give_up();
            return None;
        }
        Some(room)
    }

    /// There is none any more then. One that is longer than it takes what else is free.
    fn become_record(&self, state: &RunState, path: &Path) -> std::io::Result<()> {
        let text = serde_json::to_vec(state)?;
        let mut file = OpenOptions::new().write(true).open(&self.0)?;
        file.write_all(&text)?;
        file.set_len(text.len() as u64)?;
        std::fs::rename(&self.0, path)
    }

    fn give_up(&self) {
        let _not_there_any_more = std::fs::remove_file(&self.0);
    }
}

/// One program to run to its end.
#[derive(Serialize, Deserialize)]
pub struct RunTask {
    pub program: Program,
    pub timeout_seconds: u32,
    /// Where its output goes, besides the last lines that are answered.
    pub log: PathBuf,
}

/// Runs it. It ends with whoever asked: a hook without an agent is nobody's.
pub fn run(task: &RunTask, line: &Line) -> Result<Ran, Problem> {
    run_within(task, None, line)
}

/// The same, killed when `over` says so.
pub fn run_within(task: &RunTask, over: Option<&dyn Fn() -> Option<Over>>, line: &Line) -> Result<Ran, Problem> {
    let mut log = LineLog::open(task.log.clone());
    let mut tree = Tree::start(&task.program)?;
    let policy = Policy {
        stop_signal: tree::STOP,
        stop_timeout: Duration::from_secs(2),
        longest: Some(Duration::from_secs(task.timeout_seconds.into())),
        rest: Duration::ZERO,
        hangup: Some(line.stream().as_fd()),
        notices: None,
        over,
    };
    let finished = tree.watch(&policy, &mut log, |_, _| {});
    let Finished { exit, timed_out, over, .. } = finished;
    Ok(Ran { exit, timed_out, over, used: used(), tail: log.tail() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ended(tail: Vec<String>) -> RunState {
        let [started, ended] = [1, 2].map(Timestamp::from_seconds);
        let state = json!({
            "version": RunState::VERSION, "run": "one", "boot": "this", "shim": {"pid": 7, "start": 1}, "main": null,
            "instance": "0".repeat(32), "fingerprint": "", "phase": "Ended", "started": started, "ended": ended,
            "exit": {"Code": 0}, "error": "", "restarts": 0, "last_exit": "", "short_runs": 0, "told": false, "cgroup": null,
            "used": Used::default(), "tail": tail,
        });
        serde_json::from_value(state).unwrap()
    }

    #[test]
    fn who_has_written_how_its_run_ended_leaves_the_room_of_the_next_run_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let name = path.with_extension("room");
        for lines in [1, 1000] {
            let state = ended(vec!["a line of its log".into(); lines]);
            let mut room = Room::take(&path);
            assert!(note_end(&state, &path, &mut room) && !name.exists());
            let written: RunState = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            assert_eq!(written.tail, state.tail);
            let next = Room::take(&path);
            drop(room);
            assert!(next.is_some() && name.exists());
        }
    }

    #[test]
    fn room_that_somebody_has_removed_is_done_without() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        let mut room = Room::take(&path);
        std::fs::remove_file(path.with_extension("room")).unwrap();
        assert!(note_end(&ended(Vec::new()), &path, &mut room));
        assert!(path.exists());
    }
}

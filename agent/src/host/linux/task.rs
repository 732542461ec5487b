//! What the agent has small processes do, each forked by the spawner: the shim of a service, a hook, writing files as a
//! partition's user, erasing, asking a promise, building a release. A task comes as one line of JSON over the task's own
//! socket, so nothing of it is ever in an argument or a variable; answers go back as lines on the same socket.

use super::confine::{self, Bounds};
use super::partition::{erase::EraseTask, files::FillTask, files::WriteTask, volumes::VolumesTask};
use super::probe::ProbeTask;
use super::process::Process;
use super::release::build::BuildTask;
use super::release::cache::task::FetchTask;
use super::release::share::pull::OfferTask;
use super::release::sources::tools::LookTask;
use super::shim::tree::{Exit, Over, Used};
use super::shim::{RunTask, ServiceTask};
use plat_model::Problem;
use plat_model::parameters::Parameters;
use plat_model::problem::codes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Largest task, in bytes.
const TASK_MAX: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
pub enum Task {
    Service(Box<ServiceTask>),
    Run(Box<RunTask>),
    Write(WriteTask),
    Fill(FillTask),
    Erase(EraseTask),
    Volumes(VolumesTask),
    Probe(ProbeTask),
    Build(Box<BuildTask>),
    Look(LookTask),
    Fetch(Box<FetchTask>),
    Offer(OfferTask),
    /// Shutting itself in, to see what of it this machine keeps.
    Confine(Bounds),
}

impl Task {
    /// How long the agent waits for the last answer: after it, it kills the process. What a task limits itself ends
    /// sooner; this is for what cannot be hurried, and for users who hold their own processes still.
    pub fn longest(&self) -> Duration {
        let seconds = match self {
            // Until it has started.
            Self::Service(_) => 90,
            Self::Run(task) => u64::from(task.timeout_seconds) + 60,
            Self::Write(_) | Self::Fill(_) => 60,
            Self::Probe(task) => u64::from(task.timeout_seconds.max(1)) + 5,
            // What has been removed stays so: the next attempt goes on.
            Self::Erase(_) | Self::Volumes(_) => 3600,
            Self::Build(task) => task.limits.longest_seconds,
            Self::Look(_) => 120,
            Self::Confine(_) => 30,
            Self::Fetch(task) => task.longest().as_secs(),
            Self::Offer(_) => 300,
        };
        Duration::from_secs(seconds)
    }

    /// What it is, in a few words.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Service(_) => "starting a service",
            Self::Run(_) => "running a program",
            Self::Write(_) => "writing files",
            Self::Fill(_) => "filling in what is published",
            Self::Probe(_) => "asking a promise",
            Self::Erase(_) => "erasing",
            Self::Volumes(_) => "preparing volumes",
            Self::Build(_) => "building a release",
            Self::Look(_) => "looking for programs",
            Self::Fetch(_) => "fetching a file",
            Self::Offer(_) => "asking a store",
            Self::Confine(_) => "shutting a process in",
        }
    }

    /// Whether it is killed when nobody waits for it any more. The others see to their own children first.
    pub fn is_alone(&self) -> bool {
        let plain = matches!(self, Self::Write(_) | Self::Fill(_) | Self::Probe(_) | Self::Look(_) | Self::Confine(_));
        plain || matches!(self, Self::Erase(_) | Self::Volumes(_))
    }
}

/// One line of answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The first one: which process has the task. Said with the agent's rights, before it becomes anybody else.
    Begun(Process),
    /// The service runs.
    Started {
        pid: u32,
    },
    /// Not the last answer: what the task is doing.
    Progress(String),
    Ran(Ran),
    Probed {
        holds: bool,
        message: String,
    },
    /// What is published.
    Filled(Parameters),
    /// What is not kept, a line each.
    Unconfined(Vec<String>),
    /// What was read, if there was something.
    Told(Option<String>),
    Done,
    /// It takes so many bytes more than there are; what was done is kept.
    NoRoom {
        problem: Problem,
        bytes: u64,
    },
    Failed(Problem),
}

/// A program that was run to its end.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ran {
    pub exit: Exit,
    pub timed_out: bool,
    /// What it was killed for, if it was.
    #[serde(default)]
    pub over: Option<Over>,
    pub used: Used,
    /// The last lines of its output.
    pub tail: Vec<String>,
}

/// The task's end of its socket.
pub struct Line {
    stream: UnixStream,
}

impl Line {
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// # Errors
    /// If nobody listens any more: the agent has ended, and the task is to end too.
    pub fn say(&self, answer: &Answer) -> std::io::Result<()> {
        let mut text = serde_json::to_vec(answer)?;
        text.push(b'\n');
        (&self.stream).write_all(&text)
    }

    /// From here on this process is killed when the agent ends, however it does.
    fn end_with_agent(&self) -> Result<(), Problem> {
        let wrong = |why: &str| Problem::new(codes::INTERNAL, "a task has nobody to end with").because(why);
        // The spawner's end is the agent's.
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(|e| wrong(e.desc()))?;
        let mut peer = [PollFd::new(&self.stream, PollFlags::RDHUP)];
        match poll(&mut peer, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => Ok(()),
            _ => Err(wrong("the agent is gone")),
        }
    }

    /// Tells what is being done.
    ///
    /// # Errors
    /// If nobody listens any more.
    pub fn progress(&self, text: impl Into<String>) -> Result<(), Problem> {
        self.say(&Answer::Progress(text.into()))
            .map_err(|e| Problem::new(codes::INTERNAL, "the agent is gone").because(e))
    }
}

/// Runs one task; the process ends with it.
pub fn perform(stream: UnixStream) {
    let mut text = String::new();
    let read = BufReader::new((&stream).take(TASK_MAX)).read_line(&mut text);
    let line = Line { stream };
    let task: Task = match read
        .map_err(|e| e.to_string())
        .and_then(|_| serde_json::from_str(&text).map_err(|e| format!("line {}, column {}", e.line(), e.column())))
    {
        Ok(task) => task,
        Err(why) => {
            let _ = line.say(&Answer::Failed(Problem::new(codes::INTERNAL, "a task cannot be read").because(why)));
            return;
        }
    };
    drop(text);
    if Process::of(std::process::id()).and_then(|this| line.say(&Answer::Begun(this))).is_err() {
        return;
    }
    let answer = match task {
        Task::Service(task) => return super::shim::serve(*task, line),
        Task::Run(task) => super::shim::run(&task, &line).map(Answer::Ran),
        Task::Write(task) => task.perform().map(|()| Answer::Done),
        Task::Fill(task) => task.perform().map(Answer::Filled),
        // One that the agent has left alone would meet the next one's.
        Task::Erase(task) => line.end_with_agent().and_then(|()| task.perform()).map(|()| Answer::Done),
        Task::Volumes(task) => line.end_with_agent().and_then(|()| task.perform()).map(|()| Answer::Done),
        Task::Probe(task) => task.perform().map(|(holds, message)| Answer::Probed { holds, message }),
        Task::Build(task) => task.perform(&line).map(|()| Answer::Done),
        Task::Look(task) => task.perform().map(|()| Answer::Done),
        Task::Fetch(task) => task.perform(&line),
        Task::Offer(task) => task.perform(&line).map(Answer::Told),
        Task::Confine(bounds) => confine::attempt(&bounds).map(Answer::Unconfined),
    };
    // If nobody listens, nobody needs the answer.
    let _ = line.say(&answer.unwrap_or_else(Answer::Failed));
}

//! What the agent has small processes do, each forked by the spawner: the shim of a service, a hook, writing files as a
//! partition's user, erasing, asking a promise, building a release. A task comes as one line of JSON over the task's own
//! socket, so nothing of it is ever in an argument or a variable; answers go back as lines on the same socket.

use super::partition::{erase::EraseTask, files::WriteTask};
use super::probe::ProbeTask;
use super::release::build::BuildTask;
use super::shim::tree::{Exit, Used};
use super::shim::{RunTask, ServiceTask};
use plat_model::Problem;
use plat_model::problem::codes;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

/// Largest task, in bytes.
const TASK_MAX: u64 = 16 << 20;

#[derive(Serialize, Deserialize)]
pub enum Task {
    Service(Box<ServiceTask>),
    Run(Box<RunTask>),
    Write(WriteTask),
    Erase(EraseTask),
    Probe(ProbeTask),
    Build(Box<BuildTask>),
}

/// One line of answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
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
    Done,
    Failed(Problem),
}

/// A program that was run to its end.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ran {
    pub exit: Exit,
    pub timed_out: bool,
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
    let answer = match task {
        Task::Service(task) => return super::shim::serve(*task, line),
        Task::Run(task) => super::shim::run(&task, &line).map(Answer::Ran),
        Task::Write(task) => task.perform().map(|()| Answer::Done),
        Task::Erase(task) => task.perform().map(|()| Answer::Done),
        Task::Probe(task) => task.perform().map(|(holds, message)| Answer::Probed { holds, message }),
        Task::Build(task) => task.perform(&line).map(|()| Answer::Done),
    };
    // If nobody listens, nobody needs the answer.
    let _ = line.say(&answer.unwrap_or_else(Answer::Failed));
}

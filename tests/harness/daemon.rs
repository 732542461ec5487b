//! A long-running program under test: started, killed, started again; its log kept and shown when the test fails.

use crate::eventually::eventually;
use crate::namespace::only_child;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// How many of its last lines are shown when the test fails.
const SHOWN: usize = 60;

/// What a program must never say.
const NEVER: [&str; 2] = ["panicked at", "internal error"];

pub struct Daemon {
    name: String,
    command: Box<dyn Fn() -> Command + Send + Sync>,
    log: PathBuf,
    /// `nsenter`, and the daemon's own pid on the host.
    running: Option<(Child, u32)>,
}

impl Daemon {
    /// Names a program; `command` makes its command line, entered into a namespace.
    pub fn new(name: &str, logs: &Path, command: impl Fn() -> Command + Send + Sync + 'static) -> Self {
        let log = logs.join(format!("{name}.log"));
        Self { name: name.to_owned(), command: Box::new(command), log, running: None }
    }

    /// Starts it. That it is ready is for the caller to look at.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(&mut self) {
        assert!(self.running.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("a log can be written");
        let mut command = (self.command)();
        command.stdout(log.try_clone().expect("a file has two handles")).stderr(log);
        let child = command.spawn().unwrap_or_else(|e| panic!("{} cannot be started: {e}", self.name));
        let pid = eventually("started", Duration::from_secs(5), || only_child(child.id()).ok_or("no process yet"));
        self.running = Some((child, pid));
    }

    /// The host's pid of it.
    ///
    /// # Panics
    /// If it does not run.
    pub fn pid(&self) -> u32 {
        self.running.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name)).1
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.running.as_mut().is_some_and(|(child, _)| child.try_wait().is_ok_and(|status| status.is_none()))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        self.end(rustix::process::Signal::KILL);
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(&mut self) {
        self.end(rustix::process::Signal::TERM);
    }

    fn end(&mut self, signal: rustix::process::Signal) {
        if let Some((_, pid)) = self.running {
            send(signal, pid);
            self.until_ended();
        }
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// If it does not within half a minute.
    pub fn until_ended(&mut self) {
        let Some((mut child, _)) = self.running.take() else { return };
        eventually(&format!("{} gone", self.name), Duration::from_secs(30), || match child.try_wait() {
            Ok(Some(_)) => Ok(()),
            _ => Err("it still runs"),
        });
    }

    /// All that it said.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

/// Sends a signal to a process, by the host's pid of it; one that has gone is no failure.
pub fn send(signal: rustix::process::Signal, pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let ended = self.running.as_mut().and_then(|(child, _)| child.try_wait().ok().flatten());
        if let Some((child, pid)) = &mut self.running {
            send(rustix::process::Signal::KILL, *pid);
            let _ = child.wait();
        }
        let said = self.said();
        let wrong = said.lines().find(|line| NEVER.iter().any(|never| line.contains(never)));
        if std::thread::panicking() {
            let lines: Vec<_> = said.lines().collect();
            eprintln!("---- {} ({}) said last:", self.name, ended.map_or("runs".into(), |status| status.to_string()));
            eprintln!("{}", lines[lines.len().saturating_sub(SHOWN)..].join("\n"));
        } else if let Some(line) = wrong {
            panic!("{} said: {line}", self.name);
        }
    }
}

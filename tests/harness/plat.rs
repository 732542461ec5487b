//! The command line of a user, as a user runs it: arguments in, exit code and text out.

use crate::grid::PATIENCE;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// `plat` with one profile.
pub struct Plat {
    command: Box<dyn Fn() -> Command + Send + Sync>,
    profile: PathBuf,
}

/// How one run ended.
#[derive(Debug, Clone)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub errors: String,
}

impl Ran {
    /// What it printed as JSON.
    ///
    /// # Panics
    /// If it failed or printed none.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{}", self.errors);
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.out))
    }
}

impl Plat {
    /// `command` makes the program's command, entered into a namespace.
    pub fn new(profile: PathBuf, command: impl Fn() -> Command + Send + Sync + 'static) -> Self {
        Self { command: Box::new(command), profile }
    }

    /// Its command line, for somebody else to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = (self.command)();
        command.env("PLAT_PROFILE", &self.profile).arg("--plain").args(arguments);
        command
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let out = self.command(arguments).output().expect("plat can be run");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { code: out.status.code().unwrap_or(-1), out: text(out.stdout), errors: text(out.stderr) }
    }

    /// Begins it, to read what it prints while it does.
    ///
    /// # Panics
    /// If it cannot be run.
    pub fn follow(&self, arguments: &[&str]) -> Followed {
        let mut command = (self.command)();
        command.env("PLAT_PROFILE", &self.profile).arg("--plain").args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn().expect("plat can be run");
        let out = child.stdout.take().expect("it is a pipe");
        let (send, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).try_for_each(|line| send.send(line)).ok()
        });
        Followed { child, lines }
    }

    /// Runs it, which must succeed; what it printed as JSON.
    ///
    /// # Panics
    /// With what it said, if it fails.
    #[track_caller]
    pub fn json(&self, arguments: &[&str]) -> Value {
        let ran = self.run(&[&["--output", "json"], arguments].concat());
        assert_eq!(ran.code, 0, "plat {}: {}{}", arguments.join(" "), ran.errors, ran.out);
        ran.json()
    }

    /// Runs it, which must fail with this exit code and this problem; what it said.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn refused(&self, exit: i32, problem: &str, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        let said = format!("plat {}: {}{}", arguments.join(" "), ran.errors, ran.out);
        assert_eq!(ran.code, exit, "{said}");
        assert!(ran.errors.contains(&format!("error[{problem}]")), "{problem} was expected: {said}");
        ran.errors
    }
}

/// `plat` that runs, ended with this.
pub struct Followed {
    child: Child,
    lines: Receiver<String>,
}

impl Followed {
    /// Reads up to this line.
    ///
    /// # Panics
    /// If it ends before, or prints nothing for too long.
    #[track_caller]
    pub fn until(&mut self, line: &str) {
        let next = || self.lines.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("`{line}` was expected: {e}"));
        while next() != line {}
    }

    /// All that it prints to its end, and its exit code.
    ///
    /// # Panics
    /// If it neither ends nor prints anything for too long.
    #[track_caller]
    pub fn rest(&mut self) -> (i32, Vec<String>) {
        use std::sync::mpsc::RecvTimeoutError::{Disconnected, Timeout};
        let mut rest = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => rest.push(line),
                Err(Disconnected) => break,
                Err(Timeout) => panic!("it does not end: {rest:?}"),
            }
        }
        let status = self.child.wait().expect("it is this process's");
        (status.code().unwrap_or(-1), rest)
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _has_ended = self.child.kill();
        let _ = self.child.wait();
    }
}

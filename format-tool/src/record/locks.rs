//! Who may write the record: one node-format at a time, and none while a program that a killed one had started is still
//! changing the machine.
//!
//! The first lock, on the record's directory, ends with the process. The second, on a file beside the record, is inherited
//! by the programs that the process starts and ends with the last of them.

use super::place::Place;
use super::wrong;
use plat_model::problem::Result;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// How long a program of a killed run is waited for: systemd-sysusers makes 10,000 users in less.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How long another run is waited for: one that was killed may still be ending, or have just begun to start a program.
const ENDS_WITHIN: Duration = Duration::from_secs(1);
/// How often it is looked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the file ends in that the programs keep open. It is empty.
pub(super) const CHILDREN: &str = "children";

#[derive(Debug)]
pub(super) struct Locks {
    _run: File,
    children: File,
}

impl Locks {
    /// `None`: the run that was waited for has removed the record's directory with the record. `waiting` is called whenever
    /// somebody else is waited for.
    pub fn take(place: &Place, waiting: &mut dyn FnMut()) -> Result<Option<Self>> {
        let record = place.path();
        let run = place.lockable().map_err(|e| wrong(record, e))?;
        let mode = run.metadata().map_err(|e| wrong(record, e))?.mode();
        if rustix::process::geteuid().is_root() && mode & 0o077 != 0 {
            // Whoever can open the directory can hold its lock.
            let directory = record.parent().unwrap_or(record).display();
            let why = format!("others can open its directory {directory} (mode {:04o})", mode & 0o7777);
            return Err(
                wrong(record, why).fix("give the record a directory of its own: `paths.record`, or `chmod 0700`")
            );
        }
        lock(&run, ENDS_WITHIN, waiting).map_err(|e| {
            let why = if e == Errno::WOULDBLOCK { "another node-format is at work".to_owned() } else { e.to_string() };
            wrong(record, why).fix("wait until it has ended, then try again")
        })?;
        if !place.is_there().map_err(|e| wrong(record, e))? {
            return Ok(None);
        }
        let children = place.beside(&place.name_with(CHILDREN)).map_err(|e| wrong(record, e))?;
        lock(&children, WAIT_MAX, waiting).map_err(|e| {
            let why = format!("a program that an earlier run started is still at work ({e})");
            wrong(record, why).fix("wait until systemd-sysusers or useradd has ended, then try again")
        })?;
        Ok(Some(Self { _run: run, children }))
    }

    pub fn children(&self) -> &File {
        &self.children
    }

    /// To be called with the record, under both locks.
    pub fn remove_file(place: &Place) {
        place.remove(&place.name_with(CHILDREN));
    }
}

/// `wait` is told whenever somebody else has it.
fn lock(file: &File, longest: Duration, wait: &mut dyn FnMut()) -> rustix::io::Result<()> {
    let deadline = Instant::now() + longest;
    loop {
        match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                wait();
                std::thread::park_timeout(LOOK_EVERY);
            }
            outcome => return outcome,
        }
    }
}

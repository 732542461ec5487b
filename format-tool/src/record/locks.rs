//! Who may write the record: one node-format at a time, and none while a program that a killed one had started is still
//! changing the machine.
//!
//! The first lock, on the record's directory, ends with the process. The second, on a file beside the record, is inherited
//! by the programs that the process starts and ends with the last of them.

use super::place::Place;
use super::wrong;
use plat_model::problem::Result;
use rustix::fs::FlockOperation;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a program of a killed run is waited for: systemd-sysusers makes 10,000 users in less.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether it has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the file ends in that the programs keep open. It is empty.
const CHILDREN: &str = "children";

#[derive(Debug)]
pub(super) struct Locks {
    _run: File,
    children: File,
}

impl Locks {
    pub fn take(place: &Place, waiting: impl FnOnce()) -> Result<Self> {
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
        rustix::fs::flock(&run, FlockOperation::NonBlockingLockExclusive).map_err(|e| {
            wrong(
                record,
                if e == rustix::io::Errno::WOULDBLOCK {
                    "another node-format is at work".to_owned()
                } else {
                    e.to_string()
                },
            )
            .fix("wait until it has ended, then try again")
        })?;
        let children = place.beside(&place.name_with(CHILDREN)).map_err(|e| wrong(record, e))?;
        wait_for(record, &children, waiting)?;
        Ok(Self { _run: run, children })
    }

    pub fn children(&self) -> &File {
        &self.children
    }

    /// To be called with the record, under both locks.
    pub fn remove_file(place: &Place) {
        place.remove(&place.name_with(CHILDREN));
    }
}

fn wait_for(record: &Path, children: &File, waiting: impl FnOnce()) -> Result<()> {
    let mut waiting = Some(waiting);
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        match rustix::fs::flock(children, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                if let Some(waiting) = waiting.take() {
                    waiting();
                }
                std::thread::park_timeout(LOOK_EVERY);
            }
            Err(e) => {
                let why = format!("a program that an earlier run started is still at work ({e})");
                return Err(wrong(record, why).fix("wait until systemd-sysusers or useradd has ended, then try again"));
            }
        }
    }
}

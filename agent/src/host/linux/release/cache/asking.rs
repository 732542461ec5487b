//! Asking a server through a child that has become nobody and has of this process the file that it appends to.

use super::download::{Ask, Ended, Said, download};
use crate::host::linux::account::assume;
use crate::host::linux::posix::{Side, split};
use crate::host::linux::task::Line;
use plat_model::Problem;
use plat_model::node::Account;
use plat_model::problem::codes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

/// Longest line that the child says, in bytes.
const LINE_MAX: usize = 64 * 1024;

/// `heard` is told what the child says on the way.
pub fn ask_as(
    account: Option<&Account>,
    ask: &Ask<'_>,
    file: &File,
    line: &Line,
    heard: &mut dyn FnMut(Said) -> Result<(), Problem>,
) -> Result<Ended, Problem> {
    let wrong = |e: &dyn std::fmt::Display| Problem::new(codes::INTERNAL, "cannot ask a server").because(e);
    let mut file = file.try_clone().map_err(|e| wrong(&e))?;
    let (until, parent) = (Instant::now() + ask.longest, nix::unistd::getpid());
    let (said, say) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| wrong(&e))?;
    match split().map_err(|e| wrong(&e))? {
        Side::Child => {
            drop(said);
            // It answers for the whole task, which is the parent's to do.
            let _ = nix::unistd::close(line.stream().as_raw_fd());
            let mut say = File::from(say);
            let mut tell = |said: Said| {
                let mut text = serde_json::to_vec(&said)?;
                text.push(b'\n');
                say.write_all(&text)
            };
            let ended = match assume(account).and_then(|()| end_with(parent)) {
                Ok(()) => download(ask, &mut file, &mut tell),
                Err(problem) => Ended::Refused(problem.one_line()),
            };
            let _ = tell(Said::Ended(ended));
            std::process::exit(0)
        }
        Side::Parent(child) => {
            drop(say);
            let ended = listen(said, line, until, heard);
            let _ = nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(child, None);
            ended
        }
    }
}

/// From here on this process is killed when its parent ends, however it does. Becoming somebody else would undo it.
fn end_with(parent: nix::unistd::Pid) -> Result<(), Problem> {
    let wrong = |why: &str| Problem::new(codes::INTERNAL, "nobody to ask for").because(why);
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(|e| wrong(e.desc()))?;
    if nix::unistd::getppid() == parent { Ok(()) } else { Err(wrong("who asked is gone")) }
}

/// What the child says, to its end, or to the end of its time.
fn listen(
    said: OwnedFd,
    line: &Line,
    until: Instant,
    heard: &mut dyn FnMut(Said) -> Result<(), Problem>,
) -> Result<Ended, Problem> {
    let gone = |why: &str| Problem::new(codes::INTERNAL, "cannot ask a server").because(why);
    let (mut text, mut buffer) = (Vec::new(), vec![0; 4096]);
    loop {
        let mut fds = [PollFd::new(&said, PollFlags::IN), PollFd::new(line.stream(), PollFlags::RDHUP)];
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now())).ok();
        match poll(&mut fds, left.as_ref()) {
            Ok(0) => return Ok(Ended::Refused("it takes longer than there is time for it".into())),
            Err(Errno::INTR) => continue,
            Err(e) => return Err(gone(&e.to_string())),
            Ok(_) if !fds[1].revents().is_empty() => return Err(gone("nobody waits for it any more")),
            Ok(_) => {}
        }
        match rustix::io::read(&said, &mut buffer) {
            Ok(0) => return Ok(Ended::Cut("the process that asked was killed".into())),
            Ok(n) => text.extend_from_slice(&buffer[..n]),
            Err(Errno::INTR) => {}
            Err(e) => return Err(gone(&e.to_string())),
        }
        while let Some(end) = text.iter().position(|b| *b == b'\n') {
            let one: Vec<u8> = text.drain(..=end).collect();
            match serde_json::from_slice(&one).map_err(|_| gone("it says what nobody understands"))? {
                Said::Ended(ended) => return Ok(ended),
                said => heard(said)?,
            }
        }
        if text.len() > LINE_MAX {
            return Err(gone("it says too much"));
        }
    }
}

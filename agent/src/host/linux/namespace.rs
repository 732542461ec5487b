//! Entering a partition's network namespace.

use super::disk::io_problem;
use nix::sched::{CloneFlags, setns};
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::io;
use std::path::Path;

/// Puts this process, and all that it starts, into the network namespace that `file` is: for root, in a process of one
/// thread, before it becomes anybody else. `None`: the partition has none, and shares the network that there is.
///
/// # Errors
/// [`codes::NO_NAMESPACE`]; this process is then still where it was, and must not do what it was to do there.
pub fn enter(file: Option<&Path>) -> Result<(), Problem> {
    let Some(file) = file else { return Ok(()) };
    let wrong = |e: io::Error| {
        let what = format!("cannot enter the network namespace {}", file.display());
        io_problem(codes::NO_NAMESPACE, what, &e).fix("run `node-format apply`, which makes it again")
    };
    // A pipe in its place would hold this process.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let handle = openat(CWD, file, flags, Mode::empty()).map_err(|e| wrong(e.into()))?;
    setns(handle, CloneFlags::CLONE_NEWNET).map_err(|e| match e {
        nix::errno::Errno::EINVAL => wrong(io::Error::other("it is not a network namespace")),
        e => wrong(e.into()),
    })
}

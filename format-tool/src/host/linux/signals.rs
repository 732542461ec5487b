//! SIGINT, SIGTERM and SIGHUP as a question that can be asked between two batches, instead of a sudden end.

use super::failed;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use plat_model::problem::Result;

pub(super) struct Stop(SignalFd);

impl Stop {
    /// To be called before the process has other threads: they would still be ended.
    pub fn catch() -> Result<Self> {
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        let caught = signals
            .thread_block()
            .and_then(|()| SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC));
        caught.map(Self).map_err(|e| failed("signals cannot be caught", e))
    }

    pub fn came(&self) -> bool {
        matches!(self.0.read_signal(), Ok(Some(_)))
    }
}

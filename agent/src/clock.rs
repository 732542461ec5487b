//! What time it is. Whoever runs the agent gives it one, so that a simulation can give it another.

use plat_agent_plan::{Moment, Steady};
use plat_model::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use std::time::{SystemTime, UNIX_EPOCH};

/// The clocks of a machine.
pub trait Clock: Send + Sync + 'static {
    /// The time of day, for people, certificates and the ledger. It may be set, so nothing waits by it.
    fn now(&self) -> Timestamp;

    /// The same for all processes of the machine until it is restarted.
    fn steady(&self) -> Steady;

    fn moment(&self) -> Moment {
        Moment { wall: self.now(), steady: self.steady() }
    }
}

/// The machine's.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn steady(&self) -> Steady {
        // Since the machine was started, sleep included: what a shim writes down, a later agent can read.
        let time = clock_gettime(ClockId::Boottime);
        let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
        Steady(seconds.saturating_mul(1000) + nanos / 1_000_000)
    }
}

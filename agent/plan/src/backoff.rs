//! How long to wait before trying again. Without randomness: one node's retries are its own, and spreading calls to
//! the master is the link's business.

use crate::moment::Steady;
use std::time::Duration;

/// Doubling waits between a first and a longest one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Backoff {
    pub first: Duration,
    pub longest: Duration,
}

/// Services that exit by themselves.
pub(crate) const SERVICE: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
/// Steps of a partition.
pub(crate) const STEP: Backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
/// Installations: each attempt may fetch much.
pub(crate) const INSTALL: Backoff = Backoff { first: Duration::from_secs(5), longest: Duration::from_secs(300) };
/// Those that ran out of room, while there is no more than when they began: whoever took it may give it back at once, and
/// what took it itself would write it all again.
pub(crate) const ROOMLESS: Backoff = Backoff { first: INSTALL.first, longest: Duration::from_secs(3600) };
/// Promises that do not hold.
pub(crate) const PROMISE: Backoff = Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(60) };

/// Between restarts for a promise: how long services that it calls dead may run on, so that they are not restarted all
/// the time.
pub(crate) const REVIVAL: Backoff = Backoff { first: Duration::from_secs(20), longest: Duration::from_secs(600) };

impl Backoff {
    /// The wait after `failures` failures in a row; zero after none.
    pub fn after(self, failures: u32) -> Duration {
        match failures {
            0 => Duration::ZERO,
            n => self.first.saturating_mul(1 << (n - 1).min(20)).min(self.longest),
        }
    }
}

/// The earlier of two times, of which either may be absent.
pub(crate) fn sooner(a: Option<Steady>, b: Steady) -> Option<Steady> {
    Some(a.map_or(b, |a| a.min(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let seconds: Vec<u64> = (0..9).map(|n| SERVICE.after(n).as_secs()).collect();
        assert_eq!(seconds, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(SERVICE.after(u32::MAX), SERVICE.longest);
    }
}

//! Points in time, on two clocks: the steady one for what lasts, the wall clock for what people and the ledger read.

use plat_model::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Milliseconds of the machine's steady clock. It starts at zero with the machine, goes on while the machine sleeps, and
/// nobody can set it. Every wait, age and period is a difference of two of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Steady(pub u64);

impl Steady {
    /// The start of the machine. It stands for all that happened before it, too.
    pub const ZERO: Self = Self(0);

    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// One point in time, as both clocks tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Moment {
    /// The time of day, which may be set back or forward at any time. No decision is made from it but whether a time of a
    /// schedule has come.
    pub wall: Timestamp,
    pub steady: Steady,
}

impl Moment {
    /// How long after `earlier` this is; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        self.steady.since(earlier.steady)
    }

    pub fn plus(self, by: Duration) -> Self {
        Self { wall: self.wall.plus(by), steady: self.steady.plus(by) }
    }

    /// What the time of day will be at `later`, as far as it is known now. For people only.
    pub(crate) fn tell(self, later: Steady) -> Timestamp {
        self.wall.plus(later.since(self.steady))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_between_two_moments_is_what_the_steady_clock_says() {
        let before = Moment { wall: Timestamp::from_seconds(7200), steady: Steady(1_000) };
        let after = Moment { wall: Timestamp::from_seconds(3600), steady: Steady(3_500) };
        assert_eq!(after.since(before), Duration::from_millis(2_500));
        assert_eq!(before.since(after), Duration::ZERO);
        assert_eq!(after.tell(after.steady.plus(Duration::from_secs(60))), Timestamp::from_seconds(3660));
    }
}

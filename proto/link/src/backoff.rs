//! Delays between attempts: exponential, with full jitter, from a given seed, so that a thousand agents that lost
//! their master at the same instant come back spread out, and a simulation comes out the same each time.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// The delays of one thing that is tried again and again.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
    random: StdRng,
}

impl Backoff {
    /// Delays of at least `min`, and at most `max` (or `min`, if that is more).
    pub fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self { min, max: max.max(min), failures: 0, random: StdRng::seed_from_u64(seed) }
    }

    /// How long to wait after one more failure: anything from `min` to a bound that doubles with each failure.
    pub fn next_delay(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let factor = 1u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let bound = self.min.max(Duration::from_millis(1)).saturating_mul(factor).min(self.max);
        let spread = bound.saturating_sub(self.min);
        self.min + spread.mul_f64(self.random.random_range(0.0..=1.0))
    }

    /// To be called after a success: the next failure is the first again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// How many failures there have been since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(30);

    fn delays(backoff: &mut Backoff) -> Vec<Duration> {
        (0..100).map(|_| backoff.next_delay()).collect()
    }

    #[test]
    fn delays_stay_in_their_bounds_grow_and_depend_on_the_seed_alone() {
        let first = delays(&mut Backoff::new(MIN, MAX, 7));
        assert_eq!(first, delays(&mut Backoff::new(MIN, MAX, 7)));
        assert_ne!(first, delays(&mut Backoff::new(MIN, MAX, 8)));
        assert!(first.iter().all(|delay| (MIN..=MAX).contains(delay)));
        assert!(first[0] <= MIN * 2);
        assert!(first.iter().any(|delay| *delay > MAX / 2));
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = Backoff::new(MIN, MAX, 7);
        delays(&mut backoff);
        backoff.reset();
        assert!(backoff.next_delay() <= MIN * 2);
        assert_eq!(backoff.failures(), 1);
    }
}

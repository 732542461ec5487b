//! How often something may be done, and how much of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// So many at once, and so many a second after that. Whoever comes too early waits.
pub struct Pace {
    every: Duration,
    burst: u32,
    /// When the last one of all that were let pass is paid for.
    paid: Mutex<Instant>,
}

impl Pace {
    pub fn new(a_second: u32, burst: u32) -> Self {
        Self { every: Duration::from_secs(1) / a_second, burst, paid: Mutex::new(Instant::now()) }
    }

    /// Waits for its turn.
    pub async fn turn(&self) {
        let wait = self.wait(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }

    /// How long whoever comes at `now` waits.
    fn wait(&self, now: Instant) -> Duration {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        *paid = (*paid).max(now) + self.every;
        paid.saturating_duration_since(now).saturating_sub(self.every * self.burst)
    }
}

/// So much at once, and so much a second after that. Whoever wants more is told when.
pub struct Budget {
    every: Duration,
    most: u32,
    /// When all that was taken is paid for.
    paid: Mutex<Instant>,
}

impl Budget {
    pub fn new(a_second: u32, most: u32) -> Self {
        Self { every: Duration::from_secs(1) / a_second, most, paid: Mutex::new(Instant::now()) }
    }

    /// More than there is at once counts as all of it.
    ///
    /// # Errors
    /// After what time there will be as much; nothing is taken then.
    pub fn take(&self, amount: usize, now: Instant) -> Result<(), Duration> {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let amount = u32::try_from(amount).unwrap_or(u32::MAX).min(self.most);
        let next = (*paid).max(now) + self.every * amount;
        let wait = next.saturating_duration_since(now).saturating_sub(self.every * self.most);
        if wait.is_zero() {
            *paid = next;
            return Ok(());
        }
        Err(wait)
    }
}

/// What somebody else can cause to be logged: only so often.
pub struct Sparing {
    budget: Budget,
    left_out: AtomicU64,
}

impl Sparing {
    pub fn new(a_second: u32, most: u32) -> Self {
        Self { budget: Budget::new(a_second, most), left_out: AtomicU64::new(0) }
    }

    /// Whether it is logged; how many were not since the last that was.
    pub fn says(&self, now: Instant) -> Option<u64> {
        match self.budget.take(1, now) {
            Ok(()) => Some(self.left_out.swap(0, Ordering::Relaxed)),
            Err(_) => {
                self.left_out.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_too_often_waits_longer_and_longer_until_it_pauses() {
        let (pace, now) = (Pace::new(10, 5), Instant::now() + Duration::from_secs(1));
        let waits: Vec<u128> = (0..8).map(|_| pace.wait(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 100, 200, 300]);
        let later = now + Duration::from_secs(10);
        let waits: Vec<u128> = (0..6).map(|_| pace.wait(later).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 100]);
    }

    #[test]
    fn what_is_too_much_is_refused_until_there_is_as_much_again() {
        let (budget, now) = (Budget::new(100, 1000), Instant::now() + Duration::from_secs(60));
        assert_eq!([budget.take(600, now), budget.take(400, now)], [Ok(()), Ok(())]);
        let wait = budget.take(50, now).unwrap_err();
        assert_eq!(wait.as_millis(), 500);
        assert!(budget.take(50, now + wait / 2).is_err());
        assert_eq!(budget.take(50, now + wait), Ok(()));
        // One that never fits costs all there is.
        let later = now + Duration::from_secs(60);
        assert_eq!(budget.take(1_000_000, later), Ok(()));
        assert!(budget.take(1, later).is_err());
    }

    #[test]
    fn what_was_left_out_is_counted() {
        let (sparing, now) = (Sparing::new(1, 2), Instant::now() + Duration::from_secs(60));
        let said: Vec<_> = (0..5).map(|_| sparing.says(now)).collect();
        assert_eq!(said, [Some(0), Some(0), None, None, None]);
        assert_eq!(sparing.says(now + Duration::from_secs(1)), Some(3));
    }
}

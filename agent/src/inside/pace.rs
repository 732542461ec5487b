//! How often one partition may do something.

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
}

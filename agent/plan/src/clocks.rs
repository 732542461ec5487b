//! This machine's clock and the master's: when they differ so much that somebody has to set one.

use plat_model::problem::codes;
use plat_model::{Problem, Timestamp};
use std::time::Duration;

/// A clock that is so far from the master's is wrong, in milliseconds: certificates and windows of usage bear minutes.
const OFF: i64 = 60_000;
/// How soon the clocks are looked at again where nothing else is said: one that is wrong is being set.
const WRONG: Duration = Duration::from_secs(60);
const RIGHT: Duration = Duration::from_secs(3600);

/// This machine's clock beside the master's.
#[derive(Debug, Default)]
pub struct Clocks {
    /// By how many milliseconds this one was said to be ahead.
    told: Option<i64>,
}

impl Clocks {
    /// How soon they are to be looked at again.
    pub fn looked_at_in(&self) -> Duration {
        if self.told.is_some() { WRONG } else { RIGHT }
    }

    /// What is wrong, by what the master's clock said when it answered a call that took so long. What differs little from what
    /// was told is no news.
    pub fn differ(&mut self, master: Timestamp, took: Duration, now: Timestamp) -> Option<Problem> {
        let ahead = now.0.saturating_sub(master.0);
        let slack = took.as_millis().try_into().unwrap_or(OFF);
        let least = if self.told.is_some() { OFF * 3 / 4 } else { OFF.saturating_add(slack) };
        if ahead.saturating_abs() <= least {
            self.told = None;
            return None;
        }
        let is_alike =
            |told: &i64| told.saturating_sub(ahead).saturating_abs() <= (OFF / 4).max(ahead.saturating_abs() / 10);
        let ahead = self.told.filter(is_alike).unwrap_or(ahead);
        self.told = Some(ahead);
        let minutes = (ahead.unsigned_abs() + 30_000) / 60_000;
        let by = match minutes {
            1 => "about a minute".to_owned(),
            minutes if minutes < 90 => format!("about {minutes} minutes"),
            minutes if minutes < 48 * 60 => format!("about {} hours", (minutes + 30) / 60),
            minutes => format!("about {} days", (minutes + 12 * 60) / (24 * 60)),
        };
        let how = if ahead > 0 { "ahead of" } else { "behind" };
        Some(
            Problem::new(codes::WRONG_CLOCK, format!("the node's clock is {by} {how} the master's"))
                .fix("set the one that is wrong; `timedatectl` tells whether a machine's is kept right"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_drifts_is_told_of_seldom_and_one_that_was_set_right_at_once() {
        let mut clocks = Clocks::default();
        let mut told = |seconds: i64, took: u64| {
            let master = Timestamp::from_seconds(1_800_000_000);
            let now = Timestamp(master.0 + seconds * 1000);
            clocks.differ(master, Duration::from_secs(took), now).map(|problem| problem.what)
        };
        assert_eq!(told(61, 5), None, "the call took as long");
        let first = told(62, 0).unwrap();
        assert!(first.contains("about a minute ahead of"), "{first}");
        assert_eq!([told(70, 0), told(50, 0), told(58, 9)].map(Option::unwrap), [first.clone(), first.clone(), first]);
        assert!(told(40, 0).is_none() && told(58, 0).is_none());
        assert!(told(-7300, 0).unwrap().contains("about 2 hours behind"));
        assert!(told(5 * 86_400, 0).unwrap().contains("about 5 days ahead of"));
    }
}

//! What checks have said: the newest result of a promise, which decides, and the ones before, which people read.

use crate::moment::Moment;
use plat_model::Timestamp;
use serde::{Deserialize, Serialize};

/// How many stretches of a promise are remembered.
const HISTORY: usize = 16;
/// Longest message of one that is remembered, in characters.
const MESSAGE_MAX: usize = 200;

/// What is known of a promise that was asked at least once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseFact {
    /// What it was asked of, as [`crate::PartitionFact::runs`] or [`crate::PartitionFact::built`] said when the check
    /// began.
    pub of: String,
    pub holds: bool,
    pub message: String,
    /// When it was asked.
    pub checked: Moment,
    /// Failed checks in a row, of what ran then.
    pub failures: u32,
    /// It has held of what ran then.
    #[serde(default)]
    pub held: bool,
    /// Oldest first, the newest result included. The same result again and again is one stretch, so that a few tell of a
    /// long time.
    #[serde(default)]
    pub history: Vec<Stretch>,
}

/// Checks in a row that said the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    pub from: Timestamp,
    pub to: Timestamp,
    /// How many checks.
    pub times: u32,
    pub holds: bool,
    pub message: String,
}

impl PromiseFact {
    /// The result of a check, after what was known `before`.
    pub fn after(before: Option<&Self>, of: &str, holds: bool, message: String, checked: Moment) -> Self {
        let same = before.filter(|before| before.of == of);
        let failures = if holds { 0 } else { same.map_or(0, |before| before.failures).saturating_add(1) };
        let held = holds || same.is_some_and(|before| before.held);
        let mut history = before.map(|before| before.history.clone()).unwrap_or_default();
        let told: String = message.chars().take(MESSAGE_MAX).collect();
        match history.last_mut().filter(|last| last.holds == holds && last.message == told) {
            Some(last) => (last.to, last.times) = (checked.wall, last.times.saturating_add(1)),
            None => history.push(Stretch { from: checked.wall, to: checked.wall, times: 1, holds, message: told }),
        }
        history.drain(..history.len().saturating_sub(HISTORY));
        Self { of: of.to_owned(), holds, message, checked, failures, held, history }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moment::Steady;
    use std::time::Duration;

    #[test]
    fn the_same_result_again_and_again_is_one_stretch_and_only_the_newest_stretches_are_kept() {
        let mut at = Moment { wall: Timestamp::from_seconds(1000), steady: Steady(1000) };
        let mut fact = PromiseFact::after(None, "run1", true, "ok".into(), at);
        for n in 0..100 {
            at = at.plus(Duration::from_secs(30));
            fact = PromiseFact::after(Some(&fact), "run1", n < 50 || n % 2 == 0, "ok".into(), at);
        }
        assert_eq!(fact.history.len(), HISTORY);
        let fact = PromiseFact::after(Some(&fact), "run1", false, "gone".into(), at);
        let fact = PromiseFact::after(Some(&fact), "run1", false, "gone".into(), at.plus(Duration::from_secs(1)));
        let last = fact.history.last().unwrap();
        assert_eq!((last.times, last.to.since(last.from)), (2, Duration::from_secs(1)));
        assert_eq!(fact.failures, 3);
        let other = PromiseFact::after(Some(&fact), "run2", false, "gone".into(), at);
        assert_eq!((other.failures, other.history.len()), (1, HISTORY), "another run fails anew; the history goes on");
    }
}

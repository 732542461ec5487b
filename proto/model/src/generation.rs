//! A number that only grows. It hides lateness, repetition and concurrency: whoever holds generation *n* refuses
//! anything older, so a late or repeated message can never move it back.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Version of a desired document or of a node's row. `0` means "nothing yet".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    pub const ZERO: Self = Self(0);

    /// The generation after this one.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Whether a document of this generation replaces one of `held`.
    pub fn supersedes(self, held: Self) -> bool {
        self > held
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

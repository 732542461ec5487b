//! Hooks that are run because somebody asked for them.

use crate::id::HookName;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most runs of one instance that are asked for and not over. As many results are kept, so that a result is there to be
/// read until as many others have come after it.
pub const RUNS_MAX: usize = 8;
/// Lines of its output that the result of a run holds.
pub const TAIL_LINES: usize = 10;
/// Longest of them, in bytes.
pub const TAIL_LINE_MAX: usize = 500;

/// A run that was asked for. Numbers grow with each that is asked for of an instance; each is run at most once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunWanted {
    pub number: u64,
    pub hook: HookName,
}

/// What became of a run that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResult {
    pub number: u64,
    pub hook: HookName,
    /// When it began; of one that never did, when that was decided.
    pub began: Timestamp,
    pub ended: Timestamp,
    pub end: RunEnd,
    /// How it ended, in a few words: `exit code 1`, `it did not end within 30 s`.
    pub how: String,
    /// The last lines of its output.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tail: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunEnd {
    /// By itself, with this code.
    Exited(u8),
    /// It was killed, for its time was over or by a signal.
    Killed,
    /// It had begun, and how it ended is not known, or it was broken off: it may have done a part of its work.
    Interrupted,
    /// It never began.
    NotRun,
}

impl fmt::Display for RunEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exited(0) => "succeeded",
            Self::Exited(_) => "failed",
            Self::Killed => "killed",
            Self::Interrupted => "interrupted",
            Self::NotRun => "not run",
        })
    }
}

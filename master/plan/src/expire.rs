//! What is kept for a while only.

use crate::change::Change;
use crate::decision::Decision;
use crate::record::Key;
use crate::state::State;
use plat_model::time::Timestamp;
use std::time::Duration;

/// How long a token is kept after it has expired, so that whoever tries it is told why it fails.
pub const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Most removals of one round.
pub const REMOVALS_MAX: usize = 1000;

/// Removes tokens that expired [`KEPT`] ago. Answers with how many; at [`REMOVALS_MAX`] another round is to follow.
pub fn expire(state: &State, now: Timestamp) -> Decision<usize> {
    let old = state.tokens.values().filter(|token| token.expires.plus(KEPT) <= now).take(REMOVALS_MAX);
    let changes: Vec<Change> = old.map(|token| Change::Delete(Key::Token(token.id.clone()))).collect();
    let count = changes.len();
    Decision::new(changes, Vec::new(), count)
}

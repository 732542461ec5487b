//! Why nothing happens. Every planner returns these beside its actions; every view shows them.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What something waits on, since when, and what would end the wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// What waits, e.g. `instance shop/db`, `release 3fe0a1b2c3d4`, `service postgres`.
    pub who: String,
    /// On what, e.g. `a free partition`, `release 3fe0a1b2c3d4 to be installed on n1`, `the next try at 08:15:30`.
    pub on: String,
    pub since: Timestamp,
    /// What to do about it. Empty if time alone will end it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub todo: String,
}

//! Releases as master and agents speak of them. What a release document says is `plat-document`'s.

use crate::id::{Digest, ReleaseName};
use crate::problem::Problem;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Largest release document, resolved, in bytes.
pub const RELEASE_MAX: usize = 1024 * 1024;

/// A release as the master keeps it. The document is the resolved one, as canonical JSON; its SHA-256 is the digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    pub digest: Digest,
    pub name: ReleaseName,
    /// The resolved document: extends already laid over each other, keys in order.
    pub document: String,
    pub added: Timestamp,
}

/// What a node is to do about a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SupplyState {
    Available,
    Removed,
}

/// Where a release is on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstallState {
    Absent,
    Installing,
    Installed,
    Failed,
    Removing,
}

impl fmt::Display for InstallState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "absent",
            Self::Installing => "installing",
            Self::Installed => "installed",
            Self::Failed => "failed",
            Self::Removing => "removing",
        })
    }
}

/// What a node reports of one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    pub digest: Digest,
    pub state: InstallState,
    /// What it is doing now, e.g. `fetching postgresql-15 (3 of 12)`. Empty when there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub progress: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// The last wish to build it again that the node has acted on; 0: none. What is told is what came of it, or comes:
    /// `Installed` with a problem says that it is there as it was, and why it was not built again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rebuild: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

//! Users and groups as the files say them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserFact {
    pub uid: u32,
    pub gid: u32,
    pub home: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupFact {
    pub gid: u32,
    #[serde(default)]
    pub members: BTreeSet<String>,
    /// Members and administrators by gshadow(5), if this process may read it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub in_shadow: BTreeSet<String>,
}

/// What is left of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Left {
    /// To the byte what node-format writes of a new one: a run that was killed may have.
    New,
    /// Anything else, a password perhaps.
    Old,
}

/// A range of numbers that is one user's, without an account for each.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subordinate {
    /// A name, or a uid in digits.
    pub owner: String,
    pub first: u32,
    pub count: u32,
}

impl Subordinate {
    /// The first and the last of these numbers that lie in it, if any do.
    pub fn within(&self, numbers: impl Iterator<Item = u32>) -> Option<(u32, u32)> {
        let end = u64::from(self.first) + u64::from(self.count);
        let inside = numbers.filter(|number| *number >= self.first && u64::from(*number) < end);
        inside.fold(None, |found, number| {
            let (first, last) = found.unwrap_or((number, number));
            Some((number.min(first), number.max(last)))
        })
    }
}

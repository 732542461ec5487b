//! Change: the only way state moves. A decision answers with the records that are to be written or removed, whole.

use crate::record::{Key, Record};
use serde::{Deserialize, Serialize};

/// One step of the state.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// Writes a record, new or over the one of the same key.
    Put(Box<Record>),
    Delete(Key),
}

impl Change {
    pub fn put(record: Record) -> Self {
        Self::Put(Box::new(record))
    }

    pub fn key(&self) -> Key {
        match self {
            Self::Put(record) => record.key(),
            Self::Delete(key) => key.clone(),
        }
    }
}

/// What a decision relied on: none of these records may have changed after the revision of the snapshot that it was
/// made from. The records that it writes are always among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Revision of the snapshot.
    pub at: u64,
    /// Records that were read and matter, besides those that are written.
    pub read: Vec<Key>,
}

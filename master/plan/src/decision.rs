//! What a decision answers with.

use crate::change::{Change, Expected};
use crate::record::Key;

/// A decision that was made: what is to be written, what it relied on, and what to tell the caller.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "a decision does nothing until its changes are committed"]
pub struct Decision<T> {
    /// Empty if all is as it was asked for already.
    pub changes: Vec<Change>,
    /// Records that were read and matter, besides those that are written. A key without a record counts too: the
    /// decision relied on there being none.
    pub read: Vec<Key>,
    pub answer: T,
}

impl<T> Decision<T> {
    /// Nothing is to be changed.
    pub fn nothing(answer: T) -> Self {
        Self { changes: Vec::new(), read: Vec::new(), answer }
    }

    pub fn new(changes: Vec<Change>, read: Vec<Key>, answer: T) -> Self {
        Self { changes, read, answer }
    }

    /// What a commit of it expects, when it was made from a snapshot of revision `at`.
    pub fn expected(&self, at: u64) -> Expected {
        Expected { at, read: self.read.clone() }
    }
}

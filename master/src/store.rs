//! Where state is kept. The trait hides databases: a store holds the state in memory, writes changes so that they
//! survive power loss, and tells whoever watches what changed.
//!
//! Read [`Store`] (the promises), `core` (state, conflicts and revisions, the same in every store), then `group`
//! (many waiting commits become one durable write) and the engines below it.

#[cfg(any(test, feature = "fake"))]
pub mod conformance;
mod core;
mod folder;
mod group;
pub mod memory;
mod open;
pub mod record;
mod redb;
mod sled;

pub use memory::MemoryStore;
pub use open::{EngineKind, open};

use async_trait::async_trait;
use plat_master_plan::record::{AuditEntry, Key};
use plat_master_plan::{Change, Expected, State};
use plat_model::Problem;
use plat_model::id::NodeId;
use plat_model::usage::LedgerEntry;
use std::sync::Arc;
use tokio::sync::watch;

/// Everything as it was at one revision.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub revision: u64,
    pub state: Arc<State>,
}

/// Why a commit was not made. Nothing of it was written.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// A record that the decision relied on has changed since its snapshot, or the snapshot is so old that nobody can
    /// tell: decide again on a new one.
    #[error("{0:?} changed after the snapshot")]
    Conflict(Key),
    /// The store cannot write this, or anything. After [`plat_model::problem::codes::STORE_FAILED`] it refuses
    /// everything: whether the commit will be there after the next start is not known, and the master must be started
    /// again. With any other code the change itself was at fault and nothing of it was written.
    #[error("{0}")]
    Failed(Problem),
}

/// A store. Every implementer passes `conformance`.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest state: it may hold changes whose commit has not returned yet. See [`Store::settled`].
    fn snapshot(&self) -> Snapshot;

    /// Writes all changes, or none. Returns once they survive power loss, with the revision that holds them.
    /// Commits are seen by [`Store::snapshot`] in the order of their revisions. Without changes it checks `expected`
    /// and returns `expected.at` once that is settled. A caller that stops waiting does not undo its commit.
    async fn commit(&self, expected: Expected, changes: Vec<Change>) -> Result<u64, CommitError>;

    /// Returns once everything up to `revision` survives power loss: what an answer that only reads waits for, so that
    /// nobody is ever told of something that is then lost.
    ///
    /// # Errors
    /// The problem that broke the store, if it broke before `revision` was durable.
    async fn settled(&self, revision: u64) -> Result<(), Problem>;

    /// The newest durable revision, and a wake-up each time that it grows.
    fn watch(&self) -> watch::Receiver<u64>;

    /// Booked usage with a sequence above `after`, at most `limit` entries: of one node, in the order of sequence; or
    /// of all nodes, in the order of node and sequence, `after` counting in each node for itself. Only what is durable.
    async fn ledger(&self, node: Option<NodeId>, after: u64, limit: usize) -> Result<Vec<LedgerEntry>, Problem>;

    /// Audit entries with a number above `after`, at most `limit`, in order. Only what is durable.
    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, Problem>;
}

#[cfg(test)]
mod tests;

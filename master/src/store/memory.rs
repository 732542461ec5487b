//! A store that forgets: state behind a lock. For tests, and the fake of every other test. It has no threads and no
//! timers, so a simulation stays reproducible.

use super::core::Core;
use super::{CommitError, Snapshot, Store};
use async_trait::async_trait;
use plat_master_plan::record::{AuditEntry, Record};
use plat_master_plan::{Change, Expected, State};
use plat_model::Problem;
use plat_model::id::NodeId;
use plat_model::usage::LedgerEntry;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Keeps everything in memory; every commit is at once as durable as it will ever be.
pub struct MemoryStore {
    inner: Mutex<Inner>,
    durable: watch::Sender<u64>,
}

struct Inner {
    core: Core,
    ledger: BTreeMap<(NodeId, u64), LedgerEntry>,
    audit: BTreeMap<u64, AuditEntry>,
    failed: Option<Problem>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty one, at revision 0.
    pub fn new() -> Self {
        let core = Core::new(State::default(), 0, 0);
        let inner = Inner { core, ledger: BTreeMap::new(), audit: BTreeMap::new(), failed: None };
        Self { inner: Mutex::new(inner), durable: watch::Sender::new(0) }
    }

    /// Makes it fail from now on, as a store on disk does after a write that failed: its memory holds a revision that
    /// never becomes durable.
    pub fn fail(&self, problem: Problem) {
        let mut inner = self.inner();
        inner.core.apply(&[]);
        inner.failed = Some(problem);
        drop(inner);
        self.durable.send_modify(|_| ());
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock can leave it half changed but a bug in `apply`; readers go on with what there is.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn keep(&mut self, change: &Change) {
        match change {
            Change::Put(record) => match &**record {
                Record::Ledger(entry) => {
                    self.ledger.insert((entry.node.clone(), entry.sequence), entry.clone());
                }
                Record::Audit(entry) => {
                    self.audit.insert(entry.number, entry.clone());
                }
                _ => {}
            },
            Change::Delete(plat_master_plan::Key::Ledger(node, sequence)) => {
                self.ledger.remove(&(node.clone(), *sequence));
            }
            Change::Delete(plat_master_plan::Key::Audit(number)) => {
                self.audit.remove(number);
            }
            Change::Delete(_) => {}
        }
    }

    fn working(&self) -> Result<(), Problem> {
        self.failed.clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn snapshot(&self) -> Snapshot {
        self.inner().core.snapshot()
    }

    async fn commit(&self, expected: Expected, mut changes: Vec<Change>) -> Result<u64, CommitError> {
        let mut inner = self.inner();
        inner.working().map_err(CommitError::Failed)?;
        inner.core.check(&expected, &changes)?;
        if changes.is_empty() {
            return Ok(expected.at);
        }
        inner.core.number(&mut changes);
        let revision = inner.core.apply(&changes);
        changes.iter().for_each(|change| inner.keep(change));
        // Under the lock, so that watchers see revisions in their order.
        self.durable.send_replace(revision);
        Ok(revision)
    }

    async fn settled(&self, revision: u64) -> Result<(), Problem> {
        let mut durable = self.durable.subscribe();
        loop {
            if *durable.borrow_and_update() >= revision {
                return Ok(());
            }
            self.inner().working()?;
            // The sender is ours: it cannot be gone.
            let _ = durable.changed().await;
        }
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.durable.subscribe()
    }

    async fn ledger(&self, node: Option<NodeId>, after: u64, limit: usize) -> Result<Vec<LedgerEntry>, Problem> {
        let inner = self.inner();
        inner.working()?;
        let of_node = |entry: &&LedgerEntry| node.as_ref().is_none_or(|node| *node == entry.node);
        let entries = inner.ledger.values().filter(of_node).filter(|entry| entry.sequence > after);
        Ok(entries.take(limit).cloned().collect())
    }

    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, Problem> {
        let inner = self.inner();
        inner.working()?;
        let Some(first) = after.checked_add(1) else { return Ok(Vec::new()) };
        Ok(inner.audit.range(first..).take(limit).map(|(_, entry)| entry.clone()).collect())
    }
}

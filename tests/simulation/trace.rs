//! What happened, in order: every commit of the master and every step that a machine performed. Two runs of a seed have
//! the same.

use async_trait::async_trait;
use plat_master::store::{CommitError, MemoryStore, Snapshot, Store};
use plat_master_plan::record::{AuditEntry, Token};
use plat_master_plan::{Change, Expected, Key, Record};
use plat_model::Problem;
use plat_model::id::{Digest, NodeId};
use plat_model::usage::LedgerEntry;
use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::watch;

/// Lines so far, as one number; `PLAT_TRACE=FILE` writes them too, for whoever looks for where two runs part.
pub struct Trace {
    digest: DefaultHasher,
    lines: u64,
    file: Option<File>,
}

impl Trace {
    pub fn new() -> Self {
        let file = std::env::var_os("PLAT_TRACE").map(|path| File::create(path).expect("PLAT_TRACE can be written"));
        Self { digest: DefaultHasher::new(), lines: 0, file }
    }

    pub fn add(&mut self, line: &str) {
        line.hash(&mut self.digest);
        self.lines += 1;
        if let Some(file) = &mut self.file {
            writeln!(file, "{line}").expect("PLAT_TRACE can be written");
        }
    }
}

impl std::fmt::Display for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} lines {:016x}", self.lines, self.digest.finish())
    }
}

/// Changes as a trace has them: without the hash of keys, which are the one thing that no seed decides.
pub fn as_traced(mut changes: Vec<Change>) -> Vec<Change> {
    for change in &mut changes {
        if let Change::Put(record) = change
            && let Record::Token(Token { given: Some(given), .. }) = &mut **record
        {
            given.keys = given_keys();
        }
    }
    changes
}

fn given_keys() -> Digest {
    Digest::parse(&"0".repeat(64)).expect("it is a digest")
}

/// A store in memory that writes down what is committed, as a disk would get it.
pub struct TracedStore {
    inner: MemoryStore,
    committed: Mutex<Committed>,
}

#[derive(Default)]
struct Committed {
    /// What nobody has asked about yet.
    new: Vec<(u64, Vec<Change>)>,
    /// What a disk would hold.
    records: BTreeMap<Key, Record>,
}

impl TracedStore {
    pub fn new() -> Self {
        Self { inner: MemoryStore::new(), committed: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Committed> {
        self.committed.lock().expect("nobody panics with the commits in hand")
    }

    /// What has been committed since it was asked last.
    pub fn take(&self) -> Vec<(u64, Vec<Change>)> {
        std::mem::take(&mut self.lock().new)
    }

    /// All records as they are now, without the logs: what a master that starts would load.
    pub fn records(&self) -> BTreeMap<Key, Record> {
        self.lock().records.clone()
    }
}

#[async_trait]
impl Store for TracedStore {
    fn snapshot(&self) -> Snapshot {
        self.inner.snapshot()
    }

    async fn commit(&self, expected: Expected, changes: Vec<Change>) -> Result<u64, CommitError> {
        let revision = self.inner.commit(expected, changes.clone()).await?;
        if !changes.is_empty() {
            let mut committed = self.lock();
            for change in &changes {
                match change {
                    Change::Put(record) if !matches!(**record, Record::Ledger(_) | Record::Audit(_)) => {
                        committed.records.insert(record.key(), (**record).clone());
                    }
                    Change::Put(_) => {}
                    Change::Delete(key) => drop(committed.records.remove(key)),
                }
            }
            committed.new.push((revision, changes));
        }
        Ok(revision)
    }

    async fn settled(&self, revision: u64) -> Result<(), Problem> {
        self.inner.settled(revision).await
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.inner.watch()
    }

    async fn ledger(&self, node: Option<NodeId>, after: u64, limit: usize) -> Result<Vec<LedgerEntry>, Problem> {
        self.inner.ledger(node, after, limit).await
    }

    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, Problem> {
        self.inner.audit(after, limit).await
    }
}

//! A store on an engine: commits change the memory at once, in order; one thread takes all that wait, has the engine
//! write them as one and make them durable, and wakes their callers. Many commits share one sync that way, and no
//! engine is ever flushed twice at a time.

mod committer;

use self::committer::{Pending, Queue};
use super::core::Core;
use super::folder::Folder;
use super::record::{self, AUDITS, META, STATE};
use super::{CommitError, Snapshot, Store};
use async_trait::async_trait;
use plat_master_plan::record::AuditEntry;
use plat_master_plan::{Change, Expected, Record, State};
use plat_model::Problem;
use plat_model::id::NodeId;
use plat_model::problem::codes;
use plat_model::usage::LedgerEntry;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::{oneshot, watch};

/// Rows that are written together: the value of each key, or `None` where it is removed.
pub(super) type Rows = BTreeMap<Vec<u8>, Option<Vec<u8>>>;
/// What a scan is given: a row; it answers whether to go on.
pub(super) type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Problem>;

/// A database of sorted rows.
pub(super) trait Engine: Send + Sync + 'static {
    /// Writes all rows, or none, and returns once they survive power loss. Called by one thread.
    ///
    /// # Errors
    /// [`codes::STORE_FAILED`]. It is not called again then.
    fn write(&self, rows: &Rows) -> Result<(), Problem>;

    /// Visits the rows of the half-open range in order. May show rows whose `write` has not returned.
    fn scan(&self, range: (&[u8], &[u8]), visit: Visit<'_>) -> Result<(), Problem>;

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Problem>;

    /// The greatest key of the half-open range.
    fn last(&self, range: (&[u8], &[u8])) -> Result<Option<Vec<u8>>, Problem>;
}

/// The store's own row, written with every batch.
#[derive(Serialize, Deserialize)]
struct Meta {
    revision: u64,
}

/// A store whose records an engine keeps.
pub(super) struct GroupStore<E> {
    core: Mutex<Core>,
    engine: Arc<E>,
    queue: Arc<Queue>,
    durable: watch::Sender<u64>,
    committer: Option<JoinHandle<()>>,
    /// Unlocked last, when the thread has ended.
    _folder: Folder,
}

impl<E: Engine> GroupStore<E> {
    /// Reads all records of the engine and starts the thread that commits.
    pub fn start(folder: Folder, engine: E) -> Result<Self, Problem> {
        folder.sync()?;
        let core = load(&engine)?;
        let revision = core.snapshot().revision;
        let (engine, queue) = (Arc::new(engine), Arc::new(Queue::default()));
        let durable = watch::Sender::new(revision);
        let committer = {
            let (engine, queue, durable) = (engine.clone(), queue.clone(), durable.clone());
            let run = move || committer::run(&*engine, &queue, &durable);
            let thread = std::thread::Builder::new().name("store-commit".into()).spawn(run);
            thread.map_err(|cause| Problem::new(codes::STORE_FAILED, "cannot start a thread").because(cause))?
        };
        Ok(Self { core: Mutex::new(core), engine, queue, durable, committer: Some(committer), _folder: folder })
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        // A panic under the lock is a bug in `apply`; the queue has stopped then, and readers go on.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks, numbers, applies and queues: all that must happen in one order for all commits.
    fn enter(&self, expected: &Expected, mut changes: Vec<Change>) -> Result<Entered, CommitError> {
        // Outside the lock: what takes time, and what may fail.
        let mut rows = encode(&changes).map_err(CommitError::Failed)?;
        let mut core = self.core();
        core.check(expected, &changes)?;
        if changes.is_empty() {
            return Ok(Entered::Empty);
        }
        if changes.iter().any(is_audit) {
            core.number(&mut changes);
            rows.extend(encode_some(changes.iter().filter(|change| is_audit(change))).map_err(CommitError::Failed)?);
        }
        // Before it is applied: a store that failed must not show what it will never write.
        self.queue.working().map_err(CommitError::Failed)?;
        let revision = core.apply(&changes);
        rows.insert(META.to_vec(), Some(encode_meta(revision)));
        let (done, waiting) = oneshot::channel();
        self.queue.push(Pending { revision, rows, done }).map_err(CommitError::Failed)?;
        Ok(Entered::Queued(waiting))
    }

    async fn scan<T: Send + 'static>(
        &self,
        range: (Vec<u8>, Vec<u8>),
        limit: usize,
        pick: impl Fn(Record) -> Option<T> + Send + 'static,
    ) -> Result<Vec<T>, Problem> {
        self.queue.working()?;
        let engine = self.engine.clone();
        let read = move || {
            let mut found = Vec::new();
            if limit == 0 {
                return Ok(found);
            }
            engine.scan((&range.0, &range.1), &mut |key, value| {
                found.extend(pick(record::decode(key, value)?));
                Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
            Ok(found)
        };
        let found = tokio::task::spawn_blocking(read)
            .await
            .map_err(|cause| Problem::new(codes::INTERNAL, "reading the store ended early").because(cause))??;
        // An engine may show rows that it is still making durable; whatever it showed is of this revision or before.
        let newest = self.core().snapshot().revision;
        self.settled(newest).await?;
        Ok(found)
    }
}

enum Entered {
    Empty,
    Queued(oneshot::Receiver<Result<u64, Problem>>),
}

fn is_audit(change: &Change) -> bool {
    matches!(change, Change::Put(record) if matches!(**record, Record::Audit(_)))
}

/// A name is there for commits to conflict in; the index of names is made of the instances, so it gets no row. One that
/// an older version wrote goes with its instance.
fn is_name(change: &Change) -> bool {
    matches!(change, Change::Put(record) if matches!(**record, Record::Name(_)))
}

fn encode(changes: &[Change]) -> Result<Rows, Problem> {
    encode_some(changes.iter().filter(|change| !is_audit(change) && !is_name(change)))
}

fn encode_some<'a>(changes: impl Iterator<Item = &'a Change>) -> Result<Rows, Problem> {
    let row = |change: &Change| {
        let value = match change {
            Change::Put(record) => Some(record::encode(record)?),
            Change::Delete(_) => None,
        };
        Ok((record::encode_key(&change.key()), value))
    };
    changes.map(row).collect()
}

fn encode_meta(revision: u64) -> Vec<u8> {
    format!("{{\"revision\":{revision}}}").into_bytes()
}

fn load(engine: &impl Engine) -> Result<Core, Problem> {
    let revision = match engine.get(META)? {
        None => 0,
        Some(bytes) => {
            let meta: Meta = serde_json::from_slice(&bytes)
                .map_err(|cause| Problem::new(codes::STORE_FAILED, "the store's own row is damaged").because(cause))?;
            meta.revision
        }
    };
    let mut state = State::default();
    engine.scan(STATE, &mut |key, value| {
        state.apply(&Change::put(record::decode(key, value)?), revision);
        Ok(ControlFlow::Continue(()))
    })?;
    state.touch_all(revision);
    let newest = engine.last(AUDITS)?;
    let number = newest.as_deref().and_then(|key| key.last_chunk::<8>()).map_or(0, |bytes| u64::from_be_bytes(*bytes));
    Ok(Core::new(state, revision, number))
}

impl<E> Drop for GroupStore<E> {
    /// Ends the thread once it has written what waits, so that the folder can be opened again.
    fn drop(&mut self) {
        self.queue.close();
        if let Some(committer) = self.committer.take()
            && committer.join().is_err()
        {
            tracing::error!("the store's commit thread panicked");
        }
    }
}

#[async_trait]
impl<E: Engine> Store for GroupStore<E> {
    fn snapshot(&self) -> Snapshot {
        self.core().snapshot()
    }

    async fn commit(&self, expected: Expected, changes: Vec<Change>) -> Result<u64, CommitError> {
        match self.enter(&expected, changes)? {
            Entered::Empty => {
                self.settled(expected.at).await.map_err(CommitError::Failed)?;
                Ok(expected.at)
            }
            Entered::Queued(waiting) => match waiting.await {
                Ok(done) => done.map_err(CommitError::Failed),
                Err(_) => Err(CommitError::Failed(committer::stopped())),
            },
        }
    }

    async fn settled(&self, revision: u64) -> Result<(), Problem> {
        let mut durable = self.durable.subscribe();
        loop {
            if *durable.borrow_and_update() >= revision {
                return Ok(());
            }
            self.queue.working()?;
            // The sender is ours: it cannot be gone.
            let _ = durable.changed().await;
        }
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.durable.subscribe()
    }

    async fn ledger(&self, node: Option<NodeId>, after: u64, limit: usize) -> Result<Vec<LedgerEntry>, Problem> {
        let range = record::ledger_range(node.as_ref(), after);
        let pick = move |record| match record {
            Record::Ledger(entry) if entry.sequence > after => Some(entry),
            _ => None,
        };
        self.scan(range, limit, pick).await
    }

    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, Problem> {
        let pick = move |record| match record {
            Record::Audit(entry) if entry.number > after => Some(entry),
            _ => None,
        };
        self.scan(record::audit_range(after), limit, pick).await
    }
}

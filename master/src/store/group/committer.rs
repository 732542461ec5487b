//! The thread that makes commits durable, and the queue that it takes them from.

use super::{Engine, Rows};
use plat_model::Problem;
use plat_model::problem::codes;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::{oneshot, watch};

/// A batch ends above this many bytes of rows, so that one write stays bounded however many wait.
const BATCH_BYTES: usize = 8 << 20;

/// How often a batch that still grows waits for more.
const GATHERINGS: usize = 16;

/// A commit that memory holds and the disk does not.
pub(super) struct Pending {
    pub revision: u64,
    pub rows: Rows,
    pub done: oneshot::Sender<Result<u64, Problem>>,
}

/// Commits in the order of their revisions.
#[derive(Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
    filled: Condvar,
}

#[derive(Default)]
struct Inner {
    waiting: VecDeque<Pending>,
    closed: bool,
    failed: Option<Problem>,
}

impl Queue {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing under this lock runs code that can leave it half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The problem that broke the store, if one did.
    pub fn working(&self) -> Result<(), Problem> {
        self.inner().failed.clone().map_or(Ok(()), Err)
    }

    pub fn push(&self, pending: Pending) -> Result<(), Problem> {
        let mut inner = self.inner();
        if let Some(problem) = &inner.failed {
            return Err(problem.clone());
        }
        inner.waiting.push_back(pending);
        drop(inner);
        self.filled.notify_one();
        Ok(())
    }

    /// What waits is still written; then the thread ends.
    pub fn close(&self) {
        self.inner().closed = true;
        self.filled.notify_one();
    }

    /// All that waits, up to the size of a batch. `None` once it is closed and empty.
    ///
    /// When several wait, processors are short, and more are about to: what else this one has to run goes first, for as
    /// long as that brings something. A lone commit waits for nobody.
    fn take(&self) -> Option<Vec<Pending>> {
        let mut inner = self.inner();
        while inner.waiting.is_empty() {
            if inner.closed {
                return None;
            }
            inner = self.filled.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        let mut before = 1;
        for _ in 0..GATHERINGS {
            if inner.waiting.len() <= before || inner.closed {
                break;
            }
            before = inner.waiting.len();
            drop(inner);
            std::thread::yield_now();
            inner = self.inner();
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(pending) = inner.waiting.pop_front()
        {
            bytes += size(&pending.rows);
            batch.push(pending);
        }
        Some(batch)
    }

    /// Nothing is accepted from here on; what waited is given back.
    fn fail(&self, problem: &Problem) -> VecDeque<Pending> {
        let mut inner = self.inner();
        inner.failed = Some(problem.clone());
        std::mem::take(&mut inner.waiting)
    }
}

fn size(rows: &Rows) -> usize {
    rows.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len)).sum()
}

/// Writes batches until the queue is closed or a write fails.
pub(super) fn run(engine: &impl Engine, queue: &Queue, durable: &watch::Sender<u64>) {
    while let Some(mut batch) = queue.take() {
        let mut rows = Rows::new();
        // In the order of revisions: of two commits to one key the later one stays.
        batch.iter_mut().for_each(|pending| rows.append(&mut pending.rows));
        // An engine that panics has failed like one that says so; without this its callers would wait for ever.
        let written = catch_unwind(AssertUnwindSafe(|| engine.write(&rows))).unwrap_or_else(|_| Err(stopped()));
        match written {
            Ok(()) => {
                if let Some(newest) = batch.last() {
                    durable.send_replace(newest.revision);
                }
                for pending in batch {
                    // Whoever asked may have stopped waiting; the commit stands.
                    let _ = pending.done.send(Ok(pending.revision));
                }
            }
            Err(problem) => {
                tracing::error!(problem = %problem.one_line(), "the store failed, nothing more is accepted");
                for pending in batch.into_iter().chain(queue.fail(&problem)) {
                    let _ = pending.done.send(Err(problem.clone()));
                }
                // Wakes those who wait for a revision, to find the failure.
                durable.send_modify(|_| ());
                return;
            }
        }
    }
}

pub(super) fn stopped() -> Problem {
    Problem::new(codes::STORE_FAILED, "the store stopped while it was writing")
        .fix("look for the reason in the master's log, then start the master again")
}

//! State in memory that survives the agent: every change of it is a line of one file, and one thread writes the lines.
//!
//! Whoever changes something waits for the thread, not for the disk: many changes share one write and, where one of them
//! must survive a loss of power, one sync. A change is seen in memory once it is written (or durable, if that was asked
//! for), in the order of the file, so memory never says what a reopened file would not.
//!
//! What fails to be written is not in memory either, with one exception: of changes that nothing depends on
//! ([`Durability::Process`]) the agent knows all the same. After a failure the file is in doubt, and the next change
//! writes all of it anew; one that nothing depends on does so after a second at the earliest, however many come.

mod form;
mod writer;

use super::disk::Durability;
use plat_model::Problem;
use plat_model::problem::codes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use writer::Writer;

/// What was written before and must not stay on the disk, such as secrets of what is gone, does so for this long at most.
const SHED_AFTER: Duration = Duration::from_secs(60);

/// For so long after a failure nothing is written for changes alone that nothing depends on.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What a journal keeps. Cheap to clone.
pub trait Kept: Clone + Default + Send + 'static {
    type Entry: Serialize + DeserializeOwned + Send + 'static;

    /// The state after a change. Total: a change that makes no sense changes nothing.
    fn apply(&mut self, entry: &Self::Entry);

    /// Changes that make this state from none.
    fn entries(&self) -> Vec<Self::Entry>;

    /// Whether what was written before this change must not stay on the disk.
    fn sheds(entry: &Self::Entry) -> bool;
}

/// Changes that are to be written, and who waits for that.
struct Pending<E> {
    entries: Vec<E>,
    durability: Durability,
    done: oneshot::Sender<Result<(), Problem>>,
}

struct Inner<S: Kept> {
    state: S,
    waiting: Vec<Pending<S::Entry>>,
    closed: bool,
}

/// The state, for whoever reads it.
pub struct View<S: Kept> {
    inner: Arc<(Mutex<Inner<S>>, Condvar)>,
}

impl<S: Kept> Clone for View<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<S: Kept> View<S> {
    fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the state; it stays the same meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&S) -> T) -> T {
        look(&self.lock().state)
    }
}

/// A journal's file that has been read, before anything is written to it.
pub struct Opened<S> {
    pub state: S,
    /// In which boot of the machine it was written; `None` if there is no file.
    pub boot: Option<String>,
    /// Whether it still holds what is to leave the disk.
    sheds: bool,
    writer: Writer,
}

impl<S: Kept> Opened<S> {
    /// Reads the file, to go on with it in the boot `now`. What a cut of power left behind the last sync is dropped.
    ///
    /// # Errors
    /// BAD_STATE_FILE if it cannot be read, was written by a newer agent, or is damaged where it was durable. It stays
    /// as it is: nobody but a person can say what the lost lines were.
    pub fn read(path: PathBuf, now: &str) -> Result<Self, Problem> {
        let found = form::read::<S::Entry>(&path)?;
        let mut state = S::default();
        found.entries.iter().for_each(|entry| state.apply(entry));
        let sheds = found.entries.iter().any(S::sheds);
        Ok(Self { state, boot: found.boot, sheds, writer: Writer::new(path, now.to_owned()) })
    }

    /// Writes the state as it is now, durably. Else the first change does that.
    ///
    /// # Errors
    /// DISK_FULL, BAD_STATE_FILE.
    pub fn write(&mut self) -> Result<(), Problem> {
        self.writer.rewrite(&self.state.entries())?;
        self.sheds = false;
        Ok(())
    }
}

pub struct Journal<S: Kept> {
    view: View<S>,
    thread: Option<JoinHandle<()>>,
}

impl<S: Kept> Journal<S> {
    /// Goes on with what was read, perhaps changed since.
    ///
    /// # Errors
    /// INTERNAL if there can be no thread.
    pub fn start(opened: Opened<S>) -> Result<Self, Problem> {
        Self::shedding(opened, SHED_AFTER)
    }

    fn shedding(opened: Opened<S>, after: Duration) -> Result<Self, Problem> {
        let Opened { state, sheds, mut writer, .. } = opened;
        let inner = Inner { state, waiting: Vec::new(), closed: false };
        let view = View { inner: Arc::new((Mutex::new(inner), Condvar::new())) };
        let seen = view.clone();
        let thread = std::thread::Builder::new()
            .name("host-journal".into())
            .spawn(move || run(&seen, &mut writer, sheds, after));
        let thread = thread.map_err(|cause| Problem::new(codes::INTERNAL, "cannot start a thread").because(cause))?;
        Ok(Self { view, thread: Some(thread) })
    }

    pub fn view(&self) -> &View<S> {
        &self.view
    }

    /// Changes the state by all of these, or none. Nothing is lost if whoever waits for this goes away.
    ///
    /// # Errors
    /// DISK_FULL, BAD_STATE_FILE: it could not be written.
    pub async fn append(&self, entries: Vec<S::Entry>, durability: Durability) -> Result<(), Problem> {
        let (done, written) = oneshot::channel();
        self.enter(Pending { entries, durability, done });
        // Gone without an answer, with the thread.
        let stopped = |_| Problem::new(codes::INTERNAL, "the agent's journal has ended").fix("start the agent again");
        written.await.map_err(stopped)?
    }

    fn enter(&self, pending: Pending<S::Entry>) {
        let mut inner = self.view.lock();
        if !inner.closed {
            inner.waiting.push(pending);
            self.view.inner.1.notify_one();
        }
    }
}

impl<S: Kept> Drop for Journal<S> {
    /// What waits is still written, and all of it durable; then the file can be opened again.
    fn drop(&mut self) {
        self.view.lock().closed = true;
        self.view.inner.1.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread panicked");
        }
    }
}

/// Why the thread goes on.
enum Next<E> {
    Write(Vec<Pending<E>>),
    /// It is time to get rid of what was written before.
    Shed,
    End,
}

fn next<S: Kept>(view: &View<S>, shed_at: Option<Instant>) -> Next<S::Entry> {
    let mut inner = view.lock();
    loop {
        if !inner.waiting.is_empty() {
            return Next::Write(std::mem::take(&mut inner.waiting));
        }
        if inner.closed {
            return Next::End;
        }
        let wake = &view.inner.1;
        inner = match shed_at.map(|at| at.saturating_duration_since(Instant::now())) {
            None => wake.wait(inner).unwrap_or_else(PoisonError::into_inner),
            Some(Duration::ZERO) => return Next::Shed,
            Some(left) => wake.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0,
        };
    }
}

/// However the thread ends, nobody waits for it afterwards.
struct Ended<'a, S: Kept>(&'a View<S>);

impl<S: Kept> Drop for Ended<'_, S> {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.closed = true;
        inner.waiting.clear();
    }
}

/// `sheds`: what was found still holds what is to leave the disk; `after` that long it has left.
fn run<S: Kept>(view: &View<S>, writer: &mut Writer, sheds: bool, after: Duration) {
    let _ended = Ended(view);
    // Whether memory and the file may differ.
    let mut behind = false;
    let mut failed: Option<(Instant, Problem)> = None;
    let mut shed_at = sheds.then(|| Instant::now() + after);
    loop {
        let renewed = match next(view, shed_at) {
            Next::Write(batch) => {
                if batch.iter().flat_map(|pending| &pending.entries).any(S::sheds) {
                    shed_at.get_or_insert_with(|| Instant::now() + after);
                }
                let needs_nothing = batch.iter().all(|pending| pending.durability == Durability::Process);
                let soon = |failed: &&(Instant, Problem)| needs_nothing && failed.0.elapsed() < AGAIN_AFTER;
                if let Some((_, why)) = failed.as_ref().filter(soon) {
                    settle(view, batch, &Err(why.clone()));
                    continue;
                }
                failed = commit(view, writer, batch).err().map(|why| (Instant::now(), why));
                behind = failed.is_some();
                if !writer.is_long() {
                    continue;
                }
                rewrite(view, writer)
            }
            Next::Shed => rewrite(view, writer),
            Next::End => {
                let ended = if shed_at.is_some() || behind { rewrite(view, writer) } else { writer.sync() };
                if let Err(problem) = ended {
                    tracing::warn!(problem = problem.one_line(), "what was noted last may be lost with the power");
                }
                return;
            }
        };
        match renewed {
            // What was only in memory is in the file now.
            Ok(()) => (shed_at, behind, failed) = (None, false, None),
            Err(problem) => {
                tracing::warn!(problem = problem.one_line(), "the journal cannot be written anew yet");
                shed_at = shed_at.map(|_| Instant::now() + after);
            }
        }
    }
}

fn rewrite<S: Kept>(view: &View<S>, writer: &mut Writer) -> Result<(), Problem> {
    let state = view.read(S::clone);
    writer.rewrite(&state.entries())
}

/// Writes what waits, and settles it.
fn commit<S: Kept>(view: &View<S>, writer: &mut Writer, batch: Vec<Pending<S::Entry>>) -> Result<(), Problem> {
    let entries = || batch.iter().flat_map(|pending| &pending.entries);
    let written = if writer.is_in_doubt() {
        let mut state = view.read(S::clone);
        entries().for_each(|entry| state.apply(entry));
        writer.rewrite(&state.entries())
    } else {
        let durable = batch.iter().any(|pending| pending.durability == Durability::Power);
        writer
            .append(batch.iter().map(|pending| &pending.entries))
            .and_then(|()| if durable { writer.sync() } else { Ok(()) })
    };
    settle(view, batch, &written);
    written
}

/// Changes the state by what waited, then tells.
fn settle<S: Kept>(view: &View<S>, batch: Vec<Pending<S::Entry>>, written: &Result<(), Problem>) {
    let mut inner = view.lock();
    for pending in &batch {
        if written.is_ok() || pending.durability == Durability::Process {
            pending.entries.iter().for_each(|entry| inner.state.apply(entry));
        }
    }
    drop(inner);
    for pending in batch {
        // Whoever asked may have stopped waiting; the change stands.
        let _ = pending.done.send(written.clone());
    }
}

#[cfg(test)]
mod tests;

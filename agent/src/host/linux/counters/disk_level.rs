//! How much disk a partition holds.
//!
//! Where node-format holds the partition's directory to a limit, its file system counts what is in it (the quota group
//! of a subvolume of btrfs, project quota elsewhere), and is asked once a minute. Everything else is added up by a walk,
//! now and then. Both are done at low priority: one thread goes through a queue, and whoever has much to walk gives way to
//! the others after a turn. Who wants to know waits for no disk.
//!
//! A tenant can move what it holds out of what a project counts, into another project. So such a directory is walked too,
//! less often: what the walk finds beyond the file system's figure is added to it until the next walk. What is in
//! subvolumes of the tenant's own making is in neither figure.

mod idle;
mod quota;
mod walk;

use plat_model::id::PartitionName;
use plat_model::usage::Amount;
use quota::Counted;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use walk::Walk;

/// The file system is asked again after this. A walk is repeated after this, or after fifty times as long as it took, if that is more.
const PERIOD: Duration = Duration::from_secs(60);
/// The same, of directories that the file system counts.
const PERIOD_COUNTED: Duration = Duration::from_secs(600);
/// How long one partition is walked before others have their turn.
const TURN: Duration = Duration::from_millis(500);
/// Walks that are remembered half-way. One that finds no room after its first turn begins again later.
const HALF_WAY: usize = 8;

/// The directories of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its own.
    pub directory: PathBuf,
    /// The number of its project, where the file system limits its own directory. On btrfs it means nothing.
    pub limited: Option<u32>,
    pub storage: Vec<PathBuf>,
}

impl Place {
    /// What the file system counts in the partition's own directory; `None` if it does not.
    fn counted(&self) -> Option<Counted> {
        quota::used(&self.directory, self.limited?)
    }
}

#[derive(Default)]
struct Known {
    place: Option<Place>,
    /// What the file system said last; `None`: it has not been asked.
    counted: Option<Option<Counted>>,
    level: Option<Result<Found, String>>,
    /// When there is something to do again, and when to walk again.
    next: Option<Instant>,
    walk: Option<Instant>,
    queued: bool,
}

impl Known {
    /// `None`: it has not been asked or walked for that yet.
    fn amount(&self, place: &Place) -> Option<Amount> {
        let counted = self.counted?;
        let found = match &self.level {
            Some(Err(why)) => return Some(Amount::Unknown(why.clone())),
            Some(Ok(found)) => Some(found),
            None => None,
        };
        let storage = found.map_or_else(|| place.storage.is_empty().then_some(0), |found| Some(found.storage))?;
        let own = match counted {
            None => found?.own?,
            Some(counted) => counted.bytes + found.map_or(0, |f| f.own.unwrap_or(0).saturating_sub(f.counted)),
        };
        Some(Amount::Known(own + storage))
    }
}

/// What a walk found, in bytes.
#[derive(Clone, Copy)]
struct Found {
    /// In its own directory; `None` if that was not walked.
    own: Option<u64>,
    /// Of that, what the file system counts.
    counted: u64,
    storage: u64,
}

#[derive(Default)]
struct State {
    known: BTreeMap<PartitionName, Known>,
    queue: VecDeque<Job>,
    /// The walker's thread runs.
    runs: bool,
}

/// A partition that is to be walked, or is half-way.
struct Job {
    partition: PartitionName,
    walking: Option<Walking>,
}

struct Walking {
    place: Place,
    /// What the file system said when the walk began.
    counted: Option<Counted>,
    own: Option<u64>,
    storage: u64,
    left: Vec<Part>,
    walk: Option<(Part, Walk)>,
    busy: Duration,
}

/// One of a partition's directories.
#[derive(Clone)]
enum Part {
    Own,
    Storage(PathBuf),
}

/// The last walk of each partition.
#[derive(Clone, Default)]
pub struct DiskLevels {
    shared: Arc<Mutex<State>>,
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl DiskLevels {
    /// The newest level of all of its directories; asks for another walk when it is due.
    pub fn read(&self, partition: &PartitionName, place: &Place) -> Amount {
        let mut state = lock(&self.shared);
        let state = &mut *state;
        let known = state.known.entry(partition.clone()).or_default();
        if known.place.as_ref() != Some(place) {
            // What was walked for other directories says nothing of these.
            *known = Known { place: Some(place.clone()), queued: known.queued, ..Known::default() };
        }
        let amount = known.amount(place);
        if amount.is_none() && !known.queued {
            known.next = None;
        }
        if !known.queued && known.next.is_none_or(|next| next <= Instant::now()) {
            known.queued = true;
            state.queue.push_back(Job { partition: partition.clone(), walking: None });
            if !state.runs {
                state.runs = true;
                let shared = self.shared.clone();
                std::thread::spawn(move || walk_all(&shared));
            }
        }
        amount.unwrap_or_else(|| Amount::Unknown("the partition's files have not been added up yet".into()))
    }

    pub fn forget(&self, partition: &PartitionName) {
        let mut state = lock(&self.shared);
        state.known.remove(partition);
        state.queue.retain(|job| &job.partition != partition);
    }
}

/// The walker: takes turns until nothing is left to walk.
fn walk_all(shared: &Mutex<State>) {
    idle::lower();
    loop {
        let mut state = lock(shared);
        let Some(mut job) = state.queue.pop_front() else {
            state.runs = false;
            return;
        };
        let Some(known) = state.known.get(&job.partition) else { continue };
        let (Some(place), walk) = (known.place.clone(), known.walk) else { continue };
        drop(state);
        let mut walking = match job.walking.take().filter(|walking| walking.place == place) {
            Some(walking) => walking,
            None => {
                let walking = Walking::new(place.clone());
                let mut state = lock(shared);
                let Some(known) = state.known.get_mut(&job.partition) else { continue };
                if known.place.as_ref() == Some(&place) {
                    known.counted = Some(walking.counted);
                }
                if walk.is_some_and(|walk| walk > Instant::now()) {
                    (known.queued, known.next) = (false, Some(Instant::now() + PERIOD));
                    continue;
                }
                walking
            }
        };
        let level = match walking.turn() {
            Ok(None) => {
                let mut state = lock(shared);
                let others = state.queue.iter().filter(|job| job.walking.is_some()).count();
                job.walking = (others < HALF_WAY).then_some(walking);
                state.queue.push_back(job);
                continue;
            }
            Ok(Some(found)) => Ok(found),
            Err(e) => Err(format!("the partition's files cannot be added up: {e}")),
        };
        let is_counted = walking.counted.is_some();
        let again = (if is_counted { PERIOD_COUNTED } else { PERIOD }).max(walking.busy * 50);
        if let Some(known) = lock(shared).known.get_mut(&job.partition) {
            known.queued = false;
            if known.place.as_ref() == Some(&walking.place) {
                known.level = Some(level);
                known.walk = Some(Instant::now() + again);
                known.next = Some(Instant::now() + if is_counted { PERIOD } else { again });
            }
        }
    }
}

impl Walking {
    fn new(place: Place) -> Self {
        let counted = place.counted();
        let own = counted.is_none_or(|counted| counted.may_be_less).then_some(Part::Own);
        let left = place.storage.iter().cloned().map(Part::Storage).chain(own).collect();
        Self { place, counted, own: None, storage: 0, left, walk: None, busy: Duration::ZERO }
    }

    /// Walks for one turn; what was found when everything is counted.
    fn turn(&mut self) -> rustix::io::Result<Option<Found>> {
        let begun = Instant::now();
        let done = self.walk_until(begun + TURN);
        self.busy += begun.elapsed();
        done
    }

    fn walk_until(&mut self, until: Instant) -> rustix::io::Result<Option<Found>> {
        loop {
            let Some((part, mut walk)) = self.walk.take() else {
                let Some(part) = self.left.pop() else { return Ok(Some(self.found())) };
                let walk = match &part {
                    Part::Own => Walk::begin(&self.place.directory)?,
                    Part::Storage(directory) => Walk::begin(directory)?,
                };
                self.walk = Some((part, walk));
                continue;
            };
            match walk.go_on(until)? {
                None => {
                    self.walk = Some((part, walk));
                    return Ok(None);
                }
                Some(bytes) => match part {
                    Part::Own => self.own = Some(bytes),
                    Part::Storage(_) => self.storage += bytes,
                },
            }
        }
    }

    /// The file system has counted the more that it said, before and after: what is removed while it is walked must not
    /// look as if it had been moved away.
    fn found(&self) -> Found {
        let counted = self.counted.into_iter().chain(self.place.counted()).map(|counted| counted.bytes).max();
        Found { own: self.own, counted: counted.unwrap_or(0), storage: self.storage }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(n: u32) -> PartitionName {
        PartitionName::parse(&format!("part{n}")).unwrap()
    }

    #[test]
    fn one_thread_walks_all_partitions_and_one_that_is_gone_ends_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let levels = DiskLevels::default();
        let place = |n: u32| {
            let directory = folder.path().join(n.to_string());
            Place { directory, limited: None, storage: Vec::new() }
        };
        for n in 0..20 {
            std::fs::create_dir(place(n).directory).unwrap();
            std::fs::write(place(n).directory.join("file"), vec![1; 1 << 16]).unwrap();
        }
        std::fs::remove_dir_all(place(7).directory).unwrap();
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let before = threads();
        let end = Instant::now() + Duration::from_secs(20);
        for n in 0..20 {
            loop {
                match levels.read(&part(n), &place(n)) {
                    Amount::Known(bytes) => {
                        assert!((1 << 16..1 << 18).contains(&bytes), "{bytes}");
                        break;
                    }
                    Amount::Unknown(why) if n == 7 && why.contains("cannot be added up") => break,
                    Amount::Unknown(why) => assert!(Instant::now() < end, "part{n}: {why}"),
                }
                std::thread::yield_now();
            }
            // Other tests have threads of their own.
            assert!(threads() < before + 20);
        }
    }
}

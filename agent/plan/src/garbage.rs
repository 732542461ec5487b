//! What nothing uses any more and can be had again: releases that are on the node without being supplied, and files of
//! the cache. It goes when it has not been used for long, and sooner when the disk is short of room.

use crate::action::Action;
use plat_model::id::Digest;
use plat_model::{Problem, Timestamp, problem::codes};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Something that takes room.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stored {
    Release(Digest),
    /// A file of the cache, by its path within it.
    Content(String),
}

/// One of them, as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFact {
    pub what: Stored,
    /// The disk that it is on: a key of [`StoreFacts::disks`].
    pub disk: u64,
    /// `None`: to know it would take long.
    pub bytes: Option<u64>,
    /// When it was last used, by the wall's clock, for it must outlast the machine. `None`: it was needed when last looked.
    pub unused_since: Option<Timestamp>,
    /// It is being fetched, or built from.
    pub busy: bool,
}

/// A disk that releases or the cache are on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// How people find it.
    pub place: String,
    /// Bytes that the agent may still write.
    pub free: u64,
    /// Bytes that each of those takes who wait for room on it, beside what stays free.
    pub asked: Vec<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoreFacts {
    pub entries: Vec<StoredFact>,
    pub disks: BTreeMap<u64, Disk>,
}

/// How long what nothing uses is kept, and how many bytes stay free on each disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepPolicy {
    pub keep: Duration,
    pub min_free: u64,
}

impl Default for KeepPolicy {
    fn default() -> Self {
        Self { keep: Duration::from_secs(7 * 24 * 3600), min_free: 256 << 20 }
    }
}

/// What is to go, and what is to be remembered.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GarbagePlan {
    /// Notes, and files of the cache.
    pub actions: Vec<Action>,
    /// Removed by those who look after them, if they are still garbage then.
    pub releases: BTreeSet<Digest>,
}

/// `needed`: what is supplied, or used by an instance. What the wall's clock says decides only when something goes that
/// nothing uses: set forward it makes that sooner, set back later.
pub fn plan_garbage(facts: &StoreFacts, needed: &BTreeSet<Digest>, policy: &KeepPolicy, now: Timestamp) -> GarbagePlan {
    let mut plan = GarbagePlan::default();
    let mut unused: Vec<(Timestamp, &StoredFact)> = Vec::new();
    for entry in &facts.entries {
        match (&entry.what, entry.unused_since) {
            (Stored::Release(digest), since) if needed.contains(digest) => {
                if since.is_some() {
                    plan.actions.push(Action::NoteUsed { digest: digest.clone() });
                }
            }
            _ if entry.busy => {}
            (Stored::Release(digest), None) => {
                plan.actions.push(Action::NoteUnused { digest: digest.clone(), since: now });
                unused.push((now, entry));
            }
            (_, since) => unused.push((since.unwrap_or(now), entry)),
        }
    }
    let aims: BTreeMap<u64, u64> = facts
        .disks
        .iter()
        .map(|(id, disk)| (*id, policy.min_free.saturating_add(granted(*id, disk, &unused, policy))))
        .collect();
    unused.sort_by(|(a, one), (b, other)| (a, &one.what).cmp(&(b, &other.what)));
    // Disk → what will be free; `None` until somebody has looked again.
    let mut free: BTreeMap<u64, Option<u64>> = facts.disks.iter().map(|(id, disk)| (*id, Some(disk.free))).collect();
    let (old, young): (Vec<_>, Vec<_>) = unused.into_iter().partition(|(since, _)| now.since(*since) >= policy.keep);
    for (_, entry) in old {
        plan.remove(entry, &mut free);
    }
    for (_, entry) in young {
        let aim = aims.get(&entry.disk).copied().unwrap_or_default();
        if free.get(&entry.disk).copied().flatten().is_some_and(|free| free < aim) {
            plan.remove(entry, &mut free);
        }
    }
    plan.actions.sort_by_key(Action::step);
    plan
}

/// How much is to be free for those who wait for it: of as many as room can be made for, who take least first. For what
/// does not fit, whatever goes, nothing goes.
fn granted(id: u64, disk: &Disk, unused: &[(Timestamp, &StoredFact)], policy: &KeepPolicy) -> u64 {
    let here = unused.iter().filter(|(_, entry)| entry.disk == id);
    // `None`: that is not known.
    let most = here.map(|(_, entry)| entry.bytes).try_fold(disk.free, |sum, bytes| Some(sum.saturating_add(bytes?)));
    let mut asked = disk.asked.clone();
    asked.sort_unstable();
    let mut granted = 0_u64;
    for bytes in asked {
        let with_it = granted.saturating_add(bytes);
        if most.is_some_and(|most| most < policy.min_free.saturating_add(with_it)) {
            break;
        }
        granted = with_it;
    }
    granted
}

impl GarbagePlan {
    fn remove(&mut self, entry: &StoredFact, free: &mut BTreeMap<u64, Option<u64>>) {
        if let Some(free) = free.get_mut(&entry.disk) {
            *free = free.zip(entry.bytes).map(|(free, bytes)| free.saturating_add(bytes));
        }
        match &entry.what {
            Stored::Release(digest) => drop(self.releases.insert(digest.clone())),
            Stored::Content(path) => self.actions.push(Action::RemoveContent { path: path.clone() }),
        }
    }
}

/// Why nothing is begun that takes room, if there is too little.
pub fn shortage(disks: &BTreeMap<u64, Disk>, policy: &KeepPolicy) -> Option<Problem> {
    let short = disks.values().find(|disk| disk.free < policy.min_free)?;
    Some(
        Problem::new(codes::DISK_FULL, format!("there is too little room in {}", short.place))
            .because(format!("less than {} MiB are free", policy.min_free >> 20))
            .fix("free some space there; it goes on by itself. What nothing uses has been removed already"),
    )
}

/// Least of what counts as more room, in bytes: others write and remove all the time.
const MORE: u64 = 64 << 20;

/// Whether some disk has clearly more room than it had: an eighth of it and 64 MiB.
pub fn is_roomier(had: &BTreeMap<u64, Disk>, disks: &BTreeMap<u64, Disk>) -> bool {
    let more = |id, free: u64| disks.get(id).is_some_and(|disk| disk.free >= free.saturating_add(MORE.max(free / 8)));
    had.iter().any(|(id, disk)| more(id, disk.free))
}

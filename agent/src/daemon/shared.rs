//! What the workers share.

use super::Again;
use crate::clock::Clock;
use crate::desired::{Desired, Keeper};
use crate::host::Host;
use crate::inside::Inside;
use crate::report::Board;
use crate::usage::Metering;
use plat_agent_plan::{InUse, KeepPolicy, Place, ReleaseFact, applied_release};
use plat_document::Release;
use plat_model::id::{Digest, NodeId, PartitionName};
use plat_model::node::NodePartition;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore, watch};

/// Installations at once, from the first file that is fetched: of releases for which programs run, of which the host has few
/// built at a time, and of what is only fetched and unpacked, which waits for no build. Together fewer than a host begins.
const BUILDS: usize = 6;
const UNPACKINGS: usize = 8;

pub(crate) struct Shared {
    pub node: NodeId,
    pub host: Arc<dyn Host>,
    pub clock: Arc<dyn Clock>,
    pub desired: Arc<Keeper>,
    pub board: Arc<Board>,
    pub metering: Arc<Metering>,
    pub inside: Arc<Inside>,
    pub place: watch::Sender<Arc<Option<Place>>>,
    building: Semaphore,
    unpacking: Semaphore,
    pub policy: KeepPolicy,
    pub again: Again,
    /// Wakes who looks for what nothing uses any more.
    pub tidy: Notify,
    /// Releases that are to go if nothing needs them.
    garbage: Mutex<BTreeSet<Digest>>,
    seen: Mutex<BTreeSet<PartitionName>>,
    /// Releases whose fact has changed since the dispatcher last looked.
    releases_dirty: Mutex<BTreeSet<Digest>>,
    pub releases_changed: watch::Sender<()>,
    partitions: Mutex<BTreeMap<PartitionName, Arc<NodePartition>>>,
    releases: Mutex<BTreeMap<Digest, Known>>,
    /// The release that was applied in each partition.
    applied: Mutex<BTreeMap<PartitionName, Digest>>,
}

/// What is known of a release.
#[derive(Default)]
struct Known {
    fact: Option<ReleaseFact>,
    document: Option<Arc<Release>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    #[expect(clippy::too_many_arguments, reason = "each is one part of the agent, and this is where they meet")]
    pub fn new(
        node: NodeId,
        host: Arc<dyn Host>,
        clock: Arc<dyn Clock>,
        desired: Arc<Keeper>,
        board: Arc<Board>,
        metering: Arc<Metering>,
        inside: Arc<Inside>,
        policy: KeepPolicy,
        again: Again,
    ) -> Self {
        Self {
            node,
            host,
            clock,
            desired,
            board,
            metering,
            inside,
            place: watch::Sender::new(Arc::new(None)),
            building: Semaphore::new(BUILDS),
            unpacking: Semaphore::new(UNPACKINGS),
            policy,
            again,
            tidy: Notify::new(),
            garbage: Mutex::default(),
            seen: Mutex::default(),
            releases_dirty: Mutex::default(),
            releases_changed: watch::Sender::new(()),
            partitions: Mutex::default(),
            releases: Mutex::default(),
            applied: Mutex::default(),
        }
    }

    pub fn set_partition(&self, partition: NodePartition) {
        lock(&self.partitions).insert(partition.name.clone(), Arc::new(partition));
    }

    pub fn partition(&self, name: &PartitionName) -> Option<Arc<NodePartition>> {
        lock(&self.partitions).get(name).cloned()
    }

    pub fn place(&self) -> Arc<Option<Place>> {
        self.place.borrow().clone()
    }

    pub fn current(&self) -> Desired {
        self.desired.current()
    }

    /// `None`: not observed yet.
    pub fn release_fact(&self, digest: &Digest) -> Option<ReleaseFact> {
        lock(&self.releases).get(digest)?.fact.clone()
    }

    pub fn set_release_fact(&self, digest: &Digest, fact: ReleaseFact) {
        let before = lock(&self.releases).entry(digest.clone()).or_default().fact.replace(fact.clone());
        if before.as_ref() != Some(&fact) {
            lock(&self.releases_dirty).insert(digest.clone());
            self.releases_changed.send_replace(());
        }
    }

    pub fn forget_release(&self, digest: &Digest) {
        lock(&self.releases).remove(digest);
    }

    /// The parsed document; each is parsed once and shared by all instances of it.
    pub fn document(&self, digest: &Digest) -> Option<Arc<Release>> {
        if let Some(document) = lock(&self.releases).get(digest).and_then(|known| known.document.clone()) {
            return Some(document);
        }
        let desired = self.current()?;
        let document = Arc::new(Release::from_canonical_json(desired.releases.get(digest)?).ok()?);
        lock(&self.releases).entry(digest.clone()).or_default().document = Some(document.clone());
        Some(document)
    }

    /// Whose turns an installation of the release waits for.
    pub fn turns(&self, digest: &Digest) -> &Semaphore {
        let is_only_unpacked = self.document(digest).is_some_and(|release| release.is_only_unpacked());
        if is_only_unpacked { &self.unpacking } else { &self.building }
    }

    /// Notes which release is applied in a partition; `None` when it is empty.
    pub fn note_applied(&self, partition: &PartitionName, configured: Option<&str>) {
        let next = configured.and_then(applied_release);
        let before = match next.clone() {
            Some(digest) => lock(&self.applied).insert(partition.clone(), digest),
            None => lock(&self.applied).remove(partition),
        };
        if let Some(before) = before.filter(|before| next.as_ref() != Some(before)) {
            lock(&self.releases_dirty).insert(before);
            self.releases_changed.send_replace(());
            self.tidy.notify_one();
        }
        let is_new = lock(&self.seen).insert(partition.clone());
        if is_new && self.has_seen_all_partitions() {
            self.tidy.notify_one();
        }
    }

    /// Whether it is known of each partition which release runs in it.
    pub fn has_seen_all_partitions(&self) -> bool {
        let (known, seen) = (lock(&self.partitions), lock(&self.seen));
        known.keys().all(|name| seen.contains(name)) && self.place.borrow().is_some()
    }

    /// Says anew which releases are to go, and wakes their workers.
    pub fn set_garbage(&self, releases: BTreeSet<Digest>) {
        if !releases.is_empty() {
            lock(&self.releases_dirty).extend(releases.iter().cloned());
            self.releases_changed.send_replace(());
        }
        *lock(&self.garbage) = releases;
    }

    pub fn is_garbage(&self, digest: &Digest) -> bool {
        lock(&self.garbage).contains(digest)
    }

    pub fn no_garbage(&self, digest: &Digest) {
        lock(&self.garbage).remove(digest);
    }

    /// The releases that were marked dirty since the last call.
    pub fn take_dirty(&self) -> BTreeSet<Digest> {
        std::mem::take(&mut *lock(&self.releases_dirty))
    }

    pub fn in_use(&self, digest: &Digest) -> InUse {
        // First, for what is seen is applied before.
        let all_seen = self.has_seen_all_partitions();
        let wanted = self.current().is_some_and(|d| d.instances.values().any(|instance| &instance.release == digest));
        match wanted || lock(&self.applied).values().any(|applied| applied == digest) {
            true => InUse::Yes,
            false if all_seen => InUse::No,
            false => InUse::Unknown,
        }
    }
}

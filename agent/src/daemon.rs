//! The daemon: one worker for each partition and for each release, woken by what concerns it: a change of what is
//! desired, an event of the host, the time that its last plan named. A worker that is slow or fails delays no other.

mod again;
mod garbage;
mod partition;
mod release;
mod shared;

pub(crate) use again::Again;
pub(crate) use shared::Shared;

use crate::desired::Desired;
use crate::host::Event;
use plat_agent_plan::Place;
use plat_model::id::{Digest, PartitionName};
use plat_model::instance::InstanceDesired;
use plat_model::node::{Inventory, NodeDesired, NodeFile};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tracing::{error, info, warn};

/// A worker that has met a bug starts again after this long, twice as long each time, up to 64 times.
const AFTER_BUG: Duration = Duration::from_secs(1);

/// What a worker is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Partition(PartitionName),
    Release(Digest),
}

/// Wakes each worker when something that concerns it has changed.
struct Dispatcher {
    shared: Arc<Shared>,
    partitions: BTreeMap<PartitionName, Arc<Notify>>,
    releases: BTreeMap<Digest, Arc<Notify>>,
    tasks: JoinSet<()>,
    workers: HashMap<Id, Who>,
    /// How often each worker has met a bug.
    bugs: BTreeMap<Who, u32>,
    seen: Desired,
}

/// Runs until it is dropped.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut desired = shared.desired.subscribe();
    let mut events = shared.host.events();
    let mut releases_wake = shared.releases_changed.subscribe();
    let mut all = Dispatcher {
        shared: shared.clone(),
        partitions: BTreeMap::new(),
        releases: BTreeMap::new(),
        tasks: JoinSet::new(),
        workers: HashMap::new(),
        bugs: BTreeMap::new(),
        seen: None,
    };
    all.node_file().await;
    all.releases_on_host().await;
    let now = desired.borrow_and_update().clone();
    all.desired(now);
    let garbage = garbage::run(shared.clone());
    tokio::pin!(garbage);
    loop {
        tokio::select! {
            () = &mut garbage => return,
            changed = desired.changed() => {
                if changed.is_err() { return }
                let now = desired.borrow_and_update().clone();
                all.desired(now);
            }
            Ok(()) = releases_wake.changed() => {
                let changed = all.shared.take_dirty();
                all.release_facts(&changed);
            }
            name = shared.inside.spoken() => all.wake(&name),
            event = events.recv() => match event {
                Some(Event::Partition(name)) => all.wake(&name),
                Some(Event::Release(digest)) => all.wake_release(&digest),
                Some(Event::NodeFile) => all.node_file().await,
                Some(Event::NoRoom) => all.shared.tidy.notify_one(),
                None => return,
            },
            Some(ended) = all.tasks.join_next_with_id() => all.ended(ended),
        }
    }
}

impl Dispatcher {
    fn wake(&self, name: &PartitionName) {
        if let Some(wake) = self.partitions.get(name) {
            wake.notify_one();
        }
    }

    fn wake_release(&self, digest: &Digest) {
        if let Some(wake) = self.releases.get(digest) {
            wake.notify_one();
        }
    }

    /// Reads node.json; its partitions get workers. One that is no longer in it keeps its worker until the next start:
    /// what is in it must not become invisible.
    async fn node_file(&mut self) {
        let file: NodeFile = match self.shared.host.node().await {
            Ok(file) => file,
            Err(problem) => {
                warn!(problem = problem.one_line(), "node.json cannot be used");
                return;
            }
        };
        let (enforced, runtime) = (self.shared.host.enforces(), self.shared.host.runtime_name());
        self.shared.board.inventory(Inventory { enforced, runtime, does_once: true, ..file.inventory() });
        let place = Place::new(self.shared.node.clone(), &file);
        for partition in &file.partitions {
            let before = self.shared.partition(&partition.name);
            self.shared.set_partition(partition.clone());
            if let Some(wake) = self.partitions.get(&partition.name) {
                if before.is_none_or(|before| *before != *partition) {
                    wake.notify_one();
                }
                continue;
            }
            let wake = Arc::new(Notify::new());
            self.partitions.insert(partition.name.clone(), wake.clone());
            self.work(Who::Partition(partition.name.clone()), wake, Duration::ZERO);
        }
        if self.shared.place.send_replace(Arc::new(Some(place.clone()))).as_ref() != &Some(place) {
            self.partitions.values().for_each(|wake| wake.notify_one());
        }
    }

    async fn releases_on_host(&mut self) {
        match self.shared.host.observe_releases().await {
            Ok(digests) => digests.iter().for_each(|digest| self.follow_release(digest)),
            Err(problem) => warn!(problem = problem.one_line(), "the releases on this host cannot be listed"),
        }
    }

    fn follow_release(&mut self, digest: &Digest) {
        if !self.releases.contains_key(digest) {
            let wake = Arc::new(Notify::new());
            self.releases.insert(digest.clone(), wake.clone());
            self.work(Who::Release(digest.clone()), wake, Duration::ZERO);
        }
    }

    fn work(&mut self, who: Who, wake: Arc<Notify>, after: Duration) {
        let (shared, worker) = (self.shared.clone(), who.clone());
        let task = self.tasks.spawn(async move {
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
            match worker {
                Who::Partition(name) => partition::run(shared, name, wake).await,
                // Of each partition's worker no more is to be kept than it needs itself.
                Who::Release(digest) => Box::pin(release::run(shared, digest, wake)).await,
            }
        });
        self.workers.insert(task.id(), who);
    }

    /// A release's worker ends when its work is done; any other end is a bug, and what the worker looked after must not
    /// stay alone.
    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        let Some(who) = self.workers.remove(&id) else { return };
        if let (Who::Release(digest), Ok(_)) = (&who, &ended) {
            self.releases.remove(digest);
            // It may have been desired again just when its worker had seen that it was not.
            if self.seen.as_ref().is_some_and(|seen| seen.releases.contains_key(digest)) {
                self.follow_release(digest);
            }
            return;
        }
        let bugs = self.bugs.entry(who.clone()).or_default();
        let pause = AFTER_BUG * (1 << (*bugs).min(6));
        *bugs += 1;
        let why = ended.err().map(|why| why.to_string()).unwrap_or_default();
        error!(?who, why, pause_seconds = pause.as_secs(), "a worker ended by a bug of the agent and is started again");
        let wake = match &who {
            Who::Partition(name) => self.partitions.get(name),
            Who::Release(digest) => self.releases.get(digest),
        };
        if let Some(wake) = wake.cloned() {
            self.work(who, wake, pause);
        }
    }

    /// Wakes exactly the workers for which something is different now.
    fn desired(&mut self, next: Desired) {
        let before = std::mem::replace(&mut self.seen, next.clone());
        let empty = NodeDesired::default();
        let (old, new) = (before.as_deref().unwrap_or(&empty), next.as_deref().unwrap_or(&empty));
        if let Some(next) = &next {
            info!(generation = %next.generation, instances = next.instances.len(), "desired state");
        }
        let (was, is) = (by_partition(old), by_partition(new));
        for name in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
            if was.get(name) != is.get(name) {
                self.wake(name);
            }
        }
        let digests: BTreeSet<&Digest> = old.releases.keys().chain(new.releases.keys()).collect();
        for digest in digests {
            if new.releases.contains_key(digest) {
                self.follow_release(digest);
            }
            let again = old.rebuilds.get(digest) != new.rebuilds.get(digest);
            if again || old.releases.contains_key(digest) != new.releases.contains_key(digest) {
                self.wake_release(digest);
            }
        }
        if was != is || old.releases.keys().ne(new.releases.keys()) {
            self.shared.tidy.notify_one();
        }
        // What instances use may have changed with the instances alone.
        let unlisted = self.releases.iter().filter(|(digest, _)| !new.releases.contains_key(*digest));
        unlisted.for_each(|(_, wake)| wake.notify_one());
    }

    fn release_facts(&mut self, changed: &BTreeSet<Digest>) {
        let unlisted = |digest: &&Digest| self.seen.as_ref().is_some_and(|seen| !seen.releases.contains_key(*digest));
        changed.iter().filter(unlisted).for_each(|digest| self.wake_release(digest));
        let Some(desired) = self.seen.clone() else { return };
        for instance in desired.instances.values().filter(|instance| changed.contains(&instance.release)) {
            self.wake(&instance.partition);
        }
    }
}

fn by_partition(desired: &NodeDesired) -> BTreeMap<&PartitionName, Vec<&InstanceDesired>> {
    let mut map: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for instance in desired.instances.values() {
        map.entry(&instance.partition).or_default().push(instance);
    }
    map
}

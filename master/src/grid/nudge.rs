//! Telling whoever waits that something changed. One task follows the store's durable revision and compares the state
//! with the one before; the two share all that did not change, so the work grows with what changed, and only those
//! who asked for one of the changed things are woken.

use crate::store::{Snapshot, Store};
use imbl::ordmap::DiffItem;
use plat_master_plan::State;
use plat_model::id::{InstanceId, NodeId, ProjectName, UserName};
use plat_model::instance::Instance;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Something that can be waited for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// What a node is to hold.
    Desired(NodeId),
    /// A node's row: whether it is revoked, its certificates.
    Node(NodeId),
    /// A user's row.
    User(UserName),
    /// Anything that a view of this instance shows.
    Instance(InstanceId),
    /// Any instance of this project.
    Project(ProjectName),
    /// Anything that an operator's views show: instances, nodes, releases, supplies, installations.
    Everything,
}

type Board = Arc<Mutex<BTreeMap<Topic, watch::Sender<u64>>>>;

/// Who waits for what.
pub(super) struct Nudges {
    board: Board,
    last: Mutex<Snapshot>,
}

/// One who waits.
pub(super) struct Subscription {
    topic: Topic,
    receiver: Option<watch::Receiver<u64>>,
    board: Board,
}

impl Subscription {
    /// Returns once the thing has changed after the last return (or after the subscription).
    pub(super) async fn changed(&mut self) {
        if let Some(receiver) = &mut self.receiver
            && receiver.changed().await.is_ok()
        {
            return;
        }
        // Not reached: the sender lives as long as this subscription does.
        std::future::pending().await
    }

    /// The revision of the last change that was told; 0 before the first.
    pub(super) fn revision(&mut self) -> u64 {
        self.receiver.as_mut().map_or(0, |receiver| *receiver.borrow_and_update())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.receiver = None;
        let mut board = lock(&self.board);
        if board.get(&self.topic).is_some_and(|sender| sender.receiver_count() == 0) {
            board.remove(&self.topic);
        }
    }
}

impl Nudges {
    pub(super) fn new(last: Snapshot) -> Self {
        Self { board: Board::default(), last: Mutex::new(last) }
    }

    pub(super) fn subscribe(&self, topic: Topic) -> Subscription {
        let mut board = lock(&self.board);
        let receiver = board.entry(topic.clone()).or_insert_with(|| watch::Sender::new(0)).subscribe();
        Subscription { topic, receiver: Some(receiver), board: self.board.clone() }
    }

    /// Follows the store, and which nodes are here.
    pub(super) async fn run(&self, store: &dyn Store, mut online: watch::Receiver<Arc<BTreeSet<NodeId>>>) {
        let mut durable = store.watch();
        let mut before = online.borrow_and_update().clone();
        loop {
            let snapshot = store.snapshot();
            if store.settled(snapshot.revision).await.is_err() {
                return;
            }
            let now = online.borrow_and_update().clone();
            self.tell(snapshot, before.symmetric_difference(&now).cloned().collect());
            before = now;
            let changed = tokio::select! {
                changed = durable.changed() => changed,
                changed = online.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    /// `moved` are the nodes that came or went.
    fn tell(&self, new: Snapshot, moved: BTreeSet<NodeId>) {
        let old = std::mem::replace(&mut *lock(&self.last), new.clone());
        if old.revision == new.revision && moved.is_empty() {
            return;
        }
        let board = lock(&self.board);
        if board.is_empty() {
            return;
        }
        if let Some(sender) = board.get(&Topic::Everything) {
            sender.send_replace(new.revision);
        }
        for topic in changed(&old.state, &new.state, moved, &board) {
            if let Some(sender) = board.get(&topic) {
                sender.send_replace(new.revision);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is under these locks is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The topics that two states differ in.
fn changed(
    old: &State,
    new: &State,
    mut moved: BTreeSet<NodeId>,
    asked: &BTreeMap<Topic, watch::Sender<u64>>,
) -> BTreeSet<Topic> {
    let mut topics = BTreeSet::new();
    for item in old.desired_revision.diff(&new.desired_revision) {
        topics.insert(Topic::Desired(key(item).clone()));
    }
    for item in old.nodes.diff(&new.nodes) {
        let node = key(item);
        topics.insert(Topic::Node(node.clone()));
        moved.insert(node.clone());
    }
    for item in old.users.diff(&new.users) {
        topics.insert(Topic::User(key(item).clone()));
    }
    let mut instances = BTreeSet::new();
    for item in old.instances.diff(&new.instances) {
        instances.insert(key(item).clone());
    }
    for item in old.statuses.diff(&new.statuses) {
        instances.insert(key(item).clone());
    }
    for item in old.installations.diff(&new.installations) {
        let (node, digest) = key(item);
        // Only an instance that somebody looks at is worth the search.
        if asked.keys().any(|topic| matches!(topic, Topic::Instance(_))) {
            let on = new.instances_on(node).filter(|instance| &instance.release == digest);
            instances.extend(on.map(|instance| instance.id.clone()));
        }
    }
    instances.extend(waiting_on(old, new, &moved, asked));
    for id in instances {
        if let Some(instance) = new.instances.get(&id).or_else(|| old.instances.get(&id)) {
            topics.insert(Topic::Project(instance.project.clone()));
        }
        topics.insert(Topic::Instance(id));
    }
    topics
}

/// Those of the instances that somebody looks at that may wait on something else now, though nothing of their own has
/// changed: what has no place waits on all nodes, seats and supplies, the others on their node.
fn waiting_on<'a>(
    old: &State,
    new: &'a State,
    moved: &'a BTreeSet<NodeId>,
    asked: &'a BTreeMap<Topic, watch::Sender<u64>>,
) -> impl Iterator<Item = InstanceId> + use<'a> {
    let room = !moved.is_empty() || !old.seats.ptr_eq(&new.seats) || !old.supplies.ptr_eq(&new.supplies);
    let looked_at = asked.keys().filter(move |_| room).filter_map(|topic| match topic {
        Topic::Instance(id) => new.instances.get(id).map(|instance| &**instance),
        _ => None,
    });
    let may_wait = |instance: &&Instance| instance.placement.as_ref().is_none_or(|place| moved.contains(&place.node));
    looked_at.filter(may_wait).map(|instance| instance.id.clone())
}

fn key<'a, K, V>(item: DiffItem<'a, 'a, K, V>) -> &'a K {
    match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) => key,
        DiffItem::Update { new: (key, _), .. } => key,
    }
}

//! Which nodes are here now, and when each was last seen. In memory only: being seen changes nothing that must last.

use plat_model::id::NodeId;
use plat_model::{Generation, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

#[derive(Clone)]
pub(super) struct Presence(Arc<Inner>);

struct Inner {
    seen: Mutex<BTreeMap<NodeId, Seen>>,
    online: watch::Sender<Arc<BTreeSet<NodeId>>>,
}

#[derive(Default)]
struct Seen {
    streams: u32,
    last: Timestamp,
    reported: Generation,
}

impl Default for Presence {
    fn default() -> Self {
        Self(Arc::new(Inner { seen: Mutex::default(), online: watch::Sender::new(Arc::default()) }))
    }
}

/// A node has a stream open as long as this lives.
pub(super) struct Here {
    node: NodeId,
    presence: Presence,
}

impl Presence {
    /// Notes that a node called.
    pub(super) fn seen(&self, node: &NodeId, now: Timestamp) {
        let mut seen = self.lock();
        match seen.get_mut(node) {
            Some(entry) => entry.last = entry.last.max(now),
            None => drop(seen.insert(node.clone(), Seen { last: now, ..Seen::default() })),
        }
    }

    /// Notes that a node reported, and which generation it said that it has accepted.
    pub(super) fn synced(&self, node: &NodeId, now: Timestamp, accepted: Generation) {
        self.seen(node, now);
        if let Some(entry) = self.lock().get_mut(node) {
            entry.reported = accepted;
        }
    }

    /// The generation that a node last said it has accepted; zero if not since this master started.
    pub(super) fn reported(&self, node: &NodeId) -> Generation {
        self.lock().get(node).map_or(Generation::ZERO, |seen| seen.reported)
    }

    /// Notes that a node has opened a stream.
    pub(super) fn enter(&self, node: &NodeId, now: Timestamp) -> Here {
        let mut seen = self.lock();
        let entry = seen.entry(node.clone()).or_default();
        entry.streams += 1;
        entry.last = entry.last.max(now);
        if entry.streams == 1 {
            self.0.online.send_modify(|online| {
                Arc::make_mut(online).insert(node.clone());
            });
        }
        Here { node: node.clone(), presence: self.clone() }
    }

    /// The nodes that have a stream open.
    pub(super) fn online(&self) -> Arc<BTreeSet<NodeId>> {
        self.0.online.borrow().clone()
    }

    /// The same, with a wake-up each time that it changes.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<BTreeSet<NodeId>>> {
        self.0.online.subscribe()
    }

    /// When a node was last heard; `None` if not since this master started.
    pub(super) fn last_seen(&self, node: &NodeId) -> Option<Timestamp> {
        self.lock().get(node).map(|seen| seen.last)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Seen>> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let mut seen = self.presence.lock();
        let Some(entry) = seen.get_mut(&self.node) else { return };
        entry.streams = entry.streams.saturating_sub(1);
        if entry.streams == 0 {
            self.presence.0.online.send_modify(|online| {
                Arc::make_mut(online).remove(&self.node);
            });
        }
    }
}

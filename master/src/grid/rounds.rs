//! The verbs of the rounds: what the master decides without being asked.

use super::Grid;
use crate::store::CommitError;
use imbl::OrdMap;
use plat_master_plan::record::{AuditEntry, Record};
use plat_master_plan::{Change, Expected, State, allocate, expire, request, statement};
use plat_model::Problem;
use plat_model::id::{InstanceId, NodeId};
use plat_model::principal::Principal;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// What a round of placement came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// There was something to look at.
    pub tried: bool,
    /// More can be placed at once.
    pub again: bool,
}

/// What the last fruitless round looked at: while none of it changes, the next would come to the same.
#[derive(Default)]
pub(super) struct LastLook(Mutex<Option<Looked>>);

type Looked = (Arc<State>, Arc<BTreeSet<NodeId>>);

/// Wakes a round.
pub struct Wake {
    durable: watch::Receiver<u64>,
    online: watch::Receiver<Arc<BTreeSet<NodeId>>>,
}

impl Wake {
    /// Returns once there may be something to do; false when there never will be.
    pub async fn changed(&mut self) -> bool {
        tokio::select! {
            changed = self.durable.changed() => changed.is_ok(),
            changed = self.online.changed() => changed.is_ok(),
        }
    }
}

impl Grid {
    /// Wakes with every durable commit, and with every node that comes or goes.
    pub fn wake(&self) -> Wake {
        Wake { durable: self.store.watch(), online: self.presence.watch() }
    }

    /// Places what waits, as far as it fits.
    ///
    /// # Errors
    /// The store's.
    pub async fn place(&self) -> Result<Placed, Problem> {
        let snapshot = self.store.snapshot();
        let online = self.presence.online();
        if snapshot.state.unplaced.is_empty() || online.is_empty() || self.looked_at(&snapshot.state, &online) {
            return Ok(Placed { tried: false, again: false });
        }
        let now = self.now();
        let round = allocate::allocate(&snapshot.state, &online, now);
        if round.changes.is_empty() {
            self.keep(snapshot.state, online);
            return Ok(Placed { tried: true, again: false });
        }
        let mut changes = round.changes;
        let placed: Vec<InstanceId> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Put(record) => match &**record {
                    Record::Instance(instance) => Some(instance.id.clone()),
                    _ => None,
                },
                Change::Delete(_) => None,
            })
            .collect();
        changes.push(self.own_act("Place", format!("{} instances", placed.len())));
        match self.store.commit(Expected { at: snapshot.revision, read: round.read }, changes).await {
            Ok(_) => {
                tracing::debug!(placed = placed.len(), "instances placed");
                Ok(Placed { tried: true, again: true })
            }
            Err(CommitError::Conflict(_)) => Ok(Placed { tried: true, again: true }),
            Err(CommitError::Failed(problem)) => Err(problem),
        }
    }

    /// Removes old tokens and closes periods that are over.
    ///
    /// # Errors
    /// The store's.
    pub async fn expire(&self) -> Result<(), Problem> {
        loop {
            let snapshot = self.store.snapshot();
            let now = self.now();
            let mut decision = expire::expire(&snapshot.state, now);
            let (mut what, mut count) = ("old tokens", decision.answer);
            if decision.changes.is_empty()
                && let Some((project, period)) = statement::due(&snapshot.state, now).into_iter().next()
            {
                let closed = statement::close(&snapshot.state, &project, period, now)?;
                decision.changes = closed.changes;
                decision.read = closed.read;
                (what, count) = ("statement", decision.changes.len());
            }
            if decision.changes.is_empty() {
                return Ok(());
            }
            decision.changes.push(self.own_act("Expire", format!("{count} {what}")));
            match self.store.commit(decision.expected(snapshot.revision), decision.changes).await {
                Ok(_) | Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Failed(problem)) => return Err(problem),
            }
        }
    }

    /// How long until the next instance is to be destroyed of those that are kept before; `None` if there is none.
    pub fn until_leaving(&self) -> Option<Duration> {
        request::next_leaving(&self.store.snapshot().state).map(|at| at.since(self.now()))
    }

    /// Destroys the instances whose time is over.
    ///
    /// # Errors
    /// The store's.
    pub async fn destroy_overdue(&self) -> Result<(), Problem> {
        loop {
            let snapshot = self.store.snapshot();
            let Some(decision) = request::overdue(&snapshot.state, self.now()) else { return Ok(()) };
            let Some(instance) = snapshot.state.instances.get(&decision.answer) else { return Ok(()) };
            let subject = format!("instance/{}/{}", instance.project, instance.name);
            let expected = decision.expected(snapshot.revision);
            let mut changes = decision.changes;
            changes.push(self.own_act("Destroy", subject));
            match self.store.commit(expected, changes).await {
                Ok(_) | Err(CommitError::Conflict(_)) => {}
                Err(CommitError::Failed(problem)) => return Err(problem),
            }
        }
    }

    fn own_act(&self, verb: &str, subject: String) -> Change {
        Change::put(Record::Audit(AuditEntry {
            number: 0,
            at: self.now(),
            who: Principal::Master.to_string(),
            from: "master".into(),
            verb: verb.into(),
            subject,
            outcome: "ok".into(),
        }))
    }

    fn keep(&self, state: Arc<State>, online: Arc<BTreeSet<NodeId>>) {
        *self.last_look.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((state, online));
    }

    fn looked_at(&self, state: &State, online: &Arc<BTreeSet<NodeId>>) -> bool {
        fn same<K, V>(a: &OrdMap<K, V>, b: &OrdMap<K, V>) -> bool {
            a.ptr_eq(b)
        }
        let last = self.last_look.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().is_some_and(|(before, before_online)| {
            Arc::ptr_eq(before_online, online)
                && before.unplaced.ptr_eq(&state.unplaced)
                && same(&before.nodes, &state.nodes)
                && same(&before.supplies, &state.supplies)
                && same(&before.seats, &state.seats)
                && same(&before.instances, &state.instances)
        })
    }
}

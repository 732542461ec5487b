//! Grid: the façade over everything the master does. Each verb authorizes the caller, takes a snapshot, lets the plan
//! decide, commits, and answers only with what survives power loss. Services, and later the console, see nothing below.

mod access;
mod admin;
mod audit;
mod enrol;
mod limit;
mod node;
mod nudge;
mod presence;
mod relay;
mod release;
mod request;
mod rounds;
pub mod show;
mod stream;
mod tree;
mod usage;

pub use access::Caller;
pub use admin::{CreatedToken, TokenAsk};
pub use enrol::{Admitted, Renewed, Signed};
pub use limit::{Bucket, Place, block};
pub use node::Synced;
pub use nudge::Topic;
pub use relay::{CHUNK_LINES_MAX, Chunk, LogAsk, LogOf, LogText, LogsWanted};
pub use request::{Ask as RequestAsk, Key as InstanceKey, Outcome};
pub use rounds::{Placed, Wake};
pub use stream::Stream;
pub use usage::{Query, UsageSum};

use crate::clock::Clock;
use crate::pki::ca::Ca;
use crate::store::{CommitError, Snapshot, Store};
use audit::plain as audit;
use nudge::Nudges;
use plat_master_plan::access::Subject;
use plat_master_plan::decision::Decision;
use plat_master_plan::record::Record;
use plat_master_plan::{Change, State, access as table};
use plat_model::id::{GridName, InstanceId, NodeId};
use plat_model::problem::codes;
use plat_model::{Problem, Problems, Timestamp};
use presence::Presence;
use relay::Relay;
use std::sync::Arc;
use tokio::sync::watch;

/// How often a decision is made again because somebody else was faster. Conflicts need two writers of one record, so
/// this many in a row mean that the record is written without end.
const TRIES: usize = 32;

/// Changes a second, and at once, of one node's own shape: partitions come and go when somebody formats the node. As many of what
/// is wrong with it as a whole: each writes all that is known of the node.
const RESHAPED: (f64, f64) = (0.1, 20.0);

/// Questions a second, and at once, of one instance for its tree. Scripts that wait for a child ask about once a second.
const ASKING: (f64, f64) = (5.0, 50.0);

/// Renewals a second, and at once, of one node: each is kept for good and audited. One that is well renews twice a day; one whose
/// clock is wrong may take each new certificate for an old one.
const RENEWING: (f64, f64) = (1.0 / 60.0, 20.0);

/// The grid. Share it as `Arc<Grid>`.
pub struct Grid {
    name: GridName,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    ca: Arc<Ca>,
    nudges: Nudges,
    presence: Presence,
    relay: Relay,
    places: limit::Places,
    scans: limit::Places,
    /// How often each node's own shape has changed: each time is an audit entry.
    reshaped: Bucket<NodeId>,
    /// How often what is wrong with each node has.
    troubled: Bucket<NodeId>,
    /// How often each instance has asked for something.
    asking: Bucket<InstanceId>,
    /// How often each node has asked for a new certificate.
    renewing: Bucket<NodeId>,
    last_look: rounds::LastLook,
    closing: watch::Sender<bool>,
}

impl Grid {
    /// A grid over a store that `init` has prepared.
    ///
    /// # Errors
    /// [`codes::STORE_FAILED`] if the store holds no grid.
    pub fn open(store: Arc<dyn Store>, clock: Arc<dyn Clock>, ca: Arc<Ca>) -> Result<Arc<Self>, Problem> {
        let snapshot = store.snapshot();
        let Some(row) = &snapshot.state.grid else {
            return Err(Problem::new(codes::STORE_FAILED, "the store holds no grid")
                .because("it is empty")
                .fix("make the grid with `plat-master init`, or point `data` in master.toml at the right folder"));
        };
        Ok(Arc::new(Self {
            name: row.name.clone(),
            nudges: Nudges::new(snapshot),
            store,
            clock,
            ca,
            presence: Presence::default(),
            relay: Relay::default(),
            places: limit::Places::new("open streams", limit::STREAMS_MAX),
            scans: limit::Places::new("questions about use at a time", limit::SCANS_MAX),
            reshaped: Bucket::new(RESHAPED.0, RESHAPED.1),
            troubled: Bucket::new(RESHAPED.0, RESHAPED.1),
            asking: Bucket::new(ASKING.0, ASKING.1),
            renewing: Bucket::new(RENEWING.0, RENEWING.1),
            last_look: rounds::LastLook::default(),
            closing: watch::Sender::new(false),
        }))
    }

    /// The grid's name.
    pub fn name(&self) -> &GridName {
        &self.name
    }

    /// What time it is here.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The authority that signs this grid's certificates.
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// Ends every open stream: the master is shutting down.
    pub fn close(&self) {
        self.closing.send_replace(true);
    }

    /// Tells whoever watches of each change, once it is durable. Runs until the store is dropped.
    pub async fn run_nudges(&self) {
        self.nudges.run(&*self.store, self.presence.watch()).await;
    }

    /// Changes something: authorizes, decides on a snapshot, commits with its audit entry, and decides again if a
    /// record that the decision relied on was changed meanwhile.
    ///
    /// # Errors
    /// Those of `decide`, [`codes::DENIED`] and [`codes::REVOKED`], [`codes::CONFLICT`] if others are always faster,
    /// and the store's.
    async fn change<T>(
        &self,
        caller: &Caller,
        subject: &Subject,
        mut decide: impl FnMut(&State, Timestamp) -> Result<Decision<T>, Problems> + Send,
    ) -> Result<T, Problems> {
        for _ in 0..TRIES {
            let snapshot = self.store.snapshot();
            let now = self.clock.now();
            table::authorize(&snapshot.state, &caller.principal, caller.rpc, subject)?;
            let decision = match decide(&snapshot.state, now) {
                Ok(decision) => decision,
                Err(problems) => {
                    self.store.settled(snapshot.revision).await?;
                    return Err(problems);
                }
            };
            if decision.changes.is_empty() {
                self.store.settled(snapshot.revision).await?;
                return Ok(decision.answer);
            }
            let expected = decision.expected(snapshot.revision);
            let mut changes = decision.changes;
            let entry = audit::entry(&snapshot.state, caller, subject, &changes, now);
            changes.push(Change::put(Record::Audit(entry)));
            // What nobody looks at any more is changed where it is, not copied.
            drop(snapshot);
            match self.store.commit(expected, changes).await {
                Ok(_) => return Ok(decision.answer),
                Err(CommitError::Conflict(key)) => tracing::debug!(?key, rpc = caller.rpc, "decided again"),
                Err(CommitError::Failed(problem)) => return Err(problem.into()),
            }
        }
        Err(Problem::new(codes::CONFLICT, format!("cannot {}", audit::verb(caller.rpc)))
            .because(format!("what it is about was changed {TRIES} times while it was being decided"))
            .fix("try again")
            .into())
    }

    /// Reads something: authorizes, looks at a snapshot, and answers once all that is in it is durable.
    ///
    /// # Errors
    /// Those of `look`, [`codes::DENIED`] and [`codes::REVOKED`], and the store's.
    async fn look<T>(
        &self,
        caller: &Caller,
        subject: &Subject,
        look: impl FnOnce(&State) -> Result<T, Problem> + Send,
    ) -> Result<T, Problem> {
        let Snapshot { revision, state } = self.store.snapshot();
        table::authorize(&state, &caller.principal, caller.rpc, subject)?;
        let seen = look(&state);
        self.store.settled(revision).await?;
        seen
    }
}

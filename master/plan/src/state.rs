//! State: everything the master knows, as one value with indexes. Its maps share structure, so that a clone costs
//! nothing and a decision works on a snapshot that no writer disturbs.

use crate::change::Change;
use crate::record::{ClosedStatement, Grid, Key, Load, RateCard, Record, Seat, Sum, Supply, Tail, Token, User};
use imbl::{OrdMap, OrdSet};
use plat_model::id::{
    Digest, InstanceId, InstanceName, NodeId, PartitionName, PartitionRef, ProjectName, ReleaseName, TokenId, UserName,
};
use plat_model::instance::{Instance, InstanceStatus};
use plat_model::node::Node;
use plat_model::release::{Installation, Release, SupplyState};
use plat_model::resources::Resources;
use plat_model::time::{Period, Timestamp};
use std::sync::Arc;

mod index;
mod read;
mod taken;

pub use taken::Taken;

/// Everything the master knows.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct State {
    pub grid: Option<Grid>,
    pub tokens: OrdMap<TokenId, Token>,
    pub users: OrdMap<UserName, User>,
    pub nodes: OrdMap<NodeId, Node>,
    pub releases: OrdMap<Digest, Release>,
    /// Index: the releases' documents, read; one that this version cannot read is missing.
    pub documents: OrdMap<Digest, Arc<plat_document::Release>>,
    pub supplies: OrdMap<(Digest, Option<NodeId>), Supply>,
    pub installations: OrdMap<(NodeId, Digest), Installation>,
    /// Counted: an insertion copies the entries beside it, of every version that somebody still looks at.
    pub instances: OrdMap<InstanceId, Arc<Instance>>,
    pub statuses: OrdMap<InstanceId, InstanceStatus>,
    pub seats: OrdMap<PartitionRef, Seat>,
    pub loads: OrdMap<NodeId, Load>,
    pub tails: OrdMap<NodeId, Tail>,
    pub rate_cards: OrdMap<Timestamp, RateCard>,
    pub sums: OrdMap<(ProjectName, Period), OrdMap<InstanceId, Sum>>,
    pub statements: OrdMap<(ProjectName, Period), ClosedStatement>,
    /// Index: the instance of a project by its name. A destroyed instance leaves it when its row is deleted.
    pub by_name: OrdMap<(ProjectName, InstanceName), InstanceId>,
    /// Index: the newest release of a name.
    pub newest: OrdMap<ReleaseName, Digest>,
    /// Index: what each instance asked for, by the names that it gave.
    pub children: OrdMap<InstanceId, OrdMap<InstanceName, InstanceId>>,
    /// Index: the shared instances in each.
    pub riders: OrdMap<InstanceId, OrdSet<InstanceId>>,
    /// Index: how many instances there are of a release.
    pub uses: OrdMap<Digest, u32>,
    /// Index: the supplies of one node, or with `None` those to all nodes.
    pub supplied: OrdMap<Option<NodeId>, OrdMap<Digest, SupplyState>>,
    /// Index: instances that no partition holds yet, and that are to have one.
    pub unplaced: OrdSet<InstanceId>,
    /// Index: the instances that are kept before they are destroyed, by when that is.
    pub leaving: OrdSet<(Timestamp, InstanceId)>,
    /// Index: the instances placed on a node, until nothing of them is left there.
    pub placed: OrdMap<NodeId, OrdSet<InstanceId>>,
    /// Index: what the instances placed on a node ask for, together.
    pub taken: OrdMap<NodeId, Taken>,
    /// Index: the partitions that a node offers, with their limits.
    pub offers: OrdMap<NodeId, OrdMap<PartitionName, Resources>>,
    /// Index: of those, the ones that nobody holds.
    pub free: OrdMap<NodeId, OrdMap<PartitionName, Resources>>,
    /// Index: the projects and periods in which there are sums of an instance.
    pub summed: OrdMap<InstanceId, OrdSet<(Period, ProjectName)>>,
    /// Index: for each node, the revision of the newest change of anything that it is to hold.
    pub desired_revision: OrdMap<NodeId, u64>,
}

impl State {
    /// Applies one change as part of the commit that made `revision`. Total and idempotent: applying a change twice is
    /// applying it once. The indexes do not depend on the order in which records come, so a store may load them in any.
    pub fn apply(&mut self, change: &Change, revision: u64) {
        match change {
            Change::Put(record) => self.put(record, revision),
            Change::Delete(key) => self.delete(key, revision),
        }
    }

    /// Says of every node that all it is to hold may have changed at `revision`: what a store does after loading, since
    /// it does not know when each change was made.
    pub fn touch_all(&mut self, revision: u64) {
        let nodes: Vec<NodeId> = self.nodes.keys().cloned().collect();
        for node in nodes {
            self.desired_revision.insert(node, revision);
        }
    }

    fn put(&mut self, record: &Record, revision: u64) {
        match record {
            Record::Grid(grid) => self.grid = Some(grid.clone()),
            Record::Token(token) => drop(self.tokens.insert(token.id.clone(), token.clone())),
            Record::User(user) => drop(self.users.insert(user.name.clone(), user.clone())),
            Record::Node(node) => self.put_node(node, revision),
            Record::Release(release) => self.put_release(release, revision),
            Record::Supply(supply) => self.put_supply(supply, revision),
            Record::Installation { node, installation } => {
                self.installations.insert((node.clone(), installation.digest.clone()), installation.clone());
            }
            Record::Instance(instance) => self.put_instance(instance, revision),
            Record::Status(status) => drop(self.statuses.insert(status.id.clone(), status.clone())),
            Record::Seat(seat) => {
                self.seats.insert(seat.partition.clone(), seat.clone());
                self.index_seat(&seat.partition);
            }
            Record::Load(load) => drop(self.loads.insert(load.node.clone(), load.clone())),
            Record::Tail(tail) => drop(self.tails.insert(tail.node.clone(), tail.clone())),
            Record::RateCard(card) => drop(self.rate_cards.insert(card.from, card.clone())),
            Record::Sum(sum) => self.put_sum(sum),
            Record::Statement(statement) => {
                self.statements.insert((statement.project.clone(), statement.period), statement.clone());
            }
            Record::Name(_) | Record::Ledger(_) | Record::Audit(_) => {}
        }
    }

    fn delete(&mut self, key: &Key, revision: u64) {
        match key {
            Key::Grid => self.grid = None,
            Key::Token(id) => drop(self.tokens.remove(id)),
            Key::User(name) => drop(self.users.remove(name)),
            Key::Node(id) => self.delete_node(id),
            Key::Release(digest) => self.delete_release(digest, revision),
            Key::Supply(digest, node) => self.delete_supply(digest, node.as_ref(), revision),
            Key::Installation(node, digest) => drop(self.installations.remove(&(node.clone(), digest.clone()))),
            Key::Instance(id) => self.delete_instance(id, revision),
            Key::Status(id) => drop(self.statuses.remove(id)),
            Key::Seat(partition) => {
                self.seats.remove(partition);
                self.index_seat(partition);
            }
            Key::Load(node) => drop(self.loads.remove(node)),
            Key::Tail(node) => drop(self.tails.remove(node)),
            Key::RateCard(from) => drop(self.rate_cards.remove(from)),
            Key::Statement(project, period) => drop(self.statements.remove(&(project.clone(), *period))),
            Key::Sum(project, period, instance) => self.delete_sum(project, *period, instance),
            Key::Name(..) | Key::Ledger(..) | Key::Audit(_) => {}
        }
    }
}

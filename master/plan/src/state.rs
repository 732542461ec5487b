//! State: everything the master knows, as one value with indexes. Its maps share structure, so that a clone costs
//! nothing and a decision works on a snapshot that no writer disturbs.

use crate::change::Change;
use crate::record::{Grid, Key, RateCard, Record, Seat, Supply, Tail, Token, User};
use imbl::{OrdMap, OrdSet};
use plat_model::id::{
    Digest, InstanceId, InstanceName, NodeId, PartitionRef, ProjectName, ReleaseName, TokenId, UserName,
};
use plat_model::instance::{Instance, InstanceStatus};
use plat_model::node::Node;
use plat_model::release::{Installation, Release};
use plat_model::time::Timestamp;

/// Everything the master knows.
#[derive(Debug, Clone, Default)]
pub struct State {
    pub grid: Option<Grid>,
    pub tokens: OrdMap<TokenId, Token>,
    pub users: OrdMap<UserName, User>,
    pub nodes: OrdMap<NodeId, Node>,
    pub releases: OrdMap<Digest, Release>,
    pub supplies: OrdMap<(Digest, Option<NodeId>), Supply>,
    pub installations: OrdMap<(NodeId, Digest), Installation>,
    pub instances: OrdMap<InstanceId, Instance>,
    pub statuses: OrdMap<InstanceId, InstanceStatus>,
    pub seats: OrdMap<PartitionRef, Seat>,
    pub tails: OrdMap<NodeId, Tail>,
    pub rate_cards: OrdMap<Timestamp, RateCard>,
    /// Index: the instance of a project by its name. A destroyed instance leaves it when its row is deleted.
    pub by_name: OrdMap<(ProjectName, InstanceName), InstanceId>,
    /// Index: the newest release of a name.
    pub newest: OrdMap<ReleaseName, Digest>,
    /// Index: instances that no partition holds yet.
    pub unplaced: OrdSet<InstanceId>,
    /// Index: the instances placed on a node.
    pub placed: OrdMap<NodeId, OrdSet<InstanceId>>,
    /// Index: for each node, the revision of the newest change of anything that it is to hold.
    pub desired_revision: OrdMap<NodeId, u64>,
}

impl State {
    /// Applies one change as part of the commit that made `revision`. Total and idempotent: applying a change twice is
    /// applying it once.
    pub fn apply(&mut self, change: &Change, revision: u64) {
        match change {
            Change::Put(record) => self.put(record, revision),
            Change::Delete(key) => self.delete(key, revision),
        }
    }

    fn put(&mut self, record: &Record, revision: u64) {
        match record {
            Record::Grid(grid) => self.grid = Some(grid.clone()),
            Record::Token(token) => drop(self.tokens.insert(token.id.clone(), token.clone())),
            Record::User(user) => drop(self.users.insert(user.name.clone(), user.clone())),
            Record::Node(node) => {
                self.nodes.insert(node.id.clone(), node.clone());
                self.desired_revision.entry(node.id.clone()).or_insert(revision);
            }
            Record::Release(release) => {
                self.releases.insert(release.digest.clone(), release.clone());
                self.index_newest(release);
            }
            Record::Supply(supply) => {
                self.supplies.insert((supply.release.clone(), supply.node.clone()), supply.clone());
                self.touch_supply(supply.node.as_ref(), revision);
            }
            Record::Installation { node, installation } => {
                self.installations.insert((node.clone(), installation.digest.clone()), installation.clone());
            }
            Record::Instance(instance) => self.put_instance(instance, revision),
            Record::Status(status) => drop(self.statuses.insert(status.id.clone(), status.clone())),
            Record::Seat(seat) => drop(self.seats.insert(seat.partition.clone(), seat.clone())),
            Record::Tail(tail) => drop(self.tails.insert(tail.node.clone(), tail.clone())),
            Record::RateCard(card) => drop(self.rate_cards.insert(card.from, card.clone())),
            Record::Sum(_) | Record::Statement(_) | Record::Ledger(_) | Record::Audit(_) => {}
        }
    }
}

//! What the master knows, record by record. A record is stored whole under its key, but for a name, which is not stored.
//! It has one writer; two records about one thing (an instance and its status) exist because two parties write them.

use plat_model::id::{
    Digest, GridName, InstanceId, InstanceName, NodeId, PartitionRef, ProjectName, TokenId, UserName,
};
use plat_model::instance::{Instance, InstanceStatus};
use plat_model::node::Node;
use plat_model::principal::Role;
use plat_model::release::{Installation, Release, SupplyState};
use plat_model::time::{Period, Timestamp};
use plat_model::usage::{LedgerEntry, Meter};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Names one record. Keys compare whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// The grid's own record; exactly one.
    Grid,
    Token(TokenId),
    User(UserName),
    Node(NodeId),
    Release(Digest),
    /// A release's supply to one node, or with `None` to all present and future ones.
    Supply(Digest, Option<NodeId>),
    /// What a node reported of a release.
    Installation(NodeId, Digest),
    Instance(InstanceId),
    /// What a node reported of an instance.
    Status(InstanceId),
    /// Who holds a partition. Written whenever an instance enters or leaves it, so that two placements of one
    /// partition conflict.
    Seat(PartitionRef),
    /// The end of a node's ledger.
    Tail(NodeId),
    RateCard(Timestamp),
    /// A closed period of a project.
    Statement(ProjectName, Period),
    /// What an instance used in a period, summed over its ledger lines.
    Sum(ProjectName, Period, InstanceId),
    /// One entry of the ledger. Not kept in memory: the sums are records of their own, written in the same commit.
    Ledger(NodeId, u64),
    /// One entry of the audit log, by its number. Not kept in memory.
    Audit(u64),
    /// Who holds a name. Written whenever an instance takes or leaves it, so that two requests for one new name
    /// conflict; kept nowhere.
    Name(ProjectName, InstanceName),
    /// Written whenever more of a node is taken, so that two decisions that fill one node conflict.
    Load(NodeId),
}

/// One record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Record {
    Grid(Grid),
    Token(Token),
    User(User),
    Node(Node),
    Release(Release),
    Supply(Supply),
    Installation { node: NodeId, installation: Installation },
    Instance(Instance),
    Status(InstanceStatus),
    Seat(Seat),
    Tail(Tail),
    RateCard(RateCard),
    Statement(ClosedStatement),
    Sum(Sum),
    Ledger(LedgerEntry),
    Audit(AuditEntry),
    Name(Name),
    Load(Load),
}

impl Record {
    /// The key that this record is stored under.
    pub fn key(&self) -> Key {
        match self {
            Self::Grid(_) => Key::Grid,
            Self::Token(token) => Key::Token(token.id.clone()),
            Self::User(user) => Key::User(user.name.clone()),
            Self::Node(node) => Key::Node(node.id.clone()),
            Self::Release(release) => Key::Release(release.digest.clone()),
            Self::Supply(supply) => Key::Supply(supply.release.clone(), supply.node.clone()),
            Self::Installation { node, installation } => Key::Installation(node.clone(), installation.digest.clone()),
            Self::Instance(instance) => Key::Instance(instance.id.clone()),
            Self::Status(status) => Key::Status(status.id.clone()),
            Self::Seat(seat) => Key::Seat(seat.partition.clone()),
            Self::Tail(tail) => Key::Tail(tail.node.clone()),
            Self::RateCard(card) => Key::RateCard(card.from),
            Self::Statement(statement) => Key::Statement(statement.project.clone(), statement.period),
            Self::Sum(sum) => Key::Sum(sum.project.clone(), sum.period, sum.instance.clone()),
            Self::Ledger(entry) => Key::Ledger(entry.node.clone(), entry.sequence),
            Self::Audit(entry) => Key::Audit(entry.number),
            Self::Name(name) => Key::Name(name.project.clone(), name.name.clone()),
            Self::Load(load) => Key::Load(load.node.clone()),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grid {
    pub name: GridName,
    pub created: Timestamp,
}

/// What a token is good for, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// Enrolling a node; under this name, or one that the node asks for.
    Node(Option<NodeId>),
    User {
        name: UserName,
        role: Role,
    },
}

/// A single-use, expiring token. Only the hash of its secret half is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub id: TokenId,
    pub secret_hash: Digest,
    pub purpose: Purpose,
    pub created: Timestamp,
    pub expires: Timestamp,
    /// When it was used, and by what.
    pub used: Option<(Timestamp, String)>,
    /// What was given for it: who comes again with the same keys, because the answer got lost, gets the same again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Given>,
    pub revoked: bool,
}

/// The certificates that a token was exchanged for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Hash of the public keys that were certified.
    pub keys: Digest,
    /// Serial numbers (lower-case hex), in the order of the keys.
    pub serials: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub name: UserName,
    pub role: Role,
    /// Serial number (lower-case hex) of the certificate that counts.
    pub serial: String,
    /// That of the one it was renewed with, which counts too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed: Option<String>,
    pub revoked: bool,
}

impl User {
    /// Whether the certificate of this serial number counts.
    pub fn accepts(&self, serial: &str) -> bool {
        self.serial == serial || self.renewed.as_deref() == Some(serial)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supply {
    pub release: Digest,
    pub node: Option<NodeId>,
    pub state: SupplyState,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    pub partition: PartitionRef,
    /// `None` once it is free again.
    pub instance: Option<InstanceId>,
}

/// Which instance goes by a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    pub project: ProjectName,
    pub name: InstanceName,
    pub instance: InstanceId,
}

/// Counts the decisions that took more of a node: placements, and instances on it that ask for more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    pub node: NodeId,
    pub taken: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    pub node: NodeId,
    /// The last booked report.
    pub sequence: u64,
    pub hash: Digest,
}

/// What an instance used in a period. Always the sum of its ledger lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    pub project: ProjectName,
    pub period: Period,
    pub instance: InstanceId,
    /// The name it had, for statements about instances that are gone.
    pub name: InstanceName,
    /// The nodes that held it: whose reports of its use are believed, also when it is gone.
    pub nodes: BTreeSet<NodeId>,
    /// Up to when each of them has read each meter: what it reports of the time before again is not believed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub read: BTreeMap<NodeId, BTreeMap<Meter, Timestamp>>,
    pub meters: BTreeMap<Meter, MeterSum>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct MeterSum {
    pub amount: u64,
    /// Windows in which the meter could not be read, and the newest reason. They are not part of the amount.
    pub unknown_windows: u64,
    pub unknown_reason: String,
    /// Of `amount`, what was booked after the use's own period was closed, and so counts into this one.
    pub adjustment: u64,
}

/// What use costs, from a point in time on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateCard {
    /// ISO 4217 code.
    pub currency: String,
    pub from: Timestamp,
    pub rates: Vec<Rate>,
}

/// The price of one meter. Prices are decimal texts, computed with exactly, in millionths of the currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    pub meter: Meter,
    /// What is priced, e.g. `core-hour`.
    pub unit: String,
    /// How much of the meter makes one unit, e.g. `3600000000` microseconds.
    pub per: u64,
    /// Per unit, in millionths of the currency.
    pub price_micros: u64,
}

/// A statement that does not change any more, as the JSON it was closed with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedStatement {
    pub project: ProjectName,
    pub period: Period,
    pub closed: Timestamp,
    pub document: String,
}

/// Who did what, when, from where, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Given by the store when it is committed, in the order of commits; whatever it was before is replaced.
    pub number: u64,
    pub at: Timestamp,
    pub who: String,
    pub from: String,
    pub verb: String,
    pub subject: String,
    /// `ok`, or the code of the problem.
    pub outcome: String,
}

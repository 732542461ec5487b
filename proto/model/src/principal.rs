//! Who is asking: produced at an edge from a checked certificate and the caller's row, consumed by `authorize`.

use crate::id::{InstanceId, NodeId, ProjectName, UserName};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a user may be. It is part of the user's row, which only an operator can write.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs the grid: nodes, releases, tokens, every project.
    Operator,
    /// Uses one project.
    Member(ProjectName),
    /// Reads usage and statements of all projects, nothing else.
    Billing,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("operator"),
            Self::Member(project) => write!(f, "member of {project}"),
            Self::Billing => f.write_str("billing"),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Principal {
    /// Nobody yet: a call without a certificate, which may enrol with a token and do nothing else.
    Anonymous,
    User {
        name: UserName,
        role: Role,
    },
    Node(NodeId),
    /// A node that holds only its rejoin certificate.
    Rejoin(NodeId),
    /// Software inside an instance, by its token.
    Instance(InstanceId),
    /// The master itself, in its rounds.
    Master,
}

/// The kinds of principal, for the access table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum PrincipalKind {
    Anonymous,
    Operator,
    Member,
    Billing,
    Node,
    Rejoin,
    Instance,
    Master,
}

impl PrincipalKind {
    pub const ALL: [Self; 8] = [
        Self::Anonymous,
        Self::Operator,
        Self::Member,
        Self::Billing,
        Self::Node,
        Self::Rejoin,
        Self::Instance,
        Self::Master,
    ];
}

impl Principal {
    pub fn kind(&self) -> PrincipalKind {
        match self {
            Self::Anonymous => PrincipalKind::Anonymous,
            Self::User { role: Role::Operator, .. } => PrincipalKind::Operator,
            Self::User { role: Role::Member(_), .. } => PrincipalKind::Member,
            Self::User { role: Role::Billing, .. } => PrincipalKind::Billing,
            Self::Node(_) => PrincipalKind::Node,
            Self::Rejoin(_) => PrincipalKind::Rejoin,
            Self::Instance(_) => PrincipalKind::Instance,
            Self::Master => PrincipalKind::Master,
        }
    }
}

/// As the audit log writes it: `user/ada`, `node/n1`.
impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("anonymous"),
            Self::User { name, .. } => write!(f, "user/{name}"),
            Self::Node(id) => write!(f, "node/{id}"),
            Self::Rejoin(id) => write!(f, "rejoin/{id}"),
            Self::Instance(id) => write!(f, "instance/{id}"),
            Self::Master => f.write_str("master"),
        }
    }
}

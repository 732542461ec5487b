//! Names inside certificates, and when to renew one. A certificate only authenticates: what its holder may do is a
//! row in the master's state, never a field of the certificate.

use crate::id::{GridName, NodeId, UserName};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who a certificate says its holder is: the SPIFFE id in its only URI SAN,
/// `spiffe://GRID/node/ID`, `spiffe://GRID/rejoin/ID`, `spiffe://GRID/user/NAME` or `spiffe://GRID/master`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Identity {
    Master,
    /// A node's agent.
    Node(NodeId),
    /// A node that slept past its certificate; good for nothing but asking for a new one.
    Rejoin(NodeId),
    User(UserName),
}

impl Identity {
    /// The SPIFFE id.
    pub fn uri(&self, grid: &GridName) -> String {
        format!("spiffe://{grid}/{self}")
    }

    /// Reads a SPIFFE id of `grid`. `None` for anything else, another grid's included.
    pub fn from_uri(uri: &str, grid: &GridName) -> Option<Self> {
        let path = uri.strip_prefix("spiffe://")?.strip_prefix(grid.as_str())?.strip_prefix('/')?;
        match path.split_once('/') {
            None if path == "master" => Some(Self::Master),
            Some(("node", id)) => NodeId::parse(id).ok().map(Self::Node),
            Some(("rejoin", id)) => NodeId::parse(id).ok().map(Self::Rejoin),
            Some(("user", name)) => UserName::parse(name).ok().map(Self::User),
            _ => None,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master => f.write_str("master"),
            Self::Node(id) => write!(f, "node/{id}"),
            Self::Rejoin(id) => write!(f, "rejoin/{id}"),
            Self::User(name) => write!(f, "user/{name}"),
        }
    }
}

/// From when until when a certificate is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Validity {
    /// When its holder asks for the next one: at half its life, so that a master away for hours is survived.
    pub fn renew_at(self) -> Timestamp {
        self.not_before.plus(self.not_after.since(self.not_before) / 2)
    }

    pub fn holds_at(self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_back_only_within_its_grid() {
        let (campus, other) = (GridName::parse("campus").unwrap(), GridName::parse("campus2").unwrap());
        let node = Identity::Node(NodeId::parse("n1").unwrap());
        assert_eq!(node.uri(&campus), "spiffe://campus/node/n1");
        assert_eq!(Identity::from_uri("spiffe://campus/node/n1", &campus), Some(node));
        assert_eq!(Identity::from_uri("spiffe://campus/node/n1", &other), None);
        for wrong in [
            "spiffe://campus/node/",
            "spiffe://campus/node/a/b",
            "spiffe://campus/master/x",
            "https://campus/node/n1",
            "spiffe://campus/admin/x",
        ] {
            assert_eq!(Identity::from_uri(wrong, &campus), None, "{wrong}");
        }
    }
}

//! Routes of which only where they go matters.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Where a route goes that could not be put back exactly, or not by node-format.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Way {
    pub destination: IpNet,
    /// By which links; none: it leads nowhere (blackhole, unreachable), or by what the kernel does not tell (nexthop objects).
    #[serde(default)]
    pub links: BTreeSet<String>,
    /// In words, with its article.
    pub what: String,
    /// The lesser comes first, of routes to the same range.
    #[serde(default)]
    pub metric: u32,
    /// Whether each packet of the machine may take it: it is in the main table, or in the one that is asked before it.
    #[serde(default)]
    pub main: bool,
}

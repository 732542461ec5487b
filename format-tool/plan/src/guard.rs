//! The packet filter's tables: a partition uses its own addresses and no neighbour's.
//!
//! Table `inet plat` holds processes by the uid that opened their socket ([`processes`]), and what is behind routed taps
//! and tuns by the link it comes from ([`links`]). Table `bridge plat` holds what is behind bridged taps and in namespaces
//! by the bridge's port ([`ports`]). Which partition has which address is in sets alone: the rules are the same for two
//! partitions and for ten thousand.
//!
//! What each packet has to pass is said in `docs/operations/format.md`, "The guard"; the comments here give the reasons.

mod links;
mod ports;
mod processes;
mod table;

use crate::facts::Guard;
use crate::settings::Settings;
use crate::shares;
use ipnet::IpNet;
use plat_model::node::NodePartition;
pub use ports::link_local;
use std::net::IpAddr;
use table::{Part, Table};

/// The tables for these partitions; `None` where there is nothing to hold them to.
pub(crate) fn of(settings: &Settings, partitions: &[NodePartition]) -> Option<Guard> {
    let mut inet = Table::new("inet");
    if settings.partitions.users && !settings.network.namespaces {
        processes::hold(&mut inet, partitions);
    }
    links::hold(&mut inet, settings, partitions);
    let mut bridge = Table::new("bridge");
    ports::hold(&mut bridge, settings, partitions);
    let tables: Vec<Table> = [inet, bridge].into_iter().filter(|table| !table.is_empty()).collect();
    if tables.is_empty() {
        return None;
    }
    let bare: String = tables.iter().map(|table| table.script("")).collect();
    let fingerprint = format!("{:08x}", shares::fnv(&bare));
    Some(Guard {
        rules: tables.iter().map(Table::rules).sum(),
        elements: tables.iter().flat_map(Table::elements).collect(),
        script: tables.iter().map(|table| table.script(&fingerprint)).collect(),
        fingerprint,
    })
}

fn all_of(range: IpNet) -> Part {
    Part::Addresses(range.network(), range.broadcast())
}

fn one(address: IpAddr) -> Part {
    Part::Addresses(address, address)
}

/// Words of the packet filter that differ between the families.
struct Family {
    /// How a packet's addresses are named.
    ip: &'static str,
    /// The type of an address in a set.
    address: &'static str,
    ipv6: bool,
}

const FAMILIES: [Family; 2] =
    [Family { ip: "ip", address: "ipv4_addr", ipv6: false }, Family { ip: "ip6", address: "ipv6_addr", ipv6: true }];

impl Family {
    /// The name of this family's set of a kind: `own4`, `own6`.
    fn set(&self, kind: &str) -> String {
        format!("{kind}{}", if self.ipv6 { 6 } else { 4 })
    }
}

#[cfg(test)]
mod tests;

//! The guard, with real traffic. The world outside of the machine is another network namespace.

mod behind_links;
mod frames;
mod namespaces;
mod outside;
mod processes;
mod sockets;
mod tables;
pub mod tap;

use crate::machine::{Machine, ip};
use std::fs;

/// Uid of partition 0. Another one than elsewhere: a process of the same uid would keep a partition from being removed.
const FIRST_UID: u32 = 62_000;
const PORT: u16 = 4100;

/// Formats the machine, with these lines in [network].
fn format(machine: &Machine, amount: u32, network: &str) {
    let text = format!(
        "version = 1\n[partitions]\namount = {amount}\nfirst_uid = {FIRST_UID}\nfirst_gid = {FIRST_UID}\n\
         [network]\nmode = \"bridge\"\nipv6_prefix = \"fd00:1::/64\"\nipv4_network = \"10.200.0.0/16\"\n{network}\n\
         [builder]\nuid = 61998\ngid = 61998\n"
    );
    fs::write(machine.path("format.toml"), text).unwrap();
    ip("link set lo up");
    let (code, said) = machine.run(&["apply"]);
    assert_eq!(code, 0, "{said}");
}

//! What is wrong with the ranges of addresses: those that nobody can be given, that overlap, or that are too small.

use super::check::bad;
use super::{NetworkMode, Settings};
use crate::shares;
use ipnet::IpNet;
use plat_model::problem::{Problem, Problems, codes};

/// Ranges with no address that a machine can have in a network, and what they are instead (RFC 6890).
const NOT_UNICAST: [(&str, &str); 8] = [
    ("0.0.0.0/8", "means the network itself"),
    ("169.254.0.0/16", "is link-local"),
    ("224.0.0.0/4", "is for multicast"),
    ("240.0.0.0/4", "is reserved, and for broadcast"),
    ("::/96", "is unspecified, loopback, or IPv4 in an older form"),
    ("::ffff:0.0.0.0/96", "is IPv4 in the form of IPv6"),
    ("fe80::/10", "is link-local"),
    ("ff00::/8", "is for multicast"),
];
/// Refused besides, except in the network mode that has its addresses there.
const LOOPBACK: (&str, &str) = ("127.0.0.0/8", "is used by the network mode `loopback` only");

impl Settings {
    pub(super) fn check_ranges(&self, wrong: &mut Problems) {
        let network = &self.network;
        let (amount, loopback) = (self.partitions.amount, network.mode == NetworkMode::Loopback);
        if let Some(prefix) = network.ipv6_prefix {
            if loopback {
                let what = "the network mode `loopback` has IPv4 addresses only";
                wrong.push(bad("network.ipv6_prefix", what).fix("leave the prefix out, or choose another mode"));
            }
            let fits = || shares::ipv6_fits(prefix, network.ipv6_share, amount);
            self.check_range("network.ipv6_prefix", prefix.into(), fits, wrong);
        }
        if let Some(range) = network.ipv4_network {
            if loopback && !range.network().is_loopback() {
                let what = format!("{range} is not part of 127.0.0.0/8");
                wrong.push(bad("network.ipv4_network", what).because("the network mode is `loopback`"));
            }
            let fits = || shares::ipv4_fits(range, amount, network.taps);
            self.check_range("network.ipv4_network", range.into(), fits, wrong);
        }
        let Some(tuns) = network.tun_ipv4_network.filter(|_| network.tuns) else { return };
        let fits = || shares::tun_fits(tuns, network.tun_ipv4_share, amount);
        self.check_range("network.tun_ipv4_network", tuns.into(), fits, wrong);
        if let Some(range) = network.ipv4_network.filter(|range| meet(tuns.into(), (*range).into())) {
            wrong.push(
                Problem::new(codes::OVERLAP, "network.tun_ipv4_network and network.ipv4_network overlap")
                    .because(format!("{tuns} and {range} have addresses in common, which would be given twice"))
                    .fix("move one of the ranges")
                    .at("network.tun_ipv4_network"),
            );
        }
    }

    /// What is wrong with one range; whether it `fits` the partitions is asked only if it is a range at all.
    fn check_range(&self, key: &str, range: IpNet, fits: impl FnOnce() -> Result<(), String>, wrong: &mut Problems) {
        if range.addr() != range.network() {
            let what = format!("{range} has bits set behind its length");
            wrong.push(bad(key, what).fix(format!("write {}", range.trunc())));
            return;
        }
        let loopback = Some(&LOOPBACK).filter(|_| self.network.mode != NetworkMode::Loopback);
        let others =
            NOT_UNICAST.iter().chain(loopback).filter_map(|(other, is)| Some((other.parse::<IpNet>().ok()?, is)));
        if let Some((other, is)) = others.into_iter().find(|(other, _)| meet(*other, range)) {
            wrong.push(
                bad(key, format!("{range} cannot be divided among the partitions"))
                    .because(format!("{other} {is}"))
                    .fix("give a range of unicast addresses that is routed to this machine, or a private one"),
            );
            return;
        }
        if let Err(why) = fits() {
            wrong.push(
                Problem::new(codes::OVERLAP, format!("{range} cannot be divided among the partitions"))
                    .because(why)
                    .fix("give a larger range, a longer share, or fewer partitions")
                    .at(key),
            );
        }
    }
}

/// Whether two ranges have an address in common: one then holds the other.
fn meet(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

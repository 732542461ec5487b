//! Addresses and local routes wanted × found.

use super::Planner;
use super::uplink::disable_ipv6;
use crate::action::Action;
use crate::facts::{AddressFact, Presence, Route, Way};
use crate::thing::Thing;
use ipnet::IpNet;
use plat_model::problem::{Problem, codes};
use std::collections::BTreeMap;
use std::net::IpAddr;

impl Planner<'_> {
    pub(super) fn addresses(&mut self) {
        self.drop_addresses();
        let mut by_ip: BTreeMap<IpAddr, Vec<&AddressFact>> = BTreeMap::new();
        for found in &self.facts.addresses {
            by_ip.entry(found.address.addr()).or_default().push(found);
        }
        for (link, address) in &self.layout.addresses {
            self.address(link, *address, by_ip.get(&address.addr()).map_or(&[], Vec::as_slice));
        }
        self.refuse_overlaps();
        self.local_routes();
    }

    fn local_routes(&mut self) {
        for range in &self.layout.local_routes {
            let claimed = self.claims.has(&Thing::LocalRoute { range: *range });
            match (self.facts.local_routes.contains(range), claimed) {
                (true, true) => {}
                (false, _) => self.add.push(Action::AddLocalRoute { range: *range }),
                (true, false) => {
                    let fix = "choose another range, set `local_ranges = false`, or remove it (`ip route`)";
                    self.foreign(format!("there is a local route to {range}"), "node-format did not make it", fix);
                }
            }
        }
        let lo_is_down = self.facts.links.get("lo").is_some_and(|lo| !lo.up);
        if lo_is_down && !self.layout.local_routes.is_empty() {
            self.problems.push(
                Problem::new(codes::KERNEL_LACKS, "local routes cannot be added")
                    .because("the link lo is down")
                    .fix("run `ip link set lo up`, or set `local_ranges = false` in [network]"),
            );
        }
        self.refuse_where_ipv6_is_off();
    }

    /// The kernel would refuse the addresses.
    fn refuse_where_ipv6_is_off(&mut self) {
        let (layout, facts) = (self.layout, self.facts);
        let mut ipv6 = layout.addresses.iter().filter(|(_, address)| address.addr().is_ipv6()).peekable();
        let (why, how) = if ipv6.peek().is_none() {
            return;
        } else if facts.kernel.ipv6 == Presence::Absent {
            ("the kernel has no IPv6, or it is switched off".into(), "switch it on".into())
        } else {
            let missing = ipv6.filter(|(link, address)| facts.address(link, *address).is_none());
            let key = |(link, _): &(String, IpNet)| {
                let stays = facts.links.contains_key(link) && !self.leaving.contains(link);
                disable_ipv6(if stays { link } else { "default" })
            };
            let is_off = |key: &String| facts.sysctls.get(key).is_some_and(|value| value == "1");
            let Some(key) = missing.map(key).find(is_off) else { return };
            (format!("IPv6 is switched off (`{key}` is 1)"), format!("set it to 0 (`sysctl -w {key}=0`)"))
        };
        self.problems.push(
            Problem::new(codes::KERNEL_LACKS, "IPv6 addresses cannot be added")
                .because(why)
                .fix(format!("{how}, or leave out `ipv6_prefix` and use IPv4 only")),
        );
    }

    fn drop_addresses(&mut self) {
        for thing in self.claims.iter() {
            match thing {
                Thing::Address { link, address } => {
                    let wanted = self.layout.addresses.contains(&(link.clone(), *address));
                    let Some(found) = self.facts.address(link, *address) else {
                        self.forget.push(thing.clone());
                        continue;
                    };
                    let as_made = *found == AddressFact::ours(link, *address);
                    if !wanted || !as_made || self.leaving.contains(link) {
                        self.remove.push(Action::RemoveAddress(found.clone()));
                    }
                }
                Thing::LocalRoute { range } => {
                    if !self.facts.local_routes.contains(range) {
                        self.forget.push(thing.clone());
                    } else if !self.layout.local_routes.contains(range) {
                        self.remove.push(Action::RemoveLocalRoute { range: *range });
                    }
                }
                _ => {}
            }
        }
    }

    fn address(&mut self, link: &str, address: IpNet, found: &[&AddressFact]) {
        let (mut there, wanted) = (false, AddressFact::ours(link, address));
        for other in found {
            let claimed = self.claims.has(&Thing::Address { link: other.link.clone(), address: other.address });
            if !claimed {
                let what = format!("address {} is in use on {}", other.address, other.link);
                let fix = "choose another range in [network], or remove the address";
                self.foreign(what, "node-format did not add it", fix);
            }
            there |= **other == wanted && !self.leaving.contains(link);
        }
        if !there {
            self.add.push(Action::AddAddress(wanted));
        }
    }

    fn refuse_overlaps(&mut self) {
        let (layout, facts) = (self.layout, self.facts);
        for range in &layout.exclusive {
            let other = facts.addresses.iter().find(|found| {
                let network = found.address.trunc();
                let ours = layout.links.contains_key(&found.link)
                    || self.claims.has(&Thing::Address { link: found.link.clone(), address: found.address });
                !ours && (range.contains(&network) || network.contains(range))
            });
            let Some(other) = other else { continue };
            self.problems.push(
                Problem::new(codes::OVERLAP, format!("{range} overlaps the network of {}", other.link))
                    .because(format!("{} is configured there", other.address))
                    .fix("choose another range in [network], or set `gateway = false`"),
            );
        }
        self.refuse_routes_elsewhere();
    }

    /// What goes to a range, or to a part of it, by somebody else's link, or nowhere, would not come to the partitions. Ways
    /// to more than the range are no matter: the narrowest is taken.
    fn refuse_routes_elsewhere(&mut self) {
        let (layout, facts) = (self.layout, self.facts);
        let mut problems = Vec::new();
        let is_ours = |link: &String| {
            layout.links.contains_key(link)
                || facts.links.get(link).is_some_and(|fact| self.claims.has_link(link, fact))
        };
        for range in &layout.exclusive {
            let is_elsewhere = |route: &&Route| {
                let ours = is_ours(&route.link) || self.claims.has(&Thing::Route((*route).clone()));
                !ours && range.contains(&route.destination)
            };
            let leads_elsewhere = |way: &&Way| {
                let ours = !way.links.is_empty() && way.links.iter().all(is_ours);
                way.main && !ours && range.contains(&way.destination) && !is_behind(way, range)
            };
            let route = facts.routes.iter().find(is_elsewhere);
            let route = route.map(|route| (route.link.clone(), format!("{} goes there, and", route.destination)));
            let way = || facts.ways.iter().find(leads_elsewhere);
            let of_way = |way: &Way| {
                let links: Vec<&str> = way.links.iter().map(String::as_str).collect();
                let by = if links.is_empty() { "no link".to_owned() } else { links.join(" and ") };
                (by, format!("{} takes what goes there: it", way.what))
            };
            let Some((by, why)) = route.or_else(|| way().map(of_way)) else { continue };
            problems.push(
                Problem::new(codes::OVERLAP, format!("there is a route into {range} by {by}"))
                    .because(format!("{why} would not reach partitions"))
                    .fix("choose another range in [network], or remove the route (`ip route`)"),
            );
        }
        problems.into_iter().for_each(|problem| self.problems.push(problem));
    }
}

/// Whether a route to the whole range comes after the one that the node's address has, as what a routing program sets for all
/// that it announces does: it takes only what nobody has.
fn is_behind(way: &Way, range: &IpNet) -> bool {
    /// What the kernel gives the route of an IPv6 address.
    const OF_AN_ADDRESS: u32 = 256;
    way.destination == *range && way.metric > if range.addr().is_ipv6() { OF_AN_ADDRESS } else { 0 }
}

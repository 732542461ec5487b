//! What somebody else set and the kernel takes away along with what is ours: named, or refused before it is ours.

mod addresses;
mod mtu;

use super::Planner;
use crate::action::Action;
use crate::facts::{About, AddressFact, HostFacts, LinkFact, Odd, Route};
use crate::guard::link_local;
use crate::thing::{Thing, Uplink};
use ipnet::IpNet;
use plat_model::problem::{Problem, codes};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

pub(super) use addresses::{lost_with_addresses, promote_secondaries};
use addresses::{lost_with_first_addresses, of_others_on};
pub use mtu::lowered_above;

impl Planner<'_> {
    /// What somebody else joined to a bridge that goes, or set on it: ports stay, addresses and routes do not.
    pub(super) fn say_what_stands_alone(&mut self, bridge: &str) {
        let ports = self.facts.links.iter().filter(|(_, link)| link.bridge.as_deref() == Some(bridge));
        let mut others: Vec<_> = ports.filter(|(name, link)| !self.is_our_port(name, link)).collect();
        if !others.is_empty() {
            let renamed = super::missing::renamed(self.facts, self.claims);
            others.retain(|(name, _)| !renamed.contains(name.as_str()));
        }
        let on_others: Vec<String> = others
            .iter()
            .flat_map(|(name, _)| set_frames(self.facts, name, true).map(move |what| format!("{what} on {name}")))
            .collect();
        let others = others.into_iter().map(|(name, _)| {
            format!("{bridge} goes, and {name}, which node-format did not join to it, stands alone then")
        });
        self.lose(others.collect());
        let stacked = stacked_on(self.facts, bridge).into_iter().map(|link| format!("the link {link} on top of it"));
        let own = set_frames(self.facts, bridge, false).map(str::to_owned);
        let gone = self.of_others(bridge, true).into_iter().chain(stacked).chain(own).chain(on_others);
        let lost = gone.map(|what| format!("{bridge} goes, and with it {what}, which node-format did not make"));
        self.lose(lost.collect());
    }

    /// What a bridge forgets with a port that leaves it.
    pub(super) fn say_what_its_bridge_forgets(&mut self, port: &str, bridge: &str) {
        self.lose(lost_with_port(self.facts, port, bridge));
    }

    /// What the kernel takes from a link of ours that is set down, for it comes to another bridge, or from one.
    pub(super) fn say_what_goes_while_it_is_down(&mut self, link: &str, from: Option<&str>, to: Option<&str>) {
        let way = match (from, to) {
            (_, Some(to)) => format!("to {to}"),
            (from, None) => format!("from {}", from.unwrap_or("its bridge")),
        };
        let lost = self.of_others(link, false).into_iter().map(|what| {
            format!("{link} is set down on its way {way}, and with it goes {what}, which node-format did not make")
        });
        self.lose(lost.collect());
    }

    /// What it forgets with the hardware address of one that stays, and with the link-local address that follows from that.
    pub(super) fn say_what_goes_with_its_mac(&mut self, link: &str, mac: [u8; 6]) {
        let odd = self.facts.odd.get(link).into_iter().flatten().filter(|odd| odd.about == About::Neighbour);
        let lost = odd.map(|odd| {
            format!(
                "{link} gets another hardware address, and with the old one goes {}, which node-format did not make",
                odd.what
            )
        });
        let near = link_local(mac);
        let lost = lost.chain(self.routes_from(link, near).map(|what| comes_from(near.into(), &what, link, true)));
        let lost = lost.collect();
        self.lose(lost);
    }

    /// Routes by a link from this link-local address of it, if the kernel made that.
    fn routes_from(&self, link: &str, near: Ipv6Addr) -> impl Iterator<Item = String> {
        let net = IpNet::new_assert(near.into(), 64);
        let is_set = |odd: &Odd| odd.about == About::Address(net);
        let odd = || self.facts.odd.get(link).into_iter().flatten();
        let goes = self.facts.address(link, net).is_some() && !odd().any(is_set);
        let routes = self.facts.routes.iter().filter(move |route| goes && route.link == link);
        let routes = routes.filter(move |route| route.source == Some(near.into()));
        let odd = odd().filter(move |odd| goes && odd.source == Some(near.into()));
        routes.map(|route| format!("the route to {}", route.destination)).chain(odd.map(|odd| odd.what.clone()))
    }

    /// What somebody else set on a link: addresses (of IPv6 alone, if not `ipv4`), routes, neighbours.
    fn of_others(&self, on: &str, ipv4: bool) -> Vec<String> {
        let uplinks: Vec<&Uplink> = self
            .claims
            .iter()
            .filter_map(|thing| if let Thing::Uplink(uplink) = thing { Some(uplink) } else { None })
            .collect();
        let returns = |address| uplinks.iter().any(|uplink| uplink.addresses.contains(address));
        let addresses = self.facts.addresses.iter().filter(|found| {
            let made = Thing::Address { link: found.link.clone(), address: found.address };
            let kernels = matches!(found.address.addr(), IpAddr::V6(ip) if ip.is_unicast_link_local());
            found.link == on
                && (ipv4 || found.address.addr().is_ipv6())
                && !found.leased
                && !kernels
                && !returns(&found.address)
                && !self.claims.has(&made)
        });
        let addresses = addresses.map(|found| format!("the address {}", found.address));
        let routes = self.facts.routes.iter().filter(|route| {
            let all = uplinks.iter().flat_map(|uplink| &uplink.routes);
            let returns = all.into_iter().any(|one| Route { link: on.into(), ..one.clone() } == **route);
            route.link == on && !returns && !self.claims.has(&Thing::Route((*route).clone()))
        });
        let routes = routes.map(|route| format!("the route to {}", route.destination));
        let is_ours = |odd: &&Odd| match odd.about {
            About::Address(address) => self.claims.has(&Thing::Address { link: on.into(), address }),
            About::Kernels => true,
            About::Neighbour | About::Shared | About::Mtu(_) | About::MtuOfRoute(_) | About::Other => false,
        };
        let odd = self.facts.odd.get(on).into_iter().flatten().filter(|odd| !is_ours(odd));
        let odd: BTreeSet<String> = odd.map(|odd| odd.what.clone()).collect();
        addresses.chain(routes).chain(odd).collect()
    }

    /// Whether node-format joined it to its bridge; what has an uplink's name by now it did not.
    pub(super) fn is_our_port(&self, name: &String, link: &LinkFact) -> bool {
        self.claims.has_port(name, link) && !self.exchanged.contains(name)
    }

    /// What goes with addresses of links that stay, whatever takes them; and what would if the run failed.
    pub(super) fn say_what_goes_with_addresses(&mut self) {
        let actions: Vec<&Action> = self.remove.iter().chain(&self.add).collect();
        let lost = lost_with_addresses(self.facts, self.claims, &actions, &self.leaving);
        let undone = lost_with_first_addresses(self.facts, self.claims, &self.add, &self.leaving);
        self.lose(lost);
        // If all is done nobody misses it.
        self.lost.extend(undone);
    }

    /// With the last IPv4 address of an interface the kernel takes the routes there, whosever they are. So the first one is
    /// not to be ours where there are any.
    pub(super) fn refuse_first_address(&mut self) {
        let Some(needed) = &self.layout.needs_link else { return };
        let is_meant = |found: &AddressFact| found.link == needed.name && found.address.addr().is_ipv4();
        let adds = |action: &Action| matches!(action, Action::AddAddress(added) if is_meant(added));
        if self.facts.addresses.iter().any(is_meant) || !self.add.iter().any(adds) {
            return;
        }
        let there: Vec<String> =
            of_others_on(self.facts, self.claims, &needed.name, &BTreeSet::new()).map(|(what, _)| what).collect();
        if !there.is_empty() {
            self.problems.push(
                Problem::new(codes::UPLINK, format!("the addresses of {} cannot be the partitions' alone", needed.name))
                    .because(format!("with the last of them the kernel would drop {}", there.join("; ")))
                    .fix("give the interface an IPv4 address of its own, take that away if nothing needs it, or leave `ipv4_network` out")
                    .at("network.link"),
            );
        }
    }
}

/// What becomes of a route, with its article, when the address that it is from goes.
pub(super) fn comes_from(source: IpAddr, what: &str, link: &str, ipv6: bool) -> String {
    let how = if ipv6 { "goes on without it" } else { "goes" };
    format!("{source} goes, and {what} by {link}, which is from there and which node-format did not make, {how}")
}

/// What somebody set on a link of frames; of its bridge alone, or of itself too.
fn set_frames<'a>(facts: &'a HostFacts, link: &str, of_bridge: bool) -> impl Iterator<Item = &'a str> {
    let set = facts.set_frames.get(link).into_iter().flatten();
    set.filter(move |set| set.of_bridge || !of_bridge).map(|set| set.what.as_str())
}

/// What a bridge forgets with a port that leaves it.
pub(super) fn lost_with_port(facts: &HostFacts, port: &str, bridge: &str) -> Vec<String> {
    let lost = set_frames(facts, port, true);
    lost.map(|what| format!("{port} goes from {bridge}, and with it {what}, which node-format did not make")).collect()
}

/// Links that go with this one.
fn stacked_on<'a>(facts: &'a HostFacts, link: &'a str) -> BTreeSet<&'a str> {
    let mut all = BTreeSet::new();
    let mut below = vec![link];
    while let Some(link) = below.pop() {
        let above = facts.stacked.get(link).into_iter().flatten().map(String::as_str);
        below.extend(above.filter(|name| all.insert(*name)));
    }
    all
}

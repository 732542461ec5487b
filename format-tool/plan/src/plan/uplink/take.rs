//! An interface that is to become a port of the bridge: what keeps it from that, and what is to be known of it.

use super::{accept_ra, carried, is_link_local};
use crate::action::Action;
use crate::facts::{LinkFact, Route};
use crate::forwarding;
use crate::layout::WantedUplink;
use crate::plan::Planner;
use crate::plan::machine::forwards;
use crate::thing::{Thing, Uplink};
use ipnet::IpNet;
use plat_model::problem::{Problem, codes};
use std::collections::BTreeSet;

/// So many things are named in one sentence.
const NAMED: usize = 10;

impl Planner<'_> {
    pub(super) fn take(&mut self, wanted: &WantedUplink, found: &LinkFact) {
        let link = &wanted.link;
        if let Some(bridge) = &found.bridge {
            let what = format!("{link} is a port of {bridge}");
            return self.foreign(what, "node-format did not join it", "take it out of there, or leave `uplink` out");
        }
        let on_it = self.facts.addresses.iter().filter(|address| address.link == *link && !is_link_local(address));
        let (leased, own): (Vec<_>, Vec<_>) = on_it.partition(|address| address.leased);
        // What a router announced comes again by itself, on the bridge; what DHCP gave stays with its client.
        if let Some(lease) = leased.iter().find(|address| address.address.addr().is_ipv4()) {
            self.problems.push(
                Problem::new(codes::UPLINK, format!("{link} cannot be taken"))
                    .because(format!("its address {} is leased: a DHCP client would go on at {link}", lease.address))
                    .fix("give it a fixed address, or let the system's own network configuration make the bridge and use `mode = \"interface\"`"),
            );
        }
        if let Some(odd) = self.cannot_come_back(link) {
            self.problems.push(
                Problem::new(codes::UPLINK, format!("{link} cannot be taken"))
                    .because(format!("it has {odd}, which could not be put back exactly"))
                    .fix("take that away if nothing needs it, or let the system's own network configuration make the bridge and use `mode = \"interface\"`"),
            );
        }
        let told = leased.iter().find(|address| address.address.addr().is_ipv6()).map(|one| one.address.to_string());
        let announced = told.or_else(|| self.facts.announced.contains(link).then(|| "a way out".into()));
        if let Some(announced) = &announced {
            self.refuse_deaf(wanted, announced);
        }
        let addresses: Vec<IpNet> = own.into_iter().map(|address| address.address).collect();
        let routes: BTreeSet<Route> = self.facts.routes.iter().filter(|route| route.link == *link).cloned().collect();
        let carries = !addresses.is_empty() || !routes.is_empty() || !leased.is_empty() || announced.is_some();
        let mut further = self.facts.further.get(link).cloned().unwrap_or_default();
        further.retain(|address, _| addresses.contains(address));
        let (link, bridge) = (link.clone(), wanted.bridge.clone());
        let uplink = Uplink { link, bridge, was_up: found.up, carries, addresses, further, routes };
        let link = &wanted.link;
        let lesser = self.layout.links.get(&wanted.bridge).and_then(|bridge| bridge.mtu);
        if let Some((lesser, whole)) = lesser.zip(found.mtu).filter(|(lesser, whole)| lesser < whole) {
            self.notes.push(format!(
                "{link} takes packets of {whole} bytes, {} takes {lesser} (`mtu`): so does the machine there",
                wanted.bridge
            ));
        }
        let agreed = self.consent.take_uplink || self.claims.has(&Thing::UplinkConfirmed { link: link.clone() });
        if carries && !agreed {
            self.problems.push(
                Problem::new(codes::UPLINK, format!("this machine is reached through {link}"))
                    .because(format!("{} would move to {}", carried(&uplink), wanted.bridge))
                    .fix("`node-format plan --take-uplink` shows it all, `apply --take-uplink` does it: unless you confirm in time, the old network comes back"),
            );
        }
        self.add.push(Action::TakeUplink(uplink));
    }

    /// What a router announced comes again by itself only where the kernel listens to routers: on the bridge, and on the
    /// interface once it is given back.
    fn refuse_deaf(&mut self, wanted: &WantedUplink, announced: &str) {
        let (link, bridge) = (&wanted.link, &wanted.bridge);
        if !self.hears_by_itself(link) {
            self.problems.push(
                Problem::new(codes::UPLINK, format!("{link} cannot be taken"))
                    .because(format!("a router announced {announced}, which the kernel did not take up there (`accept_ra`): the program that did would go on at {link}, and the kernel would not give it back"))
                    .fix("give it a fixed IPv6 address and way out, or let that program's configuration (networkd, NetworkManager) make the bridge and use `mode = \"interface\"`"),
            );
        }
        if self.is_deaf(bridge) {
            self.problems.push(
                Problem::new(codes::UPLINK, format!("{link} cannot be taken"))
                    .because(format!("a router announced {announced}, and the bridge does not listen to routers"))
                    .fix("set `guard = true` in [network], which keeps partitions from announcing any (and `sysctls = true`), or give it a fixed address and way out"),
            );
        }
    }

    /// All that a link has and could not be given back exactly, in words.
    fn cannot_come_back(&self, link: &str) -> Option<String> {
        let odd = self.facts.odd.get(link).into_iter().flatten().map(|odd| odd.what.clone());
        let doubled = self.facts.doubled.get(link).into_iter().flatten();
        let doubled = doubled.map(|to| format!("the route {to}, beside another of the same metric"));
        let all: Vec<String> = odd.chain(doubled).collect();
        let named = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
        match all.len() {
            0 => None,
            amount if amount > NAMED => Some(format!("{named}; and {} more", amount - NAMED)),
            _ => Some(named),
        }
    }

    /// Whether the kernel listens to routers on an interface as its owner has it: so it is again once it is given back.
    fn hears_by_itself(&self, link: &str) -> bool {
        let was = |key: &str| self.settings_before.get(key).map(|before| before.was);
        let value = |key: &str| was(key).or_else(|| self.facts.sysctls.get(key).map(String::as_str));
        hears(value(&accept_ra(link)), value(forwarding::IPV6).is_some_and(|found| found != "0"))
    }

    /// Whether the bridge will not hear routers.
    fn is_deaf(&self, bridge: &str) -> bool {
        let (listens, facts) = (accept_ra(bridge), self.facts);
        let goes_back = self.settings_before.get(listens.as_str()).map(|before| before.was);
        let there = || facts.sysctls.get(&listens).or_else(|| facts.sysctls.get(&accept_ra("default")));
        let value =
            self.layout.sysctls.get(&listens).map(String::as_str).or(goes_back).or_else(|| there().map(String::as_str));
        let will_forward =
            forwards(self.layout) || facts.sysctls.get(forwarding::IPV6).is_some_and(|found| found != "0");
        !hears(value, will_forward)
    }
}

/// Whether the kernel listens to routers on a link that is told this (`accept_ra`).
fn hears(told: Option<&str>, forwards: bool) -> bool {
    match told {
        Some("2") => true,
        Some("0") => false,
        _ => !forwards,
    }
}

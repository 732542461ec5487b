//! The interface that becomes a port of the bridge, and what the machine is reached by through it.

use super::Planner;
use crate::action::Action;
use crate::facts::{AddressFact, LinkFact};
use crate::layout::WantedUplink;
use crate::thing::{Thing, Uplink};
use ipnet::IpNet;
use plat_model::problem::{Problem, codes};
use std::net::IpAddr;

impl Planner<'_> {
    pub(super) fn uplink(&mut self) {
        let wanted = self.layout.uplink.as_ref();
        let is_wanted = |link: &str, bridge: &str| wanted.is_some_and(|w| w.link == link && w.bridge == bridge);
        let mut taken = false;
        for thing in self.claims.iter() {
            match thing {
                Thing::Uplink(uplink) => {
                    let port = self.facts.links.get(&uplink.link).and_then(|link| link.bridge.as_deref());
                    if port != Some(&uplink.bridge) {
                        self.forget.push(thing.clone());
                    } else if is_wanted(&uplink.link, &uplink.bridge) {
                        taken = true;
                        self.say_unconfirmed(uplink);
                    } else {
                        self.remove.push(Action::ReturnUplink(uplink.clone()));
                    }
                }
                Thing::UplinkConfirmed { link } if wanted.is_none_or(|wanted| wanted.link != *link) => {
                    self.forget.push(thing.clone());
                }
                _ => {}
            }
        }
        if let Some(wanted) = wanted.filter(|_| !taken) {
            match self.facts.links.get(&wanted.link) {
                Some(found) => self.take(wanted, found),
                None => self.problems.push(
                    Problem::new(codes::BAD_CONFIG, format!("there is no interface {}", wanted.link))
                        .fix("name one that `ip link` shows, or leave `uplink` out")
                        .at("network.uplink"),
                ),
            }
        }
    }

    fn say_unconfirmed(&mut self, uplink: &Uplink) {
        let carries = !uplink.addresses.is_empty() || !uplink.routes.is_empty();
        if carries && !self.claims.has(&Thing::UplinkConfirmed { link: uplink.link.clone() }) {
            self.notes.push(format!(
                "{} is not confirmed: `node-format confirm` keeps it, `node-format rollback` gives the old network back",
                uplink.link
            ));
        }
    }

    fn take(&mut self, wanted: &WantedUplink, found: &LinkFact) {
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
        let addresses = own.into_iter().map(|address| address.address).collect();
        let routes = self.facts.routes.iter().filter(|route| route.link == *link).cloned().collect();
        let uplink = Uplink { link: link.clone(), bridge: wanted.bridge.clone(), was_up: found.up, addresses, routes };
        let carries = !uplink.addresses.is_empty() || !uplink.routes.is_empty() || !leased.is_empty();
        let agreed = self.consent.take_uplink || self.claims.has(&Thing::UplinkConfirmed { link: link.clone() });
        if carries && !agreed {
            self.problems.push(
                Problem::new(codes::UPLINK, format!("this machine is reached through {link}"))
                    .because(format!("{} would move to {}", carried(&uplink), wanted.bridge))
                    .fix(
                        "run `node-format apply --take-uplink`: unless you confirm in time, the old network comes back",
                    ),
            );
        }
        self.add.push(Action::TakeUplink(uplink));
    }
}

fn carried(uplink: &Uplink) -> String {
    let addresses = uplink.addresses.iter().map(IpNet::to_string);
    let routes = uplink.routes.iter().map(|route| format!("the route to {}", route.destination));
    let all: Vec<_> = addresses.chain(routes).collect();
    if all.is_empty() { "what a router announced".into() } else { all.join(", ") }
}

fn is_link_local(address: &AddressFact) -> bool {
    match address.address.addr() {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xFFC0 == 0xFE80,
    }
}

//! An interface that is to become a port of the bridge: what keeps it from that, and what is to be known of it.

use super::{addr_gen_mode, carried, is_link_local};
use crate::action::Action;
use crate::facts::{LinkFact, LinkKind, Route};
use crate::guard::link_local;
use crate::layout::WantedUplink;
use crate::plan::Planner;
use crate::thing::{Announced, Thing, Uplink};
use ipnet::IpNet;
use plat_model::problem::{Problem, codes};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// So many things are named in one sentence.
const NAMED: usize = 10;
/// What the kernel calls a link that has the packets of one tag alone.
const VLAN: &str = "vlan";
/// The `addr_gen_mode` by which the kernel makes addresses from the hardware address (EUI-64).
const FROM_THE_HARDWARE_ADDRESS: &str = "0";

impl Planner<'_> {
    pub(super) fn take(&mut self, wanted: &WantedUplink, found: &LinkFact) {
        let link = &wanted.link;
        if let Some(bridge) = &found.bridge {
            let what = format!("{link} is a port of {bridge}");
            return self.foreign(what, "node-format did not join it", "take it out of there, or leave `uplink` out");
        }
        let on_it = self.facts.addresses.iter().filter(|address| address.link == *link && !is_link_local(address));
        let own = on_it.filter(|address| !address.leased);
        let announced = self.facts.announced_on(link);
        self.refuse_lease(link);
        self.refuse_what_cannot_come_back(link);
        self.refuse_from_what_goes(link);
        self.refuse_stacked(link);
        self.refuse_deaf(wanted, &announced);
        self.refuse_another_address(wanted, found, &announced);
        // What the node had there of its own goes before, or comes to the bridge by itself.
        let is_ours = |address: IpNet| self.claims.has(&Thing::Address { link: link.clone(), address });
        let addresses: Vec<IpNet> = own.map(|address| address.address).filter(|address| !is_ours(*address)).collect();
        let routes = self.facts.routes.iter().filter(|route| route.link == *link);
        let routes = routes.filter(|route| !self.claims.has(&Thing::Route((*route).clone())));
        let routes: BTreeSet<Route> = routes.cloned().collect();
        let carries = !addresses.is_empty() || !routes.is_empty() || !announced.is_empty();
        let mut further = self.facts.further.get(link).cloned().unwrap_or_default();
        further.retain(|address, _| addresses.contains(address));
        let (link, bridge) = (link.clone(), wanted.bridge.clone());
        // Of another one nobody has.
        let confirmation = Thing::UplinkConfirmed { link: link.clone() };
        let of_another = self.claims.has(&confirmation) && self.exchanged.contains(&link);
        let confirmed = self.claims.has(&confirmation) && !of_another;
        self.forget.extend(of_another.then_some(confirmation));
        // Early in a boot the system has not raised yet what it is going to.
        let was_up = found.up || confirmed;
        if !was_up {
            self.notes.push(format!("{link} is down: it is raised, and set down again when it is given back"));
        }
        let (mac, index) = (Some(found.mac), self.facts.indexes.get(&link).copied());
        let uplink = Uplink { link, bridge, mac, index, was_up, carries, addresses, further, routes, announced };
        let link = &wanted.link;
        self.say_lesser_mtu_than_uplink(wanted);
        if !confirmed {
            self.notes.push(format!(
                "{} gets the hardware address of {link}: a configuration that finds {link} by that (networkd's `MACAddress=`, netplan's `macaddress:`) finds both",
                wanted.bridge
            ));
        }
        if carries && !confirmed {
            self.notes.push(format!(
                "what names {link} does not hold for {}: rules of packet filters, programs that are bound to {link}, settings of {link} alone (sysctl, tc), its DNS servers (systemd-resolved)",
                wanted.bridge
            ));
        }
        if carries && !confirmed && !self.consent.take_uplink {
            self.problems.push(
                Problem::new(codes::UPLINK, format!("this machine is reached through {link}"))
                    .because(format!("{} would move to {}", carried(&uplink), wanted.bridge))
                    .fix("`node-format plan --take-uplink` shows it all, `apply --take-uplink` does it: unless you confirm in time, the old network comes back"),
            );
        }
        self.add.push(Action::TakeUplink(uplink));
    }

    /// The machine's own packets are what goes by the bridge, too.
    pub(super) fn say_lesser_mtu_than_uplink(&mut self, wanted: &WantedUplink) {
        let WantedUplink { link, bridge } = wanted;
        let set = self.layout.links.get(bridge).and_then(|bridge| bridge.mtu).map(|mtu| (mtu, "`mtu`".to_owned()));
        let port = self.smallest_port(link, bridge).map(|(mtu, port)| (mtu, format!("as its port {port} does")));
        let lesser = set.into_iter().chain(port).min_by_key(|(mtu, _)| *mtu);
        let whole = self.facts.links.get(link).and_then(|found| found.mtu);
        if let Some(((lesser, why), whole)) = lesser.zip(whole).filter(|((lesser, _), whole)| lesser < whole) {
            self.notes.push(format!(
                "{link} takes packets of {whole} bytes, {bridge} takes {lesser} ({why}): so does the machine there"
            ));
        }
    }

    /// What DHCP gave stays with its client, which knows nothing of the bridge.
    pub(super) fn refuse_lease(&mut self, link: &str) {
        let Some(leases) = self.facts.leases.get(link) else { return };
        let addresses = leases.addresses.iter().map(|address| format!("the address {address}"));
        let routes = leases.routes.iter().map(|to| format!("the route to {to}"));
        let leases = addresses.chain(routes).collect::<Vec<_>>().join(", ");
        self.problems.push(
            Problem::new(codes::UPLINK, format!("{link} cannot be taken"))
                .because(format!("it has {leases} by DHCP, or from another program that keeps it there: that would go on at {link}"))
                .fix("give the machine a fixed address and way out, or let the system's own network configuration make the bridge and use `mode = \"interface\"`"),
        );
    }

    fn refuse_what_cannot_come_back(&mut self, link: &str) {
        let Some(odd) = self.cannot_come_back(link) else { return };
        self.problems.push(
            Problem::new(codes::UPLINK, format!("{link} cannot be taken"))
                .because(format!("it has {odd}, which could not be put back exactly"))
                .fix("take that away if nothing needs it, or let the system's own network configuration make the bridge and use `mode = \"interface\"`"),
        );
    }

    /// A route from an address that this very run takes away is nowhere any more when it is to move.
    fn refuse_from_what_goes(&mut self, link: &str) {
        let goes = |source: &IpAddr| {
            self.remove
                .iter()
                .any(|action| matches!(action, Action::RemoveAddress(gone) if gone.address.addr() == *source))
        };
        let on_it = self.facts.routes.iter().filter(|route| route.link == link);
        let Some((route, source)) =
            on_it.filter_map(|route| Some((route, route.source?))).find(|(_, source)| goes(source))
        else {
            return;
        };
        self.problems.push(
            Problem::new(codes::UPLINK, format!("{link} cannot be taken"))
                .because(format!(
                    "its route to {} is from {source}, an address of node-format's that goes",
                    route.destination
                ))
                .fix("take that route away, or give it another source (`ip route replace`)"),
        );
    }

    /// What stands on an interface takes its packets before a bridge could, of which the kernel allows one of the two, or is
    /// found by packets that came by the interface itself. A VLAN goes on as it was: its packets are told apart before.
    fn refuse_stacked(&mut self, link: &str) {
        let is_vlan =
            |name: &str| self.facts.links.get(name).is_some_and(|link| link.kind == LinkKind::Other(VLAN.into()));
        let stacked = self.facts.stacked.get(link).into_iter().flatten().map(String::as_str);
        let stacked: Vec<&str> = stacked.filter(|name| !is_vlan(name)).collect();
        if stacked.is_empty() {
            return;
        }
        self.problems.push(
            Problem::new(codes::UPLINK, format!("{link} cannot be taken"))
                .because(format!("{} on top of it would not go on beside a bridge (as a macvlan, an ipvlan, a tunnel that is bound to it)", stacked.join(", ")))
                .fix("remove that, or put it on a bridge that the system's own network configuration makes, and use `mode = \"interface\"` with that"),
        );
    }

    /// What a router announced comes again by itself only where the kernel listens to routers: on the bridge, and on the
    /// interface once it is given back.
    fn refuse_deaf(&mut self, wanted: &WantedUplink, announced: &Announced) {
        let address = announced.addresses.first().map(IpNet::to_string);
        let way = || announced.ways.first().map(|to| format!("a way to {to}"));
        let Some(announced) = address.or_else(way) else { return };
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

    /// An address of what a router announced comes to the bridge only as it follows from the hardware address, which the bridge takes.
    fn refuse_another_address(&mut self, wanted: &WantedUplink, found: &LinkFact, announced: &Announced) {
        let (link, bridge) = (&wanted.link, &wanted.bridge);
        if self.facts.leases.contains_key(link) || !self.hears_by_itself(link) {
            return; // It is refused already.
        }
        let follows = |address: &&IpNet| match address.addr() {
            IpAddr::V6(ip) => ip.octets()[8..] == link_local(found.mac).octets()[8..],
            IpAddr::V4(_) => true,
        };
        let of = |link: &str| self.facts.sysctls.get(&addr_gen_mode(link));
        let as_told = of(bridge).or_else(|| of("default")).is_none_or(|mode| mode == FROM_THE_HARDWARE_ADDRESS);
        let other = announced.addresses.iter().find(|address| !follows(address) || !as_told);
        let Some(address) = other else { return };
        let why = if follows(&address) {
            format!(
                "{bridge} would make another one in its place: links that are new make theirs in another way (`net.ipv6.conf.default.addr_gen_mode`)"
            )
        } else {
            format!(
                "{bridge} would make another one in its place: this one does not follow from the hardware address (a token, `addr_gen_mode`, `use_tempaddr`)"
            )
        };
        self.problems.push(
            Problem::new(codes::UPLINK, format!("{link} cannot be taken with {address}, of what a router announced"))
                .because(why)
                .fix("give the machine a fixed IPv6 address, or have it make this one from the hardware address (no token, `addr_gen_mode` 0, `use_tempaddr` 0)"),
        );
    }

    /// All that a link has and could not be given back exactly, in words.
    fn cannot_come_back(&self, link: &str) -> Option<String> {
        let odd = self.facts.odd.get(link).into_iter().flatten().map(|odd| odd.what.clone());
        let doubled = self.facts.doubled.get(link).into_iter().flatten();
        let doubled = doubled.map(|to| format!("the route {to}, beside another of the same metric"));
        let refused = self.facts.refused.get(link).into_iter().flatten().cloned();
        let all: Vec<String> = odd.chain(doubled).chain(refused).collect();
        let named = all.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
        match all.len() {
            0 => None,
            amount if amount > NAMED => Some(format!("{named}; and {} more", amount - NAMED)),
            _ => Some(named),
        }
    }
}

//! What somebody else set in a partition's namespace, or on its pair of links, and that goes with them: named.

use super::super::Planner;
use super::super::losses::comes_from;
use crate::action::Namespace;
use crate::facts::{About, LinkFact, LinkKind, NamespaceFact, Odd, Route};
use crate::guard::link_local;
use crate::thing::{Claims, Thing};
use crate::undo::listed;
use ipnet::IpNet;
use plat_model::id::shorten;
use std::net::IpAddr;

/// The machine's addresses that partitions' processes have as their routers: a partition's own are in their networks.
pub(super) struct Gateways(Vec<IpNet>);

impl Gateways {
    pub fn of(claims: &Claims) -> Self {
        let claimed = claims.iter().filter_map(|thing| match thing {
            Thing::Address { address, .. } if !is_single(*address) => Some(*address),
            _ => None,
        });
        Self(claimed.collect())
    }

    /// Of what is on `eth0`, what no partition is made with.
    fn others_on(&self, inside: &NamespaceFact) -> Vec<String> {
        let near = |net: &IpNet| self.0.iter().any(|gateway| gateway.contains(net));
        let addresses = inside.addresses.iter().filter(|address| !(is_single(**address) && near(address)));
        let addresses = addresses.map(|address| format!("the address {address}"));
        let routes = inside.routes.iter().filter(|route| !self.0.iter().any(|gateway| is_to(route, gateway.addr())));
        let routes = routes.map(|route| format!("the route to {}", route.destination));
        let local = inside.local_routes.iter().filter(|range| !near(range));
        addresses.chain(routes).chain(local.map(|range| format!("the local route {range}"))).collect()
    }
}

/// Whether it is one of those by which everything goes through this router.
fn is_to(route: &Route, router: IpAddr) -> bool {
    let plain = route.metric == 0 && route.source.is_none() && !route.onlink;
    let leads = match route.via {
        None => route.destination == IpNet::from(router),
        Some(via) => via == router && route.destination.prefix_len() == 0,
    };
    plain && leads
}

fn is_single(net: IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

impl Planner<'_> {
    pub(super) fn say_what_goes_with_namespace(
        &mut self,
        (name, veth): (&str, &str),
        found: Option<&NamespaceFact>,
        gateways: &Gateways,
    ) {
        let goes = format!("namespace {name} goes, and with it");
        let others = self.facts.others_inside.get(name);
        let end = |link: &str| match others.is_some_and(|others| others.elsewhere.contains(link)) {
            true => " and its other end, in another namespace",
            false => "",
        };
        let eth0 = self.far_end_of_others(name, veth).map(|far| match far {
            "" => format!("{goes} the link eth0 in it{}, which is no pair with {veth}", end("eth0")),
            far => format!("{goes} the link eth0 in it and {far}, which it is one pair with instead of {veth}"),
        });
        let links = others.into_iter().flat_map(|others| &others.links).map(|(link, far)| match far.as_str() {
            "" => format!("{goes} the link {link} in it{}, which node-format did not make", end(link)),
            far if far == veth => format!("{goes} the link {link} in it, which was eth0, and what is on it"),
            far => format!("{goes} the link {link} in it and {far}, one pair, which node-format did not make"),
        });
        // With every other link goes what is on it.
        let on_ours = others.into_iter().flat_map(|others| &others.odd).filter(|(link, _)| is_named(link));
        let odd = on_ours.flat_map(|(_, odd)| odd).filter(is_set);
        let odd = odd.map(|odd| odd.what.clone());
        let odd = odd.map(|what| format!("{goes} {what}, which node-format did not make there"));
        let away = self.end_elsewhere(name, veth, found);
        let lost = eth0.into_iter().chain(links).chain(odd).chain(away).collect();
        self.lose(lost);
        // Undoing it brings these back.
        let others = found.map(|found| gateways.others_on(found)).unwrap_or_default();
        self.notes
            .extend(others.into_iter().map(|what| format!("{goes} {what}, which node-format did not make there")));
    }

    /// What is said where our end of a pair goes and the other one is not in its namespace any more.
    fn end_elsewhere(&self, name: &str, veth: &str, inside: Option<&NamespaceFact>) -> Option<String> {
        let is_pair = |link: &LinkFact| link.kind == LinkKind::Veth;
        let is_inside = inside.is_some_and(|inside| inside.outside.as_deref() == Some(veth))
            || self.facts.others_inside.get(name).is_some_and(|others| others.links.values().any(|far| far == veth));
        let is_away = self.facts.links.get(veth).is_some_and(is_pair) && !is_inside;
        is_away.then(|| {
            format!(
                "{veth} goes, and with it its other end, which is not in namespace {name} any more, and what is on it"
            )
        })
    }

    /// What a namespace that stays loses of others' where it is made as it must be, and what its pair of links does.
    pub(super) fn say_what_is_taken_from_namespace(
        &mut self,
        (name, veth): (&str, &str),
        (found, wanted): (&Namespace, &Namespace),
        gateways: &Gateways,
    ) {
        let (Some(to), Some(outside)) = (&wanted.inside, &wanted.outside) else { return };
        let link = found.inside.as_ref().and_then(|inside| inside.link.as_ref());
        let others = self.facts.others_inside.get(name);
        match &found.outside {
            Some(_) if link.is_none() => {
                self.say_what_stands_alone(veth);
                let ends = others.into_iter().flat_map(|others| &others.links).filter(|(_, far)| *far == veth);
                let lost = ends.map(|(end, _)| {
                    format!("{veth} goes, and with it {end} in namespace {name}, which was eth0, and what is on it")
                });
                let lost = lost.chain(self.end_elsewhere(name, veth, found.inside.as_ref())).collect();
                self.lose(lost);
            }
            Some(there) => {
                if there.mac != outside.mac {
                    self.say_what_goes_with_its_mac(veth, there.mac);
                }
                if let Some(bridge) = there.bridge.as_ref().filter(|_| there.bridge != outside.bridge) {
                    self.say_what_its_bridge_forgets(veth, bridge);
                }
            }
            None => {}
        }
        let Some(from) = &found.inside else { return };
        let stays = |bridge: &&String| to.link.as_ref().is_some_and(|wanted| wanted.bridge.as_ref() == Some(*bridge));
        if let Some(bridge) = link.and_then(|link| link.bridge.as_ref()).filter(|bridge| !stays(bridge)) {
            let bridge = shorten(bridge);
            let what = "what was set there for it as a port";
            let set: Vec<&String> = others.into_iter().flat_map(|others| &others.of_bridge).collect();
            let named = if set.is_empty() { String::new() } else { format!(": {}", listed(&set)) };
            self.lose(vec![format!("eth0 in namespace {name} leaves {bridge}, and with it goes {what}{named}")]);
        }
        if let Some(link) = link.filter(|link| to.link.as_ref().is_some_and(|wanted| wanted.mac != link.mac)) {
            let odd = || others.into_iter().flat_map(|others| others.odd.get("eth0")).flatten();
            let lost = odd().filter(|odd| odd.about == About::Neighbour).map(|odd| {
                format!(
                    "eth0 in namespace {name} gets another hardware address, and with the old one goes {}, which node-format did not make",
                    odd.what
                )
            });
            let near = link_local(link.mac).into();
            let from_near = odd().filter(|odd| odd.source == Some(near));
            let inner = format!("eth0 in namespace {name}");
            let lost = lost.chain(from_near.map(|odd| comes_from(near, &odd.what, &inner, true))).collect();
            self.lose(lost);
        }
        let taken = NamespaceFact {
            addresses: from.addresses.difference(&to.addresses).copied().collect(),
            routes: from.routes.difference(&to.routes).cloned().collect(),
            local_routes: from.local_routes.difference(&to.local_routes).copied().collect(),
            ..NamespaceFact::default()
        };
        self.notes.extend(gateways.others_on(&taken).into_iter().map(|what| {
            format!(
                "namespace {name} is made as it was, and with that goes {what}, which node-format did not make there"
            )
        }));
    }
}

/// Whether what is on a link is named by itself.
fn is_named(link: &str) -> bool {
    matches!(link, "lo" | "eth0")
}

/// What the kernel made by itself is nobody's.
fn is_set(odd: &&Odd) -> bool {
    odd.about != About::Kernels
}

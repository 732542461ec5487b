//! What was taken out of a namespace, with what no fact says of it, should it have to come back.

use super::super::connection::{Connection, Request};
use super::super::near::Followed;
use super::super::{addresses, links, routes};
use super::INNER;
use crate::host::linux::sysctls;
use indexmap::IndexMap;
use ipnet::IpNet;
use node_format_plan::facts::{NamespaceFact, Route};
use rtnetlink::Handle;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::route::RouteProtocol;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// By name of the namespace.
pub(in crate::host::linux) type Taken = BTreeMap<String, Inside>;

/// What was on the inner end of the pair, and what the kernel was told there.
#[derive(Default)]
pub(in crate::host::linux) struct Inside {
    protocols: BTreeMap<Route, RouteProtocol>,
    /// As the kernel orders them.
    addresses: IndexMap<IpNet, AddressMessage>,
    pub local_routes: BTreeSet<IpNet>,
    /// Of those that node-format sets.
    settings: BTreeMap<&'static str, String>,
    pub followed: Followed,
}

impl Inside {
    /// Of the current namespace.
    pub fn look() -> io::Result<Self> {
        let mut connection = Connection::open_within()?;
        let links = links::all(&mut connection)?;
        let mut there = Self::default();
        there.note_settings();
        let Some(inner) = links.iter().find(|link| link.name == INNER) else { return Ok(there) };
        Ok(Self {
            protocols: routes::protocols(&mut connection, (inner.index, INNER))?,
            addresses: addresses::told(&mut connection, inner.index)?,
            ..there
        })
    }

    /// Takes in the settings of the current namespace, but for those that are known from before.
    pub fn note_settings(&mut self) {
        for (key, ..) in sysctls::OF_A_NAMESPACE {
            if let Some(value) = sysctls::read(key).filter(|_| !self.settings.contains_key(key)) {
                self.settings.insert(key, value);
            }
        }
    }

    pub fn settings(&self) -> BTreeMap<&'static str, String> {
        self.settings.clone()
    }

    /// What of this there was before the run, in words, but what node-format itself had put there since (`made`).
    pub fn all_of(&self, wanted: &NamespaceFact, made: Option<&NamespaceFact>) -> Vec<String> {
        let none = NamespaceFact::default();
        let made = made.unwrap_or(&none);
        let addresses = wanted.addresses.difference(&made.addresses).filter_map(|address| self.address(*address));
        let routes = wanted.routes.difference(&made.routes).filter_map(|route| self.route(route));
        let local = wanted.local_routes.difference(&made.local_routes).filter_map(|range| self.local_route(*range));
        addresses.chain(routes).chain(local).collect()
    }

    /// It in words, if it was there.
    pub fn address(&self, address: IpNet) -> Option<String> {
        self.addresses.contains_key(&address).then(|| format!("the address {address}"))
    }

    pub fn route(&self, route: &Route) -> Option<String> {
        self.protocols.contains_key(route).then(|| format!("the route to {}", route.destination))
    }

    pub fn local_route(&self, range: IpNet) -> Option<String> {
        self.local_routes.contains(&range).then(|| format!("the local route {range}"))
    }

    /// The order in which they must be added to be in the kernel's again: it puts the newest of IPv6 first, of IPv4 last.
    pub fn in_order<'a>(&self, addresses: impl Iterator<Item = &'a IpNet>) -> Vec<&'a IpNet> {
        let mut all: Vec<&IpNet> = addresses.collect();
        let last = self.addresses.len();
        all.sort_by_key(|address| {
            let place = self.addresses.get_index_of(*address).unwrap_or(last);
            (address.addr().is_ipv6(), if address.addr().is_ipv6() { last - place } else { place })
        });
        all
    }

    /// As it was, if it was there.
    pub fn add_address(&self, handle: &Handle, index: u32, address: IpNet) -> Request {
        match self.addresses.get(&address) {
            Some(told) => addresses::add_as_told(handle, index, told),
            None => addresses::add(handle, index, address),
        }
    }

    /// In whose name it was made, if it was there.
    pub fn add_route(&self, handle: &Handle, index: u32, route: &Route) -> Request {
        match self.protocols.get(route) {
            Some(by) => routes::add_by(handle, index, route, *by),
            None => routes::add(handle, index, route),
        }
    }

    /// Takes in what a later look found as well.
    pub fn extend(&mut self, later: Self) {
        for (route, by) in later.protocols {
            self.protocols.entry(route).or_insert(by);
        }
        self.local_routes.extend(later.local_routes);
        for (address, told) in later.addresses {
            self.addresses.entry(address).or_insert(told);
        }
        for (key, value) in later.settings {
            self.settings.entry(key).or_insert(value);
        }
    }
}

//! Addresses on links.

use super::connection::{Connection, Request, unless};
use indexmap::IndexMap;
use ipnet::IpNet;
use nix::errno::Errno;
use node_format_plan::facts::{AddressFact, Further};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope, CacheInfo,
};
use rtnetlink::{AddressAddRequest, Handle};
use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// The kernel makes addresses of announced prefixes of this length alone (RFC 4862, 5.5.3).
const LENGTH_OF_A_ROUTERS: u8 = 64;

/// The index of a link, whose name another answer has; an address on it; and what is to be known of that besides.
pub(super) type Found = (u32, AddressFact, Besides);

#[derive(Clone, Copy)]
pub(super) struct Besides {
    /// The kernel says that it made it of the link (Linux 5.18; before that it says so of none).
    pub is_kernels: bool,
    /// It says who made it: itself, or a program that told it its name.
    pub is_told: bool,
    /// Of IPv4, another one of its network came first.
    pub secondary: bool,
    /// Of IPv6, the kernel made it of what a router announced, and of that a temporary one perhaps.
    pub of_a_router: bool,
    pub further: Further,
}

/// Every address there is, as the kernel orders them.
pub(super) fn all(connection: &mut Connection) -> io::Result<Vec<Found>> {
    let answers = connection.handle.address().get().execute();
    connection.ask(answers, read)
}

/// Whether this kernel says which it made. Where it does not, one like its own is taken for it.
pub(super) fn are_told_apart(all: &[Found]) -> bool {
    all.iter().any(|(.., besides)| besides.is_told)
}

fn read(message: AddressMessage) -> Option<Found> {
    let (mut local, mut address, mut broadcast, mut metric) = (None, None, None, 0);
    let (mut is_kernels, mut is_told, mut without_route, mut managed) = (false, false, false, false);
    let flags = message.header.flags;
    let leased = ends(&message);
    let ipv4 = message.header.family == AddressFamily::Inet;
    let own = ipv4 && message.header.scope == AddressScope::Host;
    let bound_only =
        own || (message.header.family == AddressFamily::Inet6 && flags.contains(AddressHeaderFlags::Deprecated));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            AddressAttribute::Broadcast(ip) => broadcast = Some(*ip),
            AddressAttribute::RoutePriority(number) => metric = *number,
            AddressAttribute::Flags(flags) => {
                without_route = flags.contains(AddressFlags::Noprefixroute);
                managed = flags.contains(AddressFlags::Managetempaddr);
            }
            AddressAttribute::Protocol(by) => (is_kernels, is_told) = (*by == AddressProtocol::LinkLocal, true),
            _ => {}
        }
    }
    // Of IPv6 it follows from the address.
    let scope = Some(message.header.scope).filter(|scope| ipv4 && *scope != AddressScope::Universe).map(u8::from);
    // On a link between two ends `address` is the other one's.
    let peer = address.filter(|other| local.is_some_and(|own| own != *other));
    let address = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
    // Of IPv6 the same bit says that it is a temporary one.
    let marked = flags.contains(AddressHeaderFlags::Secondary);
    let of_a_router = !ipv4 && leased && message.header.prefix_len == LENGTH_OF_A_ROUTERS && (managed || marked);
    let secondary = ipv4 && marked;
    Some((
        message.header.index,
        AddressFact { link: String::new(), address, leased, bound_only },
        Besides {
            is_kernels,
            is_told,
            secondary,
            of_a_router,
            further: Further { peer, metric, scope, broadcast, without_route },
        },
    ))
}

/// Whether it is there for a time alone.
pub(super) fn ends(told: &AddressMessage) -> bool {
    !told.header.flags.contains(AddressHeaderFlags::Permanent)
}

/// The addresses of a link as the kernel tells of them and orders them, by what the plan calls each.
pub(super) fn told(connection: &mut Connection, link: u32) -> io::Result<IndexMap<IpNet, AddressMessage>> {
    let answers = connection.handle.address().get().execute();
    connection.ask(answers, |message| {
        let (index, found, _) = read(message.clone())?;
        (index == link).then_some((found.address, message))
    })
}

/// The same address on another link, with all it has: its broadcast address, the other end, the flags.
pub(super) fn add_as_told(handle: &Handle, index: u32, told: &AddressMessage) -> Request {
    let mut request = handle.address().add(index, IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let message = request.message_mut();
    *message = told.clone();
    message.header.index = index;
    if message.header.family == AddressFamily::Inet6 {
        message.header.flags |= AddressHeaderFlags::Nodad;
    }
    // Its link's name, or one made from it.
    message.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Label(_)));
    for attribute in &mut message.attributes {
        if let AddressAttribute::Flags(flags) = attribute {
            flags.remove(AddressFlags::Tentative | AddressFlags::Dadfailed);
            flags.insert(AddressFlags::Nodad);
        }
    }
    Box::pin(request.execute())
}

pub(super) fn remove_as_told(handle: &Handle, told: &AddressMessage) -> Request {
    Box::pin(handle.address().del(told.clone()).execute())
}

fn new(handle: &Handle, index: u32, address: IpNet) -> AddressAddRequest {
    let mut request = handle.address().add(index, address.addr(), address.prefix_len());
    let message = request.message_mut();
    without_broadcast(message);
    if address.addr().is_ipv6() {
        message.header.flags |= AddressHeaderFlags::Nodad;
    }
    request
}

/// An address for whoever binds to it: the kernel, which takes the newest of IPv6 and the first of IPv4 that fits for a
/// connection of anybody else's, shall not choose it while there is another. One of link scope would be the first for whatever
/// stays on the link.
pub(super) fn add_for_binding(handle: &Handle, index: u32, address: IpNet) -> Request {
    let mut request = new(handle, index, address);
    if address.addr().is_ipv6() {
        let mut never_preferred = CacheInfo::default();
        never_preferred.ifa_valid = u32::MAX;
        request.message_mut().attributes.push(AddressAttribute::CacheInfo(never_preferred));
    }
    if address.addr().is_ipv4() {
        request.message_mut().header.scope = AddressScope::Host;
    }
    Box::pin(request.execute())
}

pub(super) fn add(handle: &Handle, index: u32, address: IpNet) -> Request {
    Box::pin(new(handle, index, address).execute())
}

/// One of which the record alone still knows.
pub(super) fn add_as_recorded(handle: &Handle, index: u32, address: IpNet, further: Further) -> Request {
    let mut request = new(handle, index, address);
    request.message_mut().header.scope = further.scope.map_or(AddressScope::Universe, AddressScope::from);
    let attributes = &mut request.message_mut().attributes;
    if let Some(peer) = further.peer {
        attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Address(_)));
        attributes.push(AddressAttribute::Address(peer));
    }
    attributes.extend(further.broadcast.map(AddressAttribute::Broadcast));
    if further.without_route {
        // In place of what the header says.
        let nodad = if address.addr().is_ipv6() { AddressFlags::Nodad } else { AddressFlags::empty() };
        attributes.push(AddressAttribute::Flags(AddressFlags::Noprefixroute | nodad));
    }
    if further.metric != 0 {
        attributes.push(AddressAttribute::RoutePriority(further.metric));
    }
    Box::pin(request.execute())
}

pub(super) fn remove(handle: &Handle, index: u32, address: IpNet) -> Request {
    let mut request = handle.address().add(index, address.addr(), address.prefix_len());
    without_broadcast(request.message_mut());
    let message = request.message_mut().clone();
    Box::pin(handle.address().del(message).execute())
}

/// A link-local one in the kernel's name.
pub(super) fn add_near(handle: &Handle, index: u32, near: IpNet) -> Request {
    let mut request = new(handle, index, near);
    request.message_mut().attributes.push(AddressAttribute::Protocol(AddressProtocol::LinkLocal));
    unless(Box::pin(request.execute()), Errno::EEXIST)
}

pub(super) fn remove_if_there(handle: &Handle, index: u32, address: IpNet) -> Request {
    unless(remove(handle, index, address), Errno::EADDRNOTAVAIL)
}

/// The plan names addresses alone; rtnetlink would add a broadcast address to those of IPv4.
fn without_broadcast(message: &mut AddressMessage) {
    message.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
}

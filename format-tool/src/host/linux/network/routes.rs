//! Local routes: ranges that the machine answers for as a whole.

use super::connection::{Connection, Request};
use ipnet::IpNet;
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope, RouteType};
use rtnetlink::{Handle, RouteMessageBuilder};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Number of the kernel's table of what is local.
const TABLE_LOCAL: u8 = 255;

/// Every local route that is wider than one address.
pub(super) fn all_local(connection: &mut Connection) -> io::Result<BTreeSet<IpNet>> {
    let answers = connection.handle.route().get(RouteMessage::default()).execute();
    connection.ask(answers, read)
}

fn read(message: RouteMessage) -> Option<IpNet> {
    let header = &message.header;
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Destination(RouteAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })?;
    let range = IpNet::new(address, header.destination_prefix_length).ok()?;
    let local = header.table == TABLE_LOCAL && header.kind == RouteType::Local;
    (local && range.prefix_len() < range.max_prefix_len()).then_some(range)
}

pub(super) fn add_local(handle: &Handle, lo: u32, range: IpNet) -> Request {
    Box::pin(handle.route().add(message(lo, range)).execute())
}

pub(super) fn remove_local(handle: &Handle, lo: u32, range: IpNet) -> Request {
    Box::pin(handle.route().del(message(lo, range)).execute())
}

fn message(lo: u32, range: IpNet) -> RouteMessage {
    let mut message = match range {
        IpNet::V4(range) => {
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(range.network(), range.prefix_len()).build()
        }
        IpNet::V6(range) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(range.network(), range.prefix_len()).build()
        }
    };
    message.header.table = TABLE_LOCAL;
    message.header.scope = RouteScope::Host;
    message.header.kind = RouteType::Local;
    message.attributes.push(RouteAttribute::Oif(lo));
    message
}

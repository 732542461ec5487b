//! Neighbours whose hardware addresses somebody has fixed: the kernel forgets them with the last address of a link.

use super::connection::Connection;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use std::io;
use std::net::IpAddr;

/// The index of a link, and a neighbour there.
pub(super) fn fixed(connection: &mut Connection) -> io::Result<Vec<(u32, IpAddr)>> {
    let answers = connection.handle.neighbours().get().execute();
    connection.ask(answers, |message: NeighbourMessage| {
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            _ => None,
        });
        let is_fixed = message.header.state == NeighbourState::Permanent;
        address.filter(|_| is_fixed).map(|address| (message.header.ifindex, address))
    })
}

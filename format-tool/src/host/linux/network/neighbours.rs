//! Neighbours that somebody has set by hand, those that the machine answers for (proxies) too: the kernel forgets them with
//! the last address of a link.

use super::connection::Connection;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use std::io;
use std::net::IpAddr;

/// The index of a link, and a neighbour there.
pub(super) fn fixed(connection: &mut Connection) -> io::Result<Vec<(u32, IpAddr)>> {
    let (all, proxies) = (connection.handle.neighbours().get(), connection.handle.neighbours().get().proxies());
    let mut found: Vec<_> = connection.ask(all.execute(), read(NeighbourState::Permanent))?;
    found.extend::<Vec<_>>(connection.ask(proxies.execute(), read(NeighbourState::None))?);
    Ok(found)
}

fn read(state: NeighbourState) -> impl Fn(NeighbourMessage) -> Option<(u32, IpAddr)> {
    move |message| {
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
            _ => None,
        });
        let is_meant = message.header.state == state || message.header.flags.contains(NeighbourFlags::Proxy);
        address.filter(|_| is_meant).map(|address| (message.header.ifindex, address))
    }
}

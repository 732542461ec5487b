//! Neighbours that somebody has set by hand, those that the machine answers for (proxies) too: the kernel forgets them with
//! the last address of a link.

use super::connection::Connection;
use super::kernels::Kernels;
use node_format_plan::facts::About;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use std::io;
use std::net::IpAddr;

/// The index of a link, and a neighbour there.
pub(super) fn fixed(connection: &mut Connection, kernels: &Kernels) -> io::Result<Vec<(u32, IpAddr, About)>> {
    let (all, proxies) = (connection.handle.neighbours().get(), connection.handle.neighbours().get().proxies());
    let seen: Vec<_> = connection.ask(all.execute(), |message| read(&message, kernels))?;
    let answered_for: Vec<_> = connection.ask(proxies.execute(), |message| read(&message, kernels))?;
    let seen = seen.into_iter().map(|(link, address)| (link, address, About::Neighbour));
    Ok(seen.chain(answered_for.into_iter().map(|(link, address)| (link, address, About::Other))).collect())
}

fn read(message: &NeighbourMessage, kernels: &Kernels) -> Option<(u32, IpAddr)> {
    let link = message.header.ifindex;
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })?;
    // What the kernel finds out about neighbours; all else was set.
    let flags = NeighbourFlags::Router | NeighbourFlags::Use | NeighbourFlags::Offloaded;
    let plain = flags.contains(message.header.flags);
    let managed = message.attributes.iter().any(
        |attribute| matches!(attribute, NeighbourAttribute::ExtFlags(flags) if *flags != NeighbourExtFlags::empty()),
    );
    let learned = match message.header.state {
        NeighbourState::Noarp => kernels.knows(link, address),
        NeighbourState::Permanent => false,
        _ => true,
    };
    (!learned || !plain || managed).then_some((link, address))
}

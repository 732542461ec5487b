//! Addresses on links.

use super::connection::{Connection, Request};
use ipnet::IpNet;
use rtnetlink::Handle;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use std::io;

/// An address, the index of its link, and whether it ends by itself.
pub(super) type Found = (u32, IpNet, bool);

/// Every address there is.
pub(super) fn all(connection: &mut Connection) -> io::Result<Vec<Found>> {
    let answers = connection.handle.address().get().execute();
    connection.ask(answers, read)
}

fn read(message: AddressMessage) -> Option<Found> {
    let (mut local, mut address) = (None, None);
    let leased = !message.header.flags.contains(AddressHeaderFlags::Permanent);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => address = Some(*ip),
            _ => {}
        }
    }
    // On a link between two ends `address` is the other one's.
    Some((message.header.index, IpNet::new(local.or(address)?, message.header.prefix_len).ok()?, leased))
}

pub(super) fn add(handle: &Handle, index: u32, address: IpNet) -> Request {
    let mut request = handle.address().add(index, address.addr(), address.prefix_len());
    let message = request.message_mut();
    without_broadcast(message);
    if address.addr().is_ipv6() {
        message.header.flags |= AddressHeaderFlags::Nodad;
    }
    Box::pin(request.execute())
}

pub(super) fn remove(handle: &Handle, index: u32, address: IpNet) -> Request {
    let mut request = handle.address().add(index, address.addr(), address.prefix_len());
    without_broadcast(request.message_mut());
    let message = request.message_mut().clone();
    Box::pin(handle.address().del(message).execute())
}

/// The plan names addresses alone; rtnetlink would add a broadcast address to those of IPv4.
fn without_broadcast(message: &mut AddressMessage) {
    message.attributes.retain(|attribute| !matches!(attribute, AddressAttribute::Broadcast(_)));
}

//! Routes: ranges that the machine answers for as a whole, and ways to other machines.

mod found;

pub(super) use found::{all, protocols};

use super::connection::{Connection, Request};
use futures_util::stream::StreamExt;
use ipnet::IpNet;
use node_format_plan::facts::Route;
use rtnetlink::packet_core::{NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Error, Handle, RouteMessageBuilder};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Number of the kernel's table of what is local.
const TABLE_LOCAL: u8 = 255;

/// The ways that routers announced on a link, in the main table: through them, and to their own prefixes. They end by themselves, but while
/// they are there they draw to the link what others are to carry. So do those that the kernel made to networks which the
/// link has no address of any more (`left`).
pub(super) fn stale(connection: &mut Connection, link: u32, left: &BTreeSet<IpNet>) -> io::Result<Vec<RouteMessage>> {
    let answers = connection.handle.route().get(RouteMessageBuilder::<Ipv6Addr>::new().build()).execute();
    connection.ask(answers, |message: RouteMessage| {
        let has = |is: fn(&RouteAttribute, u32) -> bool| message.attributes.iter().any(|one| is(one, link));
        let there = has(|one, link| matches!(one, RouteAttribute::Oif(index) if *index == link));
        let ends = has(|one, _| matches!(one, RouteAttribute::CacheInfo(info) if info.expires != 0));
        let is_stale = match message.header.protocol {
            RouteProtocol::Ra => found::is_main(&message),
            RouteProtocol::Kernel if message.header.kind == RouteType::Unicast => {
                ends || found::network_of(&message).is_some_and(|network| left.contains(&network))
            }
            _ => false,
        };
        (there && is_stale).then_some(message)
    })
}

/// As the kernel told of it.
pub(super) fn remove_as_told(handle: &Handle, route: RouteMessage) -> Request {
    Box::pin(handle.route().del(route).execute())
}

pub(super) fn add(handle: &Handle, index: u32, route: &Route) -> Request {
    Box::pin(handle.route().add(unicast(index, route)).execute())
}

/// One that was made in this name.
pub(super) fn add_by(handle: &Handle, index: u32, route: &Route, by: RouteProtocol) -> Request {
    let mut message = unicast(index, route);
    message.header.protocol = by;
    Box::pin(handle.route().add(message).execute())
}

/// Beside whatever other route to the same there is: it is refused only where this very one is there already.
pub(super) fn add_beside(handle: &Handle, index: u32, route: &Route) -> Request {
    let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewRoute(unicast(index, route)));
    message.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND;
    let mut handle = handle.clone();
    Box::pin(async move {
        let mut answers = handle.request(message)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(refusal) = answer.payload
                && refusal.code.is_some()
            {
                return Err(Error::NetlinkError(refusal));
            }
        }
        Ok(())
    })
}

pub(super) fn remove(handle: &Handle, index: u32, route: &Route) -> Request {
    let mut message = unicast(index, route);
    // Whoever made it.
    message.header.protocol = RouteProtocol::Unspec;
    message.header.scope = RouteScope::NoWhere;
    Box::pin(handle.route().del(message).execute())
}

fn unicast(index: u32, route: &Route) -> RouteMessage {
    let mut message = to(route.destination);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.scope = if route.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    };
    if route.onlink {
        message.header.flags |= RouteFlags::Onlink;
    }
    message.attributes.push(RouteAttribute::Oif(index));
    message.attributes.extend(route.via.map(|via| RouteAttribute::Gateway(address(via))));
    message.attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(address(source))));
    // Without one the kernel would remove whichever route to the same it finds first.
    let metric = found::metric_of(route);
    if metric != 0 {
        message.attributes.push(RouteAttribute::Priority(metric));
    }
    message
}

fn to(range: IpNet) -> RouteMessage {
    match range {
        IpNet::V4(range) => {
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(range.network(), range.prefix_len()).build()
        }
        IpNet::V6(range) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(range.network(), range.prefix_len()).build()
        }
    }
}

pub(super) fn add_local(handle: &Handle, lo: u32, range: IpNet) -> Request {
    Box::pin(handle.route().add(local(lo, range)).execute())
}

pub(super) fn remove_local(handle: &Handle, lo: u32, range: IpNet) -> Request {
    Box::pin(handle.route().del(local(lo, range)).execute())
}

fn local(lo: u32, range: IpNet) -> RouteMessage {
    let mut message = to(range);
    message.header.table = TABLE_LOCAL;
    message.header.scope = RouteScope::Host;
    message.header.kind = RouteType::Local;
    message.attributes.push(RouteAttribute::Oif(lo));
    message
}

//! Links: what is known of each, and the requests that make, change and remove them.

use super::Indexes;
use super::connection::{Connection, Request};
use node_format_plan::facts::{LinkFact, LinkKind};
use rtnetlink::packet_core::Nla;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoTun, InfoVeth,
    InfoVxlan, LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use rtnetlink::{Handle, LinkBridge, LinkBridgePort, LinkUnspec, LinkVeth};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;

// The attributes of a tun link, which rtnetlink leaves as bytes (linux/if_link.h, linux/if_tun.h).
const TUN_OWNER: u16 = 1;
const TUN_GROUP: u16 = 2;
const TUN_PERSIST: u16 = 6;
const TUN_TYPE: u16 = 3;
const TUN_TYPE_TUN: u8 = 1;
const TUN_TYPE_TAP: u8 = 2;

/// A link as the kernel tells of it.
pub(super) struct Link {
    pub name: String,
    pub index: u32,
    /// Index of the bridge it is a port of.
    pub master: Option<u32>,
    /// Index of the link that it stands on, as a VLAN does, or that a tunnel is bound to.
    pub on: Option<u32>,
    /// Of the end of a pair, the index of the other one in another namespace.
    pub far: Option<u32>,
    /// Neighbours need no asking for there, or there is only one.
    pub without_neighbours: bool,
    /// What IPv6 is told there; `None`: it is switched off.
    pub ipv6: Option<Ipv6>,
    /// Of a bridge that knows VLANs, the one that ports are in at first; 0: none.
    pub default_vlan: Option<u16>,
    /// Without its bridge, whose name another answer has.
    pub fact: LinkFact,
}

#[derive(Clone, Copy)]
pub(super) struct Ipv6 {
    /// Bytes of the largest packet.
    pub mtu: u32,
    /// How the kernel makes the link-local address (`addr_gen_mode`).
    pub address: i32,
}

/// Every link there is.
pub(super) fn all(connection: &mut Connection) -> io::Result<Vec<Link>> {
    let get = connection.handle.link().get();
    let answers = get.set_filter_mask(AddressFamily::Unspec, vec![LinkExtentMask::SkipStats]).execute();
    connection.ask(answers, read)
}

/// Ends of pairs whose other ends are in other namespaces: by the index of each and that of the other one, the name.
pub(super) type Ends = BTreeMap<(u32, u32), String>;

pub(super) fn ends(links: &[Link]) -> Ends {
    links.iter().filter_map(|link| Some(((link.index, link.far?), link.name.clone()))).collect()
}

fn read(message: LinkMessage) -> Option<Link> {
    let (mut name, mut master, mut on, mut bound, mut elsewhere, mut ipv6) = (None, None, None, None, false, None);
    let (mut default_vlan, mut is_whole) = (None, false);
    let flags = message.header.flags;
    let kind = LinkKind::Other(String::new());
    let up = flags.contains(LinkFlags::Up);
    let mut fact = LinkFact { kind, up, bridge: None, group: 0, mac: [0; 6], mtu: None, isolated: false };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = Some(text),
            LinkAttribute::Controller(index) => master = Some(index),
            LinkAttribute::Link(index) => on = Some(index),
            LinkAttribute::LinkNetNsId(_) => elsewhere = true,
            LinkAttribute::AfSpecUnspec(families) => ipv6 = families.iter().find_map(read_ipv6),
            LinkAttribute::Group(group) => fact.group = group,
            LinkAttribute::Address(mac) => (is_whole, fact.mac) = (mac.len() == 6, mac.try_into().unwrap_or_default()),
            LinkAttribute::Mtu(bytes) => fact.mtu = Some(bytes),
            LinkAttribute::LinkInfo(info) => {
                fact.kind = read_kind(&info);
                bound = info.iter().find_map(bound_to);
                default_vlan = info.iter().find_map(default_vlan_of);
                fact.isolated = info.iter().any(is_isolated);
            }
            _ => {}
        }
    }
    // One that was told to be no Ethernet any more is not as it was made, whoever owns it.
    if let LinkKind::Tap(owner) = &mut fact.kind
        && !(is_whole && message.header.link_layer_type == LinkLayerType::Ether)
    {
        *owner = SPOILED;
    }
    // Of a pair that is the other end.
    let far = on.filter(|_| elsewhere && fact.kind == LinkKind::Veth);
    let on = on.filter(|_| !elsewhere && fact.kind != LinkKind::Veth).or(bound.filter(|_| !elsewhere));
    let without_neighbours = flags.intersects(LinkFlags::Loopback | LinkFlags::Pointopoint | LinkFlags::Noarp);
    let index = message.header.index;
    Some(Link { name: name?, index, master, on, far, without_neighbours, ipv6, default_vlan, fact })
}

fn read_ipv6(family: &AfSpecUnspec) -> Option<Ipv6> {
    let AfSpecUnspec::Inet6(parts) = family else { return None };
    parts.iter().find_map(|part| match part {
        AfSpecInet6::DevConf(told) if told.disable_ipv6 == 0 => {
            Some(Ipv6 { mtu: u32::try_from(told.mtu6).ok()?, address: told.addr_gen_mode })
        }
        _ => None,
    })
}

/// The link that a VXLAN sends by. Other tunnels tell it as the link that they stand on.
fn bound_to(part: &LinkInfo) -> Option<u32> {
    let LinkInfo::Data(InfoData::Vxlan(attributes)) = part else { return None };
    attributes.iter().find_map(|attribute| match attribute {
        InfoVxlan::Link(index) if *index != 0 => Some(*index),
        _ => None,
    })
}

fn default_vlan_of(part: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Bridge(attributes)) = part else { return None };
    attributes.iter().find_map(|attribute| match attribute {
        InfoBridge::VlanDefaultPvid(vlan) => Some(*vlan),
        _ => None,
    })
}

fn is_isolated(part: &LinkInfo) -> bool {
    let LinkInfo::PortData(InfoPortData::BridgePort(port)) = part else { return false };
    port.iter().any(|attribute| matches!(attribute, InfoBridgePort::Isolated(true)))
}

/// Whose one is said to be that is not as it was made: no partition's. Where it has to come back, nobody else can open it.
const SPOILED: Option<u32> = Some(0);

fn read_kind(info: &[LinkInfo]) -> LinkKind {
    let mut kind = LinkKind::Other(String::new());
    let (mut owner, mut mode, mut spoiled) = (None, None, false);
    for part in info {
        match part {
            LinkInfo::Kind(InfoKind::Bridge) => kind = LinkKind::Bridge,
            LinkInfo::Kind(InfoKind::Veth) => kind = LinkKind::Veth,
            LinkInfo::Kind(other) => kind = LinkKind::Other(other.to_string()),
            LinkInfo::Data(InfoData::Tun(attributes)) => {
                for (key, value) in attributes.iter().map(tun_attribute) {
                    match key {
                        TUN_OWNER => owner = value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)),
                        TUN_TYPE => mode = value.first().copied(),
                        TUN_GROUP => spoiled = true,
                        TUN_PERSIST => spoiled |= value.first() == Some(&0),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    // Given to a group as well, or to go with whoever has it open: not as it was made, whoever owns it.
    let owner = if spoiled { SPOILED } else { owner };
    match mode {
        Some(TUN_TYPE_TAP) => LinkKind::Tap(owner),
        Some(TUN_TYPE_TUN) => LinkKind::Tun(owner),
        _ => kind,
    }
}

fn tun_attribute(attribute: &InfoTun) -> (u16, Vec<u8>) {
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    (attribute.kind(), value)
}

pub(super) fn add_bridge(handle: &Handle, name: &str, link: &LinkFact) -> Request {
    let mut bridge = LinkBridge::new(name).address(link.mac.to_vec()).link_group(link.group);
    if let Some(bytes) = link.mtu {
        bridge = bridge.mtu(bytes);
    }
    let bridge = if link.up { bridge.up() } else { bridge.down() };
    Box::pin(handle.link().add(bridge.build()).execute())
}

/// Whether what has the name by now can be the link that was seen, or made. Of a pair the hardware address says so; that of a
/// tap, and whose it is, its user may change.
pub(super) fn is_still(found: &LinkFact, link: &LinkFact) -> bool {
    match (&found.kind, &link.kind) {
        (LinkKind::Tap(_), LinkKind::Tap(_)) | (LinkKind::Tun(_), LinkKind::Tun(_)) => true,
        (LinkKind::Veth, LinkKind::Veth) => found.mac == link.mac,
        (found, link) => found == link,
    }
}

/// A pair of links: one here, by which it is known from the beginning, and `inner` in the namespace that the file stands for.
pub(super) fn add_pair(
    handle: &Handle,
    (name, outer): (&str, &LinkFact),
    inner: (&str, &LinkFact),
    namespace: RawFd,
) -> Request {
    let (inner_name, link) = inner;
    let mut peer = LinkUnspec::new_with_name(inner_name).address(link.mac.to_vec()).setns_by_fd(namespace);
    if let Some(bytes) = link.mtu {
        peer = peer.mtu(bytes);
    }
    let pair = LinkVeth::new(name, inner_name).set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build())));
    let pair = pair.address(outer.mac.to_vec());
    Box::pin(handle.link().add(pair.build()).execute())
}

/// What differs between two states of a link, as requests in order. `None`: its bridge does not exist.
pub(super) fn set(
    handle: &Handle,
    index: u32,
    from: &LinkFact,
    to: &LinkFact,
    indexes: &Indexes,
) -> Option<Vec<Request>> {
    let link = LinkUnspec::new_with_index(index);
    let mut link = if to.up { link.up() } else { link.down() };
    if from.mac != to.mac {
        link = link.address(to.mac.to_vec());
    }
    if from.group != to.group {
        link = link.link_group(to.group);
    }
    if let Some(bytes) = to.mtu.filter(|_| from.mtu != to.mtu) {
        link = link.mtu(bytes);
    }
    if from.bridge != to.bridge {
        link = match &to.bridge {
            Some(bridge) => link.controller(*indexes.get(bridge)?),
            None => link.nocontroller(),
        };
    }
    let mut requests: Vec<Request> = vec![Box::pin(handle.link().set(link.build()).execute())];
    // A port that is joined anew is not isolated. Only one that is a port already can be.
    let was_isolated = from.isolated && from.bridge == to.bridge;
    if to.bridge.is_some() && to.isolated != was_isolated {
        let port = LinkBridgePort::new(index).isolated(to.isolated);
        requests.push(Box::pin(handle.link().change(port.build()).execute()));
    }
    Some(requests)
}

pub(super) fn remove(handle: &Handle, index: u32) -> Request {
    Box::pin(handle.link().del(index).execute())
}

/// Removes all links of a group with one message.
pub(super) fn remove_group(handle: &Handle, group: u32) -> Request {
    let message = LinkUnspec::new_with_index(0).link_group(group).build();
    Box::pin(handle.link().del_with_message(message).execute())
}

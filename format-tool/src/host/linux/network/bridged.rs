//! What somebody set in the tables of bridges, and of the frames that links take. What bridges learn, and what the kernel makes
//! of the links and addresses there are, is not told: it comes again.

use super::connection::Connection;
use super::links::Link;
use node_format_plan::facts::{LinkKind, SetFrames};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{AfSpecBridge, BridgeVlanInfoFlags, LinkAttribute, LinkExtentMask, LinkMessage};
use rtnetlink::packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

type Mac = [u8; 6];

/// By link.
pub(super) fn set_by_hand(
    connection: &mut Connection,
    links: &[Link],
) -> io::Result<BTreeMap<String, BTreeSet<SetFrames>>> {
    let mut all = BTreeMap::new();
    if !links.iter().any(|link| is_meant(&link.fact.kind)) {
        return Ok(all);
    }
    let by_index: BTreeMap<u32, &Link> = links.iter().map(|link| (link.index, link)).collect();
    let kernels = of_the_kernel(links);
    let entries = connection.handle.neighbours().get().set_address_family(AddressFamily::Bridge).execute();
    let entries: Vec<Entry> = connection.ask(entries, |message| Entry::read(&message))?;
    for Entry { link, mac, of_bridge, by_hand } in entries {
        let Some(link) = by_index.get(&link) else { continue };
        // A link takes frames for all that its bridge knows.
        let where_known = link.master.into_iter().chain((!of_bridge || link.master.is_none()).then_some(link.index));
        let is_known = where_known.filter_map(|index| kernels.get(&index)).any(|macs| macs.contains(&mac));
        let is_kernels = is_known && !by_hand;
        if is_kernels || (!of_bridge && !is_meant(&link.fact.kind)) {
            continue;
        }
        let shown = mac.map(|byte| format!("{byte:02x}")).join(":");
        let what = format!("the entry {shown} set with `bridge fdb`");
        all.entry(link.name.clone()).or_insert_with(BTreeSet::new).insert(SetFrames { what, of_bridge });
    }
    let vlans = connection.handle.link().get();
    let vlans = vlans.set_filter_mask(AddressFamily::Bridge, vec![LinkExtentMask::BrvlanCompressed]).execute();
    let vlans: Vec<(u32, BTreeSet<Vlan>)> = connection.ask(vlans, vlans_of)?;
    for (index, vlans) in vlans {
        let Some(link) = by_index.get(&index) else { continue };
        let default = by_index.get(&link.master.unwrap_or(index)).and_then(|bridge| bridge.default_vlan);
        let untouched = default.filter(|vlan| *vlan != 0).map(|vlan| (vlan, OF_THE_KERNEL.bits()));
        if default.is_some() && vlans != untouched.into_iter().collect() {
            let what = "the VLANs set with `bridge vlan`".to_owned();
            all.entry(link.name.clone()).or_default().insert(SetFrames { what, of_bridge: true });
        }
    }
    Ok(all)
}

/// Those that a node is made of.
fn is_meant(kind: &LinkKind) -> bool {
    !matches!(kind, LinkKind::Other(_))
}

/// By index, the hardware addresses that the kernel itself notes: of a bridge its own and its ports', of each link those of what
/// stands on it.
fn of_the_kernel(links: &[Link]) -> BTreeMap<u32, BTreeSet<Mac>> {
    let mut all: BTreeMap<u32, BTreeSet<Mac>> = BTreeMap::new();
    for link in links {
        all.entry(link.index).or_default().insert(link.fact.mac);
        if let Some(bridge) = link.master {
            all.entry(bridge).or_default().insert(link.fact.mac);
        }
    }
    let below: BTreeMap<u32, u32> = links.iter().filter_map(|link| Some((link.index, link.on?))).collect();
    for link in links {
        // Links stand on each other without a circle, and not so deep.
        let chain = std::iter::successors(below.get(&link.index), |on| below.get(*on)).take(links.len());
        chain.for_each(|on| {
            all.entry(*on).or_default().insert(link.fact.mac);
        });
    }
    all
}

/// A hardware address that a bridge finds on a link, or that a link takes frames for.
struct Entry {
    link: u32,
    mac: Mac,
    of_bridge: bool,
    /// The kernel never makes such a one.
    by_hand: bool,
}

impl Entry {
    fn read(message: &NeighbourMessage) -> Option<Self> {
        let flags = message.header.flags;
        let mac = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(bytes) => Mac::try_from(bytes.as_slice()).ok(),
            _ => None,
        })?;
        let of_bridge =
            message.attributes.iter().any(|attribute| matches!(attribute, NeighbourAttribute::Controller(_)));
        let set = flags.intersects(NeighbourFlags::ExtLearned | NeighbourFlags::Sticky);
        let by_hand = of_bridge && (set || message.header.state == NeighbourState::Noarp);
        // Groups are joined by programs, and by the kernel for each address.
        let is_group = mac[0] & 1 == 1;
        let lasts = by_hand || (message.header.state == NeighbourState::Permanent && (of_bridge || !is_group));
        lasts.then_some(Self { link: message.header.ifindex, mac, of_bridge, by_hand })
    }
}

/// A number, and what the kernel gives a port's own.
type Vlan = (u16, u16);

const OF_THE_KERNEL: BridgeVlanInfoFlags = BridgeVlanInfoFlags::Pvid.union(BridgeVlanInfoFlags::Untagged);

/// Of a bridge, or a port; what the hardware of a link keeps by itself is not the bridge's.
fn vlans_of(message: LinkMessage) -> Option<(u32, BTreeSet<Vlan>)> {
    let parts = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::AfSpecBridge(parts) => Some(parts),
        _ => None,
    })?;
    let is_its_own = parts.iter().any(|part| matches!(part, AfSpecBridge::Flags(_)));
    let vlans = parts.iter().filter_map(|part| match part {
        AfSpecBridge::VlanInfo(vlan) => Some((vlan.vid, vlan.flags.intersection(OF_THE_KERNEL).bits())),
        _ => None,
    });
    (!is_its_own).then(|| (message.header.index, vlans.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::link::{BridgeFlag, BridgeVlanInfo};

    #[test]
    fn the_vlans_of_a_port_are_those_that_its_bridge_tells() {
        let vlan = |vid: u16, flags| AfSpecBridge::VlanInfo(BridgeVlanInfo { vid, flags });
        let told = |parts: Vec<AfSpecBridge>| {
            let mut message = LinkMessage::default();
            message.header.index = 7;
            message.attributes.push(LinkAttribute::AfSpecBridge(parts));
            vlans_of(message)
        };
        let first = (1, OF_THE_KERNEL.bits());
        assert_eq!(told(vec![vlan(1, OF_THE_KERNEL)]), Some((7, [first].into())));
        let range = [(10, BridgeVlanInfoFlags::RangeBegin), (20, BridgeVlanInfoFlags::RangeEnd)];
        let more = range.map(|(vid, flags)| vlan(vid, flags));
        let all = [vec![vlan(1, OF_THE_KERNEL)], more.to_vec()].concat();
        assert_eq!(told(all), Some((7, [first, (10, 0), (20, 0)].into())));
        assert_eq!(told(vec![AfSpecBridge::Flags(BridgeFlag::LowerDev)]), None);
        assert_eq!(vlans_of(LinkMessage::default()), None);
    }
}

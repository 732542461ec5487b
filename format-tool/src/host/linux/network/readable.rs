//! Answers of the kernel in which all text is UTF-8: a name may be any bytes, and what a crate cannot decode it drops unsaid.

use nix::libc::{IFA_LABEL, IFLA_IFALIAS, IFLA_IFNAME, IFLA_QDISC, RTM_NEWADDR, RTM_NEWLINK};
use nix::net::if_::{if_indextoname, if_nametoindex};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::from_utf8;

// Of linux/if_link.h, in the order of their numbers.
const IFLA_PHYS_PORT_NAME: u16 = 38;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_PARENT_DEV_NAME: u16 = 56;
const IFLA_PARENT_DEV_BUS_NAME: u16 = 57;
/// Text of a link that nobody here reads.
const UNREAD: [u16; 6] =
    [IFLA_QDISC, IFLA_IFALIAS, IFLA_PHYS_PORT_NAME, IFLA_ALT_IFNAME, IFLA_PARENT_DEV_NAME, IFLA_PARENT_DEV_BUS_NAME];
/// `NLA_TYPE_MASK` (linux/netlink.h).
const KIND: u16 = 0x3FFF;
// Bytes of the header of a message, of an attribute; of what comes first in a message of a link, of an address.
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
const OF_A_LINK: usize = 16;
const OF_AN_ADDRESS: usize = 8;
/// Lesser numbers are messages about messages (linux/netlink.h, `NLMSG_MIN_TYPE`).
const FIRST_KIND: u16 = 16;

/// The messages of a datagram, and how many of them tell something.
pub(super) fn readable(datagram: &[u8]) -> (Vec<u8>, u64) {
    let (mut out, mut amount, mut rest) = (Vec::with_capacity(datagram.len()), 0, datagram);
    while !rest.is_empty() {
        let length = number(rest, 0).and_then(|length| usize::try_from(length).ok());
        let Some((length, kind)) = length.filter(|length| (HEADER..=rest.len()).contains(length)).zip(short(rest, 4))
        else {
            // What is cut off nobody can read.
            out.extend(rest);
            return (out, amount + 1);
        };
        amount += u64::from(kind >= FIRST_KIND);
        let (message, more) = rest.split_at(length);
        match kind {
            RTM_NEWLINK => rewrite(message, HEADER + OF_A_LINK, of_a_link, &mut out),
            RTM_NEWADDR => rewrite(message, HEADER + OF_AN_ADDRESS, of_an_address, &mut out),
            _ => out.extend(message),
        }
        rest = more.get(padding(length)..).unwrap_or_default();
    }
    (out, amount)
}

/// What becomes of an attribute.
enum Fate {
    Stays,
    Goes,
    Becomes(String),
}

fn of_a_link(message: &[u8], kind: u16, value: &[u8]) -> Fate {
    let text = value.strip_suffix(&[0]).unwrap_or(value);
    match kind {
        // Names by which nobody here looks for a link.
        IFLA_PROP_LIST => Fate::Goes,
        _ if from_utf8(text).is_ok() => Fate::Stays,
        IFLA_IFNAME => Fate::Becomes(shown(text, number(message, HEADER + 4).unwrap_or_default())),
        _ if UNREAD.contains(&kind) => Fate::Goes,
        _ => Fate::Stays,
    }
}

/// What stands for a name that is no UTF-8. No other link is called so: no name has a space.
fn shown(name: &[u8], index: u32) -> String {
    format!("{} (link {index})", String::from_utf8_lossy(name))
}

/// The name of a link of this namespace, as [`shown`] where it is no UTF-8.
pub(in crate::host::linux) fn name_of(name: OsString) -> Option<String> {
    let lossy = |name: OsString| Some(shown(name.as_bytes(), if_nametoindex(name.as_os_str()).ok()?));
    name.into_string().or_else(|name| lossy(name).ok_or(())).ok()
}

/// The name that this stands for.
pub(in crate::host::linux) fn meant(name: &str) -> Option<OsString> {
    let index = name.strip_suffix(')')?.rsplit_once(" (link ")?.1.parse().ok()?;
    let found = if_indextoname(index).ok()?.into_bytes();
    // Another link may have the number by now.
    (shown(&found, index) == name).then(|| OsString::from_vec(found))
}

fn of_an_address(_: &[u8], kind: u16, value: &[u8]) -> Fate {
    if kind == IFA_LABEL && from_utf8(value).is_err() { Fate::Goes } else { Fate::Stays }
}

/// A message whose attributes begin `at`.
fn rewrite(message: &[u8], at: usize, fate: impl Fn(&[u8], u16, &[u8]) -> Fate, out: &mut Vec<u8>) {
    let begin = out.len();
    let (head, mut rest) = message.split_at_checked(at).unwrap_or((message, &[]));
    out.extend(head);
    while let Some((length, kind)) = short(rest, 0).map(usize::from).zip(short(rest, 2)) {
        let Some(value) = rest.get(ATTRIBUTE..length) else { break };
        match fate(message, kind & KIND, value) {
            Fate::Stays => attribute(kind, value, out),
            Fate::Goes => {}
            Fate::Becomes(text) => attribute(kind, &[text.as_bytes(), &[0]].concat(), out),
        }
        rest = rest.get(length + padding(length)..).unwrap_or_default();
    }
    out.extend(rest);
    let length = u32::try_from(out.len() - begin).unwrap_or(u32::MAX);
    out[begin..begin + 4].copy_from_slice(&length.to_ne_bytes());
}

fn attribute(kind: u16, value: &[u8], out: &mut Vec<u8>) {
    let length = ATTRIBUTE + value.len();
    out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len() + padding(length), 0);
}

fn padding(length: usize) -> usize {
    length.wrapping_neg() % 4
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
    use rtnetlink::packet_route::RouteNetlinkMessage;
    use rtnetlink::packet_route::address::AddressAttribute;
    use rtnetlink::packet_route::link::LinkAttribute;

    /// A message about the link or address of index 7.
    fn message(kind: u16, head: usize, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut message = vec![0; HEADER + head];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message[HEADER + 4..HEADER + 8].copy_from_slice(&7_u32.to_ne_bytes());
        attributes.iter().for_each(|(kind, value)| attribute(*kind, value, &mut message));
        let length = u32::try_from(message.len()).unwrap();
        message[..4].copy_from_slice(&length.to_ne_bytes());
        message
    }

    fn link(attributes: &[(u16, &[u8])]) -> Vec<u8> {
        message(RTM_NEWLINK, OF_A_LINK, attributes)
    }

    fn decode(bytes: &[u8]) -> Option<RouteNetlinkMessage> {
        match NetlinkMessage::deserialize(bytes).ok()?.payload {
            NetlinkPayload::InnerMessage(told) => Some(told),
            _ => None,
        }
    }

    fn names(told: RouteNetlinkMessage) -> Vec<String> {
        let RouteNetlinkMessage::NewLink(link) = told else { return Vec::new() };
        let name = |attribute| if let LinkAttribute::IfName(name) = attribute { Some(name) } else { None };
        link.attributes.into_iter().filter_map(name).collect()
    }

    #[test]
    fn a_link_with_an_alias_or_another_name_of_any_bytes_is_read() {
        let other: &[u8] = &[6, 0, 53, 0, b'x', 0xFF, 0, 0];
        let told = link(&[(IFLA_IFALIAS, b"B\xFCro\0"), (IFLA_IFNAME, b"lan0\0"), (IFLA_PROP_LIST | 0x8000, other)]);
        assert_eq!(decode(&told), None, "as the kernel tells it");
        assert_eq!(names(decode(&readable(&told).0).unwrap()), ["lan0"]);
    }

    #[test]
    fn a_link_with_a_name_of_any_bytes_has_one_that_no_other_can_have() {
        let told = link(&[(IFLA_IFNAME, b"lan\xFF\0")]);
        assert_eq!(decode(&told), None);
        assert_eq!(names(decode(&readable(&told).0).unwrap()), ["lan\u{FFFD} (link 7)"]);
    }

    #[test]
    fn an_address_with_a_label_of_any_bytes_is_read_without_it() {
        let address: (u16, &[u8]) = (2, &[192, 0, 2, 1]);
        let told = message(RTM_NEWADDR, OF_AN_ADDRESS, &[(IFA_LABEL, b"lan0:\xFF\0"), address]);
        assert_eq!(decode(&told), None);
        let Some(RouteNetlinkMessage::NewAddress(read)) = decode(&readable(&told).0) else { panic!("not read") };
        assert_eq!(read.attributes, [AddressAttribute::Local("192.0.2.1".parse().unwrap())]);
    }

    #[test]
    fn all_else_is_told_as_it_was() {
        let mut told = link(&[(IFLA_IFNAME, "lan\u{FC}\0".as_bytes()), (IFLA_IFALIAS, b"office\0"), (99, b"\xFF")]);
        told.extend(message(RTM_NEWADDR, OF_AN_ADDRESS, &[(IFA_LABEL, b"lan0:1\0")]));
        told.extend(message(3, OF_AN_ADDRESS, &[])); // The end of the answers.
        assert_eq!(readable(&told), (told.clone(), 2));
        told.extend([0; 7]);
        assert_eq!(readable(&told), (told.clone(), 3), "what is cut off counts as something that was told");
    }
}

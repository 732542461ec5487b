//! A link, and what of it could not be put back.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    Bridge,
    /// A persistent tap and the uid that may open it.
    Tap(Option<u32>),
    /// A persistent tun and the uid that may open it.
    Tun(Option<u32>),
    /// One end of a pair.
    Veth,
    /// As the kernel calls it; empty for hardware.
    Other(String),
}

/// What the kernel gives a link that is made, in bytes (`ETH_DATA_LEN`).
pub const MTU: u32 = 1500;
/// Bytes that a link must take for the kernel to have IPv6 there (RFC 8200, 5).
pub const LEAST_OF_IPV6: u32 = 1280;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkFact {
    pub kind: LinkKind,
    /// Administratively up (IFF_UP).
    #[serde(default)]
    pub up: bool,
    /// Name of the bridge it is a port of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    #[serde(default)]
    pub group: u32,
    /// A tun has none: zeros.
    #[serde(default)]
    pub mac: [u8; 6],
    /// Bytes of the largest packet. Where it is wanted, `None` is whatever it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether, as a port of a bridge, it reaches only ports that are not isolated.
    #[serde(default)]
    pub isolated: bool,
}

/// Something of a link that could not be put back exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Odd {
    /// In words, with its article.
    pub what: String,
    #[serde(default)]
    pub ipv6: bool,
    /// Of a route, the source address that packets get, if it is gone with that: not of IPv4's in other tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "About::is_other")]
    pub about: About,
}

/// What kind of thing [`Odd`] is, where it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum About {
    #[default]
    Other,
    /// One of whom the hardware address was said; not one that this machine answers for.
    Neighbour,
    /// A route that is on each of several links.
    Shared,
    /// An address of the link.
    Address(IpNet),
    /// What the kernel made by itself, and would make otherwise by now: nobody's, where it goes with its link.
    Kernels,
    /// How large packets of IPv6 may be on the link.
    Mtu(u32),
    /// A route of IPv6 by which they may be so large.
    MtuOfRoute(u32),
}

impl About {
    fn is_other(&self) -> bool {
        *self == Self::Other
    }
}

//! Which addresses the n-th partition has: functions of the settings and n alone, so that they never move when the
//! node grows, and two runs agree without having spoken.

use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Shares before the first partition's: the network's own address and the gateway's lie in them.
fn ipv6_reserved(share: u8) -> u128 {
    if share < 128 { 1 } else { 2 }
}

/// Addresses before the first partition's: the network's own, and the gateway.
const IPV4_RESERVED: u32 = 2;

/// Whether the prefix has a share of this length for each of `amount` partitions, and one for the node.
pub(crate) fn ipv6_fits(prefix: Ipv6Net, share: u8, amount: u32) -> Result<(), String> {
    let length = prefix.prefix_len();
    if share <= length || share > 128 {
        return Err(format!("a share of /{share} is not inside a prefix of /{length}"));
    }
    let bits = u32::from(share - length);
    let shares = if bits >= 127 { u128::MAX } else { 1 << bits };
    let needed = u128::from(amount) + ipv6_reserved(share);
    if shares < needed {
        return Err(format!("it has {shares} shares of /{share}, {needed} are needed ({amount} for partitions)"));
    }
    Ok(())
}

/// The share of partition n: number n + 1 of the prefix (n + 2 if shares are single addresses). The settings have been
/// checked.
fn ipv6_share(prefix: Ipv6Net, share: u8, n: u32) -> Ipv6Net {
    let step = u32::from(128 - share.min(128));
    let offset = (u128::from(n) + ipv6_reserved(share)).checked_shl(step).unwrap_or(0);
    let network = Ipv6Addr::from(u128::from(prefix.network()).wrapping_add(offset));
    Ipv6Net::new(network, share).unwrap_or(prefix)
}

/// Part `number` of the share cut in pieces `bits` longer than it. `None`: the share is too small for that.
fn part(prefix: Ipv6Net, share: u8, n: u32, bits: u8, number: u128) -> Option<Ipv6Net> {
    let length = share.checked_add(bits).filter(|length| *length < 128)?;
    let network = u128::from(ipv6_share(prefix, share, n).network()) + (number << (128 - length));
    Ipv6Net::new(network.into(), length).ok()
}

/// What the processes of partition n may use: the first half of its share. `None`: its one address is all.
pub(crate) fn ipv6_range(prefix: Ipv6Net, share: u8, n: u32) -> Option<Ipv6Net> {
    part(prefix, share, n, 1, 0)
}

/// What is behind the tap of partition n: the third quarter of its share.
pub(crate) fn ipv6_guest(prefix: Ipv6Net, share: u8, n: u32) -> Option<Ipv6Net> {
    part(prefix, share, n, 2, 2)
}

/// What is behind the tun of partition n: the last quarter of its share.
pub(crate) fn ipv6_tun(prefix: Ipv6Net, share: u8, n: u32) -> Option<Ipv6Net> {
    part(prefix, share, n, 2, 3)
}

/// The address of partition n: the first of its share, or the only one.
pub(crate) fn ipv6_address(prefix: Ipv6Net, share: u8, n: u32) -> Ipv6Addr {
    let network = u128::from(ipv6_share(prefix, share, n).network());
    Ipv6Addr::from(if share < 128 { network.wrapping_add(1) } else { network })
}

/// The first address of a range, which the node's end of a tun has.
pub(crate) fn first(range: Ipv6Net) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(range.network()) | 1)
}

/// The node's own address in the prefix, which the bridge has.
pub(crate) fn ipv6_gateway(prefix: Ipv6Net) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(prefix.network()) | 1)
}

/// Whether the network has an address for each partition besides its own, the gateway's and the broadcast address;
/// with guests, whether each half has.
pub(crate) fn ipv4_fits(network: Ipv4Net, amount: u32, guests: bool) -> Result<(), String> {
    let addresses = 1u64 << (32 - u32::from(network.prefix_len()));
    let needed = u64::from(amount) + u64::from(IPV4_RESERVED) + 1;
    if addresses < needed {
        return Err(format!("it has {addresses} addresses, {needed} are needed (3 of them not for partitions)"));
    }
    let half = addresses / 2;
    if guests && half < needed - 1 {
        let why = "with taps, the upper half is for what is behind them";
        return Err(format!("half of it has {half} addresses, {} are needed ({why})", needed - 1));
    }
    Ok(())
}

/// The address of what is behind the tap of partition n.
pub(crate) fn ipv4_guest(network: Ipv4Net, n: u32) -> Ipv4Addr {
    let half = 1u32.checked_shl(31 - u32::from(network.prefix_len().min(31))).unwrap_or(0);
    Ipv4Addr::from(u32::from(network.network()).wrapping_add(half).wrapping_add(n))
}

/// Whether each tun has a part of this length.
pub(crate) fn tun_fits(network: Ipv4Net, share: u8, amount: u32) -> Result<(), String> {
    let length = network.prefix_len();
    if share <= length || share > 30 {
        return Err(format!("a part of /{share} is not inside a network of /{length}, or too small to be of use"));
    }
    let parts = 1u64 << (share - length);
    if parts < u64::from(amount) {
        return Err(format!("it has {parts} parts of /{share}, {amount} are needed"));
    }
    Ok(())
}

/// The network of tun n.
pub(crate) fn ipv4_tun(network: Ipv4Net, share: u8, n: u32) -> Ipv4Net {
    let step = u32::from(32 - share.min(32));
    let start = u32::from(network.network()).wrapping_add(n.checked_shl(step).unwrap_or(0));
    Ipv4Net::new(start.into(), share.min(32)).unwrap_or(network)
}

/// The address of partition n.
pub(crate) fn ipv4_address(network: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network.network()).wrapping_add(n).wrapping_add(IPV4_RESERVED))
}

/// The node's own address in the network.
pub(crate) fn ipv4_gateway(network: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network.network()) | 1)
}

/// Whose hardware address it is; two bits of its first byte.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Side {
    /// The bridge.
    Bridge = 0x02,
    /// The machine's end of a link. A bridge that was given none takes the lowest address of its ports for its own: this
    /// is never it, so that a bridge that exists keeps its address.
    Port = 0xFE,
    /// What is behind a tap, or a namespace's `eth0`.
    Guest = 0x06,
}

/// A hardware address: locally administered, its middle from `seed` (so that two nodes on one wire differ), its end
/// from n.
pub(crate) fn mac(side: Side, seed: &str, n: u16) -> [u8; 6] {
    let [.., a, b, c] = fnv(seed).to_be_bytes();
    let [high, low] = n.to_be_bytes();
    [side as u8, a, b, c, high, low]
}

/// FNV-1a, 32 bits: fixed for ever, unlike the standard library's hashers.
pub(crate) fn fnv(text: &str) -> u32 {
    text.bytes().fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_a_range_and_its_first_address() {
        let prefix: Ipv6Net = "2001:db8:1:2::/64".parse().unwrap();
        assert_eq!(ipv6_share(prefix, 80, 0).to_string(), "2001:db8:1:2:1::/80");
        assert_eq!(ipv6_range(prefix, 80, 0).unwrap().to_string(), "2001:db8:1:2:1::/81");
        assert_eq!(ipv6_guest(prefix, 80, 0).unwrap().to_string(), "2001:db8:1:2:1:8000::/82");
        assert_eq!(ipv6_tun(prefix, 80, 0).unwrap().to_string(), "2001:db8:1:2:1:c000::/82");
        assert_eq!((ipv6_range(prefix, 127, 0), ipv6_guest(prefix, 126, 0)), (None, None));
        assert_eq!(ipv6_address(prefix, 80, 41).to_string(), "2001:db8:1:2:2a::1");
        assert_eq!(ipv6_address(prefix, 128, 0).to_string(), "2001:db8:1:2::2");
        let network: Ipv4Net = "10.8.0.0/16".parse().unwrap();
        assert_eq!(ipv4_address(network, 0).to_string(), "10.8.0.2");
        assert_eq!(ipv4_address(network, 300).to_string(), "10.8.1.46");
        assert_eq!(ipv4_gateway(network).to_string(), "10.8.0.1");
        assert_eq!(ipv4_guest(network, 3).to_string(), "10.8.128.3");
        let tuns: Ipv4Net = "172.16.0.0/12".parse().unwrap();
        assert_eq!(ipv4_tun(tuns, 26, 5).to_string(), "172.16.1.64/26");
    }

    #[test]
    fn a_range_that_is_too_small_is_refused_at_its_edge() {
        let network: Ipv4Net = "10.0.0.0/29".parse().unwrap();
        assert!(ipv4_fits(network, 5, false).is_ok());
        assert!(ipv4_fits(network, 6, false).is_err());
        assert!(ipv4_fits(network, 2, true).is_ok());
        assert!(ipv4_fits(network, 3, true).is_err());
        assert!(tun_fits(network, 30, 2).is_ok());
        assert!(tun_fits(network, 30, 3).is_err());
        let prefix: Ipv6Net = "fd00::/64".parse().unwrap();
        assert!(ipv6_fits(prefix, 66, 3).is_ok());
        assert!(ipv6_fits(prefix, 66, 4).is_err());
        assert!(ipv6_fits(prefix, 64, 0).is_err());
    }
}

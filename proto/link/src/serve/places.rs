//! How many may come: in all, and from one source, so that one caller cannot take every place.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

/// How many there may be of something.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    pub in_all: usize,
    /// From one IPv4 address, or one IPv6 network of 64 bits: what one caller has without effort.
    pub from_one: usize,
}

/// Places of one kind, and who has how many.
pub(super) struct Places {
    most: Most,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    in_all: usize,
    by_source: BTreeMap<IpAddr, usize>,
}

/// Held for as long as the place is taken.
pub(super) struct Place {
    of: Arc<Places>,
    source: IpAddr,
}

impl Places {
    pub(super) fn new(most: Most) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// A place for a caller, if there is one.
    pub(super) fn take(self: &Arc<Self>, remote: SocketAddr) -> Option<Place> {
        let source = source(remote);
        // Each critical section leaves the counts right.
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let from_one = taken.by_source.get(&source).copied().unwrap_or(0);
        if taken.in_all >= self.most.in_all || from_one >= self.most.from_one {
            return None;
        }
        taken.in_all += 1;
        taken.by_source.insert(source, from_one + 1);
        Some(Place { of: self.clone(), source })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.in_all -= 1;
        match taken.by_source.get_mut(&self.source) {
            Some(number) if *number > 1 => *number -= 1,
            _ => drop(taken.by_source.remove(&self.source)),
        }
    }
}

fn source(remote: SocketAddr) -> IpAddr {
    match remote.ip().to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 1)
    }

    #[test]
    fn one_source_cannot_take_every_place() {
        let places = Places::new(Most { in_all: 3, from_one: 2 });
        let held = [places.take(from("10.0.0.1")).unwrap(), places.take(from("::ffff:10.0.0.1")).unwrap()];
        assert!(places.take(from("10.0.0.1")).is_none());
        let other = places.take(from("10.0.0.2")).unwrap();
        assert!(places.take(from("10.0.0.3")).is_none());
        drop((held, other));
        assert!(places.take(from("10.0.0.1")).is_some());
        assert_eq!(places.taken.lock().unwrap().by_source.len(), 0);
    }

    #[test]
    fn a_network_of_64_bits_is_one_source() {
        let places = Places::new(Most { in_all: 9, from_one: 1 });
        let _held = places.take(from("2001:db8::1")).unwrap();
        assert!(places.take(from("2001:db8::2:1")).is_none());
        assert!(places.take(from("2001:db8:0:1::1")).is_some());
    }
}

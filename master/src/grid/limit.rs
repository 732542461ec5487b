//! Bounds on how much one caller may have of the master at once.

use plat_model::Problem;
use plat_model::principal::Principal;
use plat_model::problem::codes;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Most streams that one principal may have open.
const STREAMS_MAX: u32 = 64;

/// How many streams each principal has open.
#[derive(Clone, Default)]
pub(super) struct Places(Arc<Mutex<BTreeMap<Principal, u32>>>);

/// The right to one open stream; given back when it is dropped.
pub struct Place {
    who: Principal,
    places: Places,
}

impl Places {
    /// # Errors
    /// [`codes::OVERLOADED`] past [`STREAMS_MAX`].
    pub(super) fn take(&self, who: &Principal) -> Result<Place, Problem> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(who.clone()).or_default();
        if *count >= STREAMS_MAX {
            return Err(Problem::new(codes::OVERLOADED, format!("{who} has too many streams open"))
                .because(format!("{STREAMS_MAX} are allowed"))
                .fix("close some of them"));
        }
        *count += 1;
        Ok(Place { who: who.clone(), places: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.who) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.who)),
        }
    }
}

/// A rate for each source address, for callers that nobody knows yet.
pub struct Bucket {
    rate: f64,
    burst: f64,
    levels: Mutex<BTreeMap<IpAddr, (f64, Instant)>>,
}

/// Most addresses that are remembered. An attacker with more of them resets the memory, and then is bounded by what
/// the handshakes cost him.
const SOURCES_MAX: usize = 4096;

impl Bucket {
    /// `rate` calls a second for each address, `burst` at once.
    pub fn new(rate: f64, burst: f64) -> Self {
        Self { rate, burst, levels: Mutex::default() }
    }

    /// # Errors
    /// [`codes::OVERLOADED`] when the address has called too often.
    pub fn take(&self, from: IpAddr) -> Result<(), Problem> {
        let source = block(from);
        let now = Instant::now();
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if levels.len() >= SOURCES_MAX && !levels.contains_key(&source) {
            let full = Duration::from_secs_f64(self.burst / self.rate);
            levels.retain(|_, (_, at)| now.duration_since(*at) < full);
            if levels.len() >= SOURCES_MAX {
                levels.clear();
            }
        }
        let (level, at) = levels.entry(source).or_insert((self.burst, now));
        *level = (*level + now.duration_since(*at).as_secs_f64() * self.rate).min(self.burst);
        *at = now;
        if *level < 1.0 {
            return Err(Problem::new(codes::OVERLOADED, "too many calls without a certificate")
                .because(format!("{source} made more than {} in a second", self.rate))
                .fix("wait a few seconds and try again"));
        }
        *level -= 1.0;
        Ok(())
    }
}

/// Who holds one IPv6 address usually holds 2^64 of them.
fn block(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_address_may_call_in_bursts_and_then_at_its_rate() {
        let bucket = Bucket::new(2.0, 3.0);
        let from: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        for _ in 0..3 {
            bucket.take(from).unwrap();
        }
        assert_eq!(bucket.take(neighbour).unwrap_err().code, codes::OVERLOADED);
        bucket.take("2001:db8:1::1".parse().unwrap()).unwrap();
        tokio::time::advance(Duration::from_millis(500)).await;
        bucket.take(from).unwrap();
        assert!(bucket.take(from).is_err());
    }

    #[test]
    fn a_stream_that_ends_gives_its_place_back() {
        let places = Places::default();
        let open: Vec<_> = (0..STREAMS_MAX).map(|_| places.take(&Principal::Master).unwrap()).collect();
        assert_eq!(places.take(&Principal::Master).err().map(|p| p.code), Some(codes::OVERLOADED));
        drop(open);
        assert!(places.take(&Principal::Master).is_ok());
    }
}

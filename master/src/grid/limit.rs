//! Bounds on how much one caller may have of the master at once.

use plat_model::Problem;
use plat_model::principal::Principal;
use plat_model::problem::codes;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Most streams that one principal may have open.
pub(super) const STREAMS_MAX: u32 = 64;
/// Most walks through the ledger that one principal may have going on.
pub(super) const SCANS_MAX: u32 = 1;

/// How many of something each principal has.
#[derive(Clone)]
pub(super) struct Places {
    what: &'static str,
    most: u32,
    taken: Arc<Mutex<BTreeMap<Principal, u32>>>,
}

/// The right to one; given back when it is dropped.
pub struct Place {
    who: Principal,
    places: Places,
}

impl Places {
    /// `what` reads *open streams*.
    pub(super) fn new(what: &'static str, most: u32) -> Self {
        Self { what, most, taken: Arc::default() }
    }

    /// # Errors
    /// [`codes::OVERLOADED`] past the most.
    pub(super) fn take(&self, who: &Principal) -> Result<Place, Problem> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(who.clone()).or_default();
        if *count >= self.most {
            return Err(Problem::new(codes::OVERLOADED, format!("{who} has too many {}", self.what))
                .because(format!("at most {}", self.most))
                .fix("end some of them, or wait until they have ended"));
        }
        *count += 1;
        Ok(Place { who: who.clone(), places: self.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.who) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.who)),
        }
    }
}

/// A rate for each caller: a source address of those whom nobody knows yet, or a principal.
pub struct Bucket<K> {
    rate: f64,
    burst: f64,
    levels: Mutex<BTreeMap<K, (f64, Instant)>>,
}

/// Most callers that are remembered. An attacker with more addresses resets the memory, and then is bounded by what
/// the handshakes cost him.
const SOURCES_MAX: usize = 4096;

impl<K: Ord + Clone + Display> Bucket<K> {
    /// `rate` calls a second for each caller, `burst` at once.
    pub fn new(rate: f64, burst: f64) -> Self {
        Self { rate, burst, levels: Mutex::default() }
    }

    /// # Errors
    /// [`codes::OVERLOADED`] when the caller has called too often.
    pub fn take(&self, source: &K) -> Result<(), Problem> {
        let now = Instant::now();
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if levels.len() >= SOURCES_MAX && !levels.contains_key(source) {
            let full = Duration::from_secs_f64(self.burst / self.rate);
            levels.retain(|_, (_, at)| now.duration_since(*at) < full);
            if levels.len() >= SOURCES_MAX {
                levels.clear();
            }
        }
        let (level, at) = levels.entry(source.clone()).or_insert((self.burst, now));
        *level = (*level + now.duration_since(*at).as_secs_f64() * self.rate).min(self.burst);
        *at = now;
        if *level < 1.0 {
            return Err(Problem::new(codes::OVERLOADED, "too many calls")
                .because(format!("{source} made more than {}", self.told()))
                .fix("wait a few seconds and try again"));
        }
        *level -= 1.0;
        Ok(())
    }

    /// Its rate in words: whole calls, in a second or in as many as one call takes.
    fn told(&self) -> String {
        if self.rate < 1.0 {
            format!("one in {:.0} seconds", 1.0 / self.rate)
        } else {
            format!("{} in a second", self.rate)
        }
    }
}

/// Who holds one IPv6 address usually holds 2^64 of them.
pub fn block(address: IpAddr) -> IpAddr {
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
        let from = block("2001:db8::1".parse().unwrap());
        let neighbour = block("2001:db8::2".parse().unwrap());
        for _ in 0..3 {
            bucket.take(&from).unwrap();
        }
        assert_eq!(bucket.take(&neighbour).unwrap_err().code, codes::OVERLOADED);
        bucket.take(&block("2001:db8:1::1".parse().unwrap())).unwrap();
        tokio::time::advance(Duration::from_millis(500)).await;
        bucket.take(&from).unwrap();
        let refused = bucket.take(&from).unwrap_err();
        assert_eq!(refused.why, "2001:db8:: made more than 2 in a second");
        assert_eq!(Bucket::<IpAddr>::new(1.0 / 60.0, 1.0).told(), "one in 60 seconds");
    }

    #[test]
    fn a_stream_that_ends_gives_its_place_back() {
        let places = Places::new("open streams", STREAMS_MAX);
        let open: Vec<_> = (0..STREAMS_MAX).map(|_| places.take(&Principal::Master).unwrap()).collect();
        assert_eq!(places.take(&Principal::Master).err().map(|p| p.code), Some(codes::OVERLOADED));
        drop(open);
        assert!(places.take(&Principal::Master).is_ok());
    }
}

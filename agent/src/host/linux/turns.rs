//! Turns at something of which only so many can be under way at once, dealt out so that nobody takes all of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// So many in all, and so many for each who asks: who has all of his own waits by himself, and is not before anybody else.
pub struct Turns {
    common: Semaphore,
    share: usize,
    /// Those who have a turn or wait for one, and nobody else.
    shares: Mutex<BTreeMap<String, Arc<Semaphore>>>,
}

/// One under way. Its parts are given back in this order.
pub struct Turn<'a> {
    _common: SemaphorePermit<'a>,
    _own: OwnedSemaphorePermit,
    _share: Share<'a>,
}

/// What somebody has a share by, as long as he has to do with it.
struct Share<'a> {
    turns: &'a Turns,
    who: String,
    of: Arc<Semaphore>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Turns {
    pub fn new(most: usize, share: usize) -> Self {
        Self { common: Semaphore::new(most), share, shares: Mutex::default() }
    }

    /// `waits` is called if others have all turns. Who waits for himself alone need not be told.
    pub async fn take_after(&self, who: &str, waits: impl FnOnce()) -> Result<Turn<'_>, AcquireError> {
        let _share = self.share_of(who);
        let _own = _share.of.clone().acquire_owned().await?;
        let _common = match self.common.try_acquire() {
            Ok(turn) => turn,
            Err(_) => {
                waits();
                self.common.acquire().await?
            }
        };
        Ok(Turn { _common, _own, _share })
    }

    fn share_of(&self, who: &str) -> Share<'_> {
        let new = || Arc::new(Semaphore::new(self.share));
        let of = lock(&self.shares).entry(who.to_owned()).or_insert_with(new).clone();
        Share { turns: self, who: who.to_owned(), of }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        let mut shares = lock(&self.turns.shares);
        // The map's and this one.
        if Arc::strong_count(&self.of) == 2 {
            shares.remove(&self.who);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    impl Turns {
        async fn take(&self, who: &str) -> Result<Turn<'_>, AcquireError> {
            self.take_after(who, || {}).await
        }
    }

    #[test]
    fn who_has_all_of_his_share_keeps_himself_waiting_and_nobody_else() {
        let turns = Turns::new(5, 2);
        let take = |who: &'static str| turns.take(who).now_or_never().map(Result::unwrap);
        let mut greedy = vec![take("a").unwrap(), take("a").unwrap()];
        assert!(take("a").is_none());
        let _others = [take("b").unwrap(), take("b").unwrap(), take("c").unwrap()];
        assert!(take("d").is_none(), "no more than that at once");
        let told = std::cell::Cell::new(0);
        let waits = |who: &'static str| turns.take_after(who, || told.set(told.get() + 1)).now_or_never();
        assert!(waits("a").is_none() && told.get() == 0, "he waits for himself");
        assert!(waits("d").is_none() && told.get() == 1, "he waits for others");
        greedy.pop();
        assert!(take("d").is_some(), "what one gives back is anybody's");
    }

    #[test]
    fn of_those_who_wait_he_with_few_comes_before_the_rest_of_him_with_many() {
        let turns = Turns::new(2, 2);
        let held = ["a", "a"].map(|who| turns.take(who).now_or_never().unwrap().unwrap());
        let mut many: Vec<_> = (0..9).map(|_| Box::pin(turns.take("a"))).collect();
        assert!(many.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
        let mut one = Box::pin(turns.take("b"));
        assert!(one.as_mut().now_or_never().is_none());
        drop(held);
        assert!(one.as_mut().now_or_never().is_some());
    }

    #[test]
    fn nothing_is_kept_of_who_has_no_turn_and_waits_for_none() {
        let turns = Turns::new(1, 1);
        let held = turns.take("a").now_or_never().unwrap().unwrap();
        let (mut same, mut other) = (Box::pin(turns.take("a")), Box::pin(turns.take("b")));
        assert!(same.as_mut().now_or_never().is_none() && other.as_mut().now_or_never().is_none());
        assert_eq!(lock(&turns.shares).len(), 2);
        drop(other);
        drop(held);
        assert!(lock(&turns.shares).contains_key("a"), "somebody waits by it");
        drop(same);
        assert_eq!(lock(&turns.shares).len(), 0);
    }
}

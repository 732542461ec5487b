//! Many who ask for the same kind of thing at once are answered by one doing of it: what costs a sync of the disk costs one
//! for all of them. Whoever comes first does not wait for others; those who come while it is done are the next ones.

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

pub(crate) struct Together<K, T> {
    waiting: Mutex<Vec<(K, oneshot::Sender<T>)>>,
    turn: tokio::sync::Mutex<()>,
}

impl<K: Clone, T> Together<K, T> {
    pub fn new() -> Self {
        Self { waiting: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// The answer to one. `work` is given this one and all others that wait, and answers them in their order. It may be
    /// broken off, and then is begun again by one of those who still wait.
    pub async fn ask<F: Future<Output = Vec<T>>>(&self, key: K, work: impl Fn(Vec<K>) -> F) -> T {
        let mut answer = self.enter(&key);
        let _turn = self.turn.lock().await;
        loop {
            match answer.try_recv() {
                Ok(answer) => return answer,
                Err(TryRecvError::Empty) => {
                    let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
                    let (keys, askers): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
                    for (asker, answer) in askers.into_iter().zip(work(keys).await) {
                        let _nobody_waits = asker.send(answer);
                    }
                }
                // Whoever had the turn was broken off.
                Err(TryRecvError::Closed) => answer = self.enter(&key),
            }
        }
    }

    fn enter(&self, key: &K) -> oneshot::Receiver<T> {
        let (asker, answer) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((key.clone(), asker));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn those_who_come_while_one_is_done_are_done_at_once_and_each_has_its_own_answer() {
        let (all, done) = (Together::new(), Mutex::new(Vec::new()));
        let work = async |keys: Vec<u32>| {
            tokio::task::yield_now().await;
            done.lock().unwrap().push(keys.len());
            keys.into_iter().map(|key| key * 10).collect()
        };
        let answers = join_all((0..100).map(|key| all.ask(key, work))).await;
        assert_eq!(answers, (0..100).map(|key| key * 10).collect::<Vec<_>>());
        assert_eq!(*done.lock().unwrap(), [1, 99]);
    }

    #[tokio::test]
    async fn what_was_broken_off_is_done_for_those_who_still_wait() {
        let (all, begun) = (Together::new(), Notify::new());
        let never = async |_: Vec<u32>| {
            begun.notify_one();
            std::future::pending().await
        };
        let work = async |keys: Vec<u32>| keys;
        let waits = async {
            begun.notified().await;
            all.ask(2, work).await
        };
        tokio::pin!(waits);
        tokio::select! {
            _ = all.ask(1, never) => panic!("it never ends"),
            _ = &mut waits => panic!("it has no turn"),
            () = async { while all.waiting.lock().unwrap().is_empty() { tokio::task::yield_now().await } } => {}
        }
        assert_eq!(waits.await, 2);
    }
}

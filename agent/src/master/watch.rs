//! The stream of nudges: what the master holds for this node, as soon as it does.

use super::{Failed, Master, logs};
use plat_model::Problem;
use plat_model::problem::codes;
use plat_wire::status::to_problem;
use plat_wire::v1::{Nudge, WatchRequest};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Streaming;

/// Readers of logs at once; more are ignored, and their reader asks again.
const READERS: usize = 16;

/// Readers of one instance's or release's logs at once, so that nobody takes all of them.
const READERS_OF_ONE: usize = 2;

/// Who reads logs.
struct Readers {
    all: Arc<Semaphore>,
    of: BTreeMap<String, Arc<Semaphore>>,
}

/// A reader's place for as long as it reads.
type Turn = (OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Readers {
    fn new() -> Self {
        Self { all: Arc::new(Semaphore::new(READERS)), of: BTreeMap::new() }
    }

    fn turn(&mut self, of: &str) -> Option<Turn> {
        self.of.retain(|_, readers| readers.available_permits() < READERS_OF_ONE);
        let all = self.all.clone().try_acquire_owned().ok()?;
        let of = self.of.entry(of.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(READERS_OF_ONE)));
        Some((all, of.clone().try_acquire_owned().ok()?))
    }
}

/// Why a stream is not read any more.
enum End {
    NewChannel,
    Lost(Problem),
}

pub(super) async fn run(master: &Arc<Master>) {
    let mut tries = master.tries(1);
    let mut channels = master.channel.subscribe();
    let mut readers = Readers::new();
    let mut tasks = tokio::task::JoinSet::new();
    // Kept until the next one is open, so that no moment is without one while credentials change.
    let mut before: Option<Streaming<Nudge>> = None;
    loop {
        channels.mark_unchanged();
        let opened = master.client().watch(WatchRequest {}).await;
        drop(before.take());
        let mut stream = match opened {
            Ok(response) => response.into_inner(),
            Err(status) => {
                master.wait_after("watch", Failed::Call, &to_problem(&status), &mut tries).await;
                continue;
            }
        };
        let end = loop {
            tokio::select! {
                message = stream.message() => match message {
                    Ok(Some(nudge)) => {
                        master.back("watch", &mut tries);
                        master.announced.send_replace(nudge.generation);
                        while tasks.try_join_next().is_some() {}
                        for wanted in nudge.logs {
                            let of = if wanted.release.is_empty() { &wanted.instance } else { &wanted.release };
                            if let Some(turn) = readers.turn(of) {
                                let master = master.clone();
                                tasks.spawn(async move {
                                    logs::push(&master, wanted).await;
                                    drop(turn);
                                });
                            }
                        }
                    }
                    Ok(None) => break End::Lost(Problem::new(codes::UNREACHABLE, "the master ended the stream")),
                    Err(status) => break End::Lost(to_problem(&status)),
                },
                Ok(()) = channels.changed() => break End::NewChannel,
            }
        };
        match end {
            End::NewChannel => before = Some(stream),
            End::Lost(problem) => master.wait_after("watch", Failed::Call, &problem, &mut tries).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_instance_has_two_readers_and_leaves_places_for_others() {
        let mut readers = Readers::new();
        let first: Vec<_> = (0..5).filter_map(|_| readers.turn("a")).collect();
        assert_eq!(first.len(), READERS_OF_ONE);
        let others: Vec<_> = (0..READERS).filter_map(|n| readers.turn(&n.to_string())).collect();
        assert_eq!(others.len(), READERS - READERS_OF_ONE);
        assert!(readers.turn("b").is_none());
        drop(first);
        assert!(readers.turn("b").is_some());
        drop(others);
        assert!(readers.turn("a").is_some() && readers.of.len() <= 2);
    }
}

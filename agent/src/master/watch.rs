//! The stream of nudges: what the master holds for this node, as soon as it does.

use super::{Master, logs};
use plat_model::Problem;
use plat_model::problem::codes;
use plat_wire::status::to_problem;
use plat_wire::v1::{Nudge, WatchRequest};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tonic::Streaming;

/// Readers of logs at once; more are ignored, and their reader asks again.
const READERS: usize = 16;

/// Why a stream is not read any more.
enum End {
    NewChannel,
    Lost(Problem),
}

pub(super) async fn run(master: &Arc<Master>) {
    let mut tries = master.tries(1);
    let mut channels = master.channel.subscribe();
    let readers = Arc::new(Semaphore::new(READERS));
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
                master.wait_after("watch", &to_problem(&status), &mut tries).await;
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
                            if let Ok(turn) = readers.clone().try_acquire_owned() {
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
            End::Lost(problem) => master.wait_after("watch", &problem, &mut tries).await,
        }
    }
}

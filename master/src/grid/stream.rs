//! Streams of answers: each runs as a task of its own that ends when its reader goes, when its caller's row says so, or
//! when the master shuts down. In one place, so that no stream can forget it.

use super::{Caller, Grid};
use plat_model::Problem;
use plat_model::problem::codes;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Items of an answer, then at most one problem.
pub type Stream<T> = ReceiverStream<Result<T, Problem>>;

/// How long a reader that does not read is waited for with the reason of the end; then the stream just ends.
const LAST_WORD: Duration = Duration::from_millis(50);

impl Grid {
    /// Starts a stream that `body` writes.
    ///
    /// # Errors
    /// [`codes::OVERLOADED`] if the caller has too many of them.
    pub(super) fn stream<T, F>(
        self: &Arc<Self>,
        caller: &Caller,
        body: impl FnOnce(mpsc::Sender<Result<T, Problem>>) -> F,
    ) -> Result<Stream<T>, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<(), Problem>> + Send + 'static,
    {
        let place = self.places.take(&caller.principal)?;
        let (sender, receiver) = mpsc::channel(4);
        let (grid, caller, body) = (self.clone(), caller.clone(), body(sender.clone()));
        tokio::spawn(async move {
            let _place = place;
            let ended = tokio::select! {
                biased;
                problem = grid.ended(&caller) => Err(problem),
                problem = grid.closed() => Err(problem),
                () = sender.closed() => Ok(()),
                ended = body => ended,
            };
            if let Err(problem) = ended {
                let _ = tokio::time::timeout(LAST_WORD, sender.send(Err(problem))).await;
            }
        });
        Ok(ReceiverStream::new(receiver))
    }

    /// Returns once the master shuts down.
    pub(super) async fn closed(&self) -> Problem {
        let mut closing = self.closing.subscribe();
        // The sender lives in `self`.
        let _ = closing.wait_for(|closing| *closing).await;
        Problem::new(codes::SHUTTING_DOWN, "the master is shutting down").fix("connect again in a few seconds")
    }
}

/// What a reader that has gone means for whoever writes: nothing more to do.
pub(super) async fn send<T>(to: &mpsc::Sender<Result<T, Problem>>, item: T) -> bool {
    to.send(Ok(item)).await.is_ok()
}

//! Logs on their way from a node to whoever asked. A ticket joins the two; it names the node and whose log it is, so that
//! no node can speak into another's. Nothing is kept: a reader who is slow slows the node's stream, and no other's.

use crate::pki;
use futures_util::{Stream, StreamExt};
use plat_model::Problem;
use plat_model::id::{Digest, HookName, InstanceId, NodeId, ServiceName};
use plat_model::problem::codes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;

/// Most readers at once.
const TICKETS_MAX: usize = 1024;
/// Requests that a node's stream has not taken yet.
const QUEUE: usize = 64;
/// Chunks between node and reader.
const BUFFER: usize = 16;
/// How long a node may take to begin.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// Most lines in one chunk.
pub const CHUNK_LINES_MAX: usize = 10_000;

/// Whose log.
#[derive(Debug, Clone)]
pub enum LogOf {
    Instance(InstanceId),
    /// How the node built it.
    Release(Digest),
}

/// What is asked for. Of a release: `lines` and `follow`.
#[derive(Debug, Clone, Default)]
pub struct LogAsk {
    /// `None`: all services.
    pub service: Option<ServiceName>,
    /// What the runs of this hook wrote, instead of what services did.
    pub hook: Option<HookName>,
    /// How many of the last lines first.
    pub lines: u32,
    pub follow: bool,
    /// What promises have said, instead of what services wrote: all that the node remembers.
    pub promises: bool,
}

/// The same as the node is told.
#[derive(Debug, Clone)]
pub struct LogsWanted {
    pub ticket: String,
    pub of: LogOf,
    pub ask: LogAsk,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogText {
    pub service: String,
    pub text: String,
}

/// What a node sends.
#[derive(Debug)]
pub struct Chunk {
    pub ticket: String,
    pub lines: Vec<LogText>,
    pub problem: Option<Problem>,
}

type Piece = Result<Vec<LogText>, Problem>;

#[derive(Clone, Default)]
pub(super) struct Relay(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    tickets: BTreeMap<String, Ticket>,
    nodes: BTreeMap<NodeId, mpsc::Sender<LogsWanted>>,
}

struct Ticket {
    node: NodeId,
    of: LogOf,
    to: mpsc::Sender<Piece>,
}

/// The tickets that one stream of a node speaks to. When it ends, however that happens, their readers are told by the end
/// of their pieces.
struct Speaking<'r> {
    relay: &'r Relay,
    open: BTreeMap<String, mpsc::Sender<Piece>>,
}

impl Drop for Speaking<'_> {
    fn drop(&mut self) {
        let mut inner = self.relay.lock();
        for ticket in self.open.keys() {
            inner.tickets.remove(ticket);
        }
    }
}

/// The reading end.
pub(super) struct Reader {
    ticket: String,
    node: NodeId,
    pieces: mpsc::Receiver<Piece>,
    relay: Relay,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.relay.lock().tickets.remove(&self.ticket);
    }
}

impl Relay {
    /// The requests for a node, from now on on this stream.
    pub(super) fn attach(&self, node: &NodeId) -> mpsc::Receiver<LogsWanted> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let mut inner = self.lock();
        inner.nodes.retain(|_, sender| !sender.is_closed());
        inner.nodes.insert(node.clone(), sender);
        receiver
    }

    /// Asks a node for a log.
    ///
    /// # Errors
    /// [`codes::UNREACHABLE`] if the node has no stream open, [`codes::OVERLOADED`] past the limits.
    pub(super) fn open(&self, node: &NodeId, of: LogOf, ask: LogAsk) -> Result<Reader, Problem> {
        let ticket = pki::hex(&pki::random::<16>()?);
        let (to, pieces) = mpsc::channel(BUFFER);
        let mut inner = self.lock();
        if inner.tickets.len() >= TICKETS_MAX {
            return Err(Problem::new(codes::OVERLOADED, "too many logs are being read")
                .because(format!("{TICKETS_MAX} readers are allowed at once"))
                .fix("try again later"));
        }
        let away = || {
            Problem::new(codes::UNREACHABLE, format!("node `{node}` cannot be asked for logs"))
                .because("it is not connected")
                .fix("see `plat node show`; its agent connects again by itself once it runs and reaches the master")
        };
        let queue = inner.nodes.get(node).ok_or_else(away)?;
        let wanted = LogsWanted { ticket: ticket.clone(), of: of.clone(), ask };
        queue.try_send(wanted).map_err(|error| match error {
            mpsc::error::TrySendError::Closed(_) => away(),
            mpsc::error::TrySendError::Full(_) => {
                Problem::new(codes::OVERLOADED, format!("node `{node}` is asked for too many logs at once"))
                    .fix("try again in a few seconds")
            }
        })?;
        inner.tickets.insert(ticket.clone(), Ticket { node: node.clone(), of, to });
        Ok(Reader { ticket, node: node.clone(), pieces, relay: self.clone() })
    }

    /// Passes chunks on until the node ends them, or nobody reads any of them any more.
    pub(super) async fn pass(
        &self,
        node: &NodeId,
        mut chunks: impl Stream<Item = Result<Chunk, Problem>> + Unpin,
        holds: impl Fn(&LogOf) -> bool,
    ) -> Result<(), Problem> {
        let mut speaking = Speaking { relay: self, open: BTreeMap::new() };
        loop {
            let open = &mut speaking.open;
            let chunk = tokio::select! {
                chunk = chunks.next() => chunk,
                () = all_closed(open), if !open.is_empty() => return Ok(()),
            };
            let Some(chunk) = chunk.transpose()? else { return Ok(()) };
            let to = match self.ticket(node, &chunk.ticket, &holds)? {
                Some(to) => to,
                // Its reader has gone meanwhile.
                None if open.is_empty() => return Ok(()),
                None => continue,
            };
            open.entry(chunk.ticket).or_insert_with(|| to.clone());
            let piece = chunk.problem.map_or(Ok(chunk.lines), Err);
            let _ = to.send(piece).await;
        }
    }

    fn ticket(
        &self,
        node: &NodeId,
        ticket: &str,
        holds: impl Fn(&LogOf) -> bool,
    ) -> Result<Option<mpsc::Sender<Piece>>, Problem> {
        let inner = self.lock();
        let Some(found) = inner.tickets.get(ticket) else { return Ok(None) };
        if &found.node != node || !holds(&found.of) {
            return Err(Problem::new(codes::NOT_YOURS, format!("node `{node}` sent logs that are not its own"))
                .because("the ticket was given to another node, or the instance is not here any more"));
        }
        Ok(Some(found.to.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn all_closed(open: &BTreeMap<String, mpsc::Sender<Piece>>) {
    for sender in open.values() {
        sender.closed().await;
    }
}

impl Reader {
    /// Passes what comes to `to`, until it ends.
    pub(super) async fn read(mut self, to: mpsc::Sender<Piece>) -> Result<(), Problem> {
        let mut next = tokio::time::timeout(FIRST_WORD, self.pieces.recv()).await.map_err(|_| {
            Problem::new(codes::DEADLINE, format!("node `{}` does not send the logs", self.node))
                .because(format!("nothing came within {} s", FIRST_WORD.as_secs()))
                .fix("try again; if it stays so, look at the agent's own log on that node")
        })?;
        while let Some(piece) = next {
            if to.send(Ok(piece?)).await.is_err() {
                break;
            }
            next = self.pieces.recv().await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_that_is_cut_ends_the_reading() {
        let relay = Relay::default();
        let (node, instance) = (NodeId::parse("n1").unwrap(), InstanceId::parse(&"a".repeat(32)).unwrap());
        let _wanted = relay.attach(&node);
        let ask = LogAsk { service: None, hook: None, lines: 1, follow: true, promises: false };
        let mut reader = relay.open(&node, LogOf::Instance(instance), ask).unwrap();
        let chunk = Chunk { ticket: reader.ticket.clone(), lines: Vec::new(), problem: None };
        let chunks = futures_util::stream::iter([Ok(chunk)]).chain(futures_util::stream::pending());
        let mut pass = Box::pin(relay.pass(&node, chunks, |_| true));
        tokio::select! {
            passed = &mut pass => panic!("it has not ended: {passed:?}"),
            piece = reader.pieces.recv() => assert!(piece.is_some()),
        }
        // The call is given up, e.g. because its connection broke.
        drop(pass);
        assert!(reader.pieces.recv().await.is_none());
    }
}

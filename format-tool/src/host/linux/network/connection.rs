//! One rtnetlink connection with a small runtime of its own: to its callers it is blocking, towards the kernel many
//! requests are on their way at once.

use super::socket::Patient;
use futures_util::future::{BoxFuture, Either, ready, select};
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use nix::errno::Errno;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::sys::AsyncSocket;
use rtnetlink::{Error, Handle};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::{Builder, Runtime};

/// How many requests are on their way at most: the answers to them all fit the receive buffer.
const IN_FLIGHT: usize = 128;
/// In bytes.
const RECEIVE_BUFFER: usize = 1 << 20;

/// A change, not yet sent.
pub(super) type Request = BoxFuture<'static, Result<(), Error>>;
type Unasked = Pin<Box<dyn Stream<Item = NetlinkMessage<RouteNetlinkMessage>>>>;

/// One that counts as done although the kernel refuses it for this reason.
pub(super) fn unless(request: Request, reason: Errno) -> Request {
    Box::pin(async move {
        match request.await {
            Err(Error::NetlinkError(refusal)) if refusal.raw_code().saturating_abs() == reason as i32 => Ok(()),
            result => result,
        }
    })
}

/// A connection to the kernel's network tables, in the network namespace of the thread that opened it. Must not be used
/// in a thread that runs asynchronous code.
pub(super) struct Connection {
    pub handle: Handle,
    runtime: Runtime,
    /// Ends with the connection.
    unasked: Unasked,
    /// Messages of the kernel so far that told something.
    told: Arc<AtomicU64>,
    unread: Unread,
}

/// What becomes of answers that nobody can decode: rtnetlink drops them, and what they tell of would be taken for missing.
enum Unread {
    /// What was asked for is unknown.
    Fails,
    /// So many there were.
    Counted(u64),
}

impl Connection {
    pub fn open() -> io::Result<Self> {
        // With a longer interval the connection would fill its memory before its answers are taken.
        let runtime = Builder::new_current_thread().event_interval(1).enable_io().build()?;
        let inside = runtime.enter();
        let (mut connection, handle, unasked) = rtnetlink::new_connection_with_socket::<Patient>()?;
        connection.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER)?;
        let told = connection.socket_mut().told.clone();
        runtime.spawn(connection);
        drop(inside);
        let unasked = Box::pin(unasked.map(|(message, _)| message));
        Ok(Self { handle, runtime, unasked, told, unread: Unread::Fails })
    }

    /// In a partition's namespace, where whoever is root could keep all from being asked.
    pub fn open_within() -> io::Result<Self> {
        Ok(Self { unread: Unread::Counted(0), ..Self::open()? })
    }

    /// Whether there is something of which nothing else is known.
    pub fn has_unread(&self) -> bool {
        matches!(self.unread, Unread::Counted(1..))
    }

    /// Waits for `work`. A connection that ends, or answers that are lost, are errors: rtnetlink itself takes the end
    /// of the answers for success.
    fn wait<T>(&mut self, work: impl Future<Output = T>) -> io::Result<T> {
        let unasked = &mut self.unasked;
        let lost = async {
            while let Some(message) = unasked.next().await {
                if matches!(message.payload, NetlinkPayload::Overrun(_)) {
                    return io::Error::from(Errno::ENOBUFS);
                }
            }
            io::Error::from(Errno::ECONNRESET)
        };
        self.runtime.block_on(async {
            match select(pin!(lost), pin!(work)).await {
                Either::Left((lost, _)) => Err(lost),
                Either::Right((result, _)) => Ok(result),
            }
        })
    }

    /// Sends all requests, in order and without waiting for each; says for each how it ended.
    pub fn call(&mut self, requests: Vec<Request>) -> io::Result<Vec<Result<(), Errno>>> {
        let results: Vec<_> = self.wait(stream::iter(requests).buffered(IN_FLIGHT).collect())?;
        let result = |result: Result<(), Error>| match result {
            Ok(()) => Ok(Ok(())),
            Err(Error::NetlinkError(refusal)) => Ok(Err(Errno::from_raw(refusal.raw_code().saturating_abs()))),
            Err(other) => Err(io::Error::other(other)),
        };
        results.into_iter().map(result).collect()
    }

    /// What `read` makes of each answer to a question.
    pub fn ask<A, T, C: Default + Extend<T>>(
        &mut self,
        answers: impl Stream<Item = Result<A, Error>>,
        read: impl Fn(A) -> Option<T>,
    ) -> io::Result<C> {
        let (before, mut answered) = (self.told.load(Ordering::Relaxed), 0);
        let answers = answers.inspect_ok(|_| answered += 1);
        let result = self.wait(answers.try_filter_map(|answer| ready(Ok(read(answer)))).try_collect())?.map_err(
            |e| match e {
                Error::NetlinkError(refusal) => refusal.to_io(),
                other => io::Error::other(other),
            },
        )?;
        match (self.told.load(Ordering::Relaxed).saturating_sub(before + answered), &mut self.unread) {
            (0, _) => {}
            (_, Unread::Fails) => return Err(io::Error::other("the kernel tells of something that cannot be read")),
            (more, Unread::Counted(amount)) => *amount += more,
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of two answers one is dropped.
    fn ask(connection: &mut Connection) -> io::Result<Vec<u32>> {
        let told = connection.told.clone();
        let answers = stream::once(async move {
            told.fetch_add(2, Ordering::Relaxed);
            Ok(7)
        });
        connection.ask(answers, Some)
    }

    #[test]
    fn an_answer_that_cannot_be_read_is_an_error_or_known() {
        let why = ask(&mut Connection::open().unwrap()).unwrap_err().to_string();
        assert_eq!(why, "the kernel tells of something that cannot be read");
        let mut within = Connection::open_within().unwrap();
        assert!(!within.has_unread());
        assert_eq!(ask(&mut within).unwrap(), [7]);
        assert!(within.has_unread());
    }

    #[test]
    fn all_that_the_kernel_tells_is_read() {
        let mut connection = Connection::open().unwrap();
        let links = connection.handle.link().get().execute();
        let links: Vec<u32> = connection.ask(links, |link| Some(link.header.index)).unwrap();
        assert!(!links.is_empty() && connection.told.load(Ordering::Relaxed) >= links.len() as u64);
    }
}

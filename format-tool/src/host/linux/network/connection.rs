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
}

impl Connection {
    pub fn open() -> io::Result<Self> {
        // With a longer interval the connection would fill its memory before its answers are taken.
        let runtime = Builder::new_current_thread().event_interval(1).enable_io().build()?;
        let inside = runtime.enter();
        let (mut connection, handle, unasked) = rtnetlink::new_connection_with_socket::<Patient>()?;
        connection.socket_mut().socket_mut().set_rx_buf_sz(RECEIVE_BUFFER)?;
        runtime.spawn(connection);
        drop(inside);
        Ok(Self { handle, runtime, unasked: Box::pin(unasked.map(|(message, _)| message)) })
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
        self.wait(answers.try_filter_map(|answer| ready(Ok(read(answer)))).try_collect())?.map_err(|e| match e {
            Error::NetlinkError(refusal) => refusal.to_io(),
            other => io::Error::other(other),
        })
    }
}

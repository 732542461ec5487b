//! A gRPC server over any stream of connections.

mod accept;
mod connection;
mod places;

pub use connection::{Connection, Peer};
pub use places::Most;

use crate::credentials::Credentials;
use futures_util::Stream;
use plat_model::problem::codes;
use plat_model::{Problem, Result};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server;

#[derive(Debug, Clone, Copy)]
pub struct ServeSettings {
    /// How long a caller may take for its TLS handshake.
    pub handshake_timeout: Duration,
    /// Most handshakes at once. Like all callers past a limit, further ones are hung up on: accepting never waits.
    pub handshakes: Most,
    /// Most connections at once of callers with a certificate.
    pub connections: Most,
    /// Most connections at once of callers without one, who are there to be given one.
    pub anonymous: Most,
    /// After how long the connection of a caller without a certificate is closed, whatever it does. More than such a
    /// call may take.
    pub anonymous_life: Duration,
    /// Most calls at once on one connection.
    pub streams: u32,
    /// How often an idle connection is tried.
    pub keepalive: Duration,
    /// How long the answer to that may take before the connection counts as dead.
    pub keepalive_timeout: Duration,
    /// Largest list of headers in bytes that is accepted.
    pub max_headers: u32,
    /// How long calls may go on after the shutdown; then their connections are closed.
    pub drain: Duration,
}

impl Default for ServeSettings {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            handshakes: Most { in_all: 4096, from_one: 1024 },
            connections: Most { in_all: 20_000, from_one: 10_000 },
            anonymous: Most { in_all: 1024, from_one: 128 },
            anonymous_life: Duration::from_secs(20),
            streams: 256,
            keepalive: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(10),
            max_headers: 64 * 1024,
            drain: Duration::from_secs(10),
        }
    }
}

/// Answers calls until `shutdown`: then no connection is taken any more, open calls have [`ServeSettings::drain`] to
/// end, and what is left is closed. Each call has a [`Peer`] among its extensions. The listener's errors (no file
/// descriptor left, a connection that broke in the queue) are logged, and it is asked again.
///
/// # Errors
/// [`codes::INTERNAL`] if the server cannot go on.
pub async fn serve<S, IO>(
    routes: Routes,
    connections: S,
    credentials: Arc<Credentials>,
    settings: ServeSettings,
    shutdown: impl Future<Output = ()>,
) -> Result<()>
where
    S: Stream<Item = io::Result<(IO, SocketAddr)>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (close, closing) = watch::channel(false);
    let (stopped, mut stop) = watch::channel(false);
    let incoming = accept::accept(connections, credentials, settings, closing);
    let server = Server::builder()
        .http2_keepalive_interval(Some(settings.keepalive))
        .http2_keepalive_timeout(Some(settings.keepalive_timeout))
        .http2_max_header_list_size(settings.max_headers)
        .max_concurrent_streams(settings.streams)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, async move {
            shutdown.await;
            stopped.send_replace(true);
        });
    tokio::pin!(server);
    let ended = tokio::select! {
        ended = &mut server => ended,
        () = async {
            // A closed channel means that the server ended, which the other branch tells.
            if stop.wait_for(|stopped| *stopped).await.is_err() {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(settings.drain).await;
        } => {
            close.send_replace(true);
            server.await
        }
    };
    ended.map_err(|why| Problem::new(codes::INTERNAL, "the gRPC server failed").because(why))
}

/// Listens on TCP: the `connections` of [`serve()`] for real networks, and the address that was taken.
///
/// # Errors
/// [`codes::BAD_ADDRESS`] if the address cannot be listened on.
pub async fn listen(
    address: SocketAddr,
) -> Result<(impl Stream<Item = io::Result<(TcpStream, SocketAddr)>> + Send + 'static, SocketAddr)> {
    let failed = |why: io::Error| {
        Problem::new(codes::BAD_ADDRESS, format!("cannot listen on {address}"))
            .because(why)
            .fix("choose an address of this machine and a port that is free")
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    let connections = futures_util::stream::unfold(listener, |listener| async {
        let accepted = listener.accept().await.and_then(|(stream, from)| {
            stream.set_nodelay(true)?;
            Ok((stream, from))
        });
        Some((accepted, listener))
    });
    Ok((connections, local))
}

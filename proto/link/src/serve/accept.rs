//! TLS handshakes, side by side: one that is slow delays no other.

use super::{Connection, Peer, ServeSettings};
use crate::credentials::Credentials;
use crate::peer;
use futures_util::{Stream, StreamExt};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{debug, warn};

/// How long the listener is left alone after it failed, e.g. for want of file descriptors.
const AFTER_LISTENER_ERROR: Duration = Duration::from_millis(50);

pub(super) fn accept<S, IO>(
    connections: S,
    credentials: Arc<Credentials>,
    settings: ServeSettings,
    closing: watch::Receiver<bool>,
) -> impl Stream<Item = io::Result<Connection<IO>>>
where
    S: Stream<Item = io::Result<(IO, SocketAddr)>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (ready, accepted) = mpsc::channel(64);
    tokio::spawn(async move {
        let handshakes = Arc::new(Semaphore::new(settings.handshakes));
        let places = Arc::new(Semaphore::new(settings.connections));
        tokio::pin!(connections);
        loop {
            let permits = async { (places.clone().acquire_owned().await, handshakes.clone().acquire_owned().await) };
            let (Ok(place), Ok(turn)) = permits.await else { return };
            let next = tokio::select! {
                next = connections.next() => next,
                // The server has dropped its end: it shuts down, and the listener closes with this task.
                () = ready.closed() => return,
            };
            let (stream, remote) = match next {
                None => return,
                Some(Ok(connection)) => connection,
                Some(Err(error)) => {
                    warn!(%error, "connection not accepted");
                    tokio::time::sleep(AFTER_LISTENER_ERROR).await;
                    continue;
                }
            };
            let (credentials, ready, closing) = (credentials.clone(), ready.clone(), closing.clone());
            tokio::spawn(async move {
                let shake = TlsAcceptor::from(credentials.server_config()).accept(stream);
                let stream = match tokio::time::timeout(settings.handshake_timeout, shake).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => return debug!(%remote, %error, "handshake failed"),
                    Err(_) => return debug!(%remote, "handshake timed out"),
                };
                drop(turn);
                let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                let identity = leaf.map(|leaf| peer::peer_identity(leaf, credentials.grid())).transpose();
                let identity = match identity {
                    Ok(identity) => identity,
                    Err(problem) => return debug!(%remote, problem = problem.one_line(), "caller refused"),
                };
                let connection = Connection::new(stream, Peer { identity, remote }, closing, place);
                // It fails only when the server has ended, and the connection ends with it.
                let _ = ready.send(Ok(connection)).await;
            });
        }
    });
    ReceiverStream::new(accepted)
}

//! TLS handshakes, side by side: one that is slow delays no other.

use super::places::Places;
use super::{Connection, Peer, ServeSettings};
use crate::credentials::Credentials;
use crate::peer;
use futures_util::{Stream, StreamExt};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
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
        let handshakes = Places::new(settings.handshakes);
        let (known, anonymous) = (Places::new(settings.connections), Places::new(settings.anonymous));
        tokio::pin!(connections);
        loop {
            let next = tokio::select! {
                next = connections.next() => next,
                // The server has dropped its end: it shuts down, and the listener closes with this task.
                () = ready.closed() => return,
            };
            let (stream, remote) = match next {
                Some(Ok(connection)) => connection,
                Some(Err(error)) => {
                    warn!(%error, "connection not accepted");
                    tokio::time::sleep(AFTER_LISTENER_ERROR).await;
                    continue;
                }
                None => return,
            };
            let Some(turn) = handshakes.take(remote) else {
                debug!(%remote, "too many handshakes at once");
                continue;
            };
            let (credentials, ready, closing) = (credentials.clone(), ready.clone(), closing.clone());
            let (known, anonymous) = (known.clone(), anonymous.clone());
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
                let (places, life) = match identity {
                    Some(_) => (known, None),
                    None => (anonymous, Some(settings.anonymous_life)),
                };
                let Some(place) = places.take(remote) else {
                    return debug!(%remote, known = identity.is_some(), "too many connections at once");
                };
                let connection = Connection::new(stream, Peer { identity, remote }, closing, life, place);
                // It fails only when the server has ended, and the connection ends with it.
                let _ = ready.send(Ok(connection)).await;
            });
        }
    });
    ReceiverStream::new(accepted)
}

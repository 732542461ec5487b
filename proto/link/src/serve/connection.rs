//! One accepted connection: TLS is done, and who called is known.

use super::places::Place;
use crate::peer::PeerIdentity;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

/// Who calls, and from where: an extension of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// From a certificate that chains to the grid's CA. `None`: the caller showed none.
    pub identity: Option<PeerIdentity>,
    pub remote: SocketAddr,
}

/// An accepted connection. It ends with an error once the server closes it, or its `life` is over.
pub struct Connection<IO> {
    stream: TlsStream<IO>,
    peer: Peer,
    closing: Pin<Box<dyn Future<Output = ()> + Send>>,
    _place: Place,
}

impl<IO> Connection<IO> {
    pub(super) fn new(
        stream: TlsStream<IO>,
        peer: Peer,
        mut closing: watch::Receiver<bool>,
        life: Option<Duration>,
        place: Place,
    ) -> Self {
        let closing = Box::pin(async move {
            let over = async {
                match life {
                    Some(life) => tokio::time::sleep(life).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // A closed channel means that the server has ended: close as well.
                _ = closing.wait_for(|closing| *closing) => {}
                () = over => {}
            }
        });
        Self { stream, peer, closing, _place: place }
    }
}

impl<IO> Connected for Connection<IO> {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.closing.as_mut().poll(cx).is_ready() {
            // Polled again after it was ready it would panic.
            self.closing = Box::pin(std::future::ready(()));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the server hangs up")));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

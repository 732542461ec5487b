//! A netlink socket that lets others run between a few datagrams. rtnetlink reads all there is before it hands anything
//! on: the links of 1000 partitions, taken apart, would be 20 MiB at once. What it hands on can be decoded, and is counted.

use super::readable::readable;
use bytes::{BufMut, BytesMut};
use rtnetlink::sys::{AsyncSocket, Socket, SocketAddr, TokioSocket};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};

/// Datagrams that are read in a row; one holds some 30 links.
const IN_A_ROW: u32 = 4;
/// Bytes of the longest datagram (netlink(7): 32 KiB).
const LONGEST: usize = 64 << 10;

pub(super) struct Patient {
    socket: TokioSocket,
    in_a_row: AtomicU32,
    /// Messages that told something.
    pub told: Arc<AtomicU64>,
}

impl AsyncSocket for Patient {
    fn socket_ref(&self) -> &Socket {
        self.socket.socket_ref()
    }

    fn socket_mut(&mut self) -> &mut Socket {
        self.socket.socket_mut()
    }

    fn new(protocol: isize) -> io::Result<Self> {
        Ok(Self { socket: TokioSocket::new(protocol)?, in_a_row: AtomicU32::new(0), told: Arc::default() })
    }

    fn poll_send(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.socket.poll_send(cx, buf)
    }

    fn poll_send_to(&self, cx: &mut Context<'_>, buf: &[u8], to: &SocketAddr) -> Poll<io::Result<usize>> {
        self.socket.poll_send_to(cx, buf, to)
    }

    fn poll_recv<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<()>> {
        self.socket.poll_recv(cx, buf)
    }

    fn poll_recv_from<B: BufMut>(&self, cx: &mut Context<'_>, buf: &mut B) -> Poll<io::Result<SocketAddr>> {
        if self.in_a_row.fetch_add(1, Ordering::Relaxed) >= IN_A_ROW {
            self.in_a_row.store(0, Ordering::Relaxed);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut datagram = BytesMut::with_capacity(LONGEST);
        let polled = self.socket.poll_recv_from(cx, &mut datagram);
        if polled.is_pending() {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
        let (messages, amount) = readable(&datagram);
        self.told.fetch_add(amount, Ordering::Relaxed);
        buf.put_slice(&messages);
        polled
    }

    fn poll_recv_from_full(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Vec<u8>, SocketAddr)>> {
        self.socket.poll_recv_from_full(cx)
    }
}

//! Sockets as a partition's processes open them.

use super::FIRST_UID;
use nix::unistd::{Uid, setfsuid};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

/// How long to wait for what must not come.
const NEVER: Duration = Duration::from_millis(400);

/// Does this as a process of partition n would: the kernel notes for each socket the uid for files that it was opened
/// with, and that can be set for one thread.
pub fn partition<T>(n: u32, acts: impl FnOnce() -> T) -> T {
    let before = setfsuid(Uid::from_raw(FIRST_UID + n));
    let result = acts();
    setfsuid(before);
    result
}

/// Begins a connection from an address that it is bound to, or from what the kernel chooses.
pub fn tcp(from: Option<&str>, to: SocketAddr) -> io::Result<TcpStream> {
    tcp_within(Duration::from_secs(30), from, to)
}

fn tcp_within(deadline: Duration, from: Option<&str>, to: SocketAddr) -> io::Result<TcpStream> {
    let family = if to.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket(family, SocketType::STREAM, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(deadline))?;
    if let Some(from) = from {
        bind(&socket, &SocketAddr::new(from.parse().unwrap(), 0))?;
    }
    connect(&socket, &to)?;
    Ok(socket.into())
}

pub fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// Whether the kernel refused to begin the connection, without waiting for anybody.
pub fn refused(result: io::Result<TcpStream>) -> bool {
    result.is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

/// Whether a connection is neither made nor refused.
pub fn unanswered(to: SocketAddr) -> bool {
    let result = tcp_within(NEVER, None, to);
    result.is_err_and(|e| matches!(e.raw_os_error(), Some(nix::libc::EINPROGRESS | nix::libc::EAGAIN)))
}

/// Sends a word over a connection and back; the client's address as the server sees it.
pub fn exchange(client: TcpStream, server: &TcpListener, accept_as: impl FnOnce(&TcpListener) -> TcpStream) -> IpAddr {
    let mut client = client;
    let mut accepted = accept_as(server);
    let mut word = [0; 4];
    for socket in [&client, &accepted] {
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    }
    client.write_all(b"ping").unwrap();
    accepted.read_exact(&mut word).unwrap();
    accepted.write_all(b"pong").unwrap();
    client.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"pong");
    accepted.peer_addr().unwrap().ip()
}

/// A socket that is waited on for at most 30 s.
pub fn udp(address: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(address).unwrap_or_else(|e| panic!("{address}: {e}"));
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    socket
}

/// Whether nothing arrives.
pub fn silent(socket: &UdpSocket) -> bool {
    socket.set_read_timeout(Some(NEVER)).unwrap();
    socket.recv(&mut [0; 16]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

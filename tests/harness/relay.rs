//! The way from a namespace to the archives of Debian: a proxy for plain HTTP that listens in the namespace and asks
//! from outside of it. What it was asked for once it keeps, so that several nodes fetch each package together.

use crate::namespace::Namespace;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Where it listens, in the hub of a grid.
pub const DEBIAN: &str = "[fd00:5::1]:3142";

/// What apt must be told, in a file of its `apt.conf.d`.
pub fn settings() -> String {
    format!("Acquire::http::Proxy \"http://{DEBIAN}\";\nAcquire::http::Pipeline-Depth \"0\";\n")
}

type Kept = Arc<Mutex<BTreeMap<String, Arc<OnceLock<Vec<u8>>>>>>;

/// Listens at `address` within `space`, for as long as the test runs.
///
/// # Panics
/// If it cannot.
pub fn start(space: &Namespace, address: &'static str) {
    let kept = Kept::default();
    listen(space, address, move |stream| answer(stream, &kept));
}

/// Answers at `address` within `space` with the files of a folder, for as long as the test runs.
///
/// # Panics
/// If it cannot.
pub fn serve(space: &Namespace, address: &'static str, folder: PathBuf) {
    listen(space, address, move |mut stream| {
        let line = request(&stream)?;
        let path = line.strip_prefix("GET /")?.split(' ').next()?.to_owned();
        let (said, body) = match std::fs::read(folder.join(path)) {
            Ok(body) => ("200 OK", body),
            Err(_) => ("404 Not Found", Vec::new()),
        };
        let head = format!("HTTP/1.1 {said}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).ok()
    });
}

fn listen(
    space: &Namespace,
    address: &'static str,
    answer: impl Fn(TcpStream) -> Option<()> + Clone + Send + Sync + 'static,
) {
    let net = File::open(space.own("ns/net")).expect("a namespace can be opened");
    let bind = move || {
        // A thread of its own, which ends: no other is moved.
        rustix::thread::move_into_link_name_space(net.as_fd(), Some(rustix::thread::LinkNameSpaceType::Network))
            .expect("a namespace can be entered");
        TcpListener::bind(address).expect("the address is of the namespace")
    };
    let listener = std::thread::spawn(bind).join().expect("it was bound");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || answer(stream));
        }
    });
}

/// The first line of a request, all of whose head is read.
fn request(stream: &TcpStream) -> Option<String> {
    let mut head = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    head.read_line(&mut line).ok()?;
    loop {
        let mut header = String::new();
        if head.read_line(&mut header).ok()? == 0 || header.trim().is_empty() {
            return Some(line);
        }
    }
}

fn answer(mut stream: TcpStream, kept: &Kept) -> Option<()> {
    let url = request(&stream)?.strip_prefix("GET http://")?.split(' ').next()?.to_owned();
    let once = kept.lock().unwrap_or_else(PoisonError::into_inner).entry(url.clone()).or_default().clone();
    let answer = once.get_or_init(|| {
        fetch(&url)
            .unwrap_or_else(|| b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec())
    });
    stream.write_all(answer).ok()
}

fn fetch(url: &str) -> Option<Vec<u8>> {
    let (host, path) = url.split_once('/')?;
    let authority = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = TcpStream::connect(authority).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nUser-Agent: apt\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    Some(answer)
}

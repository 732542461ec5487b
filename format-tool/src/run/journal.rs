//! What is said when nobody is at a terminal: to the system's log, else to the kernel's, which most systems keep with it.

use node_format::LinuxHost;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Facility `daemon`, severity `error` (RFC 5424).
const PRIORITY: &str = "<27>";

/// One line, as far as there is anybody to take it.
pub(super) fn note(host: &LinuxHost, text: &str) {
    let line = format!("{PRIORITY}node-format: {}", text.replace('\n', "; "));
    let sent = send(&host.beneath_root(Path::new("/dev/log")), &line);
    if sent.is_err() {
        let kernel = OpenOptions::new().append(true).open(host.beneath_root(Path::new("/dev/kmsg")));
        let _ = kernel.and_then(|mut log| log.write_all(format!("{line}\n").as_bytes()));
    }
    super::say(&line[PRIORITY.len()..]);
}

/// A log that is busy is not waited for.
fn send(log: &Path, line: &str) -> io::Result<usize> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(line.as_bytes(), log)
}

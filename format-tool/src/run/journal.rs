//! What is said when nobody is at a terminal: to the system's log, else to the kernel's, which most systems keep with it.

use node_format::LinuxHost;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

/// Facility `daemon`, severity `error` (RFC 5424).
const PRIORITY: &str = "<27>";

/// One line, as far as there is anybody to take it.
pub(super) fn note(host: &LinuxHost, text: &str) {
    let line = format!("{PRIORITY}node-format: {}", text.replace('\n', "; "));
    let sent = send(&host.beneath_root(Path::new("/dev/log")), &line);
    if sent.is_err() {
        let _ = to_the_kernel(&host.beneath_root(Path::new("/dev/kmsg")), &line);
    }
    super::say(&line[PRIORITY.len()..]);
}

/// A folder that stands for a machine's root may hold anything there, which is neither written to nor waited for.
fn to_the_kernel(log: &Path, line: &str) -> io::Result<()> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let mut log = OpenOptions::new().append(true).custom_flags(flags.bits().cast_signed()).open(log)?;
    if log.metadata()?.file_type().is_char_device() { log.write_all(format!("{line}\n").as_bytes()) } else { Ok(()) }
}

/// A log that is busy is not waited for.
fn send(log: &Path, line: &str) -> io::Result<usize> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to(line.as_bytes(), log)
}

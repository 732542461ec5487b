//! What the part with the network says on its standard error: among root's lines, each marked, none longer and never more of
//! them than can be read. Whoever has that part can say anything there, but not in root's name.

use crate::pace::Budget;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::time::Instant;

/// Before each line.
const MARK: &str = "network: ";
/// Longest line, in bytes: the rest is left out.
const LINE_MAX: usize = 8 * 1024;
/// What so many bytes more of a line cost as much as the line.
const UNIT: usize = 256;
/// Units a second, and at once. The journal of a machine takes 10,000 lines of a service in half a minute, and then drops
/// root's too.
const UNITS: (u32, u32) = (200, 2000);
/// How long it is not listened to where it says too much.
const PAUSE: Duration = Duration::from_millis(20);

/// Copies all that comes, to its end.
pub async fn copy(from: OwnedFd, mut to: impl Write) {
    let Ok(mut from) = Receiver::from_owned_fd(from) else { return };
    let mut lines = Lines::new();
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let before = lines.dropped;
        // Root's part goes on, whatever becomes of its log.
        let _ = to.write_all(&lines.take(&buffer[..count], Instant::now()));
        if lines.dropped > before {
            tokio::time::sleep(PAUSE).await;
        }
    }
    let _ = to.write_all(&lines.end());
}

struct Lines {
    budget: Budget,
    line: Vec<u8>,
    is_cut: bool,
    /// Since the last that was not.
    dropped: u64,
}

impl Lines {
    fn new() -> Self {
        Self { budget: Budget::new(UNITS.0, UNITS.1), line: Vec::new(), is_cut: false, dropped: 0 }
    }

    /// What is to be written of what has come.
    fn take(&mut self, bytes: &[u8], now: Instant) -> Vec<u8> {
        let mut out = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let room = LINE_MAX - self.line.len();
            self.is_cut |= text.len() > room;
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if is_whole {
                match self.budget.take(1 + self.line.len() / UNIT, now) {
                    Ok(()) => self.write(&mut out),
                    Err(_) => self.dropped += 1,
                }
                self.line.clear();
                self.is_cut = false;
            }
        }
        out
    }

    /// What is left when no more comes.
    fn end(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.line.is_empty() || self.dropped > 0 {
            self.write(&mut out);
        }
        out
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            out.extend_from_slice(format!("{MARK}({dropped} lines left out: it says too much)\n").as_bytes());
        }
        let text = String::from_utf8_lossy(&self.line);
        // What a terminal would obey, or take for another line.
        let plain = |c: char| if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
        out.extend_from_slice(MARK.as_bytes());
        out.extend_from_slice(text.chars().map(plain).collect::<String>().as_bytes());
        out.extend_from_slice(if self.is_cut { " (the rest is left out)\n" } else { "\n" }.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn each_line_is_marked_however_it_comes_and_none_is_anybody_elses() {
        let (mut lines, now) = (Lines::new(), later());
        assert_eq!(text(lines.take(b"one\ntw", now)), "network: one\n");
        assert_eq!(text(lines.take(b"o\n\n", now)), "network: two\nnetwork: \n");
        let forged = text(lines.take(b"a\rINFO of root\x1b[2K\x07\xff\xc2\x85b\tc\n", now));
        assert!(forged.starts_with("network: a\u{fffd}INFO") && forged.ends_with("b\tc\n"), "{forged:?}");
        assert_eq!(forged.matches(|c: char| c.is_control() && c != '\t').count(), 1, "{forged:?}");
        let long = text(lines.take(&[vec![b'x'; 1 << 20], vec![b'\n']].concat(), now));
        assert!(long.len() < LINE_MAX + 100 && long.ends_with("(the rest is left out)\n"));
        assert_eq!(text(lines.take(b"half", now)), "");
        assert_eq!(text(lines.end()), "network: half\n");
    }

    #[test]
    fn a_flood_is_left_out_and_said_to_be_and_later_lines_come() {
        let (mut lines, now) = (Lines::new(), later());
        let flood = b"flood\n".repeat(100_000);
        let said = text(lines.take(&flood, now));
        assert_eq!(said.lines().count(), UNITS.1 as usize);
        assert_eq!(text(lines.take(&flood, now)), "");
        let said = text(lines.take(b"later\n", now + Duration::from_secs(1)));
        assert_eq!(said, "network: (198000 lines left out: it says too much)\nnetwork: later\n");
        // Few long ones cost as many short ones.
        let long = [vec![b'x'; LINE_MAX], vec![b'\n']].concat().repeat(1000);
        let said = text(Lines::new().take(&long, now));
        assert!(said.len() <= (UNITS.1 as usize + 1) * UNIT, "{}", said.len());
    }

    #[tokio::test]
    async fn all_that_was_said_is_copied_before_the_end() {
        let (from, to) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        std::fs::File::from(to).write_all(b"error: why it cannot run\nand").unwrap();
        let mut said = Vec::new();
        copy(from, &mut said).await;
        assert_eq!(text(said), "network: error: why it cannot run\nnetwork: and\n");
    }
}

//! A log that cannot grow: two files, each at most a mebibyte, lines with their time.

use crate::clock::{Clock, SystemClock};
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Largest size of each of the two files, in bytes.
pub const FILE_MAX: u64 = 1 << 20;
/// Longest line, in bytes; a longer one is cut into several.
pub const LINE_MAX: usize = 4096;
/// How much is written at once, in bytes, at most by a line more.
const BATCH: usize = 64 * 1024;
/// How many of the last lines are kept at hand, and how much of each.
const TAIL: usize = 10;
const TAIL_LINE: usize = 500;

/// The writing end.
pub struct LineLog {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    /// The beginning of a line that has no end yet.
    line: Vec<u8>,
    /// Lines that are not written yet; empty between two calls.
    batch: String,
    tail: VecDeque<String>,
}

impl LineLog {
    /// Goes on at the end of `path`. A log that cannot be written is given up: the program it is of must not stop.
    pub fn open(path: PathBuf) -> Self {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path).ok();
        let size = file.as_ref().and_then(|f| f.metadata().ok()).map_or(0, |m| m.len());
        Self { path, file, size, line: Vec::new(), batch: String::new(), tail: VecDeque::new() }
    }

    /// What came at once gets one time, and is written at once: lines cost whoever says them next to nothing.
    pub fn write(&mut self, bytes: &[u8]) {
        let stamp = stamp();
        for piece in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            for part in text.chunks(LINE_MAX) {
                if self.line.len() + part.len() > LINE_MAX {
                    self.end_line(&stamp);
                }
                self.line.extend_from_slice(part);
            }
            if ends {
                self.end_line(&stamp);
            }
        }
        self.flush();
    }

    /// Writes what has no end of line yet.
    pub fn finish(&mut self) {
        if !self.line.is_empty() {
            self.end_line(&stamp());
            self.flush();
        }
    }

    /// The last lines written through this value, oldest first.
    pub fn tail(&self) -> Vec<String> {
        self.tail.iter().cloned().collect()
    }

    fn end_line(&mut self, stamp: &str) {
        let begins = self.batch.len();
        self.batch.push_str(stamp);
        let text = String::from_utf8_lossy(&self.line);
        self.batch.extend(text.chars().filter(|c| !c.is_control() || *c == '\t'));
        self.line.clear();
        let mut last = if self.tail.len() == TAIL { self.tail.pop_front() } else { None }.unwrap_or_default();
        last.clear();
        last.extend(self.batch[begins + stamp.len()..].chars().take(TAIL_LINE));
        self.tail.push_back(last);
        self.batch.push('\n');
        if self.size + self.batch.len() as u64 > FILE_MAX {
            let line = self.batch.split_off(begins);
            self.flush();
            self.rotate();
            self.batch = line;
        }
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.batch.is_empty()
            && let Some(file) = &mut self.file
        {
            let written = file.write_all(self.batch.as_bytes());
            self.size += self.batch.len() as u64;
            if written.is_err() {
                // A part of it may be there.
                self.size = file.metadata().map_or(self.size, |metadata| metadata.len());
            }
        }
        self.batch.clear();
    }

    fn rotate(&mut self) {
        let _ = fs::rename(&self.path, older(&self.path));
        let fresh = Self::open(self.path.clone());
        (self.file, self.size) = (fresh.file, fresh.size);
        if self.size > FILE_MAX {
            // It could not be renamed: start over rather than grow.
            if let Some(file) = &self.file {
                let _ = file.set_len(0);
            }
            self.size = 0;
        }
    }
}

/// What is before a line of now.
fn stamp() -> String {
    format!("{} ", SystemClock.now().0)
}

fn older(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

fn stamped(line: &str) -> (i64, String) {
    match line.split_once(' ').and_then(|(at, rest)| Some((at.parse().ok()?, rest))) {
        Some((at, rest)) => (at, rest.to_owned()),
        None => (0, line.to_owned()),
    }
}

/// The reading end of a log that is followed: knows how far it has been read.
pub struct Follower {
    path: PathBuf,
    /// The file that was read last, and how much of it. Held open: its inode is no other file's meanwhile.
    read: Option<(File, u64)>,
    /// The beginning of a line that was not whole yet.
    begun: Vec<u8>,
    /// Lines were lost since this was asked last.
    torn: bool,
}

impl Follower {
    /// Begins with all that there is, the older file's too.
    pub fn new(path: PathBuf) -> Self {
        let read = File::open(older(&path)).ok().map(|file| (file, 0));
        Self { path, read, begun: Vec::new(), torn: false }
    }

    /// What was written since the last call. Of a log that was begun anew more than once meanwhile some lines are lost.
    pub fn fresh(&mut self) -> Vec<(i64, String)> {
        let Ok(file) = File::open(&self.path) else { return Vec::new() };
        let Some(inode) = inode(&file) else { return Vec::new() };
        let mut offset = 0;
        if let Some((known, read)) = self.read.take() {
            let before = self::inode(&known);
            if before == Some(inode) {
                offset = read;
            } else {
                self.take(&known, read);
                let older = File::open(older(&self.path)).ok();
                if older.as_ref().and_then(self::inode) != before {
                    self.torn = true;
                    if let Some(older) = older {
                        self.take(&older, 0);
                    }
                }
            }
        }
        let read = self.take(&file, offset);
        self.read = Some((file, read));
        let end = self.begun.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let rest = self.begun.split_off(end);
        let whole = std::mem::replace(&mut self.begun, rest);
        String::from_utf8_lossy(&whole).lines().map(stamped).collect()
    }

    /// Whether lines were lost since this was asked last.
    pub fn was_torn(&mut self) -> bool {
        std::mem::take(&mut self.torn)
    }

    /// Reads from `offset` to the end, which is returned; from the beginning if it was made shorter.
    fn take(&mut self, mut file: &File, offset: u64) -> u64 {
        let from = if file.metadata().is_ok_and(|m| m.len() < offset) { 0 } else { offset };
        if file.seek(SeekFrom::Start(from)).is_err() {
            return from;
        }
        from + file.take(FILE_MAX).read_to_end(&mut self.begun).map_or(0, |n| n as u64)
    }
}

fn inode(file: &File) -> Option<u64> {
    file.metadata().ok().map(|metadata| metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines that are kept.
    fn kept(path: &Path) -> Vec<(i64, String)> {
        Follower::new(path.to_owned()).fresh()
    }

    #[test]
    fn a_flood_leaves_two_files_of_bounded_size_and_the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LineLog::open(path.clone());
        let flood = "0123456789abcdef".repeat(64);
        for n in 0..4000 {
            log.write(format!("{n} {flood}\n").as_bytes());
        }
        log.write(b"last\x1b[31m without end");
        log.finish();
        let sizes: Vec<u64> =
            fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).collect();
        assert_eq!(sizes.len(), 2);
        assert!(sizes.iter().all(|size| *size <= FILE_MAX), "{sizes:?}");
        let lines = kept(&path);
        assert!(lines.len() > 1000, "{}", lines.len());
        let [.., before, last] = lines.as_slice() else { unreachable!() };
        assert_eq!(last.1, "last[31m without end");
        assert!(before.1.starts_with("3999 "));
        assert!(last.0 > 1_500_000_000_000);
        assert_eq!(log.tail().len(), TAIL);
    }

    #[test]
    fn a_log_that_was_begun_anew_more_than_once_between_two_looks_is_said_to_be_torn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LineLog::open(path.clone());
        let mut follower = Follower::new(path.clone());
        assert!(follower.fresh().is_empty() && !follower.was_torn());
        let mut write =
            |lines: usize| (0..lines).for_each(|n| log.write(format!("{n} {}\n", "x".repeat(1000)).as_bytes()));
        write(1500);
        assert!(follower.fresh().len() == 1500 && !follower.was_torn(), "all of the older file and of the new one");
        write(4000);
        let fresh = follower.fresh();
        assert!(follower.was_torn() && !follower.was_torn());
        assert!(fresh.len() > 1000 && fresh.last().unwrap().1.starts_with("3999 "), "{}", fresh.len());
        assert!(fresh.iter().all(|(_, text)| text.len() > 1000), "no halves");
    }

    #[test]
    fn a_follower_reads_every_line_once_also_when_the_log_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut early = Follower::new(path.clone());
        assert!(early.fresh().is_empty());
        let mut log = LineLog::open(path.clone());
        let texts = |lines: Vec<(i64, String)>| lines.into_iter().map(|(_, text)| text).collect::<Vec<_>>();
        let (mut seen, mut written) = (Vec::new(), Vec::new());
        for n in 0..3000 {
            let line = format!("{n} {}", "x".repeat(1000));
            log.write(format!("{line}\n").as_bytes());
            written.push(line);
            if n % 500 == 0 {
                seen.extend(texts(early.fresh()));
            }
        }
        seen.extend(texts(early.fresh()));
        assert!(older(&path).exists());
        assert!(seen == written, "{} of {}", seen.len(), written.len());
        // One that comes later reads what there still is, and goes on from there.
        let mut late = Follower::new(path.clone());
        let left = texts(late.fresh());
        assert!(left.len() > 1000 && written.ends_with(&left), "{}", left.len());
        // A line that is not whole waits.
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"17 half").unwrap();
        assert!(late.fresh().is_empty());
        file.write_all(b" and half\n").unwrap();
        assert_eq!(late.fresh(), [(17, "half and half".to_owned())]);
    }

    /// How often this thread has called for something to be written.
    fn writes() -> u64 {
        let text = fs::read_to_string("/proc/thread-self/io").unwrap();
        text.lines().find_map(|line| line.strip_prefix("syscw: ")).unwrap().parse().unwrap()
    }

    #[test]
    fn many_lines_at_once_are_written_at_once_with_one_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LineLog::open(path.clone());
        let before = writes();
        log.write(&[b'\n'; 4000]);
        assert_eq!(writes() - before, 1);
        let lines = kept(&path);
        assert_eq!(lines.len(), 4000);
        assert_eq!(lines[0], lines[3999]);
        let before = writes();
        log.write(&[b'\n'; 65536]);
        assert!(writes() - before <= 16, "{}", writes() - before);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = LineLog::open(path.clone());
        log.write(&vec![b'x'; 10 * LINE_MAX]);
        log.finish();
        assert_eq!(kept(&path).len(), 10);
    }
}

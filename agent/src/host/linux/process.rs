//! What /proc says of processes.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

/// One process for as long as the machine is up: ids are used again, the pair of id and start time is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Clock ticks between boot and its start.
    pub start: u64,
}

/// The parts of /proc/PID/stat that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub state: u8,
    pub parent: u32,
    /// Clock ticks of its own, all threads.
    pub own: u64,
    /// Clock ticks of its children that it has waited for, and theirs.
    pub children: u64,
    pub start: u64,
}

/// # Errors
/// `NotFound` if there is no such process.
pub fn stat(pid: u32) -> io::Result<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
        .ok_or_else(|| io::Error::other("unreadable /proc/PID/stat"))
}

/// The name in it is in parentheses and may hold anything, so it is read from the last one on.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split_ascii_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
    Some(Stat {
        state: *fields.first()?.as_bytes().first()?,
        parent: fields.get(1)?.parse().ok()?,
        own: number(11)? + number(12)?,
        children: number(13)? + number(14)?,
        start: number(19)?,
    })
}

impl Process {
    /// The process that has this id now.
    pub fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, start: stat(pid)?.start })
    }

    /// Whether it runs still; what has ended and not been waited for does not.
    pub fn is_alive(self) -> bool {
        stat(self.pid).is_ok_and(|s| s.start == self.start && s.state != b'Z' && s.state != b'X')
    }

    /// A hold on this process and no other; `None` if it has ended.
    pub fn handle(self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let handle = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
        // Looked at after it was opened: the id may have become another's before.
        self.is_alive().then_some(handle)
    }

    pub fn kill(self) {
        if let Some(handle) = self.handle() {
            let _ = pidfd_send_signal(&handle, Signal::KILL);
        }
    }
}

/// Microseconds in one tick of [`Stat`].
pub fn tick_micros() -> u64 {
    1_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

/// Changes with every boot.
pub fn boot_id() -> String {
    static BOOT: OnceLock<String> = OnceLock::new();
    let read = || fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    BOOT.get_or_init(read).clone()
}

/// All processes below `root`, parents before their children; `root` itself is not among them.
pub fn descendants(root: u32) -> Vec<u32> {
    let mut found = children(root);
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        for child in children(pid) {
            if !found.contains(&child) {
                found.push(child);
            }
        }
        next += 1;
    }
    found
}

fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let mut found = Vec::new();
    for thread in threads.flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(text) => found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok())),
            // A thread that has just ended; or a kernel without CONFIG_PROC_CHILDREN.
            Err(_) if thread.path().exists() => return children_by_scan(pid),
            Err(_) => {}
        }
    }
    found
}

fn children_by_scan(parent: u32) -> Vec<u32> {
    all().into_iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| pid).collect()
}

fn all() -> BTreeMap<u32, Stat> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter_map(|pid| Some((pid, stat(pid).ok()?)))
        .collect()
}

/// Whether a process has the user's rights, or can have them back.
fn is_of(pid: u32, uid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Uid:"));
        line.is_some_and(|line| line.split_ascii_whitespace().any(|id| id.parse() == Ok(uid)))
    })
}

/// Processes of a user that have not ended.
pub fn of_user(uid: u32) -> Vec<Process> {
    living(|pid| is_of(pid, uid))
}

fn living(wanted: impl Fn(u32) -> bool) -> Vec<Process> {
    let alive = all().into_iter().filter(|(pid, stat)| !matches!(stat.state, b'Z' | b'X') && wanted(*pid));
    alive.map(|(pid, stat)| Process { pid, start: stat.start }).collect()
}

/// Name of the variable that marks the processes of one run, so that they are found even when whoever started them is
/// gone. It holds no secret.
pub const MARK: &str = "PLAT_RUN";
/// How much of a process's environment is looked at for the mark, which programs are started with as the first.
const ENVIRONMENT_MAX: u64 = 64 * 1024;

/// Processes whose mark starts with `prefix`; only the user's, where one is given: anybody can write a mark.
pub fn marked(prefix: &str, uid: Option<u32>) -> Vec<Process> {
    let wanted = format!("{MARK}={prefix}");
    let known = uid.map_or_else(|| living(|_| true), of_user);
    known.into_iter().filter(|process| has_variable(process.pid, wanted.as_bytes())).collect()
}

fn has_variable(pid: u32, start: &[u8]) -> bool {
    let mut text = Vec::new();
    fs::File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(ENVIRONMENT_MAX).read_to_end(&mut text))
        .is_ok_and(|_| text.split(|b| *b == 0).any(|variable| variable.starts_with(start)))
}

/// The proportional share, so that pages of several processes count once; where that is hidden, all it has in memory.
pub fn memory_of(pid: u32) -> Option<u64> {
    let share = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok().and_then(|text| {
        let kib: u64 =
            text.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kib * 1024)
    });
    share.or_else(|| {
        let Ok(text) = fs::read_to_string(format!("/proc/{pid}/statm")) else { return Some(0) };
        Some(text.split(' ').nth(1)?.parse::<u64>().ok()? * rustix::param::page_size() as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_mislead() {
        let text = "7 (a) R (b) S 3 7 7 0 -1 4194560 1 2 3 4 50 60 70 80 20 0 1 0 999 1 2\n";
        assert_eq!(parse_stat(text), Some(Stat { state: b'S', parent: 3, own: 110, children: 150, start: 999 }));
    }

    #[test]
    fn this_process_is_alive_and_another_with_its_id_is_not() {
        let me = Process::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(!Process { start: me.start + 1, ..me }.is_alive());
    }
}

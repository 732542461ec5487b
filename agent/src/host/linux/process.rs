//! What /proc says of processes.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;

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
}

/// Microseconds in one tick of [`Stat`].
pub fn tick_micros() -> u64 {
    1_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

/// Changes with every boot.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
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

/// Name of the variable that marks the processes of one run, so that they are found even when whoever started them is
/// gone. It holds no secret.
pub const MARK: &str = "PLAT_RUN";

/// Processes whose mark starts with `prefix`, as far as this user may see them.
pub fn marked(prefix: &str) -> Vec<Process> {
    let wanted = format!("{MARK}={prefix}");
    all()
        .into_iter()
        .filter(|(pid, stat)| {
            stat.state != b'Z'
                && fs::read(format!("/proc/{pid}/environ"))
                    .is_ok_and(|text| text.split(|b| *b == 0).any(|var| var.starts_with(wanted.as_bytes())))
        })
        .map(|(pid, stat)| Process { pid, start: stat.start })
        .collect()
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

//! What /proc says of services that run.

use crate::host::linux::process::{descendants, stat, tick_micros};
use crate::host::linux::shim::RunState;
use crate::host::linux::shim::tree::Used;

/// What a run that goes on has used so far, and holds now.
pub struct Live {
    pub used: Used,
    pub io_hidden: bool,
    /// `None`: a process's memory may not be read.
    pub memory: Option<u64>,
}

impl Live {
    /// Of a run whose control group counts all: only that it goes on.
    pub fn counted(state: &RunState) -> Self {
        Self { used: state.used, io_hidden: false, memory: Some(0) }
    }

    /// Parents are read before their children: a child that ends meanwhile is missed until the next reading, and none is
    /// counted twice. `None` if its shim is gone already.
    pub fn read(state: &RunState) -> Option<Self> {
        let mut ticks = stat(state.shim.pid).ok()?.children;
        let (mut io, mut io_hidden, mut memory) = (state.used.io_bytes, false, Some(0));
        for pid in descendants(state.shim.pid) {
            let Ok(stat) = stat(pid) else { continue };
            ticks += stat.own + stat.children;
            match io_of(pid) {
                Ok(bytes) => io += bytes,
                Err(e) => io_hidden |= e.kind() == std::io::ErrorKind::PermissionDenied,
            }
            memory = memory.and_then(|sum| Some(sum + memory_of(pid)?));
        }
        Some(Self {
            used: Used { cpu_micros: (ticks * tick_micros()).max(state.used.cpu_micros), io_bytes: io },
            io_hidden,
            memory,
        })
    }

    /// Only what it holds.
    pub fn memory(state: &RunState) -> Option<u64> {
        descendants(state.shim.pid).into_iter().try_fold(0, |sum, pid| Some(sum + memory_of(pid)?))
    }
}

fn io_of(pid: u32) -> std::io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0);
    Ok(field("read_bytes:") + field("write_bytes:"))
}

/// The proportional share, so that pages of several processes count once; where that is hidden, all it has in memory.
pub fn memory_of(pid: u32) -> Option<u64> {
    let share = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok().and_then(|text| {
        let kib: u64 =
            text.lines().find_map(|line| line.strip_prefix("Pss:"))?.trim().trim_end_matches(" kB").parse().ok()?;
        Some(kib * 1024)
    });
    share.or_else(|| {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/statm")) else { return Some(0) };
        Some(text.split(' ').nth(1)?.parse::<u64>().ok()? * rustix::param::page_size() as u64)
    })
}

//! What /proc says of services that run: the reader where no control group counts.

use crate::host::linux::process::{descendants, memory_of, stat, tick_micros};
use crate::host::linux::runtime::Counted;
use crate::host::linux::shim::RunState;
use crate::host::linux::shim::tree::Used;
use std::fs;

/// What a run that goes on has used so far, and holds now, of what is not counted by a group.
pub struct Live {
    pub used: Used,
    pub io_hidden: bool,
    /// `None`: a process's memory may not be read.
    pub memory: Option<u64>,
}

impl Live {
    /// Parents are read before their children: a child that ends meanwhile is missed until the next reading, and none is
    /// counted twice. `None` if its shim is gone already.
    pub fn read(state: &RunState, counted: Counted) -> Option<Self> {
        let mut live = Self { used: state.used, io_hidden: false, memory: Some(0) };
        if counted == Counted::ALL {
            return Some(live);
        }
        let mut ticks = if counted.cpu { 0 } else { stat(state.shim.pid).ok()?.children };
        for pid in processes(state) {
            if !counted.cpu {
                let Ok(stat) = stat(pid) else { continue };
                ticks += stat.own + stat.children;
            }
            if !counted.io {
                match io_of(pid) {
                    Ok(bytes) => live.used.io_bytes += bytes,
                    Err(e) => live.io_hidden |= e.kind() == std::io::ErrorKind::PermissionDenied,
                }
            }
            if !counted.memory {
                live.memory = live.memory.and_then(|sum| Some(sum + memory_of(pid)?));
            }
        }
        live.used.cpu_micros = live.used.cpu_micros.max(ticks * tick_micros());
        Some(live)
    }

    /// Only what it holds.
    pub fn memory(state: &RunState) -> Option<u64> {
        processes(state).into_iter().try_fold(0, |sum, pid| Some(sum + memory_of(pid)?))
    }
}

/// Those of the service: all in its group, else all below its shim.
fn processes(state: &RunState) -> Vec<u32> {
    let grouped = state.cgroup.as_ref().and_then(|group| fs::read_to_string(group.join("cgroup.procs")).ok());
    match grouped {
        Some(text) => text.lines().filter_map(|pid| pid.parse().ok()).collect(),
        None => descendants(state.shim.pid),
    }
}

fn io_of(pid: u32) -> std::io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io"))?;
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0);
    Ok(field("read_bytes:") + field("write_bytes:"))
}

//! What /proc says of services that run: the reader where no control group counts.

use super::open::{Open, Reading};
use crate::host::linux::process::{descendants, memory_of, stat, tick_micros};
use crate::host::linux::runtime::{Counted, Memory};
use crate::host::linux::shim::RunState;
use crate::host::linux::shim::tree::Used;
use std::fs;
use std::path::{Path, PathBuf};

/// What a run that goes on has used so far, and holds now, of what is not counted by a group.
pub struct Live {
    pub used: Used,
    pub io_hidden: bool,
    /// `None`: a process's memory may not be read, or was not asked.
    pub memory: Option<u64>,
}

impl Live {
    /// Parents are read before their children: a child that ends meanwhile is missed until the next reading, and none is
    /// counted twice. `None` if its shim is gone already.
    pub fn read(state: &RunState, counted: Counted, memory: Memory, open: &Open) -> Option<Self> {
        open.reading(|files| Self::read_by(state, counted, memory, files))
    }

    fn read_by(state: &RunState, counted: Counted, memory: Memory, files: &mut Reading) -> Option<Self> {
        let held = (counted.memory || memory == Memory::Asked).then_some(0);
        let mut live = Self { used: state.used, io_hidden: false, memory: held };
        if counted == Counted::ALL {
            return Some(live);
        }
        let mut ticks = if counted.cpu { 0 } else { stat(state.shim.pid).ok()?.children };
        for pid in processes(state, files) {
            if !counted.cpu {
                let Ok(stat) = stat(pid) else { continue };
                ticks += stat.own + stat.children;
            }
            if !counted.io {
                match io_of(pid, files) {
                    Ok(bytes) => live.used.io_bytes += bytes,
                    Err(e) => live.io_hidden |= e.kind() == std::io::ErrorKind::PermissionDenied,
                }
            }
            if !counted.memory && memory == Memory::Asked {
                live.memory = live.memory.and_then(|sum| Some(sum + memory_of(pid)?));
            }
        }
        live.used.cpu_micros = live.used.cpu_micros.max(ticks * tick_micros());
        Some(live)
    }

    /// Only what it holds.
    pub fn memory(state: &RunState) -> Option<u64> {
        let processes = in_group(state).map(fs::read_to_string);
        listed(state, processes.and_then(Result::ok)).into_iter().try_fold(0, |sum, pid| Some(sum + memory_of(pid)?))
    }
}

/// What lists the processes of the service's group.
fn in_group(state: &RunState) -> Option<PathBuf> {
    state.cgroup.as_ref().map(|group| group.join("cgroup.procs"))
}

fn processes(state: &RunState, files: &mut Reading) -> Vec<u32> {
    listed(state, in_group(state).and_then(|list| files.text(&list).ok()))
}

/// Those of the service: all in its group, else all below its shim.
fn listed(state: &RunState, grouped: Option<String>) -> Vec<u32> {
    match grouped {
        Some(text) => text.lines().filter_map(|pid| pid.parse().ok()).collect(),
        None => descendants(state.shim.pid),
    }
}

fn io_of(pid: u32, files: &mut Reading) -> std::io::Result<u64> {
    let text = files.text(Path::new(&format!("/proc/{pid}/io")))?;
    let field = |name| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0);
    Ok(field("read_bytes:") + field("write_bytes:"))
}

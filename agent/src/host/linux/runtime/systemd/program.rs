//! A program that is run to its end as a unit, while somebody waits for it.

use super::inner::{Inner, cannot_start, code_of};
use super::journal;
use super::unit::{run_of, variables};
use crate::host::linux::disk::{self, Durability, private_folder};
use crate::host::linux::runtime::{Exit, Place, Ran, Used, beside};
use crate::host::linux::shim::launch::open_within;
use crate::host::linux::shim::line_log::LineLog;
use plat_agent_plan::action::Run;
use plat_model::Problem;
use plat_model::problem::codes;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;

/// The file with a program's variables, while it is needed.
struct Variables(PathBuf);

impl Drop for Variables {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        tokio::task::spawn_blocking(move || std::fs::remove_file(path));
    }
}

/// Ends the unit with all that it started, when nobody waits for it any more.
struct Guard {
    inner: Arc<Inner>,
    unit: String,
    is_over: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.inner.bus.leave(&self.unit);
        if self.is_over {
            return;
        }
        let (inner, unit) = (self.inner.clone(), self.unit.clone());
        tokio::spawn(async move {
            let killed = inner.bus.kill(&unit).await;
            if let Err(wrong) = killed.and(inner.bus.stop(&unit).await) {
                tracing::warn!(unit, problem = wrong.problem("it goes on").one_line(), "a program cannot be ended");
            }
        });
    }
}

impl Inner {
    /// Runs a program to its end.
    pub async fn run(self: &Arc<Self>, place: &Place, run: &Run) -> Result<Ran, Problem> {
        let name = &place.partition.name;
        let what = cannot_start(&run.command);
        let cannot = || what.clone();
        let failed = {
            let what = what.clone();
            move |why: String| Problem::new(codes::SERVICE_START, what.clone()).because(why)
        };
        let id = disk::random_hex(8)?;
        let (unit, slice) = (self.names.program(name, &run.name, &id), self.names.slice(name));
        let folder = self.held.records.runs_folder(name);
        let (environment, log) = (folder.join(format!("{id}.environment")), self.held.records.run_log(name, &run.name));
        let properties = run_of(place, &slice, run, &self.confinement(place)?, &environment, self.version);
        let text = variables(&run.environment);
        let wrong = failed.clone();
        let (top, within) = (place.directory.clone(), run.directory.clone());
        let made = beside(move || {
            open_within(&top, &within).map_err(wrong)?;
            private_folder(&folder)?;
            // Whoever asked may stop waiting before it is written.
            let file = Variables(environment);
            disk::replace(&file.0, text.as_bytes(), Durability::Process).map(|()| file)
        });
        let _variables = made.await?;
        let (output, input) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)
                .map_err(|e| failed(e.to_string()))?;
        // The program's end waits for its reader, as any does.
        let _ = rustix::io::ioctl_fionbio(&input, false);
        let reader = Receiver::from_owned_fd(output).map_err(|e| failed(e.to_string()))?;
        let (over, is_over) = oneshot::channel();
        let said = tokio::spawn(copy(reader, log, is_over));
        let mut guard = Guard { inner: self.clone(), unit: unit.clone(), is_over: false };
        let seen = self.bus.start(&unit, &properties, Some(input)).await.map_err(|wrong| wrong.problem(cannot()))?;
        let seen = if seen.is_over() && seen.main > 0 {
            seen
        } else {
            self.bus.until_over(&unit).await.map_err(|wrong| wrong.problem(cannot()))?
        };
        guard.is_over = true;
        drop(over);
        let tail = said.await.unwrap_or_default();
        if let Some(step) = seen.failed_step() {
            let (of, invocation) = (unit.clone(), seen.invocation.clone());
            let why = beside(move || Ok(journal::failure(&of, &invocation))).await?;
            let why = why.unwrap_or_else(|| format!("systemd could not execute it (status {step})"));
            return Err(Problem::new(code_of(step), cannot()).because(why));
        }
        let exit = seen.exit().unwrap_or(Exit::Code(255));
        // The partition's group has counted it.
        Ok(Ran { exit, timed_out: seen.result == "timeout", over: None, used: Used::default(), tail })
    }
}

/// Copies all that it says to its log until `over` closes; the last lines.
async fn copy(reader: Receiver, log: PathBuf, mut over: oneshot::Receiver<()>) -> Vec<String> {
    let Ok(mut log) = tokio::task::spawn_blocking(move || LineLog::open(log)).await else { return Vec::new() };
    let mut buffer = vec![0; 64 * 1024];
    // Its processes are gone by then, and all that they said is in the pipe. Another that it gave its output to may hold the
    // pipe open, and say more for ever.
    let mut left: Option<u64> = None;
    while left != Some(0) {
        if left.is_none() {
            tokio::select! {
                _ = &mut over => left = Some(rustix::io::ioctl_fionread(&reader).unwrap_or(0)),
                ready = reader.readable() => if ready.is_err() { break },
            }
        }
        let read = match left {
            None => reader.try_read(&mut buffer),
            // Whether anybody has told that it is readable or not.
            Some(left) => {
                let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                rustix::io::read(&reader, &mut buffer[..most]).map_err(Into::into)
            }
        };
        let count = match read {
            Err(e) if e.kind() == ErrorKind::WouldBlock && left.is_none() => continue,
            Ok(count @ 1..) => count,
            _ => break,
        };
        left = left.map(|left| left.saturating_sub(count as u64));
        let written = tokio::task::spawn_blocking(move || {
            log.write(&buffer[..count]);
            (log, buffer)
        });
        match written.await {
            Ok(back) => (log, buffer) = back,
            Err(_) => return Vec::new(),
        }
    }
    let ended = tokio::task::spawn_blocking(move || {
        log.finish();
        log.tail()
    });
    ended.await.unwrap_or_default()
}

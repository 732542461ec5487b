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
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// Ends the unit with all that it started, when nobody waits for it any more.
struct Guard {
    inner: Arc<Inner>,
    unit: String,
    environment: std::path::PathBuf,
    is_over: bool,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.environment);
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
        let folder = self.records.runs_folder(name);
        let (environment, log) = (folder.join(format!("{id}.environment")), folder.join(format!("{}.log", run.name)));
        let properties = run_of(place, &slice, run, &self.confinement(place)?, &environment, self.version);
        let (path, text) = (environment.clone(), variables(&run.environment));
        let wrong = failed.clone();
        let (top, within) = (place.directory.clone(), run.directory.clone());
        let made = beside(move || {
            open_within(&top, &within).map_err(wrong)?;
            private_folder(&folder)?;
            disk::replace(&path, text.as_bytes(), Durability::Process)
        });
        let mut guard = Guard { inner: self.clone(), unit: unit.clone(), environment, is_over: false };
        made.await?;
        let (output, input) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)
                .map_err(|e| failed(e.to_string()))?;
        // The program's end waits for its reader, as any does.
        let _ = rustix::io::ioctl_fionbio(&input, false);
        let reader = Receiver::from_owned_fd(output).map_err(|e| failed(e.to_string()))?;
        let said = tokio::spawn(copy(reader, log));
        let seen = self.bus.start(&unit, &properties, Some(input)).await.map_err(|wrong| wrong.problem(cannot()))?;
        let seen = if seen.is_over() && seen.main > 0 {
            seen
        } else {
            self.bus.until_over(&unit).await.map_err(|wrong| wrong.problem(cannot()))?
        };
        // Its processes are gone, and with them the other ends of the pipe.
        guard.is_over = true;
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

/// Copies all that it says to its log; the last lines.
async fn copy(mut reader: Receiver, log: std::path::PathBuf) -> Vec<String> {
    let Ok(mut log) = tokio::task::spawn_blocking(move || LineLog::open(log)).await else { return Vec::new() };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = reader.read(&mut buffer).await {
        log.write(&buffer[..count]);
    }
    log.finish();
    log.tail()
}

//! A program that is run to its end as a unit, while somebody waits for it.

use super::inner::{Inner, cannot_start, code_of};
use super::journal;
use super::tmp::Shown;
use super::unit::{Around, run_of, variables};
use crate::host::linux::disk::{self, Durability, private_folder};
use crate::host::linux::runtime::{Exit, Place, Ran, Used, beside};
use crate::host::linux::shim::launch::open_within;
use crate::host::linux::shim::line_log::LineLog;
use crate::host::linux::shim::pace::Pace;
use plat_agent_plan::action::Run;
use plat_model::Problem;
use plat_model::problem::codes;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::oneshot;

/// The file with a program's variables, while it is needed.
struct Variables(PathBuf);

impl Variables {
    /// Writes them, unless `first` finds what speaks against that; with what it found. Whoever asked may stop waiting before
    /// it is done: the file goes all the same.
    async fn write<T: Send + 'static>(
        path: PathBuf,
        text: String,
        first: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<(Self, T), Problem> {
        let made = beside(move || {
            let found = first()?;
            let file = Self(path);
            disk::replace(&file.0, text.as_bytes(), Durability::Process).map(|()| (file, found))
        });
        made.await
    }
}

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
        let turn = self.bus.turn_to_start(&unit).await.map_err(|wrong| wrong.problem(cannot()))?;
        let folder = self.held.records.runs_folder(name);
        let (environment, log) = (folder.join(format!("{id}.environment")), self.held.records.run_log(name, &run.name));
        let confinement = self.confinement(place)?;
        let (wrong, partition, tmp, bounds) =
            (failed.clone(), name.clone(), self.tmp.clone(), confinement.bounds.clone());
        let (top, within) = (place.directory.clone(), run.directory.clone());
        let first = move || {
            let entered = open_within(&top, &within);
            let tmp = entered.and_then(|_| bounds.map_or(Ok(None), |bounds| tmp.show(&partition, &bounds)));
            private_folder(&folder).and(tmp.map_err(wrong))
        };
        let text = variables(&run.environment);
        let (_variables, tmp) = Variables::write(environment.clone(), text, first).await?;
        let path = tmp.as_ref().map(Shown::path);
        let around = Around { slice: &slice, environment: &environment, tmp: path.as_deref(), version: self.version };
        let properties = run_of(place, run, &confinement, around);
        let (output, input) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK)
                .map_err(|e| failed(e.to_string()))?;
        // The program's end waits for its reader, as any does.
        let _ = rustix::io::ioctl_fionbio(&input, false);
        let reader = Receiver::from_owned_fd(output).map_err(|e| failed(e.to_string()))?;
        let (over, is_over) = oneshot::channel();
        let said = tokio::spawn(copy(reader, log, is_over));
        let mut guard = Guard { inner: self.clone(), unit: unit.clone(), is_over: false };
        self.count(name).await.map_err(|wrong| wrong.problem(cannot()))?;
        let seen =
            self.bus.start(&turn, &unit, &properties, Some(input)).await.map_err(|wrong| wrong.problem(cannot()))?;
        drop((tmp, turn));
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

/// Copies all that it says to its log until `over` closes, no faster than its pace; the last lines.
async fn copy(reader: Receiver, log: PathBuf, mut over: oneshot::Receiver<()>) -> Vec<String> {
    let Ok(mut log) = tokio::task::spawn_blocking(move || LineLog::open(log)).await else { return Vec::new() };
    let mut buffer = vec![0; 16 * 1024];
    let mut pace = Pace::new(Instant::now());
    // Its processes are gone by then, and all that they said is in the pipe. Another that it gave its output to may hold the
    // pipe open, and say more for ever.
    let mut left: Option<u64> = None;
    while left != Some(0) {
        if left.is_none() {
            let due = async {
                if let Some(rest) = pace.rest(Instant::now()) {
                    tokio::time::sleep(rest).await;
                }
                reader.readable().await
            };
            tokio::select! {
                _ = &mut over => left = Some(rustix::io::ioctl_fionread(&reader).unwrap_or(0)),
                ready = due => if ready.is_err() { break },
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
        pace.count(&buffer[..count], Instant::now());
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

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::fs;
    use tokio::runtime::Builder;
    use tokio::task::spawn_blocking;

    #[tokio::test]
    async fn a_program_that_says_too_much_is_held_back_until_it_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let (output, input) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        rustix::io::ioctl_fionbio(&input, false).unwrap();
        let (over, is_over) = oneshot::channel();
        let copied = tokio::spawn(copy(Receiver::from_owned_fd(output).unwrap(), folder.path().join("log"), is_over));
        // More than may come at once, by what two seconds let through and what the pipe holds.
        let lines = vec![b'\n'; 100_000 + 20_000 + 70_000];
        let begun = Instant::now();
        let input = spawn_blocking(move || {
            let mut input = fs::File::from(input);
            std::io::Write::write_all(&mut input, &lines).map(|()| input).unwrap()
        })
        .await
        .unwrap();
        let took = begun.elapsed();
        assert!(took.as_secs() >= 1, "{took:?}");
        // Who holds the other end and says nothing more keeps nobody waiting, and what was said is there.
        drop(over);
        assert_eq!(copied.await.unwrap(), vec![String::new(); 10]);
        drop(input);
    }

    /// A runtime with one thread for work that blocks: what is asked of it is done in that order.
    fn in_turn() -> tokio::runtime::Runtime {
        Builder::new_current_thread().max_blocking_threads(1).build().unwrap()
    }

    #[test]
    fn the_variables_of_a_program_are_there_while_it_runs_and_gone_when_nobody_waits_for_it() {
        in_turn().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("id.environment");
            let (file, ()) = Variables::write(path.clone(), "A=b\n".into(), || Ok(())).await.unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), "A=b\n");
            drop(file);
            spawn_blocking(|| ()).await.unwrap();
            assert!(!path.exists());
        });
    }

    #[test]
    fn the_variables_of_a_program_that_was_given_up_before_they_were_written_do_not_stay() {
        in_turn().block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("id.environment");
            let (go, waits) = std::sync::mpsc::channel::<()>();
            let begun = Variables::write(path.clone(), "A=b\n".into(), move || {
                let _gone = waits.recv();
                Ok(())
            });
            let mut begun = Box::pin(begun);
            assert!(begun.as_mut().now_or_never().is_none());
            drop(begun);
            go.send(()).unwrap();
            // The first comes after the write, the second after what the write has asked for.
            spawn_blocking(|| ()).await.unwrap();
            spawn_blocking(|| ()).await.unwrap();
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        });
    }
}

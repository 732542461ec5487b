//! Root's part: starts the part with the network, serves it, and starts it again when it ends.

use super::handover::{self, Giving};
use super::network::{SUBCOMMAND, Start};
use super::{heard, serve};
use crate::aside::refuse_files;
use crate::config::Config;
use crate::host::linux::{LinuxConfig, LinuxHost, Network};
use crate::host::{Event, Host};
use plat_model::Problem;
use plat_model::node::Account;
use plat_model::problem::codes;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{info, warn};

/// How long the part with the network has to end by itself.
const END: Duration = Duration::from_secs(10);
/// How long its last words may take to come once it has.
const LAST: Duration = Duration::from_secs(1);
/// Pauses before it is started again: the first, and the longest. One that has lasted starts from the first.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The exit code with which it has said why it cannot run: the next one could not either.
const SAID_WHY: i32 = 1;
/// What of the environment it gets: how much it logs.
const PASSED: [&str; 2] = ["PLAT_LOG", "RUST_BACKTRACE"];

/// Runs the agent of a node until `shutdown` ends. Before there are other threads than the runtime's.
///
/// # Errors
/// CONFLICT if another agent runs; those of the host; PRIVILEGE.
pub async fn keep(
    config: &Config,
    linux: LinuxConfig,
    user: Option<Account>,
    shutdown: impl Future<Output = ()>,
) -> Result<ExitCode, Problem> {
    let (executable, network) = (linux.executable.clone(), linux.network.clone());
    let own = config.data.join("host");
    crate::durable::private_folder(&own)?;
    let _alone = super::data::lock(&own.join("agent.lock"))?;
    let host: Arc<dyn Host> = Arc::new(LinuxHost::open_with(linux, &config.releases).await?);
    let part = Part { executable: &executable, network: &network, user: user.as_ref(), start: Start::new(config) };
    if nix::unistd::geteuid().is_root() && user.is_none() {
        info!("there is no user plat-agent: the part with the network is root, without any capability");
    }
    let mut events = host.events();
    let mut pause = PAUSE;
    tokio::pin!(shutdown);
    loop {
        let began = Instant::now();
        let mut running = part.start()?;
        let is_over = tokio::select! {
            () = running.serve(&part.start, &host, &mut events) => false,
            () = &mut shutdown => true,
        };
        let status = running.end().await;
        if is_over {
            info!("agent has ended, services go on");
            return Ok(ExitCode::SUCCESS);
        }
        match status {
            Ok(status) if status.code() == Some(SAID_WHY) => return Ok(ExitCode::FAILURE),
            Ok(status) => {
                warn!(%status, pause_ms = pause.as_millis(), "the part with the network ended and is started again")
            }
            Err(why) => warn!(%why, "the part with the network cannot be waited for"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = &mut shutdown => return Ok(ExitCode::SUCCESS),
        }
        pause = if began.elapsed() > PAUSE_MAX { PAUSE } else { (pause * 2).min(PAUSE_MAX) };
    }
}

struct Part<'a> {
    executable: &'a Path,
    network: &'a Network,
    user: Option<&'a Account>,
    start: Start,
}

impl Part<'_> {
    fn start(&self) -> Result<Running, Problem> {
        let wrong = |why: &dyn std::fmt::Display| {
            Problem::new(codes::INTERNAL, "the part with the network cannot be started").because(why)
        };
        let (mine, theirs) = StdStream::pair().map_err(|e| wrong(&e))?;
        let mut command = Command::new(self.executable);
        let passed = PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command.arg(SUBCOMMAND).env_clear().envs(passed).current_dir("/");
        let (giving, taking) = handover::pair().map_err(|e| wrong(&e))?;
        command.stdin(OwnedFd::from(theirs)).stdout(OwnedFd::from(taking)).stderr(Stdio::piped());
        if let Some(user) = self.user {
            // Its other groups go too.
            command.uid(user.uid).gid(user.gid);
        }
        let mut child = self.network.spawn(&mut command).map_err(|e| wrong(&e))?;
        // The command holds its end of the socket.
        drop(command);
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let handle =
            pid.ok_or(io::ErrorKind::InvalidData.into()).and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
        let handle = handle.map_err(|e: io::Error| wrong(&e))?;
        refuse_files(&mine).and_then(|()| mine.set_nonblocking(true)).map_err(|e| wrong(&e))?;
        let stream = UnixStream::from_std(mine).map_err(|e| wrong(&e))?;
        let errors = child.stderr.take().map(OwnedFd::from);
        let heard = errors.map(|errors| tokio::spawn(heard::copy(errors, io::stderr())));
        Ok(Running { child, handle, stream: Some((stream, giving)), heard })
    }
}

struct Running {
    child: Child,
    handle: OwnedFd,
    /// With what open files are handed over on.
    stream: Option<(UnixStream, Giving)>,
    /// What it says on its standard error is copied.
    heard: Option<JoinHandle<()>>,
}

impl Running {
    /// Until it is not to be served any more.
    async fn serve(&mut self, start: &Start, host: &Arc<dyn Host>, events: &mut mpsc::Receiver<Event>) {
        let Some((stream, giving)) = self.stream.take() else { return };
        if let Err(problem) = serve(host.clone(), events, stream, giving, start).await {
            warn!(problem = problem.one_line(), "the part with the network is ended");
            let _gone = pidfd_send_signal(&self.handle, Signal::KILL);
        }
    }

    /// It ends when its socket does, or else is killed.
    async fn end(mut self) -> io::Result<ExitStatus> {
        drop(self.stream.take());
        let handle = crate::host::linux::watched(self.handle)?;
        if tokio::time::timeout(END, handle.readable()).await.is_err() {
            pidfd_send_signal(handle.get_ref(), Signal::KILL)?;
        }
        let status = self.child.wait();
        if let Some(mut heard) = self.heard.take()
            && tokio::time::timeout(LAST, &mut heard).await.is_err()
        {
            // Something that it started holds the other end.
            heard.abort();
        }
        status
    }
}

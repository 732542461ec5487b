//! The part with the network: what it gives up before it does anything, and its start.

use super::{RemoteHost, Taking};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::{DiskWork, Settings, memory, telemetry};
use plat_agent_plan::KeepPolicy;
use plat_link::{Address, DialSettings};
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::stdio::{dup2_stdin, dup2_stdout};
use rustix::thread::{CapabilitySet, CapabilitySets};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// The hidden subcommand of the agent's binary under which it is the part with the network.
pub(super) const SUBCOMMAND: &str = "network";
/// How long one that is just being killed may hold the data folder still.
const LOCK: Duration = Duration::from_secs(10);

/// What root's part tells it before all else: it reads no settings by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    data: PathBuf,
    master: Option<String>,
    window: Duration,
    outbox_bytes: u64,
    policy: KeepPolicy,
}

impl Start {
    pub fn new(config: &Config) -> Self {
        Self {
            data: config.data.clone(),
            master: config.master.as_ref().map(ToString::to_string),
            window: config.window,
            outbox_bytes: config.outbox_bytes,
            policy: config.releases.policy,
        }
    }

    fn settings(self, seed: u64) -> Result<Settings, Problem> {
        Ok(Settings {
            data: self.data,
            master: self.master.as_deref().map(Address::parse).transpose()?,
            window: self.window,
            outbox_bytes: self.outbox_bytes,
            policy: self.policy,
            seed,
            disk: DiskWork::Beside,
            dial: DialSettings::default(),
        })
    }
}

/// For the very start of `main`, before there is a thread: if this process was started as the part with the network, does
/// its work and says how to exit. Its standard input is the socket, its standard output the one of open files, its standard
/// error a pipe to root's part.
pub fn subcommand() -> Option<ExitCode> {
    if std::env::args_os().nth(1)? != SUBCOMMAND {
        return None;
    }
    memory::keep_together();
    let confined = confine();
    telemetry::init();
    Some(match confined.and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let _nobody_hears = writeln!(std::io::stderr(), "{problem}");
            ExitCode::FAILURE
        }
    })
}

/// Gives up all that its work does not need, for good: rights, other open files, being looked into by others.
fn confine() -> Result<(UnixStream, Taking), Problem> {
    let wrong = |why: &dyn std::fmt::Display| {
        Problem::new(codes::PRIVILEGE, "the part with the network cannot give up its rights").because(why)
    };
    let open = std::fs::read_dir("/proc/self/fd").map_err(|e| wrong(&e))?;
    let open: Vec<i32> = open.flatten().filter_map(|fd| fd.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        let _closed_with_the_folder = nix::unistd::close(fd);
    }
    let socket: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3).map_err(|e| wrong(&e))?;
    let files: OwnedFd = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).map_err(|e| wrong(&e))?;
    let null = File::options().read(true).write(true).open("/dev/null").map_err(|e| wrong(&e))?;
    dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).map_err(|e| wrong(&e))?;
    // A terminal is root's part's: nobody else sets it up, or is sent what is typed at it.
    rustix::process::setsid().map_err(|e| wrong(&e))?;
    nix::sys::prctl::set_no_new_privs().map_err(|e| wrong(&e))?;
    nix::sys::prctl::set_dumpable(false).map_err(|e| wrong(&e))?;
    // Where it is still root's: what another program could be given goes first.
    for capability in CapabilitySet::all().iter() {
        let _not_allowed_or_unknown = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, none).map_err(|e| wrong(&e))?;
    Ok((socket.into(), files.into()))
}

fn run((socket, files): (UnixStream, Taking)) -> Result<(), Problem> {
    let failed = |what: &str, why: &dyn std::fmt::Display| Problem::new(codes::INTERNAL, what).because(why);
    // One thread does all the work that is not waiting; a few more exist only while files are synced.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_stack_size(256 * 1024)
        .build()
        .map_err(|why| failed("the runtime cannot be started", &why))?;
    runtime.block_on(async {
        socket.set_nonblocking(true).map_err(|why| failed("no socket", &why))?;
        let socket = tokio::net::UnixStream::from_std(socket).map_err(|why| failed("no socket", &why))?;
        let (host, start) = RemoteHost::open(socket, files).await?;
        let _alone = tokio::select! {
            alone = alone(&start.data) => alone?,
            () = host.ended() => return Ok(()),
        };
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|why| failed("no randomness", &why))?;
        let settings = start.settings(u64::from_le_bytes(seed))?;
        let host = Arc::new(host);
        // Who interrupts both parts means root's, which ends this one when it has seen to what it holds.
        let ended = |kind| signal(kind).map_err(|why| failed("no signals", &why));
        let (mut term, mut int) = (ended(SignalKind::terminate())?, ended(SignalKind::interrupt())?);
        let over = host.clone();
        let shutdown = async move {
            loop {
                tokio::select! {
                    () = over.ended() => return,
                    _ = term.recv() => return,
                    _ = int.recv() => {}
                }
            }
        };
        crate::run(settings, plat_link::tcp, host, Arc::new(SystemClock), shutdown).await
    })
}

/// The lock of the files that are this part's. Who held it before has lost its root part, and is about to end.
async fn alone(data: &Path) -> Result<File, Problem> {
    let until = Instant::now() + LOCK;
    loop {
        match super::data::lock(&data.join("agent.lock")) {
            Err(problem) if problem.code == codes::CONFLICT && Instant::now() < until => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            locked => return locked,
        }
    }
}

//! The process that lays sources: it has become the builder, with no more of the machine than that takes, and is held to what
//! a build may take. What it unpacks is somebody else's, and a small archive can ask for any amount of memory or disk.

use super::{BuildTask, Laid};
use crate::host::linux::account::assume;
use crate::host::linux::confine::{Bounds, Company, Confining, Modes, Network, Tmp, plan, resolver};
use crate::host::linux::posix::{Side, split};
use crate::host::linux::release::cache::store::Shelf;
use crate::host::linux::release::disk_use::DiskUse;
use crate::host::linux::shim::tree::Over;
use crate::host::linux::task::Line;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use plat_document::release::Source;
use plat_model::Problem;
use plat_model::problem::codes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often it is looked whether the disk is full, which a fast one is soon.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// How often what was laid is counted.
const COUNT: Duration = Duration::from_secs(1);

impl BuildTask {
    /// Has a process become the builder and prepare what there is to build from.
    pub(super) fn lay_all(&self, lock: Option<&File>, line: &Line) -> Result<Laid, Problem> {
        let wrong = |e: &dyn std::fmt::Display| Problem::new(codes::INTERNAL, "cannot lay sources").because(e);
        let (mut said, say) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| wrong(&e))?;
        match split().map_err(|e| wrong(&e))? {
            Side::Child => {
                // It is the parent's: whatever becomes of this process, the lock goes with the build.
                drop(said);
                if let Some(lock) = lock {
                    let _ = nix::unistd::close(lock.as_raw_fd());
                }
                let laid = Shelf::open(&self.cache).and_then(|shelf| {
                    self.join_groups()?;
                    self.shut_in(&shelf, line)?;
                    // Nobody would look for it, where it is not the builder's.
                    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
                    self.lay_here(&shelf, line)
                });
                let _ = serde_json::to_writer(File::from(say), &laid);
                std::process::exit(0)
            }
            Side::Parent(child) => {
                drop(say);
                let heard = listen(&mut said, &self.disk(), line);
                if !matches!(heard, Heard::All(_)) {
                    let _ = kill(child, Signal::SIGKILL);
                }
                let ended = waitpid(child, None);
                match heard {
                    Heard::All(text) => serde_json::from_slice(&text).unwrap_or_else(|_| Err(cut_off(ended.ok()))),
                    Heard::Over(over) => Err(self.is_over(&over)),
                    Heard::Gone => Err(wrong(&"nobody waits for it any more")),
                }
            }
        }
    }

    /// What it starts is in them too.
    fn join_groups(&self) -> Result<(), Problem> {
        self.groups.unified.iter().chain(&self.groups.others).try_for_each(|group| {
            std::fs::write(group.join("cgroup.procs"), "0").map_err(|e| {
                let what = format!("cannot join the control group {}", group.display());
                Problem::new(codes::BUILD_FAILED, what).because(e)
            })
        })
    }

    /// Has this process become the builder, with no more of the machine than laying sources takes: what they are made of is
    /// somebody else's, and so are the programs that fetch and unpack some of them.
    fn shut_in(&self, shelf: &Shelf, line: &Line) -> Result<(), Problem> {
        let asks = |source: &Source| match source {
            Source::Git { .. } | Source::Pypi { .. } => true,
            Source::Deb { locks, .. } => locks.is_empty(),
            _ => false,
        };
        let here = |source: &Source| match source {
            Source::Archive { url: path, .. } | Source::Directory { path, .. } | Source::Oci { layout: path, .. } => {
                Some(path.clone())
            }
            Source::Crate { registry: path, .. } | Source::Npm { registry: path, .. } => Some(path.clone()),
            Source::Git { url, .. } => Some(url.strip_prefix("file://").unwrap_or(url).to_owned()),
            _ => None,
        };
        let (sources, is_made) = (&self.release.sources, self.made.is_some());
        let paths = sources.values().filter_map(here).filter(|path| path.starts_with('/'));
        let network = if !is_made && sources.values().any(asks) { Network::Same } else { Network::None };
        let authorities = self.authorities.as_ref().filter(|path| network == Network::Same && path.exists());
        let bounds = Bounds {
            writable: [self.staging.clone()].into_iter().chain(self.packages.clone()).collect(),
            readable: resolver().filter(|_| network == Network::Same).into_iter().collect(),
            hidden: self.hidden.clone(),
            visible: paths.map(PathBuf::from).chain(authorities.cloned()).collect(),
            network,
            modes: Modes::Any,
            tmp: Tmp::Memory(self.limits.memory),
            company: Company::None,
        };
        let builder = self.builder.as_ref();
        let (steps, mut confining) = (plan(&bounds), Confining::new(&bounds, builder).reading(shelf.folder()));
        let of_build = |problem| Problem { code: codes::BUILD_FAILED, ..problem };
        confining.perform(&steps.as_started).map_err(of_build)?;
        self.limit();
        assume(builder)?;
        confining.perform(&steps.as_user).map_err(of_build)?;
        confining.missing.into_iter().try_for_each(|missing| line.progress(missing))
    }

    /// Holds this process, and each that it starts, to what the kernel keeps of `[build]`.
    fn limit(&self) {
        // Lowering cannot fail; what the host does not allow stays as the host has it.
        let lower = |which, most: u64| {
            if let Ok((_, hard)) = getrlimit(which) {
                let _ = setrlimit(which, most.min(hard), most.min(hard));
            }
        };
        lower(Resource::RLIMIT_CORE, 0);
        lower(Resource::RLIMIT_DATA, self.limits.memory);
        lower(Resource::RLIMIT_FSIZE, self.limits.disk);
        // `nobody` is also who fetches and unpacks for others, and starts nothing here.
        if self.lock.is_some() || self.builder.is_none() {
            lower(Resource::RLIMIT_NPROC, u64::from(self.limits.processes));
        }
        // Who writes is told that a file is too large, instead of being ended.
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGXFSZ);
        let _ = signals.thread_block();
    }
}

/// What comes of the process that lays.
enum Heard {
    /// All that it said.
    All(Vec<u8>),
    Over(Over),
    /// Nobody waits for it any more.
    Gone,
}

/// All that comes, to its end, as long as it has not taken too much.
fn listen(said: &mut OwnedFd, disk: &DiskUse, line: &Line) -> Heard {
    let (mut text, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    let mut counted = Instant::now();
    loop {
        let mut fds = [PollFd::new(&*said, PollFlags::IN), PollFd::new(line.stream(), PollFlags::RDHUP)];
        let ready = match poll(&mut fds, Some(&LOOK)) {
            Err(Errno::INTR) => continue,
            Err(_) => return Heard::Gone,
            Ok(_) if !fds[1].revents().is_empty() => return Heard::Gone,
            Ok(ready) => ready,
        };
        let over = match counted.elapsed() >= COUNT {
            true => {
                counted = Instant::now();
                disk.over()
            }
            false => disk.full(),
        };
        match over {
            Some(over) => return Heard::Over(over),
            None if ready == 0 => continue,
            None => {}
        }
        match rustix::io::read(&*said, &mut buffer) {
            Ok(0) => return Heard::All(text),
            Ok(n) => text.extend_from_slice(&buffer[..n]),
            Err(Errno::INTR) => {}
            Err(_) => return Heard::Gone,
        }
    }
}

/// It ended before it had said how it went.
fn cut_off(ended: Option<WaitStatus>) -> Problem {
    let why = match ended {
        Some(WaitStatus::Signaled(_, signal, _)) => format!("the process that did was ended by {signal}"),
        _ => "the process that did was killed".to_owned(),
    };
    Problem::new(codes::BUILD_FAILED, "cannot lay sources")
        .because(why)
        .fix("if they take more memory than `build.memory_mib` allows, raise that in agent.toml")
}

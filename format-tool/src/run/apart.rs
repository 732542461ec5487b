//! A process that outlives what started it. Where systemd ends a service or a session it ends all processes of its control group,
//! whatever their process group: so the process is started in a scope of its own.

use nix::sys::signal::{SigSet, Signal};
use plat_model::problem::{Problem, codes};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Where systemd runs (sd_booted(3)).
const SYSTEMD: &str = "/run/systemd/system";
const STARTER: &str = "systemd-run";
/// The control groups of a machine without systemd, and the one that nobody ends.
const TOP: &str = "/sys/fs/cgroup/cgroup.procs";

/// How long systemd may take to make a scope.
const SCOPE_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What starts `program`, up to its arguments. As a scope it stays this process's child, in its namespaces, with its environment.
pub(super) fn command(program: &Path) -> Command {
    if !Path::new(SYSTEMD).exists() {
        return Command::new(program);
    }
    let mut command = Command::new(STARTER);
    command.args(["--scope", "--quiet", "--collect", "--no-ask-password"]);
    command.arg(format!("--unit=node-format-uplink-{}", std::process::id()));
    command.arg("--description=gives the old network back unless node-format confirm is run").arg("--").arg(program);
    command
}

/// Waits until a process that was started so is `program`, and apart.
///
/// # Errors
/// If systemd made no scope for it.
pub(super) fn is_apart(child: &mut Child, program: &Path) -> Result<(), Problem> {
    if !Path::new(SYSTEMD).exists() {
        // As far as that goes: not where control groups are kept from this process, or are of the first version.
        let top = fs::OpenOptions::new().write(true).open(TOP);
        let _ = top.and_then(|mut top| top.write_all(child.id().to_string().as_bytes()));
        return Ok(());
    }
    let running = format!("/proc/{}/exe", child.id());
    let begun = Instant::now();
    loop {
        // It becomes the program once it is in the scope.
        if fs::read_link(&running).is_ok_and(|found| found == program) {
            return Ok(());
        }
        let why = match child.try_wait() {
            Ok(None) if begun.elapsed() < SCOPE_MAX => {
                std::thread::park_timeout(LOOK_EVERY);
                continue;
            }
            Ok(None) => format!("systemd has not made a scope within {} s", SCOPE_MAX.as_secs()),
            Ok(Some(status)) => format!("systemd made no scope for whoever waits ({STARTER}: {status})"),
            Err(e) => e.to_string(),
        };
        return Err(Problem::new(codes::PREREQUISITE, "nobody would give the old network back for sure")
            .because(format!("{why}; without one it would end with this session or service"))
            .fix(format!("see why `{STARTER} --scope true` fails")));
    }
}

/// From now on a hang-up does not end this process.
///
/// # Errors
/// If the signal cannot be kept away.
pub(super) fn outlive_the_terminal() -> Result<(), Problem> {
    // Blocked, it waits for ever. To be called before the process has other threads.
    SigSet::from(Signal::SIGHUP)
        .thread_block()
        .map_err(|e| Problem::new(codes::PREREQUISITE, "signals cannot be kept away").because(e))
}

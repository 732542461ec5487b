//! The agent's binary: arguments, settings, run, exit code.

use clap::Parser;
use plat_agent::args::{Args, CacheCommand, Command};
use plat_agent::clock::SystemClock;
use plat_agent::config::{Config, Runtime};
use plat_agent::host::linux::{LinuxConfig, LinuxHost, share};
use plat_agent::identity::{Enrolment, enroll, enroll_again, enrolled_already, expect_enrolled};
use plat_agent::{Settings, telemetry};
use plat_link::Address;
use plat_model::id::{Digest, NodeId};
use plat_model::parameters::Secret;
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use std::io::Read;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Largest token file, in bytes.
const TOKEN_MAX: u64 = 4096;
/// What `enroll --check` ends with where there is nothing to do.
const ENROLLED_ALREADY: u8 = 3;

fn main() -> ExitCode {
    // Before there is any thread: the small processes that the agent starts are this same binary.
    if let Some(code) = plat_agent::host::linux::subcommand() {
        return code;
    }
    let args = Args::parse();
    telemetry::init();
    match start(args) {
        Ok(code) => code,
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: Args) -> Result<ExitCode, Problems> {
    let mut config = Config::load(args.config.as_deref())?;
    // One thread does all the work that is not waiting; a few more exist only while files are synced.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_stack_size(256 * 1024)
        .build()
        .map_err(|why| Problem::new(codes::INTERNAL, "the runtime cannot be started").because(why))?;
    match args.command {
        Command::Enroll { master, token_file, data, name, again, check } => {
            let enrolment = Enrolment {
                master: Address::parse(&master)?,
                token: read_token(&token_file)?,
                name: name.map(|name| NodeId::parse(&name)).transpose()?,
                data: data.unwrap_or(config.data),
            };
            if check {
                let Some(node) = enrolled_already(&enrolment)? else { return Ok(ExitCode::SUCCESS) };
                println!("enrolled already as {node}");
                return Ok(ExitCode::from(ENROLLED_ALREADY));
            } else if again {
                let node = runtime.block_on(enroll_again(enrolment, plat_link::tcp))?;
                println!("enrolled again as {node}; restart the agent if it runs");
            } else {
                let node = runtime.block_on(enroll(enrolment, plat_link::tcp))?;
                println!("enrolled as {node}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Cache { command } => runtime.block_on(sharing(&config, command)),
        Command::Run { data, node_file } => {
            config.data = data.unwrap_or(config.data);
            config.node_file = node_file.unwrap_or(config.node_file);
            runtime.block_on(run(&config))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn sharing(config: &Config, command: CacheCommand) -> Result<ExitCode, Problems> {
    match command {
        CacheCommand::Keygen { out } => println!("{}", share::command::keygen(&out)?),
        CacheCommand::Push { to, key, token_file, files, releases } => {
            let push = share::command::Push { to, key, token_file, files, releases };
            for line in share::command::push(config, &push)? {
                println!("{line}");
            }
        }
        CacheCommand::Pull { releases } => {
            for name in releases {
                let release = Digest::parse(&name)?;
                if share::command::pull(config, &release).await? {
                    println!("release {release} is in the cache, checked");
                } else {
                    println!("release {release} is not in the store for this kind of machine");
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A partition has a socket, and its processes some connections to it: more than the 1024 files that a process may have
/// open unless it asks for more. What the agent starts is held to a limit of its own.
fn open_more_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    const FILES: u64 = 65_536;
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Without it many partitions do not fit; each that does not says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, soft.max(FILES.min(hard)), hard);
    }
}

async fn run(config: &Config) -> Result<(), Problem> {
    open_more_files();
    // Both settings mean the same on a host whose only runtime is the shim.
    let (Runtime::Auto | Runtime::Shim) = config.runtime;
    expect_enrolled(&config.data)?;
    let _alone = alone(&config.data)?;
    let clock = Arc::new(SystemClock);
    let linux = LinuxConfig {
        state: config.data.clone(),
        node_file: config.node_file.clone(),
        executable: "/proc/self/exe".into(),
        clock: clock.clone(),
    };
    let host = LinuxHost::open_with(linux, &config.releases)?;
    let mut seed = [0; 8];
    getrandom::fill(&mut seed).map_err(|why| Problem::new(codes::INTERNAL, "no randomness").because(why))?;
    let settings = Settings::new(config, u64::from_le_bytes(seed));
    let ended = |kind| signal(kind).map_err(|why| Problem::new(codes::INTERNAL, "no signals").because(why));
    let (mut term, mut int) = (ended(SignalKind::terminate())?, ended(SignalKind::interrupt())?);
    let shutdown = async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    plat_agent::run(settings, plat_link::tcp, Arc::new(host), clock, shutdown).await
}

/// The lock of a data folder: two agents on one would each give its partitions away.
///
/// # Errors
/// CONFLICT if another agent runs; FILE.
fn alone(data: &Path) -> Result<std::fs::File, Problem> {
    let path = data.join("agent.lock");
    let wrong =
        |why: std::io::Error| Problem::new(codes::FILE, format!("`{}` cannot be locked", path.display())).because(why);
    let file = std::fs::File::options().create(true).truncate(false).write(true).open(&path).map_err(wrong)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::Error(why)) => Err(wrong(why)),
        Err(std::fs::TryLockError::WouldBlock) => Err(Problem::new(
            codes::CONFLICT,
            "another agent runs on this data folder",
        )
        .because(format!("it holds `{}`", path.display()))
        .fix("end it first (`systemctl stop plat-agent`), or give this one a data folder of its own in agent.toml")),
    }
}

/// A token comes from a file, never from the command line, which every user of the machine can read.
fn read_token(path: &Path) -> Result<Secret, Problem> {
    let wrong = |why: std::io::Error| {
        Problem::new(codes::FILE, format!("the token file `{}` cannot be read", path.display())).because(why)
    };
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().take(TOKEN_MAX).read_to_string(&mut text).map_err(wrong)?;
    } else {
        std::fs::File::open(path).and_then(|file| file.take(TOKEN_MAX).read_to_string(&mut text)).map_err(wrong)?;
    }
    Ok(Secret::new(text.trim()))
}

//! The agent's binary: arguments, settings, run, exit code.

use clap::Parser;
use plat_agent::args::{Args, CacheCommand, Command};
use plat_agent::clock::SystemClock;
use plat_agent::config::Config;
use plat_agent::host::linux::runtime::mount_all;
use plat_agent::host::linux::{LinuxConfig, Network, assume, share};
use plat_agent::identity::{Enrolment, enroll, enroll_again, enrolled_already, expect_enrolled};
use plat_agent::{memory, privileged, telemetry};
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
    if let Some(code) = plat_agent::host::linux::subcommand().or_else(privileged::subcommand) {
        return code;
    }
    memory::keep_together();
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
    match args.command {
        Command::Enroll { master, token_file, data, name, again, check } => {
            let enrolment = Enrolment {
                master: Address::parse(&master)?,
                token: read_token(&token_file)?,
                name: name.map(|name| NodeId::parse(&name)).transpose()?,
                data: data.unwrap_or_else(|| config.data.clone()),
            };
            // What is there already may be read by the network part's user alone.
            if enrolment.data.exists() || !check {
                become_user(&config, &enrolment.data)?;
            }
            if check {
                let Some(node) = enrolled_already(&enrolment)? else { return Ok(ExitCode::SUCCESS) };
                println!("enrolled already as {node}");
                return Ok(ExitCode::from(ENROLLED_ALREADY));
            }
            if again {
                let node = runtime()?.block_on(enroll_again(enrolment, plat_link::tcp))?;
                println!("enrolled again as {node}; restart the agent if it runs");
            } else {
                let node = runtime()?.block_on(enroll(enrolment, plat_link::tcp))?;
                println!("enrolled as {node}");
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Away { data } => {
            mount_all(&data.unwrap_or(config.data).join("host"))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Cache { command } => runtime()?.block_on(sharing(&config, command)),
        Command::Run { data, node_file } => {
            config.data = data.unwrap_or(config.data);
            config.node_file = node_file.unwrap_or(config.node_file);
            Ok(run(&config)?)
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
                let release = Digest::parse(&name).map_err(|problem| {
                    problem
                        .fix("name the whole digest, as `plat release show RELEASE` tells it: a store cannot be listed")
                })?;
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

/// Root's part of the agent; the other one is started by it.
fn run(config: &Config) -> Result<ExitCode, Problem> {
    open_more_files();
    expect_enrolled(&config.data)?;
    let user = privileged::user(config.user.as_deref())?;
    privileged::prepare(&config.data, user.as_ref())?;
    // Before there is a thread: all that come later have what this one has.
    let network = leave_network();
    privileged::limit().map_err(|why| {
        Problem::new(codes::PRIVILEGE, "the agent cannot give up what it does not need of root's rights").because(why)
    })?;
    let linux = LinuxConfig {
        state: config.data.clone(),
        node_file: config.node_file.clone(),
        executable: "/proc/self/exe".into(),
        network,
        clock: Arc::new(SystemClock),
        runtime: config.runtime,
    };
    runtime()?.block_on(async {
        let ended = |kind| signal(kind).map_err(|why| Problem::new(codes::INTERNAL, "no signals").because(why));
        let (mut term, mut int) = (ended(SignalKind::terminate())?, ended(SignalKind::interrupt())?);
        let shutdown = async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
        };
        privileged::keep(config, linux, user, shutdown).await
    })
}

/// Root's part needs no network itself.
fn leave_network() -> Network {
    if !nix::unistd::geteuid().is_root() {
        return Network::default();
    }
    Network::leave().unwrap_or_else(|why| {
        tracing::info!(%why, "root's part stays in the machine's network: it may not leave it here");
        Network::default()
    })
}

/// One thread does all the work that is not waiting; a few more exist only while files are synced.
fn runtime() -> Result<tokio::runtime::Runtime, Problem> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_stack_size(256 * 1024)
        .build()
        .map_err(|why| Problem::new(codes::INTERNAL, "the runtime cannot be started").because(why))
}

/// For root: what is written into the data folder is the network part's, so it is written as its user. There is no way
/// back.
fn become_user(config: &Config, data: &Path) -> Result<(), Problem> {
    let user = privileged::user(config.user.as_deref())?;
    privileged::prepare(data, user.as_ref())?;
    assume(user.as_ref())
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

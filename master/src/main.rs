//! `plat-master`: arguments → configuration → run → exit code.

mod args;

use args::{Args, Command, InitArgs};
use clap::Parser;
use futures_util::StreamExt;
use futures_util::stream::select_all;
use plat_link::ServeSettings;
use plat_master::Master;
use plat_master::clock::SystemClock;
use plat_master::config::Config;
use plat_master::init::{Init, Recovery, init, recover};
use plat_master::pki::ca::Ca;
use plat_master::store::{self, EngineKind};
use plat_model::id::UserName;
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use std::io::{IsTerminal, Write};
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// What one thread allocates another often frees here: a request's rows, the state's old versions.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator's regions are sparse: with huge pages an idle master holds half as much again (docs/performance.md).
    // Where the kernel cannot, it does not matter.
    let _ = nix::sys::prctl::set_thp_disable(true);
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("PLAT_LOG").unwrap_or_else(|_| "info".into());
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Who reads them may be gone, and what would then be said of that ends whoever says it.
    lines.log_internal_errors(false).with_ansi(colours).init();
    // Two are enough for what one machine's disk can acknowledge; each more costs memory.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return fail(&Problem::new(codes::INTERNAL, "the runtime cannot be started").because(e).into()),
    };
    let ended = runtime.block_on(async {
        match args.command {
            Command::Init(args) => make(args).await.map_err(Problems::from),
            Command::Operator { config, name, profile } => operator(&config, name, profile).await,
            // In the threads that serve: this one would have to be woken for every commit.
            Command::Run { config } => tokio::spawn(run(config)).await.unwrap_or_else(|panic| {
                Err(Problem::new(codes::INTERNAL, "the master ended early").because(panic).into())
            }),
        }
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => fail(&problems),
    }
}

fn fail(problems: &Problems) -> ExitCode {
    eprintln!("{problems}");
    ExitCode::FAILURE
}

async fn make(args: InitArgs) -> Result<(), Problem> {
    let store = EngineKind::parse(&args.store).ok_or_else(|| {
        Problem::new(codes::USAGE, format!("`{}` is not a store", plat_model::id::shorten(&args.store)))
            .fix("use redb or sled")
    })?;
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), args.url.port());
    let ask = Init {
        listen: if args.listen.is_empty() { vec![any] } else { args.listen },
        profile: args.profile.map_or_else(default_profile, Ok)?,
        data: args.data,
        config: args.config,
        grid: args.grid,
        url: args.url,
        operator: args.operator,
        store,
        owner: args.owner.as_deref().map(owner).transpose()?,
    };
    let made = init(&ask, &SystemClock).await?;
    println!("grid {} made", ask.grid);
    println!("  configuration  {}", made.config.display());
    println!("  profile        {} (operator {})", made.profile.display(), ask.operator);
    println!("  root key       {}: move it off this machine; the master does not need it", made.root_key.display());
    println!("next: plat-master run --config {}", made.config.display());
    Ok(())
}

/// Uid and gid of a user, as root may give files to it.
fn owner(name: &str) -> Result<(u32, u32), Problem> {
    if !nix::unistd::Uid::effective().is_root() {
        return Err(Problem::new(codes::USAGE, "only root can give the data to another user")
            .fix("run it with sudo, or as that user without --owner"));
    }
    match nix::unistd::User::from_name(name) {
        Ok(Some(user)) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        found => Err(Problem::new(codes::USAGE, format!("there is no user `{}`", plat_model::id::shorten(name)))
            .because(found.err().map_or("", nix::errno::Errno::desc))
            .fix("make it first, e.g. `useradd --system plat-master`")),
    }
}

async fn operator(config: &Path, name: UserName, profile: Option<PathBuf>) -> Result<(), Problems> {
    let config = Config::load(config)?;
    let ask = Recovery { name, profile: profile.map_or_else(default_profile, Ok)? };
    recover(&ask, &config, &SystemClock).await?;
    println!("operator {} has new credentials in {}", ask.name, ask.profile.display());
    println!("next: start the master, then plat --profile {} whoami", ask.profile.display());
    Ok(())
}

/// Where `plat` looks unless it is told otherwise.
fn default_profile() -> Result<PathBuf, Problem> {
    let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = base.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")));
    base.filter(|base| base.is_absolute()).map(|base| base.join("plat/default")).ok_or_else(|| {
        Problem::new(codes::USAGE, "there is no home folder for the operator's credentials")
            .because("HOME is not set")
            .fix("name a folder with --profile")
    })
}

async fn run(path: PathBuf) -> Result<(), Problems> {
    let config = Config::load(&path)?;
    let ca = Ca::load(&config.data.join("ca"))?;
    let store = store::open(&config.data.join("store"), config.store)?;
    let master = Master::new(store, Arc::new(SystemClock), ca, config.names.clone())?;
    let (mut connections, mut addresses) = (Vec::new(), Vec::new());
    for address in &config.listen {
        let (stream, bound) = plat_link::listen(*address).await?;
        connections.push(stream.boxed());
        addresses.push(bound.to_string());
    }
    let stop = stop_signal()?;
    tracing::info!(grid = %master.grid().name(), listen = addresses.join(" "), url = %config.url, "ready");
    // One line, for whoever started this and waits: `ready`, then the addresses.
    println!("ready {}", addresses.join(" "));
    let _ = std::io::stdout().flush();
    tell_systemd("READY=1");
    master.serve(select_all(connections), ServeSettings::default(), stop).await?;
    Ok(())
}

/// Completes at the first SIGTERM or SIGINT; the second ends the process at once.
fn stop_signal() -> Result<impl Future<Output = ()>, Problem> {
    let failed = |e| Problem::new(codes::INTERNAL, "signals cannot be received").because(e);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut next = async move || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let (first, stopped) = tokio::sync::oneshot::channel();
    tokio::spawn(async move {
        next().await;
        tracing::info!("shutting down");
        tell_systemd("STOPPING=1");
        let _ = first.send(());
        next().await;
        tracing::warn!("ended at once by a second signal");
        std::process::exit(130);
    });
    Ok(async move {
        let _ = stopped.await;
    })
}

/// Tells systemd, if it has started this, how it goes (sd_notify(3)).
fn tell_systemd(state: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&path),
    };
    let told = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = told {
        tracing::warn!(%error, "systemd cannot be told");
    }
}

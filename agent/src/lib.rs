//! The agent of a node: observe, plan, apply, report.
//!
//! Start with [`run`]: it wires the parts. The daemon has a worker for each partition and each release, which observe
//! the [`host`], ask `plat-agent-plan` what to do, and do it. The client of the master learns what is desired, keeps it
//! on disk, and tells what has changed. Metering reads counters, and an outbox keeps reports until they are booked.
//!
//! It is two processes: [`privileged`] is what is between them. What [`run`] runs is the one with the network; its [`host`]
//! is in the other.
//!
//! Invariants: the last accepted desired state decides, whether the master is there or not; an older one is refused;
//! every effect is one `perform`; a report counts as taken once it is on disk, and never twice; stopping the agent
//! stops no service.

pub mod args;
pub mod aside;
pub mod clock;
pub mod config;
pub mod host;
pub mod identity;
pub mod inside;
pub mod memory;
pub mod privileged;
pub mod telemetry;
mod together;
pub mod usage;

mod daemon;
mod desired;
mod durable;
mod master;
mod outbox;
mod pace;
mod report;

use clock::Clock;
use config::Config;
use daemon::{Again, Shared};
use desired::Keeper;
use host::Host;
use identity::Identity;
use inside::Inside;
use master::{Dial, Master, Parts};
use outbox::Outbox;
use plat_agent_plan::KeepPolicy;
use plat_link::{Address, DialSettings, Trust, dial};
use plat_model::Problem;
use plat_model::id::InstanceId;
use plat_model::tree::TreeAsk;
use report::Board;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::{error, info};
use usage::Metering;

/// What one agent needs to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// State, keys, outbox.
    pub data: PathBuf,
    /// `None`: where the node was enrolled.
    pub master: Option<Address>,
    /// Length of a metering window.
    pub window: Duration,
    /// How much of the disk usage reports may take, in bytes.
    pub outbox_bytes: u64,
    /// How long what nothing uses is kept, and how much of the disk stays free.
    pub policy: KeepPolicy,
    /// Spreads retries and renewals; a simulation gives its own.
    pub seed: u64,
    pub disk: DiskWork,
    pub dial: DialSettings,
}

/// Where what waits for a slow disk runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskWork {
    /// On a thread of its own: the loops that watch and push do not wait for it.
    Beside,
    /// In the loop, as a simulation has it: how threads take turns is nothing that a seed could decide.
    InTurn,
}

impl DiskWork {
    async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        match self {
            Self::Beside => tokio::task::spawn_blocking(work).await.unwrap_or_else(|cause| {
                Err(Problem::new(plat_model::problem::codes::INTERNAL, "work on the disk ended early").because(cause))
            }),
            Self::InTurn => work(),
        }
    }
}

impl Settings {
    pub fn new(config: &Config, seed: u64) -> Self {
        Self {
            data: config.data.clone(),
            master: config.master.clone(),
            window: config.window,
            outbox_bytes: config.outbox_bytes,
            policy: config.releases.policy,
            seed,
            disk: DiskWork::Beside,
            dial: DialSettings::default(),
        }
    }
}

/// Runs an enrolled node's agent until `shutdown` ends. `connect` reaches the master; `host` outlives the agent.
///
/// # Errors
/// BAD_STATE_FILE or KEY_FILE if the node is not enrolled or its identity cannot be used; BAD_ADDRESS.
pub async fn run<C, F, IO>(
    settings: Settings,
    connect: C,
    host: Arc<dyn Host>,
    clock: Arc<dyn Clock>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Problem>
where
    C: Fn(Address) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let identity = Identity::load(&settings.data)?;
    let address = match &settings.master {
        Some(address) => address.clone(),
        None => Address::parse(&identity.enrolled.master)?,
    };
    let dial_settings = settings.dial;
    let channel: Dial = Arc::new(move |trust: Trust| dial(&address, trust, dial_settings, connect.clone()));
    let (keeper, damaged) = Keeper::open(settings.data.join("desired"));
    if let Some(problem) = damaged {
        error!(problem = problem.one_line(), "desired state on disk cannot be used, waiting for the master");
    }
    let desired = Arc::new(keeper);
    let (again, damaged) = Again::open(settings.data.join("rebuilds"));
    if let Some(problem) = damaged {
        error!(problem = problem.one_line(), "releases that were to be built again may be so once more");
    }
    let board = Arc::new(Board::default());
    let metering = Arc::new(open_metering(&settings, host.clone(), clock.clone())?);
    let node = identity.enrolled.node.clone();
    info!(%node, grid = %identity.enrolled.grid, "agent runs");
    let master = Arc::new(Master::new(Parts {
        host: host.clone(),
        clock: clock.clone(),
        desired: desired.clone(),
        board: board.clone(),
        metering: metering.clone(),
        credentials: identity.own.clone(),
        dial: channel.clone(),
        seed: settings.seed,
        disk: settings.disk,
    })?);
    let inside = Arc::new(inside_of(&host, &desired, &master));
    let policy = settings.policy;
    let shared = Arc::new(Shared::new(node, host, clock, desired, board, metering.clone(), inside, policy, again));
    tokio::select! {
        () = shutdown => {}
        () = daemon::run(shared) => {}
        () = master.clone().run() => {}
        () = metering.run() => {}
        () = identity::keep(&identity, &master, &channel) => {}
    }
    info!("agent stops, services go on");
    Ok(())
}

/// What instances may ask: they are known by what is desired, and the master decides what is not the node's.
fn inside_of(host: &Arc<dyn Host>, desired: &Arc<Keeper>, master: &Arc<Master>) -> Inside {
    let (desired, master) = (desired.clone(), master.clone());
    let known = Arc::new(move |id: &InstanceId| desired.current()?.instances.get(id).cloned());
    let ask = Arc::new(move |id: InstanceId, ask: TreeAsk| {
        let master = master.clone();
        let answer: inside::Asked = Box::pin(async move { master.for_instance(&id, &ask).await });
        answer
    });
    Inside::new(host.clone(), known, ask)
}

fn open_metering(settings: &Settings, host: Arc<dyn Host>, clock: Arc<dyn Clock>) -> Result<Metering, Problem> {
    let (outbox, damaged) = Outbox::open(&settings.data.join("outbox"), settings.outbox_bytes)?;
    if let Some(problem) = damaged {
        error!(problem = problem.one_line(), "outbox set aside, usage of before is unknown");
    }
    Ok(Metering::new(host, clock, settings.window, outbox))
}

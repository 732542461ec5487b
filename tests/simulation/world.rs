//! A grid on a simulated network: one master over a store in memory, agents over hosts in memory. What a machine's
//! disk would keep (the store, the CA, the hosts, the agents' folders) outlives crashes; the rest does not.

use crate::disk::Disks;
use crate::os;
use crate::trace::TracedStore;
use plat_agent::DiskWork;
use plat_agent::host::fake::FakeHost;
use plat_agent::identity::{Enrolment, enroll};
use plat_agent_plan::Steady;
use plat_link::{Address, Credentials, DialSettings, Key, ServeSettings, Trust};
use plat_master::Master;
use plat_master::init::{Init, first_records};
use plat_master::pki::Serial;
use plat_master::pki::ca::Ca;
use plat_master::pki::csr::RequestedKey;
use plat_master::store::{EngineKind, Store};
use plat_master_plan::State;
use plat_model::Timestamp;
use plat_model::id::{GridName, NodeId, PartitionName, UserName};
use plat_model::identity::Identity;
use plat_model::node::{NodeFile, NodePartition};
use plat_model::parameters::Secret;
use plat_model::resources::Resources;
use plat_tests::invariants::Seen;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::Channel;
use turmoil::net::{TcpListener, TcpStream};

pub const MASTER: &str = "master";
pub const NODES: usize = 3;
pub const PARTITIONS: usize = 3;
/// Each instance asks for 256 MiB, so memory runs out before partitions do.
pub const NODE_MEMORY_MIB: u32 = 600;
const PORT: u16 = 7443;
/// How long a hook takes that was asked for: long enough for its agent to be killed meanwhile.
const RUN_TIME: Duration = Duration::from_millis(700);
pub const WINDOW: Duration = Duration::from_secs(5);

/// When every simulation begins: 2027-01-15.
const START: Duration = Duration::from_secs(1_800_000_000);

/// The time of the simulation, in milliseconds since 1970; the thread's own, by which TLS judges certificates, is the
/// same.
pub struct Clock(AtomicI64);

impl Clock {
    fn new() -> Self {
        let clock = Self(AtomicI64::new(0));
        clock.set(Duration::ZERO);
        clock
    }

    pub fn set(&self, passed: Duration) {
        let now = START + passed;
        os::set_time(now);
        self.0.store(i64::try_from(now.as_millis()).expect("a simulation is short"), Ordering::SeqCst);
    }

    pub fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

impl plat_master::clock::Clock for Clock {
    fn now(&self) -> Timestamp {
        Clock::now(self)
    }
}

/// A machine's: its time of day may be set, its steady clock goes with the simulation.
pub struct NodeClock {
    right: Arc<Clock>,
    ahead_millis: AtomicI64,
}

impl NodeClock {
    fn new(right: &Arc<Clock>) -> Arc<Self> {
        Arc::new(Self { right: right.clone(), ahead_millis: AtomicI64::new(0) })
    }

    /// Somebody sets it to so long after the right time.
    pub fn set_ahead(&self, millis: i64) {
        self.ahead_millis.store(millis, Ordering::SeqCst);
    }
}

impl plat_agent::clock::Clock for NodeClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.right.now().0 + self.ahead_millis.load(Ordering::SeqCst))
    }

    fn steady(&self) -> Steady {
        Steady(self.right.now().0.unsigned_abs())
    }
}

/// All that outlives a crash.
pub struct World {
    pub seed: u64,
    pub clock: Arc<Clock>,
    pub store: Arc<TracedStore>,
    pub hosts: BTreeMap<NodeId, Arc<FakeHost>>,
    pub clocks: BTreeMap<NodeId, Arc<NodeClock>>,
    pub operator: Arc<Credentials>,
    /// Node → its token, once there is one.
    pub tokens: watch::Sender<BTreeMap<NodeId, String>>,
    pub folder: tempfile::TempDir,
    disks: Mutex<Disks>,
}

pub fn node_name(n: usize) -> NodeId {
    NodeId::parse(&format!("n{n}")).expect("a legal name")
}

pub fn partitions() -> impl Iterator<Item = PartitionName> {
    (0..PARTITIONS).map(|n| PartitionName::parse(&format!("part{n}")).expect("a legal name"))
}

fn node_file(n: usize) -> NodeFile {
    let partition = |(p, name): (usize, PartitionName)| NodePartition {
        addresses: vec![format!("fd00:5:{n}::{}", p + 2).parse().expect("an address")],
        ..NodePartition::bare(name)
    };
    NodeFile {
        capacity: Resources { memory_mib: Some(NODE_MEMORY_MIB), ..Resources::default() },
        partitions: partitions().enumerate().map(partition).collect(),
        ..NodeFile::bare(Path::new("/srv/plat"))
    }
}

impl World {
    /// A new grid with its first operator, and machines that are formatted and not enrolled.
    pub fn new(seed: u64) -> Arc<Self> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let clock = Arc::new(Clock::new());
        let store = Arc::new(TracedStore::new());
        let clocks: BTreeMap<_, _> = (1..=NODES).map(|n| (node_name(n), NodeClock::new(&clock))).collect();
        let host = |n: usize| {
            let host = FakeHost::new(node_file(n), clocks[&node_name(n)].clone());
            host.set_run_time(RUN_TIME);
            Arc::new(host)
        };
        let hosts = (1..=NODES).map(|n| (node_name(n), host(n))).collect();
        let operator = first_operator(folder.path(), &clock, store.clone());
        Arc::new(Self {
            seed,
            clock,
            store,
            hosts,
            clocks,
            operator,
            tokens: watch::Sender::default(),
            folder,
            disks: Mutex::default(),
        })
    }

    /// The master, until it crashes.
    pub async fn master(self: Arc<Self>) -> turmoil::Result {
        let ca = Ca::load(&self.folder.path().join("ca"))?;
        let master = Master::new(self.store.clone(), self.clock.clone(), ca, vec![MASTER.into()])?;
        let listener = TcpListener::bind((IpAddr::from(Ipv4Addr::UNSPECIFIED), PORT)).await?;
        let connections =
            futures_util::stream::unfold(listener, |listener| async { Some((listener.accept().await, listener)) });
        master.serve(connections, ServeSettings::default(), std::future::pending()).await?;
        Ok(())
    }

    /// A node's agent, which joins with its token first, until it crashes.
    pub async fn agent(self: Arc<Self>, node: NodeId) -> turmoil::Result {
        let data = self.folder.path().join(node.as_str());
        if !data.join("enrolled").exists() {
            self.join(&node, &data).await;
        }
        let settings = plat_agent::Settings {
            data,
            master: None,
            window: WINDOW,
            outbox_bytes: 1 << 20,
            policy: plat_agent_plan::KeepPolicy::default(),
            seed: self.seed,
            disk: DiskWork::InTurn,
            dial: DialSettings::default(),
        };
        let host = self.hosts[&node].clone();
        plat_agent::run(settings, connect, host, self.clocks[&node].clone(), std::future::pending()).await?;
        Ok(())
    }

    async fn join(&self, node: &NodeId, data: &Path) {
        let mut tokens = self.tokens.subscribe();
        loop {
            let token = match tokens.wait_for(|tokens| tokens.contains_key(node)).await {
                Ok(tokens) => tokens[node].clone(),
                Err(_) => return,
            };
            let ask = Enrolment { master: address(), token: Secret::new(token.clone()), name: None, data: data.into() };
            match enroll(ask, connect).await {
                Ok(_) => return,
                // The answer may have been lost after the token was spent: then it takes another.
                Err(_) => pass(Duration::from_millis(500)).await,
            }
            if tokens.borrow_and_update().get(node) == Some(&token) {
                self.tokens.send_modify(|tokens| drop(tokens.remove(node)));
            }
        }
    }

    /// The disk of a machine is full, or there is room again. How many of its agent's writes were refused.
    pub fn set_full(&self, node: &NodeId, is_full: bool) -> usize {
        self.hosts[node].set_full(is_full);
        let folder = self.folder.path().join(node.as_str());
        if !is_full {
            return os::make_room(&folder);
        }
        os::fill(&folder);
        0
    }

    /// A connection of the operator's.
    pub fn channel(&self) -> Channel {
        let trust = Trust::Credentials(self.operator.clone());
        plat_link::dial(&address(), trust, DialSettings::default(), connect).expect("the address is legal")
    }

    /// Other numbers whenever anything is otherwise than it was.
    ///
    /// # Errors
    /// What an agent could not start with.
    pub fn marks(&self) -> Result<Vec<u64>, String> {
        let mut disks = self.disks.lock().expect("nobody panics with the disks in hand");
        for node in self.hosts.keys() {
            disks.look(node, &self.folder.path().join(node.as_str()))?;
        }
        let of_all = [self.store.snapshot().revision, disks.changes()];
        Ok(self.hosts.values().map(|host| host.changes()).chain(of_all).collect())
    }

    /// Everything as it is now; what agents keep on their disks as it was when they were looked at last.
    pub fn seen(&self) -> Seen {
        let disks = self.disks.lock().expect("nobody panics with the disks in hand");
        let machine = |(node, host): (&NodeId, &Arc<FakeHost>)| {
            (node.clone(), partitions().map(|partition| (partition.clone(), host.fact(&partition))).collect())
        };
        let snapshot = self.store.snapshot();
        let machines = self.hosts.iter().map(machine).collect();
        Seen { revision: snapshot.revision, state: snapshot.state, machines, held: disks.held() }
    }

    /// What the master knows now.
    pub fn state(&self) -> Arc<State> {
        self.store.snapshot().state
    }

    /// The steady clock of every machine.
    pub fn steady(&self) -> Steady {
        Steady(self.clock.now().0.unsigned_abs())
    }

    /// What nobody may write down: the secrets of tokens and of instances.
    pub fn secrets(&self, seen: &Seen) -> Vec<String> {
        let tokens = self.tokens.borrow();
        let tokens = tokens.values().filter_map(|text| text.split('.').nth(2)).map(str::to_owned);
        let facts = seen.machines.values().flat_map(BTreeMap::values);
        let occupants = facts.filter_map(|fact| fact.occupant.as_ref());
        // As the fake host makes them.
        let own = occupants.flat_map(|occupant| {
            occupant.secrets.iter().map(|name| format!("{name}-of-{}", occupant.instance)).collect::<Vec<_>>()
        });
        tokens.chain(own).collect()
    }
}

fn address() -> Address {
    Address::parse(&format!("https://{MASTER}:{PORT}")).expect("a legal address")
}

async fn connect(address: Address) -> io::Result<TcpStream> {
    TcpStream::connect((address.host(), address.port())).await
}

/// Lets simulated time pass.
pub async fn pass(time: Duration) {
    let _never = tokio::time::timeout(time, std::future::pending::<()>()).await;
}

fn first_operator(folder: &Path, clock: &Clock, store: Arc<TracedStore>) -> Arc<Credentials> {
    let make = || -> plat_model::Result<_> {
        let (grid, name) = (GridName::parse("simulated")?, UserName::parse("operator")?);
        let ca = Ca::create(&folder.join("ca"), &grid, clock.now())?;
        let (key, serial) = (Key::generate()?, Serial::random()?);
        let csr = RequestedKey::parse(&key.csr_der()?)?;
        let validity = ca.validity(clock.now(), Duration::from_secs(24 * 3600));
        let chain = ca.sign_client(&grid, &Identity::User(name.clone()), &csr, &serial, validity)?;
        let operator = Credentials::new(grid.clone(), key, chain, vec![ca.root_der().to_vec()])?;
        let ask = Init {
            data: folder.into(),
            config: None,
            grid,
            url: address(),
            listen: Vec::new(),
            operator: name,
            profile: folder.into(),
            store: EngineKind::Redb,
            owner: None,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made");
        runtime.block_on(first_records(&ask, store, &serial, clock))?;
        Ok(operator)
    };
    make().expect("a grid can be made")
}

//! A master with an operator, and ways to become somebody else.

use plat_link::tls::RootPin;
use plat_link::{Address, Credentials, DialSettings, Key, ServeSettings, Trust};
use plat_master::Master;
use plat_master::clock::{Clock, HandClock, SystemClock};
use plat_master::grid::Grid;
use plat_master::init::{Init, first_records};
use plat_master::pki::Serial;
use plat_master::pki::ca::Ca;
use plat_master::pki::csr::RequestedKey;
use plat_master::store::{EngineKind, MemoryStore, Store};
use plat_model::id::{GridName, UserName};
use plat_model::identity::Identity;
use plat_model::{Code, Problem};
use plat_wire::ends;
use plat_wire::v1;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::Channel;

/// Nothing here takes this long unless it hangs.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct World {
    pub grid: Arc<Grid>,
    pub clock: Arc<HandClock>,
    pub store: Arc<dyn Store>,
    pub operator: Arc<Credentials>,
    pub root: Vec<u8>,
    pub url: Address,
    /// What `Master::serve` comes to.
    pub served: JoinHandle<Result<(), Problem>>,
    _stop: oneshot::Sender<()>,
    _folder: tempfile::TempDir,
}

/// A node's two certificates.
pub struct Joined {
    pub credentials: Arc<Credentials>,
    pub rejoin: Arc<Credentials>,
}

pub async fn world() -> World {
    world_over(Arc::new(MemoryStore::new())).await
}

pub async fn world_over(store: Arc<dyn Store>) -> World {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(HandClock::at(SystemClock.now()));
    let grid = GridName::parse("test").unwrap();
    let ca = Ca::create(&folder.path().join("ca"), &grid, clock.now()).unwrap();
    let root = ca.root_der().to_vec();
    let (key, serial) = (Key::generate().unwrap(), Serial::random().unwrap());
    let name = UserName::parse("ada").unwrap();
    let csr = RequestedKey::parse(&key.csr_der().unwrap()).unwrap();
    let validity = ca.validity(clock.now(), Duration::from_secs(30 * 24 * 3600));
    let chain = ca.sign_client(&grid, &Identity::User(name.clone()), &csr, &serial, validity).unwrap();
    let operator = Credentials::new(grid.clone(), key, chain, vec![root.clone()]).unwrap();
    let ask = Init {
        data: folder.path().into(),
        config: None,
        grid,
        url: Address::parse("https://localhost:1").unwrap(),
        listen: Vec::new(),
        operator: name,
        profile: folder.path().into(),
        store: EngineKind::Redb,
        owner: None,
    };
    first_records(&ask, store.clone(), &serial, &*clock).await.unwrap();
    let master = Master::new(store.clone(), clock.clone(), ca, vec!["localhost".into()]).unwrap();
    let grid = master.grid().clone();
    let (connections, bound) = plat_link::listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let (stop, stopped) = oneshot::channel();
    let settings = ServeSettings { drain: Duration::from_millis(100), ..ServeSettings::default() };
    let served = tokio::spawn(master.serve(connections, settings, async move { drop(stopped.await) }));
    let url = Address::parse(&format!("https://{bound}")).unwrap();
    World { grid, clock, store, operator, root, url, served, _stop: stop, _folder: folder }
}

impl World {
    pub fn channel(&self, credentials: &Arc<Credentials>) -> Channel {
        self.dial(Trust::Credentials(credentials.clone()))
    }

    pub fn nobody(&self) -> Channel {
        self.dial(Trust::Pin(RootPin::of(&self.root)))
    }

    fn dial(&self, trust: Trust) -> Channel {
        plat_link::dial(&self.url, trust, DialSettings::default(), plat_link::tcp).unwrap()
    }

    pub fn grid_client(&self, who: &Arc<Credentials>) -> ends::GridClient {
        ends::grid_client(self.channel(who))
    }

    pub fn node_client(&self, who: &Arc<Credentials>) -> ends::NodeClient {
        ends::node_client(self.channel(who))
    }

    pub fn admin(&self) -> ends::AdminClient {
        ends::admin_client(self.channel(&self.operator))
    }

    pub async fn node_token(&self, name: &str) -> String {
        let purpose = Some(v1::create_token_request::Purpose::Node(name.into()));
        self.token(v1::CreateTokenRequest { purpose, valid_seconds: 0 }).await
    }

    pub async fn token(&self, ask: v1::CreateTokenRequest) -> String {
        self.admin().create_token(ask).await.unwrap().into_inner().token
    }

    /// Logs somebody in, by a token for him.
    pub async fn user(&self, name: &str, role: &str, project: &str) -> Arc<Credentials> {
        let user = v1::UserPurpose { name: name.into(), role: role.into(), project: project.into() };
        let purpose = Some(v1::create_token_request::Purpose::User(user));
        let token = self.token(v1::CreateTokenRequest { purpose, valid_seconds: 60 }).await;
        let key = Key::generate().unwrap();
        let ask = v1::LoginRequest { token, csr_der: key.csr_der().unwrap() };
        let made = ends::admin_client(self.nobody()).login(ask).await.unwrap().into_inner();
        assert_eq!(made.user, name);
        self.credentials(key, made.chain_der)
    }

    /// Enrols a node by a token.
    pub async fn enroll(&self, token: &str, name: &str) -> Result<Joined, Status> {
        let (key, rejoin) = (Key::generate().unwrap(), Key::generate().unwrap());
        let ask = v1::EnrollRequest {
            token: token.into(),
            name: name.into(),
            csr_der: key.csr_der().unwrap(),
            rejoin_csr_der: rejoin.csr_der().unwrap(),
        };
        let made = ends::node_client(self.nobody()).enroll(ask).await?.into_inner();
        assert_eq!(made.root_der, self.root);
        let credentials = self.credentials(key, made.chain_der);
        Ok(Joined { credentials, rejoin: self.credentials(rejoin, made.rejoin_chain_der) })
    }

    pub async fn node(&self, name: &str) -> Joined {
        self.enroll(&self.node_token(name).await, "").await.unwrap()
    }

    /// Asks for a new certificate with an old one.
    pub async fn renew(&self, with: &Arc<Credentials>) -> Result<Arc<Credentials>, Status> {
        let key = Key::generate().unwrap();
        let ask = v1::RenewRequest { csr_der: key.csr_der().unwrap(), rejoin_csr_der: Vec::new() };
        let made = self.node_client(with).renew(ask).await?.into_inner();
        Ok(self.credentials(key, made.chain_der))
    }

    pub fn credentials(&self, key: Key, chain: Vec<Vec<u8>>) -> Arc<Credentials> {
        Credentials::new(self.grid.name().clone(), key, chain, vec![self.root.clone()]).unwrap()
    }

    /// Adds a release without parameters and supplies it to all nodes.
    pub async fn release(&self) -> String {
        let document = "version: 1\nname: web\nservices:\n  web:\n    command: [\"/bin/true\"]\n";
        let mut client = self.grid_client(&self.operator);
        let add = v1::AddReleaseRequest { name: String::new(), document: document.into() };
        let digest = client.add_release(add).await.unwrap().into_inner().digest;
        let supply = v1::SupplyRequest { release: digest.clone(), all_nodes: true, ..Default::default() };
        client.supply(supply).await.unwrap();
        digest
    }

    /// A node with one partition, its Watch stream open.
    pub async fn present(&self, name: &str) -> (Joined, tonic::Streaming<v1::Nudge>) {
        let joined = self.node(name).await;
        let mut client = self.node_client(&joined.credentials);
        let offer = v1::PartitionOffer { name: "part0".into(), ..Default::default() };
        let inventory = v1::Inventory { partitions: vec![offer], does_once: true, ..Default::default() };
        let report = v1::SyncRequest { inventory: Some(inventory), ..Default::default() };
        let synced = client.sync(report).await.unwrap().into_inner();
        assert_eq!(synced.refused, []);
        let stream = client.watch(v1::WatchRequest {}).await.unwrap().into_inner();
        (joined, stream)
    }
}

pub fn request(project: &str, name: &str) -> v1::RequestRequest {
    v1::RequestRequest {
        project: project.into(),
        name: name.into(),
        release: "web".into(),
        wish: v1::Wish::Started.into(),
        ..Default::default()
    }
}

pub fn key(project: &str, name: &str) -> v1::InstanceKey {
    v1::InstanceKey { project: project.into(), name: name.into() }
}

pub fn problem(status: &Status) -> Problem {
    plat_wire::status::to_problem(status)
}

/// The code that a call failed with.
pub fn code<T: Debug>(result: Result<T, Status>) -> Code {
    problem(&result.unwrap_err()).code
}

/// The result of something that must come.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("it should have happened by now")
}

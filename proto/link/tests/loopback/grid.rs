//! A grid's CA, a server that answers health checks, and callers.

use plat_link::{Address, Credentials, DialSettings, Key, Peer, ServeSettings, Trust, dial, listen, serve};
use plat_model::Problem;
use plat_model::id::GridName;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;

pub const UP: i32 = 1;

pub struct TestGrid {
    pub name: GridName,
    root: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

pub struct TestServer {
    pub address: Address,
    pub reporter: HealthReporter,
    peers: Arc<Mutex<Option<Peer>>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<plat_model::Result<()>>,
}

impl TestServer {
    pub fn last_peer(&self) -> Option<Peer> {
        self.peers.lock().unwrap().clone()
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

impl TestGrid {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "root");
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().to_vec();
        Self { name: GridName::parse(name).unwrap(), root, issuer: Issuer::new(params, key) }
    }

    pub fn root_der(&self) -> Vec<u8> {
        self.root.clone()
    }

    pub fn sign(&self, who: &str, key: &Key) -> Vec<Vec<u8>> {
        self.sign_until(who, key, OffsetDateTime::now_utc() + Duration::from_secs(3600))
    }

    fn sign_until(&self, who: &str, key: &Key, until: OffsetDateTime) -> Vec<Vec<u8>> {
        let csr = key.csr_der().unwrap();
        let mut csr = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
        let uri = format!("spiffe://{}/{who}", self.name);
        csr.params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
        csr.params.distinguished_name.push(DnType::CommonName, who);
        csr.params.not_before = until - Duration::from_secs(7200);
        csr.params.not_after = until;
        vec![csr.signed_by(&self.issuer).unwrap().der().to_vec()]
    }

    pub fn credentials(&self, who: &str) -> Arc<Credentials> {
        self.credentials_trusting(who, vec![self.root_der()])
    }

    pub fn credentials_trusting(&self, who: &str, roots: Vec<Vec<u8>>) -> Arc<Credentials> {
        let key = Key::generate().unwrap();
        let chain = self.sign(who, &key);
        Credentials::new(self.name.clone(), key, chain, roots).unwrap()
    }

    pub fn expired(&self, who: &str) -> Arc<Credentials> {
        let key = Key::generate().unwrap();
        let chain = self.sign_until(who, &key, OffsetDateTime::now_utc() - Duration::from_secs(60));
        Credentials::new(self.name.clone(), key, chain, vec![self.root_der()]).unwrap()
    }

    pub fn channel(&self, who: &str, server: &TestServer) -> Channel {
        let trust = Trust::Credentials(self.credentials(who));
        dial(&server.address, trust, DialSettings::default(), plat_link::tcp).unwrap()
    }

    pub async fn serve(&self, who: &str, settings: ServeSettings) -> TestServer {
        let (connections, local) = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (reporter, health) = tonic_health::server::health_reporter();
        let peers = Arc::new(Mutex::new(None));
        let seen = peers.clone();
        let look = move |request: Request<()>| -> Result<Request<()>, Status> {
            *seen.lock().unwrap() = request.extensions().get::<Peer>().cloned();
            Ok(request)
        };
        let service = tonic::service::interceptor::InterceptedService::new(health, look);
        let routes = tonic::service::Routes::new(service);
        let (stop, stopped) = oneshot::channel();
        let credentials = self.credentials(who);
        let task = tokio::spawn(serve(routes, connections, credentials, settings, async {
            let _ = stopped.await;
        }));
        let address = Address::parse(&format!("https://{local}")).unwrap();
        TestServer { address, reporter, peers, stop, task }
    }
}

pub fn health(channel: Channel) -> HealthClient<Channel> {
    HealthClient::new(channel)
}

pub async fn check(channel: &Channel) -> Result<(), Problem> {
    health_of(channel, String::new()).await
}

pub async fn health_of(channel: &Channel, service: String) -> Result<(), Problem> {
    let mut client = health(channel.clone());
    let answer = wait(Duration::from_secs(20), client.check(HealthCheckRequest { service })).await;
    answer.map(drop).map_err(|status| plat_wire::status::to_problem(&status))
}

/// Waits for it, and fails the test when it does not come in time.
pub async fn wait<T>(limit: Duration, what: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, what).await.expect("it came in time")
}

//! A master that holds one node: what it wants, what it was told.

use plat_agent::clock::{Clock, SystemClock};
use plat_link::{Address, Credentials, Key, Peer, ServeSettings, listen, serve};
use plat_model::id::{Digest, GridName, InstanceId};
use plat_model::identity::Identity;
use plat_model::instance::{InstanceDesired, InstanceStatus};
use plat_model::node::{Inventory, NodeDesired};
use plat_model::problem::codes;
use plat_model::usage::{Amount, Meter, UsageReport};
use plat_model::{Generation, Problem};
use plat_wire::IntoModel;
use plat_wire::convert::ReadSync;
use plat_wire::ends::node_server;
use plat_wire::limits::bytes_of;
use plat_wire::status::to_status;
use plat_wire::v1;
use plat_wire::v1::node_service_server::NodeService;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// What the master knows. Outlives its server, as a store does.
pub struct Master {
    pub grid: GridName,
    root: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
    state: Mutex<State>,
    /// Bumped with every change that a watcher should hear of.
    nudge: watch::Sender<u64>,
}

#[derive(Default)]
pub struct State {
    pub desired: NodeDesired,
    pub inventory: Option<Inventory>,
    pub statuses: BTreeMap<InstanceId, InstanceStatus>,
    pub installed: BTreeMap<Digest, plat_model::release::Installation>,
    pub ledger: Vec<UsageReport>,
    pub pushes: u32,
    /// Every answer to a push or an enrolment is lost while this is set, after it was taken in.
    pub lose_answers: bool,
    pub revoked: bool,
    pub syncs: u32,
    /// The largest report that came with one, in bytes on the wire, and the statuses that came with all.
    pub largest: usize,
    pub told: usize,
    /// Bodies of instances that have been sent.
    pub bodies: usize,
    pub renewed_by: Vec<Identity>,
    /// Public keys of all that asked to enrol.
    pub enrolling: Vec<Vec<u8>>,
    pub logs_wanted: Vec<v1::LogsWanted>,
    pub log_lines: Vec<String>,
    /// How long certificates of nodes are good, in seconds.
    pub node_life: u64,
    /// And those that they get anew.
    pub renewed_life: u64,
    /// And the rejoin certificates that they get when they enrol.
    pub rejoin_life: u64,
    /// As a master of before did not.
    pub tells_time: bool,
}

impl State {
    /// All that is known to have been used.
    pub fn booked(&self, meter: Meter) -> u64 {
        let records = self.ledger.iter().flat_map(|report| &report.records);
        let amounts = records.filter_map(|record| record.amounts.get(&meter));
        amounts.map(|amount| if let Amount::Known(known) = amount { *known } else { 0 }).sum()
    }
}

pub struct Server {
    pub address: Address,
    stop: oneshot::Sender<()>,
    task: JoinHandle<plat_model::Result<()>>,
}

impl Server {
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap().unwrap();
    }
}

impl Master {
    pub fn new() -> Arc<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "root");
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().to_vec();
        Self::of(root, Issuer::new(params, key))
    }

    fn of(root: Vec<u8>, issuer: Issuer<'static, KeyPair>) -> Arc<Self> {
        let state = State { node_life: 3600, renewed_life: 3600, rejoin_life: 36_000, ..State::default() };
        let state = Mutex::new(state);
        let grid = GridName::parse("campus").unwrap();
        Arc::new(Self { grid, root, issuer, state, nudge: watch::Sender::new(0) })
    }

    /// Writes down what it signs with, so that who trusts it can be met again.
    pub fn keep(&self, folder: &Path) {
        fs::write(folder.join("root.der"), &self.root).unwrap();
        fs::write(folder.join("key.der"), self.issuer.key().serialize_der()).unwrap();
    }

    /// As one that was written down.
    pub fn kept(folder: &Path) -> Arc<Self> {
        let read = |name: &str| fs::read(folder.join(name)).unwrap();
        let key = KeyPair::try_from(read("key.der")).unwrap();
        let root = read("root.der");
        let issuer = Issuer::from_ca_cert_der(&root.as_slice().into(), key).unwrap();
        Self::of(root, issuer)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn root(&self) -> &[u8] {
        &self.root
    }

    pub fn want(&self, change: impl FnOnce(&mut NodeDesired)) {
        {
            let mut state = self.state();
            change(&mut state.desired);
            state.desired.generation = state.desired.generation.next();
        }
        self.nudge.send_modify(|n| *n += 1);
    }

    pub fn want_instance(&self, mut instance: InstanceDesired, document: &str) {
        self.want(|desired| {
            let before = desired.instances.get(&instance.id).map_or(Generation::ZERO, |one| one.generation);
            instance.generation = before.next();
            desired.releases.insert(instance.release.clone(), document.to_owned());
            desired.instances.insert(instance.id.clone(), instance);
        });
    }

    pub fn tell_watchers(&self) {
        self.nudge.send_modify(|n| *n += 1);
    }

    fn sign(&self, who: &str, csr: &[u8], seconds: u64) -> Vec<Vec<u8>> {
        let mut csr = CertificateSigningRequestParams::from_der(&csr.to_vec().into()).unwrap();
        let uri = format!("spiffe://{}/{who}", self.grid);
        csr.params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().unwrap())];
        csr.params.distinguished_name.push(DnType::CommonName, who);
        let now = OffsetDateTime::now_utc();
        csr.params.not_before = now - Duration::from_secs(1);
        csr.params.not_after = now + Duration::from_secs(seconds);
        vec![csr.signed_by(&self.issuer).unwrap().der().to_vec()]
    }

    pub async fn serve(self: &Arc<Self>, port: u16) -> Server {
        let key = Key::generate().unwrap();
        let chain = self.sign("master", &key.csr_der().unwrap(), 3600);
        let credentials = Credentials::new(self.grid.clone(), key, chain, vec![self.root.clone()]).unwrap();
        let (connections, local) = listen(([127, 0, 0, 1], port).into()).await.unwrap();
        let routes = tonic::service::Routes::new(node_server(Service(self.clone())));
        let (stop, stopped) = oneshot::channel();
        let settings = ServeSettings { drain: Duration::from_millis(50), ..ServeSettings::default() };
        let task = tokio::spawn(serve(routes, connections, credentials, settings, async {
            let _ = stopped.await;
        }));
        Server { address: Address::parse(&format!("https://{local}")).unwrap(), stop, task }
    }
}

struct Service(Arc<Master>);

fn caller<T>(request: &Request<T>) -> Option<Identity> {
    request.extensions().get::<Peer>()?.identity.as_ref().map(|peer| peer.identity.clone())
}

impl Service {
    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        if self.0.state().revoked {
            return Err(to_status(Problem::new(codes::REVOKED, "this node has been revoked")));
        }
        match caller(request) {
            Some(Identity::Node(_)) => Ok(()),
            _ => Err(to_status(Problem::new(codes::NO_CERTIFICATE, "only a node may ask this"))),
        }
    }
}

#[tonic::async_trait]
impl NodeService for Service {
    async fn enroll(&self, request: Request<v1::EnrollRequest>) -> Result<Response<v1::EnrollResponse>, Status> {
        let asked = request.into_inner();
        for csr in [&asked.csr_der, &asked.rejoin_csr_der] {
            let csr = CertificateSigningRequestParams::from_der(&csr.clone().into()).unwrap();
            self.0.state().enrolling.push(csr.public_key.der_bytes().to_vec());
        }
        if !asked.token.contains(".goodsecret.") {
            return Err(to_status(Problem::new(codes::UNKNOWN_TOKEN, "the token is not known here")));
        }
        if self.0.state().lose_answers {
            return Err(Status::unavailable("the answer was lost"));
        }
        let life = self.0.state().node_life;
        let rejoin_life = self.0.state().rejoin_life;
        Ok(Response::new(v1::EnrollResponse {
            grid: self.0.grid.to_string(),
            node: asked.name.clone(),
            chain_der: self.0.sign(&format!("node/{}", asked.name), &asked.csr_der, life),
            rejoin_chain_der: self.0.sign(&format!("rejoin/{}", asked.name), &asked.rejoin_csr_der, rejoin_life),
            root_der: self.0.root.clone(),
        }))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::RenewResponse>, Status> {
        let by = caller(&request).ok_or_else(|| to_status(Problem::new(codes::NO_CERTIFICATE, "nobody asks")))?;
        let (Identity::Node(node) | Identity::Rejoin(node)) = &by else {
            return Err(to_status(Problem::new(codes::DENIED, "not a node")));
        };
        let life = self.0.state().renewed_life;
        let chain_der = self.0.sign(&format!("node/{node}"), &request.get_ref().csr_der, life);
        let rejoin_chain_der = self.0.sign(&format!("rejoin/{node}"), &request.get_ref().rejoin_csr_der, 72_000);
        self.0.state().renewed_by.push(by);
        Ok(Response::new(v1::RenewResponse { chain_der, root_der: self.0.root.clone(), rejoin_chain_der }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::Nudge, Status>> + Send>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        self.check(&request)?;
        let (master, nudges) = (self.0.clone(), tokio_stream::wrappers::WatchStream::new(self.0.nudge.subscribe()));
        Ok(Response::new(Box::pin(nudges.map(move |_| {
            let mut state = master.state();
            if state.revoked {
                return Err(to_status(Problem::new(codes::REVOKED, "this node has been revoked")));
            }
            let logs = std::mem::take(&mut state.logs_wanted);
            Ok(v1::Nudge { generation: state.desired.generation.0, logs })
        }))))
    }

    async fn sync(&self, request: Request<v1::SyncRequest>) -> Result<Response<v1::SyncResponse>, Status> {
        self.check(&request)?;
        let request = request.into_inner();
        let bytes = bytes_of(&request);
        let ReadSync { report, held, refused } = ReadSync::from_wire(request);
        let mut state = self.0.state();
        state.syncs += 1;
        state.largest = state.largest.max(bytes);
        state.told += report.instances.len();
        state.inventory = report.inventory.or(state.inventory.take());
        for status in report.instances {
            state.statuses.insert(status.id.clone(), status);
        }
        for one in report.installations {
            state.installed.insert(one.digest.clone(), one);
        }
        let desired = &state.desired;
        let lacking = desired.instances.values().filter(|one| held.instances.get(&one.id) != Some(&one.generation));
        let bodies: Vec<_> = lacking.map(Into::into).collect();
        let documents = desired.releases.iter().filter(|(digest, _)| !held.releases.contains(*digest));
        let answer = v1::SyncResponse {
            generation: desired.generation.0,
            instances: desired
                .instances
                .values()
                .map(|one| v1::InstanceIndex { id: one.id.to_string(), generation: one.generation.0 })
                .collect(),
            releases: desired.releases.keys().map(ToString::to_string).collect(),
            rebuilds: desired
                .rebuilds
                .iter()
                .map(|(digest, number)| v1::Rebuild { digest: digest.to_string(), number: *number })
                .collect(),
            bodies,
            documents: documents
                .map(|(digest, document)| v1::ReleaseBody { digest: digest.to_string(), document: document.clone() })
                .collect(),
            refused: refused.0.iter().map(Into::into).collect(),
            now_ms: if state.tells_time { SystemClock.now().0 } else { 0 },
        };
        state.bodies += answer.bodies.len();
        Ok(Response::new(answer))
    }

    async fn push_usage(
        &self,
        request: Request<v1::PushUsageRequest>,
    ) -> Result<Response<v1::PushUsageResponse>, Status> {
        self.check(&request)?;
        let reports = request.into_inner().into_model().map_err(to_status)?;
        let mut state = self.0.state();
        state.pushes += 1;
        for report in reports {
            let next = state.ledger.last().map_or(1, |last| last.sequence + 1);
            if report.sequence == next {
                state.ledger.push(report);
            } else if report.sequence > next {
                return Err(to_status(Problem::new(codes::LEDGER_GAP, "a report is missing")));
            }
        }
        if state.lose_answers {
            return Err(Status::unavailable("the answer was lost"));
        }
        let booked = state.ledger.last().map_or(0, |last| last.sequence);
        Ok(Response::new(v1::PushUsageResponse { booked }))
    }

    async fn push_logs(
        &self,
        request: Request<Streaming<v1::LogChunk>>,
    ) -> Result<Response<v1::PushLogsResponse>, Status> {
        self.check(&request)?;
        let mut chunks = request.into_inner();
        while let Some(chunk) = chunks.message().await? {
            let ticket = chunk.ticket;
            let lines = chunk.lines.into_iter().map(|line| format!("{ticket} {}: {}", line.service, line.text));
            let problem = chunk.problem.iter().map(|one| format!("{ticket} {}: {}", one.code, one.todo));
            self.0.state().log_lines.extend(lines.chain(problem));
        }
        Ok(Response::new(v1::PushLogsResponse {}))
    }

    /// Every instance has no child, whatever it asks for.
    async fn for_instance(
        &self,
        request: Request<v1::ForInstanceRequest>,
    ) -> Result<Response<v1::ForInstanceResponse>, Status> {
        self.check(&request)?;
        request.into_inner().into_model().map_err(to_status)?;
        Ok(Response::new(v1::ForInstanceResponse { children: Vec::new() }))
    }
}

//! A node whose agent can be stopped and started, and its master likewise.

use crate::master::{Master, Server};
use plat_agent::Settings;
use plat_agent::clock::{Clock, SystemClock};
use plat_agent::config::Config;
use plat_agent::host::fake::FakeHost;
use plat_agent::identity::{Enrolment, enroll};
use plat_agent_plan::{KeepPolicy, Steady};
use plat_document::Release;
use plat_link::Address;
use plat_link::tls::RootPin;
use plat_model::id::{Digest, InstanceId, InstanceName, NodeId, PartitionName};
use plat_model::instance::{InstanceDesired, InstanceState, InstanceStatus, Wish};
use plat_model::node::{NodeFile, NodePartition};
use plat_model::parameters::Secret;
use plat_model::{Problem, Timestamp};
use plat_wire::v1::LogsWanted;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub const RELEASE: &str = r#"
version: 1
name: echo
secrets:
  key: {length: 12}
files:
  etc/echo.conf: {template: "key={{ secrets.key }}"}
hooks:
  init: {command: ["{{ release.directory }}/bin/init"]}
services:
  echo: {command: ["{{ release.directory }}/bin/echo"]}
promises:
  answers:
    exec: ["{{ release.directory }}/bin/check"]
publish:
  address: "{{ partition.url_host }}"
"#;

/// The machine's clocks, of which somebody may set the one on the wall; and time may pass for both.
#[derive(Default)]
pub struct WallClock {
    ahead_millis: AtomicI64,
    passed_millis: AtomicI64,
}

impl WallClock {
    pub fn set(&self, ahead_seconds: i64) {
        self.ahead_millis.store(ahead_seconds * 1000, Ordering::SeqCst);
    }

    /// As if so much time had passed.
    pub fn pass(&self, seconds: i64) {
        self.passed_millis.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    fn passed(&self) -> i64 {
        self.passed_millis.load(Ordering::SeqCst)
    }
}

impl Clock for WallClock {
    fn now(&self) -> Timestamp {
        Timestamp(SystemClock.now().0 + self.passed() + self.ahead_millis.load(Ordering::SeqCst))
    }

    fn steady(&self) -> Steady {
        SystemClock.steady().plus(Duration::from_millis(u64::try_from(self.passed()).unwrap()))
    }
}

pub struct Rig {
    pub clock: Arc<WallClock>,
    pub master: Arc<Master>,
    pub host: Arc<FakeHost>,
    pub folder: TempDir,
    pub server: Option<Server>,
    pub port: u16,
    pub policy: KeepPolicy,
    /// The length of a metering window, and how much of the disk may wait to be booked.
    pub window: Duration,
    pub outbox_bytes: u64,
    agent: Option<Running>,
}

/// What stops an agent in good order, and its task.
type Running = (oneshot::Sender<()>, JoinHandle<Result<(), Problem>>);

pub fn part() -> PartitionName {
    numbered(0)
}

pub fn numbered(n: u32) -> PartitionName {
    PartitionName::parse(&format!("part{n}")).unwrap()
}

pub fn release() -> Release {
    Release::parse_yaml(RELEASE, "echo.yaml").unwrap()
}

pub fn instance(n: u32, wish: Wish) -> InstanceDesired {
    let id = InstanceId::parse(&format!("{n:032x}")).unwrap();
    InstanceDesired {
        name: InstanceName::parse("echo").unwrap(),
        wish,
        ..InstanceDesired::bare(id, part(), release().digest())
    }
}

/// Waits for a condition, and tells what was seen last when it does not come.
pub async fn until<T: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> (bool, T)) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (done, seen) = look();
        if done {
            return;
        }
        assert!(Instant::now() < deadline, "{what}: last seen {seen:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

impl Rig {
    /// A master that answers, and a node that is formatted but not enrolled.
    pub async fn new() -> Self {
        Self::of(1).await
    }

    /// As [`Rig::new`], with so many partitions.
    pub async fn of(partitions: u32) -> Self {
        let master = Master::new();
        let server = master.serve(0).await;
        let partition = |n: u32| {
            let address = format!("fd00::{:x}", n + 1).parse().unwrap();
            NodePartition { addresses: vec![address], ..NodePartition::bare(numbered(n)) }
        };
        let partitions = (0..partitions).map(partition).collect();
        let file = NodeFile { partitions, ..NodeFile::bare(Path::new("/srv")) };
        let clock = Arc::new(WallClock::default());
        let host = Arc::new(FakeHost::new(file, clock.clone()));
        let (port, policy) = (server.address.port(), KeepPolicy::default());
        Self {
            clock,
            master,
            host,
            folder: tempfile::tempdir().unwrap(),
            server: Some(server),
            port,
            policy,
            window: Duration::from_secs(1),
            outbox_bytes: Config::default().outbox_bytes,
            agent: None,
        }
    }

    pub async fn enrolled() -> Self {
        let rig = Self::new().await;
        rig.enroll("goodsecret").await.unwrap();
        rig
    }

    /// Enrolled, with its agent running.
    pub async fn running() -> Self {
        let mut rig = Self::enrolled().await;
        rig.start();
        rig
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn address(&self) -> Address {
        Address::parse(&format!("https://127.0.0.1:{}", self.port)).unwrap()
    }

    pub fn token(&self, secret: &str) -> Secret {
        let pin: String = RootPin::of(self.master.root()).0.iter().map(|byte| format!("{byte:02x}")).collect();
        Secret::new(format!("plat1.0123456789abcdef.{secret}.{pin}"))
    }

    pub async fn enroll(&self, secret: &str) -> Result<NodeId, Problem> {
        let (master, token) = (self.address(), self.token(secret));
        let name = Some(NodeId::parse("n1").unwrap());
        enroll(Enrolment { master, token, name, data: self.data() }, plat_link::tcp).await
    }

    pub fn start(&mut self) {
        let (window, outbox_bytes) = (self.window, self.outbox_bytes);
        let config = Config { data: self.data(), window, outbox_bytes, ..Config::default() };
        let settings = Settings { policy: self.policy, ..Settings::new(&config, 7) };
        let (stop, stopped) = oneshot::channel();
        let (host, clock) = (self.host.clone(), self.clock.clone());
        let task = tokio::spawn(plat_agent::run(settings, plat_link::tcp, host, clock, async {
            let _ = stopped.await;
        }));
        self.agent = Some((stop, task));
    }

    /// As `kill -9` does: nothing is told, nothing is finished.
    pub async fn kill(&mut self) {
        let (_, task) = self.agent.take().unwrap();
        task.abort();
        let _aborted = task.await;
    }

    pub async fn master_away(&mut self) {
        self.server.take().unwrap().stop().await;
    }

    pub async fn master_back(&mut self) {
        self.server = Some(self.master.serve(self.port).await);
    }

    pub fn status(&self, n: u32) -> Option<InstanceStatus> {
        self.master.state().statuses.get(&instance(n, Wish::Started).id).cloned()
    }

    pub async fn until_state(&self, n: u32, state: InstanceState) {
        until(&format!("instance {n} is {state}"), || {
            let status = self.status(n);
            (status.as_ref().is_some_and(|status| status.state == state), status)
        })
        .await;
    }

    pub fn want(&self, n: u32, wish: Wish) {
        self.master.want_instance(instance(n, wish), &release().to_canonical_json());
    }

    /// Asks for the log of instance 1 as a reader does, and waits for its first line.
    pub async fn read_logs(&self, ticket: &str) {
        let instance = instance(1, Wish::Started).id.to_string();
        let wanted = LogsWanted { ticket: ticket.into(), instance, lines: 10, ..LogsWanted::default() };
        self.ask_lines(wanted).await;
    }

    /// Asks what the promises of instance 1 have said.
    pub async fn read_results(&self, ticket: &str) {
        let instance = instance(1, Wish::Started).id.to_string();
        self.ask_lines(LogsWanted { ticket: ticket.into(), instance, promises: true, ..LogsWanted::default() }).await;
    }

    /// Asks how a release was built.
    pub async fn read_build(&self, ticket: &str, digest: &Digest) {
        self.ask_lines(LogsWanted { ticket: ticket.into(), release: digest.to_string(), ..LogsWanted::default() })
            .await;
    }

    async fn ask_lines(&self, wanted: LogsWanted) {
        let ticket = wanted.ticket.clone();
        self.master.state().logs_wanted.push(wanted);
        self.master.tell_watchers();
        until("lines come", || {
            let lines = self.master.state().log_lines.clone();
            (lines.iter().any(|line| line.starts_with(&ticket)), lines)
        })
        .await;
    }
}

//! A node in a folder of its own, and what tests do with it.

use super::*;

pub const UID: u32 = 912_345;

/// Set where these tests are run a second time, beside the first.
pub const AGAIN: &str = "PLAT_TESTS_AGAIN";

/// Users that no other test has: erasing a partition ends all of its user's.
pub fn uids_from(first: u32) -> std::sync::atomic::AtomicU32 {
    let beside = if std::env::var_os(AGAIN).is_some() { 1000 } else { 0 };
    (UID + first + beside).into()
}

/// A node in a folder of its own; its processes and control groups go with it.
pub struct Node {
    pub folder: tempfile::TempDir,
    pub account: Option<Account>,
    pub builder: Option<Account>,
    pub namespace: Option<PathBuf>,
    pub tap: Option<String>,
    pub storage: Vec<PathBuf>,
    pub directories: BTreeMap<String, u32>,
    pub limits: Resources,
    pub runtime: Runtime,
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether a test that needs root can run; where CI is set it must.
pub fn root_is_here() -> bool {
    assert!(is_root() || std::env::var_os("CI").is_none(), "this test needs root, and CI must have it");
    is_root()
}

pub fn account(uid: u32) -> Account {
    Account { user: format!("u{uid}"), uid, gid: uid, groups: Vec::new() }
}

impl Node {
    pub fn new(account: Option<Account>) -> Self {
        Self::at(tempfile::tempdir().unwrap(), account)
    }

    pub fn at(folder: tempfile::TempDir, account: Option<Account>) -> Self {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let directories = plat_model::node::Skeleton::default().directories;
        let (builder, namespace, tap, storage, limits) = (None, None, None, Vec::new(), Resources::default());
        let runtime = Runtime::Shim;
        let node = Self { folder, account, builder, namespace, tap, storage, directories, limits, runtime };
        fs::create_dir_all(node.home()).unwrap();
        if let Some(account) = &node.account {
            chown(node.home(), Some(account.uid), Some(account.gid)).unwrap();
        }
        fs::set_permissions(node.home(), fs::Permissions::from_mode(0o750)).unwrap();
        node.write_node_file();
        node
    }

    pub fn write_node_file(&self) {
        let path = self.folder.path();
        let file = NodeFile {
            builder: self.builder.clone(),
            skeleton: Skeleton { directories: self.directories.clone(), ..Skeleton::default() },
            partitions: vec![NodePartition {
                account: self.account.clone(),
                addresses: vec!["127.0.0.1".parse().unwrap()],
                namespace: self.namespace.clone(),
                tap: self.tap.clone(),
                storage: self.storage.clone(),
                limits: self.limits,
                ..NodePartition::bare(part())
            }],
            ..NodeFile::bare(path)
        };
        fs::write(path.join("node.json.new"), file.to_json()).unwrap();
        fs::rename(path.join("node.json.new"), path.join("node.json")).unwrap();
    }

    pub fn home(&self) -> PathBuf {
        self.folder.path().join("partitions/p0")
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub async fn open(&self) -> LinuxHost {
        self.open_as(Path::new(env!("CARGO_BIN_EXE_plat-agent"))).await
    }

    /// By an agent of this binary.
    pub async fn open_as(&self, executable: &Path) -> LinuxHost {
        LinuxHost::open(LinuxConfig {
            state: self.state(),
            node_file: self.folder.path().join("node.json"),
            executable: executable.into(),
            network: Default::default(),
            clock: std::sync::Arc::new(plat_agent::clock::SystemClock),
            runtime: self.runtime,
        })
        .await
        .unwrap()
    }

    pub async fn occupied(&self) -> LinuxHost {
        let host = self.open().await;
        let secrets = BTreeMap::from([("password".to_owned(), 24)]);
        host.perform(&Action::Occupy { partition: part(), instance: instance(), secrets }).await.unwrap();
        host
    }

    pub fn service_state(&self, name: &str) -> serde_json::Value {
        let path = self.state().join(format!("host/partitions/p0/services/{name}/state.json"));
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    /// By which the names of its groups and units are told from another agent's.
    pub fn id(&self) -> String {
        let state = self.state().join("host").canonicalize().unwrap();
        let hash = sha2::Sha256::digest(state.as_os_str().as_encoded_bytes());
        hash.iter().take(6).map(|b| format!("{b:02x}")).collect()
    }

    pub async fn done(self, host: LinuxHost) {
        host.perform(&Action::Erase { partition: part() }).await.unwrap();
        host.perform(&Action::Free { partition: part() }).await.unwrap();
        drop(host);
    }
}

/// Control groups are outside the folder: they go with the node too, also when its test has failed.
impl Drop for Node {
    fn drop(&mut self) {
        let Ok(state) = self.state().join("host").canonicalize() else { return };
        let hash = sha2::Sha256::digest(state.as_os_str().as_encoded_bytes());
        let id: String = hash.iter().take(6).map(|b| format!("{b:02x}")).collect();
        for mount in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
            let base = Path::new(mount).join("plat").join(&id);
            let _ = fs::write(base.join("cgroup.kill"), "1");
            for partition in fs::read_dir(&base).into_iter().flatten().flatten() {
                for group in fs::read_dir(partition.path()).into_iter().flatten().flatten() {
                    let _ = fs::remove_dir(group.path());
                }
                let _ = fs::remove_dir(partition.path());
            }
            let _ = fs::remove_dir(base);
        }
        // Those of version 1: one for each partition.
        for tree in fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let base = tree.path().join("plat").join(&id);
            for partition in fs::read_dir(&base).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(partition.path());
            }
            let _ = fs::remove_dir(base);
        }
    }
}

pub fn part() -> PartitionName {
    PartitionName::parse("p0").unwrap()
}

pub fn instance() -> InstanceId {
    InstanceId::parse(&"a".repeat(32)).unwrap()
}

pub fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

pub fn spec(name: &str, script: &str) -> ServiceSpec {
    ServiceSpec {
        environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        stop_timeout_seconds: 1,
        fingerprint: format!("{name} {script}"),
        ..ServiceSpec::bare(service(name), instance(), vec!["/bin/sh".into(), "-c".into(), script.into()])
    }
}

pub async fn start(host: &LinuxHost, spec: &ServiceSpec) -> Result<(), Problem> {
    host.perform(&Action::StartService { partition: part(), spec: spec.clone() }).await
}

pub async fn fact(host: &LinuxHost, name: &str) -> ServiceFact {
    host.observe_partition(&part()).await.unwrap().services[&service(name)].clone()
}

/// Looks again until it is so.
pub async fn until(what: &str, is: impl AsyncFnMut() -> bool) {
    until_within(Duration::from_secs(20), what, is).await;
}

pub async fn until_within(longest: Duration, what: &str, mut is: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + longest;
    while !is().await {
        assert!(Instant::now() < end, "it did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn ended(host: &LinuxHost, name: &str) -> ServiceFact {
    until("the service ends", async || matches!(fact(host, name).await.state, ServiceRun::Ended { .. })).await;
    fact(host, name).await
}

pub fn running(fact: &ServiceFact) -> u32 {
    match fact.state {
        ServiceRun::Running { pid, .. } => pid,
        other => panic!("it does not run: {other:?}"),
    }
}

pub fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
}

/// Processes of a user that run.
pub fn running_as(uid: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let is_of = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().any(|id| id == uid.to_string()))
    };
    pids.filter(|pid| is_of(pid) && alive(*pid)).collect()
}

pub fn kill9(pid: u64) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
}

pub async fn counters(host: &LinuxHost) -> Counters {
    read(host).await.unwrap()
}

pub async fn read(host: &LinuxHost) -> Option<Counters> {
    host.counters(&[part()], Wanted::All).await.pop().map(|(_, counters)| counters.unwrap())
}

pub fn known(counters: &Counters, meter: Meter) -> u64 {
    match &counters.readings[&meter] {
        Amount::Known(amount) => *amount,
        Amount::Unknown(why) => panic!("{meter} is unknown: {why}"),
    }
}

/// A mount that goes with its test.
pub struct Bind(pub PathBuf);

impl Bind {
    pub fn new(from: &Path, to: &Path) -> Self {
        nix::mount::mount(Some(from), to, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>).unwrap();
        Self(to.to_owned())
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

//! The Linux host with real processes. What needs root fails where CI is set and root is missing.

use plat_agent::host::linux::{LinuxConfig, LinuxHost};
use plat_agent::host::{Counters, Event, Follow, Host, LogsAsked, Wanted};
use plat_agent_plan::action::{Note, ReloadHow, ReloadSpec, RenderedFile, Run, ServiceSpec};
use plat_agent_plan::facts::{ServiceFact, ServiceRun};
use plat_agent_plan::{Action, ReleaseFact};
use plat_document::release::{Check, HttpCheck, ReloadSignal, StopSignal, TcpCheck};
use plat_model::Problem;
use plat_model::id::{Digest, InstanceId, PartitionName, PromiseName, ServiceName};
use plat_model::node::{Account, NodeFile, NodePartition, Skeleton};
use plat_model::problem::codes;
use plat_model::resources::Resources;
use plat_model::usage::{Amount, Meter};
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[path = "linux_host/cache.rs"]
mod cache;
#[path = "linux_host/images.rs"]
mod images;
#[path = "linux_host/metering.rs"]
mod metering;
#[path = "linux_host/namespace.rs"]
mod namespace;
#[path = "linux_host/room.rs"]
mod room;
#[path = "linux_host/shares.rs"]
mod shares;
#[path = "linux_host/sources.rs"]
mod sources;
#[path = "linux_host/storage.rs"]
mod storage;
#[path = "linux_host/web.rs"]
mod web;
#[path = "linux_host/wheels.rs"]
mod wheels;

const UID: u32 = 912_345;

/// A node in a folder of its own; its processes and control groups go with it.
struct Node {
    folder: tempfile::TempDir,
    account: Option<Account>,
    builder: Option<Account>,
    namespace: Option<PathBuf>,
    storage: Vec<PathBuf>,
    directories: BTreeMap<String, u32>,
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether a test that needs root can run; where CI is set it must.
fn root_is_here() -> bool {
    assert!(is_root() || std::env::var_os("CI").is_none(), "this test needs root, and CI must have it");
    is_root()
}

fn account(uid: u32) -> Account {
    Account { user: format!("u{uid}"), uid, gid: uid, groups: Vec::new() }
}

impl Node {
    fn new(account: Option<Account>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let directories = plat_model::node::Skeleton::default().directories;
        let node = Self { folder, account, builder: None, namespace: None, storage: Vec::new(), directories };
        fs::create_dir_all(node.home()).unwrap();
        if let Some(account) = &node.account {
            chown(node.home(), Some(account.uid), Some(account.gid)).unwrap();
        }
        fs::set_permissions(node.home(), fs::Permissions::from_mode(0o750)).unwrap();
        node.write_node_file();
        node
    }

    fn write_node_file(&self) {
        let path = self.folder.path();
        let file = NodeFile {
            version: NodeFile::VERSION,
            releases: path.join("releases"),
            root: path.join("partitions"),
            builder: self.builder.clone(),
            skeleton: Skeleton { directories: self.directories.clone(), ..Skeleton::default() },
            capacity: Resources::default(),
            partitions: vec![NodePartition {
                account: self.account.clone(),
                addresses: vec!["127.0.0.1".parse().unwrap()],
                namespace: self.namespace.clone(),
                storage: self.storage.clone(),
                ..NodePartition::bare(part())
            }],
        };
        fs::write(path.join("node.json.new"), file.to_json()).unwrap();
        fs::rename(path.join("node.json.new"), path.join("node.json")).unwrap();
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("partitions/p0")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn open(&self) -> LinuxHost {
        LinuxHost::open(LinuxConfig {
            state: self.state(),
            node_file: self.folder.path().join("node.json"),
            executable: env!("CARGO_BIN_EXE_plat-agent").into(),
            clock: std::sync::Arc::new(plat_agent::clock::SystemClock),
        })
        .unwrap()
    }

    async fn occupied(&self) -> LinuxHost {
        let host = self.open();
        let secrets = BTreeMap::from([("password".to_owned(), 24)]);
        host.perform(&Action::Occupy { partition: part(), instance: instance(), secrets }).await.unwrap();
        host
    }

    fn service_state(&self, name: &str) -> serde_json::Value {
        let path = self.state().join(format!("host/partitions/p0/services/{name}/state.json"));
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }

    async fn done(self, host: LinuxHost) {
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
    }
}

fn part() -> PartitionName {
    PartitionName::parse("p0").unwrap()
}
fn instance() -> InstanceId {
    InstanceId::parse(&"a".repeat(32)).unwrap()
}
fn service(name: &str) -> ServiceName {
    ServiceName::parse(name).unwrap()
}

fn spec(name: &str, script: &str) -> ServiceSpec {
    ServiceSpec {
        name: service(name),
        instance: instance(),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        directory: String::new(),
        stop_signal: StopSignal::Term,
        stop_timeout_seconds: 1,
        fingerprint: format!("{name} {script}"),
        reload: None,
    }
}

async fn start(host: &LinuxHost, spec: &ServiceSpec) -> Result<(), Problem> {
    host.perform(&Action::StartService { partition: part(), spec: spec.clone() }).await
}

async fn fact(host: &LinuxHost, name: &str) -> ServiceFact {
    host.observe_partition(&part()).await.unwrap().services[&service(name)].clone()
}

/// Looks again until it is so.
async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is().await {
        assert!(Instant::now() < end, "it did not happen: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn ended(host: &LinuxHost, name: &str) -> ServiceFact {
    until("the service ends", async || matches!(fact(host, name).await.state, ServiceRun::Ended { .. })).await;
    fact(host, name).await
}

fn running(fact: &ServiceFact) -> u32 {
    match fact.state {
        ServiceRun::Running { pid, .. } => pid,
        other => panic!("it does not run: {other:?}"),
    }
}

fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
}

fn kill9(pid: u64) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
}

async fn counters(host: &LinuxHost) -> Counters {
    read(host).await.unwrap()
}

async fn read(host: &LinuxHost) -> Option<Counters> {
    host.counters(&[part()], Wanted::All).await.pop().map(|(_, counters)| counters.unwrap())
}

fn known(counters: &Counters, meter: Meter) -> u64 {
    match &counters.readings[&meter] {
        Amount::Known(amount) => *amount,
        Amount::Unknown(why) => panic!("{meter} is unknown: {why}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_outlives_its_agent_and_is_found_again() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let spec = spec("db", "echo begun; exec sleep 600");
    start(&host, &spec).await.unwrap();
    let pid = running(&fact(&host, "db").await);
    let log = node.state().join("host/partitions/p0/services/db/log");
    until("it wrote", async || fs::read_to_string(&log).is_ok_and(|t| t.contains("begun"))).await;
    drop(host);
    assert!(alive(pid));

    let host = node.open();
    let mut events = host.events();
    assert_eq!(running(&fact(&host, "db").await), pid);
    start(&host, &spec).await.unwrap();
    assert_eq!(running(&fact(&host, "db").await), pid, "it was not started twice");
    kill9(pid.into());
    let told = tokio::time::timeout(Duration::from_secs(5), events.recv()).await.unwrap().unwrap();
    assert_eq!(told, Event::Partition(part()));
    let fact = ended(&host, "db").await;
    assert_eq!((fact.last_exit.as_str(), fact.restarts, fact.short_runs), ("signal 9 (SIGKILL)", 1, 1));
    assert_eq!(fact.last_lines, ["begun"]);
    start(&host, &spec).await.unwrap();
    host.perform(&Action::StopService { partition: part(), service: service("db") }).await.unwrap();
    let fact = ended(&host, "db").await;
    assert_eq!((fact.restarts, fact.short_runs), (2, 0));
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_kills_what_ignores_the_signal_and_what_detached() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let home = node.home();
    let script = format!(
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > {0}/detached; while :; do sleep 1; done' & while :; do sleep 1; done",
        home.display()
    );
    start(&host, &spec("stubborn", &script)).await.unwrap();
    let pid = running(&fact(&host, "stubborn").await);
    until("it detached", async || fs::read_to_string(home.join("detached")).is_ok_and(|t| t.ends_with('\n'))).await;
    let detached: u32 = fs::read_to_string(home.join("detached")).unwrap().trim().parse().unwrap();
    host.perform(&Action::StopService { partition: part(), service: service("stubborn") }).await.unwrap();
    assert!(!alive(pid) && !alive(detached));
    assert!(matches!(fact(&host, "stubborn").await.state, ServiceRun::Ended { .. }));
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_leaves_no_second_service() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let spec = spec("db", "sleep 600 & exec sleep 600");
    start(&host, &spec).await.unwrap();
    let pid = running(&fact(&host, "db").await);
    kill9(node.service_state("db")["shim"]["pid"].as_u64().unwrap());
    let fact = ended(&host, "db").await;
    assert!(fact.last_exit.contains("supervisor"), "{}", fact.last_exit);
    assert!(!alive(pid));
    start(&host, &spec).await.unwrap();
    let first = running(&self::fact(&host, "db").await);
    // Both at once: the next agent finds neither shim nor agent.
    let shim = node.service_state("db")["shim"]["pid"].as_u64().unwrap();
    drop(host);
    kill9(shim);
    let host = node.open();
    ended(&host, "db").await;
    assert!(!alive(first));
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_be_started_is_a_problem_that_says_why() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let mut spec = spec("db", "");
    spec.command = vec!["/nowhere/postgres".into()];
    let problem = start(&host, &spec).await.unwrap_err();
    assert_eq!(problem.code, codes::SERVICE_START);
    assert!(problem.why.contains("No such file"), "{problem}");
    assert!(matches!(fact(&host, "db").await.state, ServiceRun::Ended { .. }));
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flooding_service_fills_no_disk_and_its_last_lines_can_be_read() {
    let node = Node::new(None);
    let host = node.occupied().await;
    start(&host, &spec("noisy", "head -c 20000000 /dev/zero | tr '\\0' 'x' | fold -w 100; echo; echo the end"))
        .await
        .unwrap();
    ended(&host, "noisy").await;
    let asked = LogsAsked { service: None, lines: 1, follow: Follow::No };
    let mut lines = host.logs(&part(), &asked).await.unwrap();
    assert_eq!(lines.recv().await, Some((service("noisy"), "the end".into())));
    assert_eq!(lines.recv().await, None);
    let folder = node.state().join("host/partitions/p0/services/noisy");
    let size: u64 = fs::read_dir(folder).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!(size < 3 << 20, "{size}");
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_an_instances_log_reads_on_and_nothing_of_the_next_instance() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let asked = LogsAsked { service: Some(service("talks")), lines: 10, follow: Follow::Yes };
    start(&host, &spec("talks", "echo one; while [ ! -e go ]; do sleep 0.01; done; echo two; exec sleep 600"))
        .await
        .unwrap();
    let mut lines = host.logs(&part(), &asked).await.unwrap();
    assert_eq!(lines.recv().await, Some((service("talks"), "one".into())));
    fs::write(node.home().join("go"), "").unwrap();
    assert_eq!(lines.recv().await, Some((service("talks"), "two".into())));
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    host.perform(&Action::Free { partition: part() }).await.unwrap();
    let other = InstanceId::parse(&"b".repeat(32)).unwrap();
    host.perform(&Action::Occupy { partition: part(), instance: other, secrets: BTreeMap::new() }).await.unwrap();
    start(&host, &spec("talks", "echo secret; exec sleep 600")).await.unwrap();
    assert_eq!(lines.recv().await, None);
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_starts_fast_and_its_shim_is_small() {
    let node = Node::new(None);
    let host = node.occupied().await;
    start(&host, &spec("first", "exec sleep 600")).await.unwrap();
    let mut times = Vec::new();
    for n in 0..20 {
        let began = Instant::now();
        start(&host, &spec(&format!("s{n}"), "exec sleep 600")).await.unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    let shim = node.service_state("s3")["shim"]["pid"].as_u64().unwrap();
    let rollup = fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).unwrap();
    let kib = |name: &str| -> u64 {
        rollup.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    };
    let private = kib("Private_Clean:") + kib("Private_Dirty:");
    println!("start: median {:?}, slowest {:?}; private memory of a shim: {private} KiB", times[10], times[19]);
    assert!(private <= 512, "{private} KiB");
    assert!(times[10] < Duration::from_millis(100), "{times:?}");
    node.done(host).await;
}

/// Burns CPU in many short children and says how much the kernel saw, in microseconds.
async fn cpu_agrees(node: Node) {
    let host = node.occupied().await;
    let home = node.home();
    let script = format!(
        "i=0; while [ $i -lt 300 ]; do (j=0; while [ $j -lt 4000 ]; do j=$((j+1)); done); i=$((i+1)); done; times > {}/times",
        home.display()
    );
    start(&host, &spec("busy", &script)).await.unwrap();
    until("the counters are read while it runs", async || known(&counters(&host).await, Meter::CpuMicros) > 0).await;
    ended(&host, "busy").await;
    for _ in 0..10 {
        start(&host, &spec("short", "exec sleep 0.05")).await.unwrap();
        ended(&host, "short").await;
    }
    let said = fs::read_to_string(home.join("times")).unwrap();
    let micros: f64 = said
        .split_ascii_whitespace()
        .map(|t| {
            let (m, s) = t.trim_end_matches('s').split_once('m').unwrap();
            (m.parse::<f64>().unwrap() * 60.0 + s.parse::<f64>().unwrap()) * 1e6
        })
        .sum();
    let before = counters(&host).await;
    let counted = known(&before, Meter::CpuMicros) as f64;
    // The short services use some too: a process's start and end, below 5 ms each.
    assert!(
        counted > micros * 0.98 && counted < micros * 1.02 + 50_000.0,
        "counted {counted}, the shell says {micros}"
    );
    assert!(known(&before, Meter::WallMillis) >= 500);
    assert!(matches!(before.readings[&Meter::NetworkBytes], Amount::Unknown(_)));
    drop(host);
    let host = node.open();
    let after = counters(&host).await;
    assert_eq!(after.epoch, before.epoch);
    assert!(known(&after, Meter::CpuMicros) >= known(&before, Meter::CpuMicros));
    assert!(known(&after, Meter::CpuMicros) as f64 <= counted + 20_000.0);
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_time_of_many_short_children_agrees_with_the_kernel() {
    cpu_agrees(Node::new(None)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_written_by_the_user_and_never_through_a_link() {
    if !root_is_here() {
        return;
    }
    let node = Node::new(Some(account(UID)));
    let host = node.occupied().await;
    let outside = node.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    let write = async |path: &str| {
        let file = RenderedFile { path: path.into(), mode: 0o640, contents: "secret".into() };
        host.perform(&Action::WriteFiles { partition: part(), files: vec![file] }).await
    };
    write("etc/sub/app.conf").await.unwrap();
    let made = fs::metadata(node.home().join("etc/sub/app.conf")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (UID, UID, 0o640));

    // A file that is a link to elsewhere is replaced, not followed.
    fs::write(outside.join("victim"), "kept").unwrap();
    symlink(outside.join("victim"), node.home().join("etc/link")).unwrap();
    write("etc/link").await.unwrap();
    assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(node.home().join("etc/link")).unwrap(), "secret");

    // A folder that was swapped for a link is refused.
    fs::rename(node.home().join("etc"), node.home().join("moved")).unwrap();
    symlink(&outside, node.home().join("etc")).unwrap();
    let problem = write("etc/app.conf").await.unwrap_err();
    assert_eq!(problem.code, codes::FILES_FAILED);
    assert!(!outside.join("app.conf").exists());
    for path in ["../outside/x", "/etc/x", ""] {
        assert_eq!(write(path).await.unwrap_err().code, codes::FILES_FAILED, "{path}");
    }
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitions_programs_run_as_its_user_with_nothing_inherited() {
    if !root_is_here() {
        return;
    }
    let node = Node::new(Some(account(UID + 1)));
    let host = node.occupied().await;
    let run = Run {
        name: "init".into(),
        command: vec![
            "/bin/sh".into(),
            "-c".into(),
            "id -u; id -G; pwd; umask; grep NoNewPrivs /proc/self/status; ls /proc/self/fd | wc -l; env | sort; exit 3"
                .into(),
        ],
        environment: BTreeMap::from([("A".to_owned(), "b".to_owned())]),
        timeout_seconds: 10,
    };
    let problem = host.perform(&Action::RunHook { partition: part(), run }).await.unwrap_err();
    assert_eq!(problem.code, codes::HOOK_FAILED);
    let uid = (UID + 1).to_string();
    let lines: Vec<&str> = problem.why.lines().collect();
    let home = node.home().display().to_string();
    assert_eq!(lines[..6], ["exit code 3", &uid, &uid, &home, "0027", "NoNewPrivs:\t1"], "{problem}");
    assert_eq!(lines[6], "4", "input, output, errors and ls's own: {problem}");
    assert!(
        lines[7..].iter().all(|l| l.starts_with("A=") || l.starts_with("PLAT_RUN=") || l.starts_with("PWD=")),
        "{problem}"
    );
    node.done(host).await;
}

async fn erased_whole(node: Node) {
    let host = node.occupied().await;
    start(&host, &spec("db", "trap '' TERM; while :; do sleep 1; done")).await.unwrap();
    let pid = running(&fact(&host, "db").await);
    let script = "mkdir -p a/b/c etc; touch 'odd\nname' -- '-rf' \"$(printf '\\377')\" a/b/c/f; ln -s / etc/root; chmod 0 a/b/c a/b a .; \
        mkdir deep; cd deep; i=0; while [ $i -lt 10000 ]; do mkdir x; cd ./x; i=$((i+1)); done";
    let script = format!(
        "perl -e 'mkdir \"deep\"; chdir \"deep\"; for (1..10000) {{ mkdir \"x\"; chdir \"x\" }}'; {}",
        script.split("mkdir deep").next().unwrap()
    );
    let run = Run {
        name: "init".into(),
        command: vec!["/bin/sh".into(), "-c".into(), script],
        environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        timeout_seconds: 60,
    };
    host.perform(&Action::RunHook { partition: part(), run }).await.unwrap();
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    assert!(!alive(pid));
    let mut left: Vec<String> =
        fs::read_dir(node.home()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["etc", "log", "run", "srv", "tmp", "var"]);
    assert_eq!(fs::metadata(node.home().join("etc")).unwrap().mode() & 0o7777, 0o750);
    let occupant = host.observe_partition(&part()).await.unwrap().occupant.unwrap();
    assert!(occupant.erased && occupant.secrets.is_empty());
    assert!(known(&counters(&host).await, Meter::CpuMicros) > 0);
    host.perform(&Action::Free { partition: part() }).await.unwrap();
    assert!(host.observe_partition(&part()).await.unwrap().occupant.is_none());
    assert!(read(&host).await.is_none());
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn erasing_leaves_nothing_however_deep_or_odd() {
    erased_whole(Node::new(is_root().then(|| account(UID + 2)))).await;
}

/// A POSIX access control list that gives `uid` everything, as the kernel keeps it.
fn access_list(uid: u32) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in
        [(1u16, 7u16, u32::MAX), (2, 7, uid), (4, 7, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)]
    {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Opens the home to another user in every way that its owner can.
fn give_to(home: &Path, uid: u32) {
    fs::set_permissions(home, fs::Permissions::from_mode(0o777)).unwrap();
    for name in ["system.posix_acl_access", "system.posix_acl_default"] {
        rustix::fs::setxattr(home, name, &access_list(uid), rustix::fs::XattrFlags::empty()).unwrap();
    }
    rustix::fs::setxattr(home, "user.note", b"x", rustix::fs::XattrFlags::empty()).unwrap();
}

fn noted(path: &Path) -> Vec<String> {
    let mut list = vec![0; 4096];
    let length = rustix::fs::listxattr(path, &mut list[..]).unwrap();
    let names = list[..length].split(|b| *b == 0).map(|name| String::from_utf8_lossy(name).into_owned());
    names.filter(|name| name.starts_with("user.") || name.starts_with("system.")).collect()
}

fn is_as_formatted(home: &Path, uid: u32) {
    let made = fs::metadata(home).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (uid, uid, 0o750));
    assert_eq!(noted(home), [""; 0]);
    let mut names: Vec<_> =
        fs::read_dir(home).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["etc", "log", "run", "srv", "tmp", "var"]);
    for name in names {
        let made = fs::metadata(home.join(&name)).unwrap();
        assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (uid, uid, 0o750), "{name}");
        assert_eq!(noted(&home.join(name)), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_tenant_has_nothing_in_common_with_the_last() {
    if !root_is_here() {
        return;
    }
    let (own, other) = (UID + 10, UID + 11);
    let node = Node::new(Some(account(own)));
    let host = node.occupied().await;
    let home = node.home();
    give_to(&home, other);
    let held = fs::File::open(&home).unwrap();
    // Of another user, so that the partition's own could not remove it.
    let theirs = home.join("theirs");
    fs::create_dir_all(theirs.join("deep/deeper")).unwrap();
    fs::write(theirs.join("deep/file"), "x").unwrap();
    for path in ["theirs", "theirs/deep", "theirs/deep/deeper", "theirs/deep/file"] {
        chown(home.join(path), Some(other), Some(other)).unwrap();
    }
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o700)).unwrap();
    symlink(node.folder.path().join("node.json"), home.join("link")).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o000)).unwrap();
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    is_as_formatted(&home, own);
    // What was held open leads to no directory that there still is.
    assert_ne!(held.metadata().unwrap().ino(), fs::metadata(&home).unwrap().ino());
    assert_eq!(held.metadata().unwrap().nlink(), 0);
    assert!(node.folder.path().join("node.json").exists());
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_left_elsewhere_on_the_machine_goes_with_it() {
    use std::os::unix::process::CommandExt;
    if !root_is_here() {
        return;
    }
    let own = UID + 18;
    let node = Node::new(Some(account(own)));
    let host = node.occupied().await;
    let (kept, shared) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(kept.path().join("file"), "x").unwrap();
    let name = shared.path().file_name().unwrap().to_str().unwrap().to_owned();
    let script = format!(
        "umask 0; for d in /tmp /var/tmp /dev/shm; do mkdir -p $d/{name}-left/deep/er; echo x > $d/{name}-left/deep/file; \
         echo x > $d/{name}-file; ln -s {kept} $d/{name}-link; chmod 0 $d/{name}-left; done; \
         perl -e 'shmget(0, 4096, 01666) // die; semget(0, 1, 01666) // die; msgget(0, 01666) // die'",
        kept = kept.path().display()
    );
    let made = std::process::Command::new("/bin/sh").args(["-c", &script]).uid(own).gid(own).status().unwrap();
    assert!(made.success());
    let objects = || {
        let lists = ["shm", "sem", "msg"].map(|list| fs::read_to_string(format!("/proc/sysvipc/{list}")).unwrap());
        lists.iter().flat_map(|list| list.lines()).filter(|line| line.contains(&own.to_string())).count()
    };
    assert_eq!(objects(), 3);
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    assert_eq!(objects(), 0);
    for folder in ["/tmp", "/var/tmp", "/dev/shm"] {
        for left in ["left", "file", "link"] {
            assert!(fs::symlink_metadata(format!("{folder}/{name}-{left}")).is_err(), "{folder} {left}");
        }
    }
    assert!(kept.path().join("file").exists() && shared.path().exists());
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_was_cut_off_is_finished_by_the_next() {
    if !root_is_here() {
        return;
    }
    let node = Node::new(Some(account(UID + 12)));
    let host = node.occupied().await;
    let (home, aside) = (node.home(), node.home().with_file_name(".erased-p0"));
    fs::create_dir(home.join("full")).unwrap();
    fs::write(home.join("full/file"), "x").unwrap();
    fs::rename(&home, &aside).unwrap();
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    is_as_formatted(&home, UID + 12);
    assert!(!aside.exists());
    fs::create_dir_all(aside.join("full/deep")).unwrap();
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    is_as_formatted(&home, UID + 12);
    assert!(!aside.exists());
    node.done(host).await;
}

/// A mount that goes with its test.
struct Bind(PathBuf);

impl Bind {
    fn new(from: &Path, to: &Path) -> Self {
        nix::mount::mount(Some(from), to, None::<&str>, nix::mount::MsFlags::MS_BIND, None::<&str>).unwrap();
        Self(to.to_owned())
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_a_mount_stays_one_and_a_mount_in_it_is_not_entered() {
    if !root_is_here() {
        return;
    }
    let own = UID + 13;
    let node = Node::new(Some(account(own)));
    let (disk, outside) = (node.folder.path().join("disk"), node.folder.path().join("outside"));
    fs::create_dir_all(disk.join("a/b")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "x").unwrap();
    let mounted = Bind::new(&disk, &node.home());
    give_to(&node.home(), UID + 14);
    let host = node.occupied().await;
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    is_as_formatted(&node.home(), own);
    assert_eq!(fs::metadata(&disk).unwrap().ino(), fs::metadata(node.home()).unwrap().ino());
    drop(mounted);

    let within = node.home().join("a/within");
    fs::create_dir_all(&within).unwrap();
    let mounted = Bind::new(&outside, &within);
    let problem = host.perform(&Action::Erase { partition: part() }).await.unwrap_err();
    assert_eq!(problem.code, codes::ERASE_FAILED);
    assert!(outside.join("kept").exists());
    drop(mounted);
    // Where it was when it was moved aside with the partition.
    let _ = nix::mount::umount2(
        &node.home().with_file_name(".erased-p0").join("a/within"),
        nix::mount::MntFlags::MNT_DETACH,
    );
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    is_as_formatted(&node.home(), own);
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_reloads_by_a_signal_or_a_command_and_goes_on_with_the_same_process() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let script = "trap 'echo again >> reloaded' HUP; echo up > up; while :; do sleep 0.02; done";
    let files = "files of before".to_owned();
    let reload = Some(ReloadSpec { how: ReloadHow::Signal(ReloadSignal::Hup), files });
    start(&host, &ServiceSpec { reload, ..spec("web", script) }).await.unwrap();
    until("it is up", async || node.home().join("up").exists()).await;
    let before = fact(&host, "web").await;
    assert_eq!(before.loaded, "files of before");
    let ask =
        |run: &str, how: ReloadHow| Action::Reload { partition: part(), service: service("web"), run: run.into(), how };
    host.perform(&ask(&before.run, ReloadHow::Signal(ReloadSignal::Hup))).await.unwrap();
    until("it has reloaded", async || node.home().join("reloaded").exists()).await;
    let command = |script: &str| {
        ReloadHow::Command(Run {
            name: "reload-web".into(),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            timeout_seconds: 5,
        })
    };
    host.perform(&ask(&before.run, command("echo told > told"))).await.unwrap();
    assert!(node.home().join("told").exists());
    let problem = host.perform(&ask(&before.run, command("exit 3"))).await.unwrap_err();
    assert_eq!(problem.code, codes::HOOK_FAILED);
    // Of a run that is over there is nothing to tell.
    host.perform(&ask("another run", ReloadHow::Signal(ReloadSignal::Usr1))).await.unwrap();
    assert_eq!(running(&fact(&host, "web").await), running(&before));
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_promises_have_said_is_known_to_an_agent_that_is_started_again() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let promise = PromiseName::parse("answers").unwrap();
    let ask = |code: u32| Action::CheckPromise {
        partition: part(),
        promise: promise.clone(),
        of: "these runs".into(),
        check: Check::Exec(vec!["/bin/sh".into(), "-c".into(), format!("echo said; exit {code}")]),
        timeout_seconds: 5,
        environment: BTreeMap::new(),
    };
    for code in [0, 0, 1] {
        host.perform(&ask(code)).await.unwrap();
    }
    let before = host.observe_partition(&part()).await.unwrap().promises;
    let fact = &before[&promise];
    assert_eq!((fact.holds, fact.held, fact.failures, fact.of.as_str()), (false, true, 1, "these runs"));
    assert_eq!(
        fact.history.iter().map(|stretch| (stretch.holds, stretch.times)).collect::<Vec<_>>(),
        [(true, 2), (false, 1)]
    );
    drop(host);
    // As after kill -9: nothing was told to the host of before.
    let host = node.open();
    assert_eq!(host.observe_partition(&part()).await.unwrap().promises, before);
    // What was written down and makes no sense is asked anew, and stops nothing.
    fs::write(node.state().join("host/partitions/p0/promises.json"), "{").unwrap();
    let host = node.open();
    assert!(host.observe_partition(&part()).await.unwrap().promises.is_empty());
    host.perform(&ask(0)).await.unwrap();
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    assert!(host.observe_partition(&part()).await.unwrap().promises.is_empty());
    node.done(host).await;
}

/// A process of the user that holds everything else of that user still, again and again.
fn oppressor(uid: u32) -> std::process::Child {
    use std::os::unix::process::CommandExt;
    let script = "while :; do kill -STOP -1; done";
    std::process::Command::new("/bin/sh").args(["-c", script]).uid(uid).gid(uid).spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_who_holds_the_agents_processes_still_keeps_nothing_from_going_on() {
    if !root_is_here() {
        return;
    }
    let own = UID + 15;
    let node = Node::new(Some(account(own)));
    let host = node.occupied().await;
    // It accepts, by its queue, and never answers.
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", server.local_addr().unwrap());
    let mut hostile = oppressor(own);
    let promise = PromiseName::parse("held").unwrap();
    let check = Check::Http(HttpCheck { url, status: 200 });
    let environment = BTreeMap::new();
    let ask = Action::CheckPromise {
        partition: part(),
        promise: promise.clone(),
        of: String::new(),
        check,
        timeout_seconds: 1,
        environment,
    };
    host.perform(&ask).await.unwrap();
    let fact = host.observe_partition(&part()).await.unwrap().promises[&promise].clone();
    assert!(!fact.holds && fact.message.contains("took too long"), "{}", fact.message);
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    assert!(!alive(hostile.id()));
    hostile.wait().unwrap();
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_process_is_not_ended_for_the_mark_it_gave_itself() {
    use std::os::unix::process::CommandExt;
    if !root_is_here() {
        return;
    }
    let node = Node::new(Some(account(UID + 16)));
    let host = node.occupied().await;
    start(&host, &spec("db", "sleep 600 & exec sleep 600")).await.unwrap();
    let main = running(&fact(&host, "db").await);
    let mut mark = None;
    // While a process becomes another program it shows no environment at all.
    until("the service bears its mark", async || {
        let environment = fs::read_to_string(format!("/proc/{main}/environ")).unwrap_or_default();
        mark = environment.split('\0').find_map(|v| v.strip_prefix("PLAT_RUN=")).map(str::to_owned);
        mark.is_some()
    })
    .await;
    let mark = mark.unwrap();
    let mut stranger = std::process::Command::new("/bin/sleep");
    let mut stranger = stranger.arg("600").uid(UID + 17).gid(UID + 17).env("PLAT_RUN", mark).spawn().unwrap();
    kill9(node.service_state("db")["shim"]["pid"].as_u64().unwrap());
    ended(&host, "db").await;
    assert!(!alive(main) && alive(stranger.id()));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_takes_too_long_is_killed_with_all_it_started() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let script = "setsid sleep 600 & echo $! > child; sleep 600";
    let run = Run {
        name: "init".into(),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        timeout_seconds: 1,
    };
    let problem = host.perform(&Action::RunHook { partition: part(), run }).await.unwrap_err();
    assert!(problem.why.contains("longer than 1 s"), "{problem}");
    let child: u32 = fs::read_to_string(node.home().join("child")).unwrap().trim().parse().unwrap();
    assert!(!alive(child));
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_occupants_record_and_secrets_survive_and_another_is_refused() {
    let node = Node::new(None);
    let host = node.occupied().await;
    host.perform(&Action::Note { partition: part(), note: Note::Initialised }).await.unwrap();
    let first = host.observe_partition(&part()).await.unwrap().occupant.unwrap();
    assert_eq!(first.secrets["password"].reveal().len(), 24);
    let path = node.state().join("host/partitions/p0/occupant.json");
    assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o600);
    drop(host);
    let host = node.occupied().await;
    assert_eq!(host.observe_partition(&part()).await.unwrap().occupant.unwrap(), first);
    let other = InstanceId::parse(&"b".repeat(32)).unwrap();
    let occupy = Action::Occupy { partition: part(), instance: other, secrets: BTreeMap::new() };
    assert_eq!(host.perform(&occupy).await.unwrap_err().code, codes::CONFLICT);
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_are_asked_over_the_network_and_by_programs() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in server.incoming().flatten() {
            let mut stream = stream;
            let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
            let _ = stream.write_all(
                b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    let ask = async |name: &str, check: Check| {
        let promise = PromiseName::parse(name).unwrap();
        let environment = BTreeMap::new();
        let action = Action::CheckPromise {
            partition: part(),
            promise: promise.clone(),
            of: String::new(),
            check,
            timeout_seconds: 2,
            environment,
        };
        host.perform(&action).await.unwrap();
        let fact = host.observe_partition(&part()).await.unwrap().promises[&promise].clone();
        (fact.holds, fact.message, fact.failures)
    };
    let url = format!("http://127.0.0.1:{port}/");
    let (holds, message, _) = ask("moved", Check::Http(HttpCheck { url: url.clone(), status: 302 })).await;
    assert!(holds, "{message}");
    let (holds, message, _) = ask("ok", Check::Http(HttpCheck { url, status: 200 })).await;
    assert!(!holds && message.contains("302"), "{message}");
    let tcp = |port: u16| Check::Tcp(TcpCheck { address: "127.0.0.1".into(), port: port.to_string() });
    assert!(ask("tcp", tcp(port)).await.0);
    assert!(!ask("closed", tcp(1)).await.0);
    assert_eq!(ask("closed", tcp(1)).await.2, 2);
    let exec = |script: &str| Check::Exec(vec!["/bin/sh".into(), "-c".into(), script.into()]);
    assert_eq!(ask("yes", exec("echo fine")).await, (true, "fine".into(), 0));
    assert_eq!(ask("no", exec("echo broken; exit 4")).await, (false, "exit code 4: broken".into(), 1));
    let (holds, message, _) = ask("slow", exec("sleep 60")).await;
    assert!(!holds && message.contains("2 s"), "{message}");
    assert!(!ask("none", Check::Exec(vec!["/nowhere".into()])).await.0);
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn node_json_written_anew_is_told_and_read() {
    let node = Node::new(None);
    let host = node.open();
    let mut events = host.events();
    node.write_node_file();
    let told = tokio::time::timeout(Duration::from_secs(5), events.recv()).await.unwrap();
    assert_eq!(told, Some(Event::NodeFile));
    assert_eq!(host.node().await.unwrap().partitions.len(), 1);
    fs::write(node.folder.path().join("node.json"), "{}").unwrap();
    assert_eq!(host.node().await.unwrap_err().code, codes::NO_NODE_FILE);
}

// Releases.

fn tar(entries: &[(&str, &str, tar::EntryType)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, contents, kind) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
            header.as_gnu_mut().unwrap().linkname[..contents.len()].copy_from_slice(contents.as_bytes());
            header.set_size(0);
            header.set_cksum();
            builder.append(&header, std::io::empty()).unwrap();
        } else {
            header.set_size(contents.len() as u64);
            header.set_cksum();
            builder.append(&header, contents.as_bytes()).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

fn document(sources: serde_json::Value, commands: &[&[&str]]) -> String {
    serde_json::json!({"version": 1, "name": "app", "sources": sources, "build": {"commands": commands, "timeout_seconds": 60}}).to_string()
}

fn archive(node: &Node, bytes: &[u8]) -> serde_json::Value {
    let path = node.folder.path().join("app.tar");
    fs::write(&path, bytes).unwrap();
    serde_json::json!({"app": {"archive": {"url": path, "sha256": hex(bytes), "strip": 1}}})
}

async fn install(host: &LinuxHost, document: &str) -> (Digest, Result<(), Problem>) {
    let digest = Digest::parse(&hex(document.as_bytes())).unwrap();
    let done = host.perform(&Action::InstallRelease { digest: digest.clone(), document: document.into() }).await;
    (digest, done)
}

fn unfinished(node: &Node) -> usize {
    let entries = fs::read_dir(node.folder.path().join("releases")).unwrap();
    entries.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".unfinished")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_built_and_published_read_only_and_removed() {
    let mut node = Node::new(None);
    node.builder = is_root().then(|| account(UID + 3));
    node.write_node_file();
    let host = node.open();
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let plain = tar(&[
        ("app-1/bin/", "", Directory),
        ("app-1/bin/run", "#!/bin/sh\necho hi\n", Regular),
        ("app-1/again", "app-1/bin/run", Link),
        ("app-1/sh", "bin/run", Symlink),
    ]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&plain).unwrap();
    let document = document(
        archive(&node, &packed.finish().unwrap()),
        &[&["sh", "-c", "id -u > built; env > environment; echo {{ release.directory }} > place"]],
    );
    let (digest, done) = install(&host, &document).await;
    done.unwrap();
    assert_eq!(host.observe_release(&digest).await, ReleaseFact::Installed);
    assert_eq!(host.observe_releases().await.unwrap(), std::slice::from_ref(&digest));
    let folder = node.folder.path().join("releases").join(digest.as_str());
    assert_eq!(fs::metadata(folder.join("bin/run")).unwrap().mode() & 0o7777, 0o555, "no setuid, no write");
    assert_eq!(fs::metadata(folder.join("bin")).unwrap().mode() & 0o7777, 0o755);
    assert_eq!(fs::metadata(folder.join("bin/run")).unwrap().uid(), nix::unistd::geteuid().as_raw());
    assert_eq!(fs::read_to_string(folder.join("place")).unwrap().trim(), folder.display().to_string());
    if is_root() {
        assert_eq!(fs::read_to_string(folder.join("built")).unwrap().trim(), (UID + 3).to_string());
    }
    assert!(!fs::read_to_string(folder.join("environment")).unwrap().contains("CARGO"));
    install(&host, &document).await.1.unwrap();
    host.perform(&Action::RemoveRelease { digest: digest.clone() }).await.unwrap();
    assert_eq!(host.observe_release(&digest).await, ReleaseFact::Absent);
    assert_eq!(unfinished(&node), 0);
}

/// Processes of a user that run.
fn running_as(uid: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let is_of = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().any(|id| id == uid.to_string()))
    };
    pids.filter(|pid| is_of(pid) && alive(*pid)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_command_holds_nothing_up_leaves_nothing_running_and_reaches_no_other_release() {
    if !root_is_here() {
        return;
    }
    let mut node = Node::new(None);
    node.builder = Some(account(UID + 20));
    node.write_node_file();
    let host = node.open();
    let source = archive(&node, &tar(&[("a/x", "x", tar::EntryType::Regular)]));
    // It waits until another release is begun, tries to stop whoever watches it, and puts something everywhere.
    let script = "i=0; while [ $(ls -d ../.unfinished-* | wc -l) -lt 2 ] && [ $i -lt 2000 ]; do sleep 0.01; i=$((i+1)); done; \
        for d in ../.unfinished-*; do [ $d -ef . ] || touch $d/intruder; done; \
        ls ../.packages && exit 1; kill -STOP $PPID; setsid sleep 600 & exit 0";
    let hostile = document(source.clone(), &[&["sh", "-c", script]]);
    let other = document(source, &[&["sh", "-c", "[ ! -e intruder ]"]]);
    let digest = Digest::parse(&hex(hostile.as_bytes())).unwrap();
    let second = async {
        until("the first one's command runs", async || {
            matches!(host.observe_release(&digest).await, ReleaseFact::Building(what) if what.starts_with("running"))
        })
        .await;
        install(&host, &other).await.1
    };
    let (first, second) = tokio::join!(install(&host, &hostile), second);
    first.1.unwrap();
    second.unwrap();
    assert_eq!(running_as(UID + 20), [0; 0]);
    let folder = node.folder.path().join("releases").join(digest.as_str());
    assert_eq!(fs::metadata(folder.join("x")).unwrap().uid(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_built_as_root_beside_partitions_that_have_users() {
    if !root_is_here() {
        return;
    }
    let node = Node::new(Some(account(UID + 21)));
    let host = node.open();
    let source = archive(&node, &tar(&[("a/x", "x", tar::EntryType::Regular)]));
    let problem = install(&host, &document(source, &[])).await.1.unwrap_err();
    assert_eq!(problem.code, codes::PRIVILEGE);
    assert!(problem.to_string().contains("[builder]"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_reaches_out_is_refused_and_nothing_is_published() {
    let node = Node::new(None);
    let host = node.open();
    use tar::EntryType::{Char, Regular, Symlink};
    let hostile: [&[(&str, &str, tar::EntryType)]; 6] = [
        &[("a/../../evil", "x", Regular)],
        &[("/evil", "x", Regular)],
        &[("a/link", "/etc/passwd", Symlink)],
        &[("a/link", "../../..", Symlink)],
        &[("a/b/l", "../..", Symlink), ("a/m", "b/l/..", Symlink)],
        &[("a/null", "", Char)],
    ];
    for entries in hostile {
        let (digest, done) = install(&host, &document(archive(&node, &tar(entries)), &[])).await;
        assert_eq!(done.unwrap_err().code, codes::BAD_ARCHIVE, "{entries:?}");
        assert_eq!(host.observe_release(&digest).await, ReleaseFact::Absent);
    }
    assert!(!node.folder.path().join("evil").exists());
    until("what was begun is removed", async || unfinished(&node) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_checksum_and_a_failing_build_say_what_failed() {
    let node = Node::new(None);
    let host = node.open();
    let good = archive(&node, &tar(&[("a/x", "x", tar::EntryType::Regular)]));
    let mut wrong = good.clone();
    wrong["app"]["archive"]["sha256"] = "0".repeat(64).into();
    let problem = install(&host, &document(wrong, &[])).await.1.unwrap_err();
    assert_eq!((problem.code, problem.at.as_str()), (codes::SOURCE_CHECKSUM, "sources.app"));
    let problem =
        install(&host, &document(good, &[&["sh", "-c", "echo the compiler is missing; exit 2"]])).await.1.unwrap_err();
    assert_eq!((problem.code, problem.at.as_str()), (codes::BUILD_FAILED, "build.commands[0]"));
    assert!(problem.why.contains("exit code 2") && problem.why.contains("the compiler is missing"), "{problem}");
    until("what was begun is removed", async || unfinished(&node) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_copied_and_a_link_out_of_it_is_refused() {
    let node = Node::new(None);
    let host = node.open();
    let from = node.folder.path().join("from");
    fs::create_dir_all(from.join("sub")).unwrap();
    fs::write(from.join("sub/file"), "x").unwrap();
    symlink("file", from.join("sub/link")).unwrap();
    let source = |path: &Path| serde_json::json!({"own": {"directory": {"path": path, "into": "share"}}});
    let (digest, done) = install(&host, &document(source(&from), &[])).await;
    done.unwrap();
    let link = node.folder.path().join("releases").join(digest.as_str()).join("share/sub/link");
    assert_eq!(fs::read_to_string(link).unwrap(), "x");
    symlink("../../node.json", from.join("sub/out")).unwrap();
    let (_, done) = install(&host, &document(source(&from), &[&["true"]])).await;
    assert_eq!(done.unwrap_err().code, codes::BAD_ARCHIVE);
}

/// Needs the Debian package archive.
#[tokio::test(flavor = "multi_thread")]
async fn redis_is_installed_from_its_real_packages_and_runs() {
    let mut node = Node::new(None);
    node.builder = is_root().then(|| account(UID + 4));
    node.write_node_file();
    let host = node.occupied().await;
    let source = serde_json::json!({"redis": {"deb": {"packages": ["redis-server", "redis-tools"]}}});
    let (digest, done) = install(&host, &document(source, &[])).await;
    done.unwrap_or_else(|problem| panic!("{problem}"));
    let folder = node.folder.path().join("releases").join(digest.as_str());
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join(".plat-release.json")).unwrap()).unwrap();
    let names: Vec<&str> =
        manifest["sources"]["redis"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    println!("{names:?}");
    assert!(names.contains(&"redis-tools") && names.iter().any(|n| n.starts_with("liblzf")), "{names:?}");
    let libraries = format!("{0}/usr/lib/x86_64-linux-gnu:{0}/usr/lib/aarch64-linux-gnu", folder.display());
    let mut spec = spec("redis", "");
    let bin = |name: &str| folder.join("usr/bin").join(name).display().to_string();
    let socket = node.home().join("redis.sock").display().to_string();
    spec.command = ["redis-server", "--port", "0", "--unixsocket", &socket, "--save", ""].map(String::from).to_vec();
    spec.command[0] = bin("redis-server");
    spec.environment.insert("LD_LIBRARY_PATH".into(), libraries.clone());
    start(&host, &spec).await.unwrap();
    let promise = PromiseName::parse("ping").unwrap();
    let check = Check::Exec(vec![bin("redis-cli"), "-s".into(), socket, "ping".into()]);
    let environment = BTreeMap::from([("LD_LIBRARY_PATH".to_owned(), libraries)]);
    let ask = Action::CheckPromise {
        partition: part(),
        promise: promise.clone(),
        of: String::new(),
        check,
        timeout_seconds: 5,
        environment,
    };
    until("redis answers", async || {
        host.perform(&ask).await.unwrap();
        let fact = host.observe_partition(&part()).await.unwrap().promises[&promise].clone();
        fact.holds && fact.message == "PONG"
    })
    .await;
    node.done(host).await;
}

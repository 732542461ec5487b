//! The part with the network in somebody else's hands: whatever it says, root's part does nothing that no plan could hold,
//! says so, and goes on.

use super::*;
use plat_agent::config::Config;
use plat_agent::privileged::{RemoteHost, Start, Taking, handover, serve};
use plat_agent_plan::Upkeep;
use plat_document::release::VolumeKind;
use plat_model::Timestamp;
use plat_model::id::HookName;
use plat_model::parameters::Parameters;
use plat_model::run::{RunEnd, RunResult};
use plat_model::tree::Said;
use serde_json::{Value, json};
use std::io;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

/// What was logged, or what went over a socket.
#[derive(Clone, Default)]
pub struct Kept(Arc<Mutex<Vec<u8>>>);

impl io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Kept {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    /// All that this thread logs from here on.
    pub fn logs() -> (Self, tracing::subscriber::DefaultGuard) {
        let kept = Self::default();
        let target = kept.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::DEBUG);
        (kept, tracing::subscriber::set_default(lines.with_writer(move || target.clone()).finish()))
    }
}

type Served = JoinHandle<Result<(), Problem>>;

/// Serves the host, and gives the other end.
fn served(host: &Arc<LinuxHost>) -> (Served, UnixStream, Taking) {
    let (mine, theirs) = UnixStream::pair().unwrap();
    let (giving, taking) = handover().unwrap();
    let host = host.clone();
    let start = Start::new(&Config::default());
    let serving = tokio::spawn(async move {
        let mut events = host.events();
        serve(host, &mut events, mine, giving, &start).await
    });
    (serving, theirs, taking)
}

pub async fn remote(host: &Arc<LinuxHost>) -> RemoteHost {
    let (_, socket, taking) = served(host);
    RemoteHost::open(socket, taking).await.unwrap().0
}

pub fn run(name: &str, command: &[&str]) -> Run {
    let command = command.iter().map(|argument| (*argument).to_owned()).collect();
    Run { name: name.into(), command, environment: BTreeMap::new(), directory: String::new(), timeout_seconds: 5 }
}

pub fn hook(run: Run) -> Action {
    Action::RunHook { partition: part(), run }
}

fn file(path: &str, mode: u32) -> Action {
    let template = Prepared::verbatim("forged");
    Action::WriteFiles { partition: part(), files: vec![FileTemplate { path: path.into(), mode, template }] }
}

pub fn started(change: impl FnOnce(&mut ServiceSpec)) -> Action {
    let mut spec = spec("forged", "true");
    change(&mut spec);
    Action::StartService { partition: part(), spec }
}

pub fn checked(check: Check, timeout_seconds: u32) -> Action {
    let (promise, environment) = (PromiseName::parse("p").unwrap(), BTreeMap::new());
    Action::CheckPromise { partition: part(), promise, of: String::new(), check, timeout_seconds, environment }
}

fn publication(secret: &str) -> Publication {
    Publication { values: [("url".to_owned(), Prepared::secret(secret))].into(), fingerprint: "f".into() }
}

fn volume(partition: PartitionName, name: &str) -> Action {
    Action::PrepareVolumes { partition, volumes: [(name.to_owned(), VolumeKind::Scratch)].into() }
}

fn hook_name() -> HookName {
    HookName::parse("configure").unwrap()
}

fn over(end: RunEnd, how: &str) -> RunResult {
    let (began, ended) = (Timestamp(1), Timestamp(2));
    RunResult { number: 9, hook: hook_name(), began, ended, end, how: how.into(), tail: Vec::new() }
}

fn forgeries() -> Vec<Action> {
    let foreign = || PartitionName::parse("p1").unwrap();
    let with = |name: &str, value: &str| Run {
        environment: [(name.to_owned(), value.to_owned())].into(),
        ..run("init", &["/bin/true"])
    };
    let other = InstanceId::parse(&"b".repeat(32)).unwrap();
    let digest = Digest::parse(&"a".repeat(64)).unwrap();
    let noted = |note| Action::Note { partition: part(), note };
    let twice = FileTemplate { path: "etc/a".into(), mode: 0o640, template: Prepared::verbatim("") };
    let upkeep = Upkeep { services: vec![spec("a", "b")], publish: publication("others"), ..Upkeep::default() };
    let large = Upkeep { environment: [("A".to_owned(), "a".repeat(3 << 20))].into(), ..Upkeep::default() };
    let told = |spoken: Value, text: &str| {
        let (spoken, said) = (serde_json::from_value(spoken).unwrap(), Said { well: true, text: text.into() });
        noted(Note::Told { instance: instance(), spoken, said: Some(said) })
    };
    let reload = |name: &str| ReloadHow::Command(run(name, &["/bin/true"]));
    let occupy = |name: &str, length| Action::Occupy {
        partition: part(),
        instance: instance(),
        secrets: [(name.to_owned(), length)].into(),
    };
    vec![
        // Partitions that there are not.
        Action::Erase { partition: foreign() },
        Action::Free { partition: foreign() },
        Action::Occupy { partition: foreign(), instance: instance(), secrets: BTreeMap::new() },
        Action::StopService { partition: foreign(), service: service("web") },
        // A partition that is not empty.
        Action::Free { partition: part() },
        // Paths.
        file("../outside/x", 0o640),
        file("etc/../../x", 0o640),
        file("/etc/passwd", 0o640),
        file("", 0o640),
        file("etc//x", 0o640),
        file("etc/x\n", 0o640),
        file(&"a/".repeat(600), 0o640),
        Action::WriteFiles { partition: part(), files: vec![twice.clone(), twice] },
        Action::RemoveContent { path: "../occupants".into() },
        Action::RemoveContent { path: "/etc/passwd".into() },
        started(|spec| spec.directory = "../p1".into()),
        started(|spec| spec.directory = "/".into()),
        hook(Run { directory: "../p1".into(), ..run("init", &["/bin/true"]) }),
        // Directories that are no volumes.
        volume(part(), "../etc"),
        volume(part(), "a/b"),
        volume(part(), ""),
        volume(foreign(), "data"),
        noted(Note::Prepared { volumes: "x".repeat(1 << 20) }),
        // Hooks that nobody may ask for, and results that nobody has seen.
        Action::RunAsked { partition: part(), number: 1, run: run("init", &["/bin/true"]) },
        Action::RunAsked { partition: part(), number: 1, run: run("clean", &["/bin/true"]) },
        Action::RunAsked { partition: part(), number: 0, run: run("configure", &["/bin/true"]) },
        Action::RunAsked { partition: part(), number: 1, run: run("configure", &["true"]) },
        Action::RunAsked { partition: foreign(), number: 1, run: run("configure", &["/bin/true"]) },
        noted(Note::RunBegun(plat_agent_plan::RunBegun { number: 9, hook: hook_name(), at: Timestamp(1) })),
        noted(Note::RunOver(over(RunEnd::Exited(0), "exit code 0"))),
        noted(Note::RunOver(over(RunEnd::NotRun, &"x".repeat(1 << 20)))),
        // More than the partition was formatted with.
        Action::Limit { partition: part(), resources: Resources::default() },
        Action::Limit { partition: part(), resources: Resources { processes: Some(257), ..Resources::default() } },
        // Modes.
        file("etc/x", 0o4755),
        file("etc/x", 0o777),
        file("etc/x", 0o2750),
        // Programs, their names and environments.
        hook(run("../../../../tmp/forged", &["/bin/true"])),
        hook(run("promise-p", &["/bin/true"])),
        hook(run("init", &["bin/true"])),
        hook(run("init", &[])),
        hook(run("init", &["/bin/true", "a\0b"])),
        hook(with("A=B", "c")),
        hook(with("", "c")),
        hook(with("A", "c\0")),
        hook(with("PLAT_RUN", "another.p0.web.1")),
        hook(Run { timeout_seconds: u32::MAX, ..run("init", &["/bin/true"]) }),
        started(|spec| spec.command = vec!["sh".into()]),
        started(|spec| spec.stop_timeout_seconds = u32::MAX),
        started(|spec| spec.fingerprint = "f".repeat(10_000)),
        started(|spec| spec.reload = Some(ReloadSpec { how: reload("init"), files: String::new() })),
        Action::Reload { partition: part(), service: service("web"), run: "1".into(), how: reload("../x") },
        checked(Check::Exec(vec!["true".into()]), 5),
        checked(Check::Http(HttpCheck { url: "file:///etc/shadow".into(), status: 200 }), 5),
        checked(Check::Tcp(TcpCheck { address: "::1".into(), port: "1".into() }), u32::MAX),
        // Who is in the partition, and what is his.
        started(|spec| spec.instance = other.clone()),
        Action::WriteFiles {
            partition: part(),
            files: vec![FileTemplate { path: "etc/x".into(), mode: 0o640, template: Prepared::secret("others") }],
        },
        Action::Publish { partition: part(), publication: publication("others") },
        noted(Note::KeptUp(Box::new(upkeep.clone()))),
        noted(Note::Configured { fingerprint: String::new(), upkeep: Box::new(upkeep) }),
        noted(Note::Published(Parameters::parse_json(r#"{"url": "http://elsewhere/"}"#).unwrap())),
        occupy("../x", 24),
        occupy("key", 1 << 30),
        // More than can be remembered.
        started(|spec| drop(spec.environment.insert("A".into(), "a".repeat(3 << 20)))),
        noted(Note::KeptUp(Box::new(large))),
        told(json!({"a": "a".repeat(300_000)}), ""),
        told(json!({}), &"a".repeat(2000)),
        // A release that is another than it is called.
        Action::InstallRelease { digest, document: "{}".into() },
    ]
}

#[tokio::test]
async fn what_no_plan_could_hold_is_refused_and_logged_and_the_host_goes_on() {
    let mut node = Node::new(is_root().then(|| account(UID + 20)));
    node.limits.processes = Some(256);
    node.write_node_file();
    let host = Arc::new(node.occupied().await);
    let outside = remote(&host).await;
    let before = host.observe_partition(&part()).await.unwrap();
    for action in forgeries() {
        let (logs, guard) = Kept::logs();
        let problem = outside.perform(&action).await.expect_err(&format!("{action:?}"));
        drop(guard);
        assert_eq!(problem.code, codes::FORGED, "{action:?}: {problem}");
        assert!(logs.text().contains("refused") && logs.text().contains("P0417"), "{}", logs.text());
        // Whoever has the host in his own process is told the same.
        assert_eq!(host.perform(&action).await.unwrap_err().code, codes::FORGED);
    }
    assert_eq!(host.observe_partition(&part()).await.unwrap(), before, "nothing was done");
    outside.perform(&hook(run("init", &["/bin/true"]))).await.unwrap();
    drop(outside);
    node.done(Arc::into_inner(settled(host).await).unwrap()).await;
}

/// Once nobody else has it: what served it has seen the end of its socket.
pub async fn settled(host: Arc<LinuxHost>) -> Arc<LinuxHost> {
    until("the host is not served any more", async || Arc::strong_count(&host) == 1).await;
    host
}

#[tokio::test]
async fn a_partition_gets_nothing_of_the_instance_in_another_one() {
    let node = Node::new(None);
    let path = node.folder.path().join("node.json");
    let mut file = NodeFile::parse(&fs::read_to_string(&path).unwrap()).unwrap();
    let (p1, other) = (PartitionName::parse("p1").unwrap(), InstanceId::parse(&"b".repeat(32)).unwrap());
    file.partitions.push(NodePartition::bare(p1.clone()));
    fs::write(&path, file.to_json()).unwrap();
    fs::create_dir(node.home().with_file_name("p1")).unwrap();
    let host = Arc::new(node.occupied().await);
    let outside = remote(&host).await;
    let occupy = Action::Occupy { partition: p1.clone(), instance: other.clone(), secrets: BTreeMap::new() };
    outside.perform(&occupy).await.unwrap();
    let begin = |partition: &PartitionName, instance: &InstanceId| {
        let spec = ServiceSpec { instance: instance.clone(), ..spec("web", "exec sleep 600") };
        Action::StartService { partition: partition.clone(), spec }
    };
    let publish = |partition: &PartitionName| Action::Publish {
        partition: partition.clone(),
        publication: publication("password"),
    };
    // The secret is the first one's.
    for action in [begin(&p1, &instance()), begin(&part(), &other), publish(&p1)] {
        let (logs, guard) = Kept::logs();
        let problem = outside.perform(&action).await.expect_err(&format!("{action:?}"));
        drop(guard);
        assert_eq!(problem.code, codes::FORGED, "{action:?}: {problem}");
        assert!(logs.text().contains("refused") && logs.text().contains("P0417"), "{}", logs.text());
    }
    for action in [begin(&part(), &instance()), begin(&p1, &other), publish(&part())] {
        outside.perform(&action).await.unwrap();
    }
    drop(outside);
    for action in [Action::Erase { partition: p1.clone() }, Action::Free { partition: p1 }] {
        host.perform(&action).await.unwrap();
    }
    node.done(Arc::into_inner(settled(host).await).unwrap()).await;
}

#[tokio::test]
async fn a_partitions_directory_that_was_swapped_for_a_link_leads_nowhere() {
    let node = Node::new(None);
    let host = Arc::new(node.occupied().await);
    let (outside, home) = (node.folder.path().join("outside"), node.home());
    fs::create_dir(&outside).unwrap();
    fs::rename(&home, home.with_file_name("moved")).unwrap();
    symlink(&outside, &home).unwrap();
    let captured = remote(&host).await;
    for action in [file("x", 0o640), file("etc/x", 0o640), volume(part(), "data")] {
        let (logs, guard) = Kept::logs();
        let problem = captured.perform(&action).await.unwrap_err();
        drop(guard);
        assert_eq!(problem.code, codes::FILES_FAILED, "{problem}");
        let text = logs.text();
        let line = text.lines().find(|line| line.contains("refused")).unwrap_or_else(|| panic!("not logged: {text}"));
        for word in ["WARN", &action.step(), "P0409", &home.display().to_string()] {
            assert!(line.contains(word), "{word}: {line}");
        }
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
    }
    drop(captured);
    fs::remove_file(&home).unwrap();
    fs::rename(home.with_file_name("moved"), &home).unwrap();
    node.done(Arc::into_inner(settled(host).await).unwrap()).await;
}

fn frame(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes(), text].concat()
}

fn said(value: &Value) -> Vec<u8> {
    frame(value.to_string().as_bytes())
}

#[tokio::test]
async fn who_does_not_keep_to_the_protocol_is_not_served_any_longer_and_the_next_one_is() {
    let node = Node::new(None);
    let host = Arc::new(node.occupied().await);
    let sleep = serde_json::to_value(hook(run("init", &["/bin/sleep", "60"]))).unwrap();
    let call = json!({"Call": {"id": 1, "call": {"Perform": sleep}}});
    let breaches = [
        frame(b"\xff\xfenothing"),
        frame(b"{}"),
        said(&json!({"Call": {"id": 1, "call": "Reboot"}})),
        said(&json!({"Call": {"id": 1, "call": {"Perform": {"RunAsRoot": {"command": ["/bin/sh"]}}}}})),
        said(&json!({"Call": {"id": 1, "call": "Node", "as": "root"}})),
        said(&json!({"Call": {"id": 1, "call": {"Partition": "../p0"}}})),
        said(&json!({"Call": {"id": 1, "call": {"Logs": {"of": {"Release": "../x"}, "lines": 1, "follow": "No"}}}})),
        said(&json!({"Call": {"id": -1, "call": "Node"}})),
        (u32::MAX).to_be_bytes().to_vec(),
        [said(&call), said(&call)].concat(),
    ];
    for breach in breaches {
        let (serving, mut socket, _taking) = served(&host);
        socket.write_all(&breach).await.unwrap();
        let problem = serving.await.unwrap().expect_err(&String::from_utf8_lossy(&breach));
        assert_eq!(problem.code, codes::FORGED, "{problem}");
        assert_eq!(remote(&host).await.node().await.unwrap().partitions.len(), 1);
    }
    // One that ends in the middle of a word, and one that says numbers of calls that it never made.
    let (serving, mut socket, _taking) = served(&host);
    for strange in [json!({"Cancel": {"id": 7}}), json!({"Taken": {"id": 7, "lines": u32::MAX}})] {
        socket.write_all(&said(&strange)).await.unwrap();
    }
    socket.write_all(&[0, 0, 1, 0, b'{']).await.unwrap();
    drop(socket);
    serving.await.unwrap().unwrap_or_else(|problem| assert_eq!(problem.code, codes::FORGED));
    node.done(Arc::into_inner(settled(host).await).unwrap()).await;
}

#[tokio::test]
async fn a_flood_is_held_back_and_others_are_served_meanwhile() {
    let node = Node::new(None);
    let host = Arc::new(node.occupied().await);
    let (serving, mut socket, _taking) = served(&host);
    // Answers that nobody takes: after a while not even questions are taken any more.
    let flood = tokio::spawn(async move {
        for id in 0_u64.. {
            socket.write_all(&said(&json!({"Call": {"id": id, "call": "Node"}}))).await.unwrap();
        }
    });
    for _ in 0..100 {
        assert_eq!(remote(&host).await.node().await.unwrap().partitions.len(), 1);
    }
    assert!(!serving.is_finished() && !flood.is_finished());
    flood.abort();
    serving.await.unwrap().unwrap_or_else(|problem| assert_eq!(problem.code, codes::FORGED));

    // Logs that are followed: more than anybody needs are refused, and said to be.
    let outside = remote(&host).await;
    let asked = LogsAsked { of: LogOf::Services(part(), None), lines: 1, follow: Follow::Yes };
    let mut followed = Vec::new();
    let refused = loop {
        match outside.logs(&asked).await {
            Ok(lines) => followed.push(lines),
            Err(problem) => break problem,
        }
    };
    assert_eq!((refused.code, followed.len()), (codes::TOO_MANY, 256));
    followed.pop();
    until("there is room for another", async || outside.logs(&asked).await.is_ok()).await;
    drop((followed, outside));
    node.done(Arc::into_inner(settled(host).await).unwrap()).await;
}

#[tokio::test]
async fn a_log_comes_whole_to_who_reads_it_slowly_and_a_call_that_nobody_waits_for_ends() {
    let node = Node::new(None);
    let host = Arc::new(node.occupied().await);
    let outside = remote(&host).await;
    let talks = spec("talks", "i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done; exec sleep 600");
    outside.perform(&Action::StartService { partition: part(), spec: talks }).await.unwrap();
    let asked = LogsAsked { of: LogOf::Services(part(), Some(service("talks"))), lines: 10_000, follow: Follow::Yes };
    let mut lines = outside.logs(&asked).await.unwrap();
    for n in 0..2000 {
        assert_eq!(lines.recv().await, Some((service("talks"), n.to_string())));
        // Others are answered while lines wait.
        if n % 500 == 0 {
            outside.observe_partition(&part()).await.unwrap();
        }
    }
    drop(lines);
    let mark = node.home().join("begun");
    let endless = hook(run("init", &["/bin/sh", "-c", "echo $$ > begun; exec sleep 600"]));
    let mut performing = Box::pin(outside.perform(&endless));
    let begun = until("the hook has begun", async || fs::read_to_string(&mark).is_ok_and(|text| text.ends_with('\n')));
    tokio::select! {
        done = &mut performing => panic!("it ended: {done:?}"),
        () = begun => {}
    }
    let pid: u32 = fs::read_to_string(&mark).unwrap().trim().parse().unwrap();
    assert!(alive(pid));
    drop(performing);
    until("the hook is ended", async || !alive(pid)).await;
    drop(outside);
    node.done(Arc::into_inner(settled(host).await).unwrap()).await;
}

/// Passes on what two ends say to each other, and keeps it.
fn overheard(one: UnixStream) -> (UnixStream, Kept) {
    let (inner, outer) = UnixStream::pair().unwrap();
    let kept = Kept::default();
    let (from, to) = (one.into_split(), inner.into_split());
    for (mut from, mut to) in [(from.0, to.1), (to.0, from.1)] {
        let mut kept = kept.clone();
        tokio::spawn(async move {
            let mut bytes = vec![0; 65_536];
            while let Ok(length @ 1..) = from.read(&mut bytes).await {
                io::Write::write_all(&mut kept, &bytes[..length]).unwrap();
                if to.write_all(&bytes[..length]).await.is_err() {
                    return;
                }
            }
        });
    }
    (outer, kept)
}

#[tokio::test]
async fn the_socket_of_an_instance_is_handed_over_and_no_other() {
    let node = Node::new(is_root().then(|| account(UID + 25)));
    let host = Arc::new(node.open().await);
    let outside = remote(&host).await;
    let foreign = PartitionName::parse("part9").unwrap();
    assert!(outside.door(&foreign).await.is_err());
    let own = part();
    let calls = (0..8).map(|_| outside.door(&own));
    let doors: Vec<_> = futures_util::future::join_all(calls).await;
    // The last one made is the one that is there.
    let doors: Vec<_> = doors.into_iter().map(|door| door.unwrap().unwrap()).collect();
    let path = node.home().join("run/plat.sock");
    let dialled = std::os::unix::net::UnixStream::connect(&path).unwrap();
    let taken = doors.iter().filter(|door| rustix::net::accept(door).is_ok()).count();
    assert_eq!(taken, 1);
    drop((dialled, doors, outside));
    node.done(Arc::into_inner(settled(host).await).unwrap()).await;
}

#[tokio::test]
async fn no_secret_leaves_the_host_in_what_is_said_or_logged() {
    let node = Node::new(is_root().then(|| account(UID + 21)));
    let (logs, _guard) = Kept::logs();
    let host = Arc::new(node.open().await);
    let (_, socket, taking) = served(&host);
    let (socket, heard) = overheard(socket);
    let outside = RemoteHost::open(socket, taking).await.unwrap().0;
    let secrets = BTreeMap::from([("password".to_owned(), 24)]);
    let own = FileTemplate { path: "etc/own".into(), mode: 0o400, template: Prepared::secret("password") };
    let upkeep = Upkeep { publish: publication("password"), ..Upkeep::default() };
    let bad = serde_json::from_value(json!({"text": "{{ secrets.password|int }}", "secrets": ["password"]})).unwrap();
    let bad = FileTemplate { path: "etc/bad".into(), mode: 0o640, template: bad };
    let writes = |files| Action::WriteFiles { partition: part(), files };
    let note = Note::Configured { fingerprint: "f".into(), upkeep: Box::new(upkeep) };
    for action in [
        Action::Occupy { partition: part(), instance: instance(), secrets },
        writes(vec![own]),
        hook(run("init", &["/usr/bin/test", "-s", "etc/own"])),
        Action::Note { partition: part(), note },
        Action::StartService { partition: part(), spec: spec("web", "wc -c etc/own; exec sleep 600") },
        checked(Check::Exec(vec!["/usr/bin/wc".into(), "etc/own".into()]), 5),
    ] {
        outside.perform(&action).await.unwrap();
    }
    assert_eq!(outside.perform(&writes(vec![bad])).await.unwrap_err().code, codes::BAD_TEMPLATE);
    outside.observe_partition(&part()).await.unwrap();
    outside.counters(&[part()], Wanted::All).await;
    let asked = LogsAsked { of: LogOf::Services(part(), None), lines: 10, follow: Follow::Yes };
    let mut lines = outside.logs(&asked).await.unwrap();
    assert_eq!(lines.recv().await.unwrap().1, "24 etc/own");
    let secret = fs::read_to_string(node.home().join("etc/own")).unwrap();
    assert!(heard.text().contains("password") && heard.text().contains("24 etc/own"), "all of it is heard");
    assert!(!heard.text().contains(&secret));
    // What is published is the one thing that is meant to be told.
    outside.perform(&Action::Publish { partition: part(), publication: publication("password") }).await.unwrap();
    outside.observe_partition(&part()).await.unwrap();
    assert!(heard.text().contains(&secret));
    assert!(!logs.text().contains(&secret));
    drop((lines, outside));
    node.done(Arc::into_inner(settled(host).await).unwrap()).await;
}

//! Partitions with a network namespace of their own.

use super::*;
use nix::sched::{CloneFlags, setns, unshare};
use std::net::{TcpListener, TcpStream};

/// A network namespace in which the loopback is up, and the file by which it is entered. Both go with their test.
pub struct Namespace {
    mount: Bind,
    _folder: tempfile::TempDir,
}

impl Namespace {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p0");
        fs::write(&file, "").unwrap();
        // A thread that is in it makes it; the mount keeps it when the thread has ended.
        let made = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
            assert!(up.success());
            Bind::new(Path::new("/proc/thread-self/ns/net"), &file)
        });
        Self { mount: made.join().unwrap(), _folder: folder }
    }

    pub fn file(&self) -> &Path {
        &self.mount.0
    }

    /// As the kernel shows it to those who are in it.
    fn shown(&self) -> String {
        format!("net:[{}]", fs::metadata(self.file()).unwrap().ino())
    }

    /// A server inside that answers every request with `status`.
    fn serve(&self, address: (&str, u16), status: u16) {
        let bound = std::thread::scope(|threads| {
            let inside = threads.spawn(|| {
                setns(fs::File::open(self.file()).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
                TcpListener::bind(address).unwrap()
            });
            inside.join().unwrap()
        });
        answer(bound, status);
    }
}

fn answer(server: TcpListener, status: u16) {
    std::thread::spawn(move || {
        for mut stream in server.incoming().flatten() {
            let _ = std::io::Read::read(&mut stream, &mut [0; 1024]);
            let _ = write!(stream, "HTTP/1.1 {status} Here\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
}

fn shell(script: &str) -> Vec<String> {
    vec!["/bin/sh".into(), "-c".into(), script.into()]
}

fn hook(script: &str) -> Action {
    let environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
    let run =
        Run { name: "init".into(), command: shell(script), environment, directory: String::new(), timeout_seconds: 10 };
    Action::RunHook { partition: part(), run }
}

fn promise(name: &str) -> PromiseName {
    PromiseName::parse(name).unwrap()
}

fn check(name: &str, check: Check) -> Action {
    let environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
    Action::CheckPromise {
        partition: part(),
        promise: promise(name),
        of: String::new(),
        check,
        timeout_seconds: 5,
        environment,
    }
}

fn http(port: u16, status: u16) -> Check {
    Check::Http(HttpCheck { url: format!("http://127.0.0.1:{port}/"), status })
}

fn tcp(port: u16) -> Check {
    Check::Tcp(TcpCheck { address: "127.0.0.1".into(), port: port.to_string() })
}

async fn asked(host: &LinuxHost, of: Check) -> (bool, String) {
    host.perform(&check("asked", of)).await.unwrap();
    let fact = host.observe_partition(&part()).await.unwrap().promises[&promise("asked")].clone();
    (fact.holds, fact.message)
}

fn own_namespace() -> String {
    fs::read_link("/proc/self/ns/net").unwrap().display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_hooks_and_programs_of_promises_run_in_the_partitions_network_namespace() {
    if !root_is_here() {
        return;
    }
    let inside = Namespace::new();
    let mut node = Node::new(Some(account(UID + 30)));
    node.namespace = Some(inside.file().to_owned());
    node.write_node_file();
    let host = node.occupied().await;
    assert_ne!(inside.shown(), own_namespace());

    start(&host, &spec("web", "sleep 600 & exec sleep 600")).await.unwrap();
    let pid = running(&fact(&host, "web").await);
    assert_eq!(fs::read_link(format!("/proc/{pid}/ns/net")).unwrap(), Path::new(&inside.shown()));
    let shim = node.service_state("web")["shim"]["pid"].as_u64().unwrap();
    assert_eq!(fs::read_link(format!("/proc/{shim}/ns/net")).unwrap(), Path::new(&own_namespace()));

    host.perform(&hook("readlink /proc/self/ns/net > seen; tail -n +3 /proc/net/dev > devices; id -u > user"))
        .await
        .unwrap();
    let read = |name: &str| fs::read_to_string(node.home().join(name)).unwrap();
    assert_eq!(read("seen").trim(), inside.shown());
    assert_eq!(read("user").trim(), (UID + 30).to_string());
    let devices = read("devices");
    assert!(devices.lines().count() >= 1 && !devices.contains("eth0"), "{devices}");

    let (holds, message) = asked(&host, Check::Exec(shell("readlink /proc/self/ns/net"))).await;
    assert!(holds);
    assert_eq!(message, inside.shown());
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_a_network_namespace_is_heard_from_inside_it() {
    if !root_is_here() {
        return;
    }
    let inside = Namespace::new();
    let mut node = Node::new(Some(account(UID + 31)));
    node.namespace = Some(inside.file().to_owned());
    node.write_node_file();
    let host = node.occupied().await;
    // It ends by itself once its word has reached somebody, and not before.
    let script = r#"exec perl -MSocket -e '
        my $to = $ENV{NOTIFY_SOCKET}; $to =~ s/^@/\0/;
        socket(my $socket, AF_UNIX, SOCK_DGRAM, 0) or die;
        defined send($socket, "WATCHDOG=1", 0, pack_sockaddr_un($to)) or die "cannot say it: $!";'"#;
    start(&host, &ServiceSpec { watchdog_seconds: Some(60), ..spec("web", script) }).await.unwrap();
    assert_eq!(ended(&host, "web").await.last_exit, "exit code 0");
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promises_are_asked_over_the_network_from_inside_the_partitions_namespace() {
    if !root_is_here() {
        return;
    }
    let inside = Namespace::new();
    let mut node = Node::new(Some(account(UID + 31)));
    node.namespace = Some(inside.file().to_owned());
    node.write_node_file();
    let host = node.occupied().await;
    // The same address and port, outside and inside: who answers tells where the question was asked.
    let outside = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = outside.local_addr().unwrap().port();
    answer(outside, 202);
    assert!(!asked(&host, tcp(port)).await.0, "what listens outside is not reached");
    assert!(!asked(&host, http(port, 202)).await.0);
    inside.serve(("127.0.0.1", port), 201);
    let (holds, message) = asked(&host, tcp(port)).await;
    assert!(holds, "{message}");
    let (holds, message) = asked(&host, http(port, 201)).await;
    assert!(holds, "{message}");
    let mut from_outside = TcpStream::connect(("127.0.0.1", port)).unwrap();
    from_outside.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut from_outside, &mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 202"), "what listens inside is not reached from outside: {said}");
    node.done(host).await;
}

/// Everything that would run or be asked fails, and says so.
async fn nothing_runs(host: &LinuxHost, why: &str) {
    let started = host.perform(&Action::StartService { partition: part(), spec: spec("late", "exec sleep 600") }).await;
    let ran = host.perform(&hook("touch ran")).await;
    let checks = [Check::Exec(shell("touch ran")), tcp(1), http(1, 200)];
    let asked = futures_util::future::join_all(checks.map(async |of| host.perform(&check("asked", of)).await)).await;
    for result in [started, ran].into_iter().chain(asked) {
        let problem = result.unwrap_err();
        assert_eq!(problem.code, codes::NO_NAMESPACE, "{problem}");
        assert!(problem.why.contains(why) && problem.todo.contains("node-format apply"), "{problem}");
    }
    assert!(matches!(fact(host, "late").await.state, ServiceRun::Ended { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_network_namespace_nothing_of_a_partition_runs_and_what_runs_goes_on() {
    if !root_is_here() {
        return;
    }
    let inside = Namespace::new();
    let mut node = Node::new(Some(account(UID + 32)));
    let file = node.folder.path().join("netns");
    fs::write(&file, "").unwrap();
    let mounted = Bind::new(inside.file(), &file);
    node.namespace = Some(file.clone());
    node.write_node_file();
    let host = node.occupied().await;
    let web = spec("web", "exec sleep 600");
    start(&host, &web).await.unwrap();
    let pid = running(&fact(&host, "web").await);

    drop(mounted);
    nothing_runs(&host, "not a network namespace").await;
    let of_another_kind = Bind::new(Path::new("/proc/self/ns/uts"), &file);
    nothing_runs(&host, "not a network namespace").await;
    drop(of_another_kind);
    fs::remove_file(&file).unwrap();
    nothing_runs(&host, "No such file").await;
    // A link, though it leads to the very namespace.
    symlink(inside.file(), &file).unwrap();
    nothing_runs(&host, "symbolic link").await;
    assert!(!node.home().join("ran").exists());

    // The next agent finds the service as it was.
    drop(host);
    let host = node.open().await;
    start(&host, &web).await.unwrap();
    assert_eq!(running(&fact(&host, "web").await), pid);
    assert_eq!(fs::read_link(format!("/proc/{pid}/ns/net")).unwrap(), Path::new(&inside.shown()));
    fs::remove_file(&file).unwrap();
    fs::write(&file, "").unwrap();
    let _mounted = Bind::new(inside.file(), &file);
    start(&host, &spec("late", "exec sleep 600")).await.unwrap();
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_the_agent_may_not_enter_is_a_problem_too() {
    if is_root() {
        return;
    }
    let mut node = Node::new(None);
    node.namespace = Some("/proc/self/ns/net".into());
    node.write_node_file();
    let host = node.occupied().await;
    assert_eq!(host.perform(&hook("true")).await.unwrap_err().code, codes::NO_NAMESPACE);
    node.done(host).await;
}

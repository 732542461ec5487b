//! Builds that are hostile: what they try fails, and the release says so with their last lines.

use super::cache::open_with;
use super::*;
use plat_agent::config::{BuildLimits, ReleaseSettings};
use std::net::TcpListener;

/// A node that builds, elsewhere than where each build has a folder of its own.
struct Yard {
    node: Node,
    settings: ReleaseSettings,
}

impl Yard {
    fn new(builder: Option<u32>) -> Self {
        let parent = if is_root() { Path::new("/var/lib") } else { Path::new(env!("CARGO_TARGET_TMPDIR")) };
        let folder = tempfile::Builder::new().prefix("plat-test-").tempdir_in(parent).unwrap();
        let mut node = Node::at(folder, None);
        node.builder = builder.filter(|_| is_root()).map(account);
        node.write_node_file();
        Self { node, settings: ReleaseSettings::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.node.folder.path().join(name)
    }

    /// A folder that everybody may write to.
    fn open_folder(&self, path: &Path) -> String {
        fs::create_dir_all(path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        fs::write(path.join("secret"), "of somebody").unwrap();
        fs::set_permissions(path.join("secret"), fs::Permissions::from_mode(0o666)).unwrap();
        path.display().to_string()
    }

    async fn builds(&self, script: &str, network: bool) -> Result<(), Problem> {
        let host = open_with(&self.node, &self.settings).await;
        let build =
            serde_json::json!({"commands": [["bash", "-ec", script]], "timeout_seconds": 120, "network": network});
        let sources = archive(&self.node, &tar(&[("a/x", "x", tar::EntryType::Regular)]));
        install(&host, &whole(serde_json::json!({"sources": sources, "build": build}))).await.1
    }

    /// It fails, and one of these is among its last lines.
    async fn fails(&self, script: &str, why: &[&str]) {
        let problem = self.builds(script, false).await.expect_err(script);
        assert_eq!(
            (problem.code, problem.at.as_str()),
            (codes::BUILD_FAILED, "build.commands[0]"),
            "{script}: {problem}"
        );
        assert!(why.iter().any(|why| problem.why.contains(why)), "{script}: {problem}");
    }
}

const DENIED: [&str; 3] = ["Permission denied", "not permitted", "Read-only file system"];

#[tokio::test(flavor = "multi_thread")]
async fn a_build_has_what_it_needs() {
    let yard = Yard::new(Some(UID + 120));
    let script = "mkdir d; echo x > d/file; mv d/file .; ln file other; chmod +x file; bash --version > /dev/null; \
        echo x > /tmp/a; mv /tmp/a /tmp/b; echo x > /var/tmp/a; echo x > /dev/shm/a; cat /etc/passwd > /dev/null; \
        grep -q 127.0.0.1 /proc/net/fib_trie; sleep 0.01 & wait $!";
    yard.builds(script, false).await.unwrap_or_else(|p| panic!("{p}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_gains_no_rights_and_what_it_asks_of_the_kernel_is_filtered() {
    let yard = Yard::new(Some(UID + 138));
    let script =
        "tr -d '\\t' < /proc/self/status > status; cat status; grep -x NoNewPrivs:1 status; grep -x Seccomp:2 status";
    yard.builds(script, false).await.unwrap_or_else(|p| panic!("{p}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_reaches_the_network_only_if_its_release_says_so() {
    let yard = Yard::new(Some(UID + 121));
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let dial = format!("exec 3<>/dev/tcp/127.0.0.1/{}", server.local_addr().unwrap().port());
    server.set_nonblocking(true).unwrap();
    yard.fails(&dial, &["Connection refused", "not permitted"]).await;
    assert!(server.accept().is_err(), "somebody dialled");
    yard.builds(&dial, true).await.unwrap_or_else(|p| panic!("{p}"));
    assert!(server.accept().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_writes_nowhere_but_into_its_release() {
    let yard = Yard::new(Some(UID + 122));
    let place = yard.open_folder(&yard.path("open"));
    yard.fails(&format!("echo x > {place}/new"), &DENIED).await;
    yard.fails(&format!("echo x >> {place}/secret"), &DENIED).await;
    yard.fails(&format!("rm -f {place}/secret"), &DENIED).await;
    yard.fails("echo x > /etc/plat-was-here", &DENIED).await;
    yard.fails("echo x > ~root/plat-was-here", &DENIED).await;
    assert_eq!(fs::read_to_string(yard.path("open/secret")).unwrap(), "of somebody");
    assert!(!yard.path("open/new").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_folders_are_a_builds_own() {
    let yard = Yard::new(Some(UID + 123));
    let mine = tempfile::NamedTempFile::new_in("/tmp").unwrap();
    let path = mine.path().display();
    let name = mine.path().file_name().unwrap().display();
    let script =
        format!("[ ! -e {path} ]; echo x > {path}-its; echo x > /var/tmp/{name}-its; echo x > /dev/shm/{name}-its");
    yard.builds(&script, false).await.unwrap_or_else(|p| panic!("{p}"));
    let is_there = |folder: &str| Path::new(folder).join(format!("{name}-its")).exists();
    assert_eq!(["/tmp", "/var/tmp", "/dev/shm"].map(is_there), [false; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_sees_neither_partitions_nor_what_is_the_agents() {
    let yard = Yard::new(Some(UID + 124));
    let (partition, state) = (yard.open_folder(&yard.node.home()), yard.open_folder(&yard.node.state()));
    let hidden = ["No such file", "Permission denied"];
    yard.fails(&format!("cat {partition}/secret"), &hidden).await;
    yard.fails(&format!("cat {state}/secret"), &hidden).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_forks_without_end_comes_to_one() {
    if !root_is_here() {
        return;
    }
    let mut yard = Yard::new(Some(UID + 125));
    yard.settings.build = BuildLimits { processes: 40, ..BuildLimits::default() };
    let script = "for i in $(seq 100); do sleep 100 & done; wait";
    yard.fails(script, &["Resource temporarily unavailable"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fills_the_disk_or_the_memory_is_ended() {
    let mut yard = Yard::new(Some(UID + 126));
    yard.settings.build = BuildLimits { disk: 16 << 20, memory: 256 << 20, ..BuildLimits::default() };
    yard.fails("head -c 30M /dev/zero > x", &["File size limit exceeded", "File too large"]).await;
    let many = "n=0; while true; do n=$((n+1)); head -c 1M /dev/zero > f$((n % 64)); done";
    yard.fails(many, &["it wrote more than 16 MiB"]).await;
    yard.fails("x=$(head -c 400M /dev/zero | tr '\\0' x); echo $x | wc -c", &["cannot allocate", "SIGKILL"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_a_build_is_told_as_failed_the_room_it_took_is_there_again() {
    let yard = Yard::new(Some(UID + 127));
    yard.fails("for n in $(seq 3000); do echo x > f$n; done; echo no more; exit 1", &["no more"]).await;
    let node = fs::read_to_string(yard.path("node.json")).unwrap();
    let releases = NodeFile::parse(&node).unwrap().releases;
    let left = fs::read_dir(releases).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(left.filter(|name| name.starts_with(".unfinished")).collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_does_nothing_to_processes_that_are_not_its_own() {
    // As who this test is: what keeps it from them is not that they are another user's.
    let yard = Yard::new(None);
    let this = std::process::id();
    yard.fails(&format!("kill -0 {this}"), &DENIED).await;
    yard.fails("kill -0 $PPID", &DENIED).await;
    yard.fails(&format!("head -c 1 /proc/{this}/mem"), &DENIED).await;
    yard.builds("sleep 100 & kill $!", false).await.unwrap_or_else(|p| panic!("{p}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_makes_no_program_that_gives_rights_and_no_namespace() {
    let yard = Yard::new(Some(UID + 127));
    yard.fails("cp /bin/true t; chmod u+s t", &DENIED).await;
    yard.fails("cp /bin/true t; chmod 2755 t", &DENIED).await;
    yard.fails("umask 0; install -m 4755 /bin/true t", &DENIED).await;
    yard.fails("unshare --user true", &DENIED).await;
    yard.fails("unshare --user --map-root-user mount -t tmpfs none .", &DENIED).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_is_hidden_where_it_really_is_or_nothing_is_built() {
    if !root_is_here() {
        return;
    }
    let mut yard = Yard::new(Some(UID + 128));
    let storage = yard.open_folder(&yard.path("disk"));
    symlink(&storage, yard.path("storage")).unwrap();
    yard.node.storage = vec![yard.path("storage"), yard.path("of/tomorrow")];
    yard.node.write_node_file();
    let hidden = ["No such file", "Permission denied"];
    yard.fails(&format!("cat {storage}/secret"), &hidden).await;
    yard.fails(&format!("cat {}/secret", yard.path("storage").display()), &hidden).await;
    yard.builds("true", false).await.unwrap_or_else(|p| panic!("{p}"));
    // One over which nothing can be mounted.
    fs::write(yard.path("of"), "a file").unwrap();
    yard.node.storage = vec![yard.path("of")];
    yard.node.write_node_file();
    let problem = yard.builds("echo again", false).await.unwrap_err();
    assert!(problem.to_string().contains("cannot be hidden"), "{problem}");
}

/// Processes that wait so long.
fn sleeping(seconds: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let line = format!("sleep\0{seconds}\0");
    pids.filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|read| read == line.as_bytes())).collect()
}

/// A build that has no end is ended, with all that it started.
async fn ends_late(builder: Option<u32>, seconds: u32) {
    let mut yard = Yard::new(builder);
    yard.settings.build = BuildLimits { longest_seconds: 10, ..BuildLimits::default() };
    let script = format!("setsid sleep {seconds} & (trap '' TERM; sleep {seconds}) & sleep {seconds}");
    let begun = until("all of it runs", async || sleeping(seconds).len() >= 3);
    let (done, ()) = tokio::join!(yard.builds(&script, false), begun);
    assert_eq!(sleeping(seconds), [0; 0], "it is reported when nothing is left");
    assert_eq!(done.unwrap_err().code, codes::STALLED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_takes_too_long_is_over_when_that_is_told() {
    if root_is_here() {
        ends_late(Some(UID + 129), 612_301).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_is_one_of_whoever_the_agent_is() {
    ends_late(None, 612_302).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_are_laid_by_whoever_sees_no_more_than_a_build_and_what_the_release_names() {
    if !root_is_here() {
        return;
    }
    let yard = Yard::new(Some(UID + 130));
    let host = yard.node.open().await;
    let of = |path: &Path| whole(serde_json::json!({"sources": {"app": {"directory": {"path": path}}}}));
    // In homes nothing else is there; partitions and what is the agent's are not there at all.
    let home = tempfile::Builder::new().prefix("plat-test-").tempdir_in("/home").unwrap();
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
    yard.open_folder(&home.path().join("app"));
    let (digest, done) = install(&host, &of(&home.path().join("app"))).await;
    done.unwrap_or_else(|p| panic!("{p}"));
    let laid = yard.path("releases").join(digest.as_str());
    assert_eq!(fs::read_to_string(laid.join("secret")).unwrap(), "of somebody");
    // Nor what is beneath a folder of somebody's that is closed to it, by whatever way.
    yard.open_folder(&home.path().join("theirs/other"));
    fs::set_permissions(home.path().join("theirs"), fs::Permissions::from_mode(0o700)).unwrap();
    symlink("theirs/other", home.path().join("link")).unwrap();
    for name in ["theirs/other", "link"] {
        let problem = install(&host, &of(&home.path().join(name))).await.1.expect_err(name);
        assert_eq!(problem.code, codes::SOURCE_FETCH, "{name}: {problem}");
    }
    fs::set_permissions(yard.node.home(), fs::Permissions::from_mode(0o755)).unwrap();
    yard.open_folder(&yard.node.home().join("app"));
    let problem = install(&host, &of(&yard.node.home().join("app"))).await.1.unwrap_err();
    assert!(problem.code == codes::SOURCE_FETCH && problem.why.contains("No such file"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_programs_that_fetch_reach_nothing_of_partitions() {
    if !root_is_here() {
        return;
    }
    let yard = Yard::new(Some(UID + 131));
    let host = yard.node.open().await;
    let repository = super::sources::Repository::new(&yard.node);
    repository.write("a", "x");
    let commit = repository.commit();
    let of = |path: &Path| {
        let source = serde_json::json!({"app": {"git": {"url": path, "commit": commit}}});
        whole(serde_json::json!({"sources": source}))
    };
    install(&host, &of(&yard.path("repository"))).await.1.unwrap_or_else(|p| panic!("{p}"));
    fs::set_permissions(yard.node.home(), fs::Permissions::from_mode(0o755)).unwrap();
    let hidden = yard.node.home().join("repository");
    fs::rename(yard.path("repository"), &hidden).unwrap();
    let problem = install(&host, &of(&hidden)).await.1.unwrap_err();
    assert_eq!(problem.code, codes::SOURCE_FETCH, "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_has_so_much_memory_in_all_where_the_node_limits_memory() {
    if !root_is_here() {
        return;
    }
    let mut yard = Yard::new(Some(UID + 132));
    yard.settings.build = BuildLimits { memory: 192 << 20, ..BuildLimits::default() };
    // Three processes that each have less hold it at once.
    let script = "perl -e 'pipe R, W; pipe S, T; for (1..3) { next if fork; close T; my $x = \"x\" x (100_000_000 + $$); \
        syswrite W, \"r\"; close W; sysread S, my $all, 1; exit 0 } \
        close W; sysread R, my $ready, 1 for 1..3; close T; my $bad = 0; for (1..3) { wait; $bad |= $? } exit !!$bad'";
    let limits = yard.node.open().await.enforces().memory;
    let built = yard.builds(script, false).await;
    assert_eq!(built.is_err(), limits, "{built:?}");
}

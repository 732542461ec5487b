//! The node's cache, with servers on loopback.

use super::sources::{builds, laid};
use super::web::{Answer, Asked, Web};
use super::*;
use plat_agent::config::{BuildLimits, ReleaseSettings};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

pub async fn open_with(node: &Node, settings: &ReleaseSettings) -> LinuxHost {
    let config = LinuxConfig {
        state: node.state(),
        node_file: node.folder.path().join("node.json"),
        executable: env!("CARGO_BIN_EXE_plat-agent").into(),
        network: Default::default(),
        clock: Arc::new(plat_agent::clock::SystemClock),
        runtime: plat_agent::config::Runtime::Shim,
    };
    LinuxHost::open_with(config, settings).await.unwrap()
}

/// A tar archive of a file `x` that compresses badly, of this many bytes and more.
pub fn large(seed: usize, size: usize) -> Vec<u8> {
    let text: String = (0..size / 8).map(|n| format!("{:08x}", (n * 2_654_435_761 + seed) & 0xffff_ffff)).collect();
    tar(&[("a/x", &text, tar::EntryType::Regular)])
}

pub fn source(url: &str, bytes: &[u8]) -> serde_json::Value {
    serde_json::json!({"archive": {"url": url, "sha256": hex(bytes), "strip": 1}})
}

pub fn entry(node: &Node, bytes: &[u8]) -> PathBuf {
    node.state().join("host/cache/sha256").join(hex(bytes))
}

pub fn partial(node: &Node, bytes: &[u8]) -> PathBuf {
    node.state().join("host/cache/partial").join(format!("sha256-{}", hex(bytes)))
}

pub fn log(node: &Node, digest: &Digest) -> String {
    fs::read_to_string(node.state().join(format!("host/releases/{digest}.log"))).unwrap()
}

/// Answers as a server does that knows ranges and versions.
fn ranged(asked: &Asked, bytes: &[u8], tag: &str) -> Answer {
    let begin = asked.headers.get("range").and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-'));
    let same = asked.headers.get("if-range").is_none_or(|wanted| wanted == tag);
    let headers = vec![("etag", tag.to_owned())];
    match begin.filter(|_| same).map(|begin| begin.parse::<usize>().unwrap()) {
        Some(begin) => {
            let range = ("content-range", format!("bytes {begin}-{}/{}", bytes.len() - 1, bytes.len()));
            Answer { status: 206, headers: [headers, vec![range]].concat(), ..Answer::of(&bytes[begin..]) }
        }
        None => Answer { headers, ..Answer::of(bytes) },
    }
}

fn cut(mut answer: Answer) -> Answer {
    answer.claimed = Some(answer.body.len());
    answer.body.truncate(answer.body.len() / 2);
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_goes_on_where_it_stopped() {
    let (node, host) = builds(UID + 70).await;
    let bytes = large(1, 300_000);
    let (served, ranges) = (bytes.clone(), Arc::new(Mutex::new(Vec::new())));
    let heard = ranges.clone();
    let web = Web::serve(move |asked| {
        let mut heard = heard.lock().unwrap();
        let told = |name: &str| asked.headers.get(name).cloned().unwrap_or_default();
        heard.push((told("range"), told("if-range")));
        match heard.len() {
            1 => cut(ranged(asked, &served, "\"one\"")),
            2 => Answer { status: 503, ..Answer::of("later") },
            _ => ranged(asked, &served, "\"one\""),
        }
    });
    let url = format!("{}/x.tar", web.url);
    let problem = laid(&node, &host, source(&url, &bytes)).await.unwrap_err();
    assert_eq!((problem.code, problem.at.as_str()), (codes::SOURCE_FETCH, "sources.app"));
    assert!(problem.why.contains("503"), "{problem}");
    let half = fs::metadata(partial(&node, &bytes)).unwrap().len();
    assert_eq!(half, bytes.len() as u64 / 2);
    // Another agent goes on with it.
    drop(host);
    let host = node.open().await;
    let folder = laid(&node, &host, source(&url, &bytes)).await.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(fs::read(folder.join("x")).unwrap().len(), 300_000);
    let rest = (format!("bytes={half}-"), "\"one\"".to_owned());
    assert_eq!(*ranges.lock().unwrap(), [(String::new(), String::new()), rest.clone(), rest]);
    assert!(!partial(&node, &bytes).exists() && fs::metadata(entry(&node, &bytes)).unwrap().mode() & 0o777 == 0o444);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_knows_no_ranges_or_has_another_version_begins_anew() {
    let (node, host) = builds(UID + 71).await;
    let bytes = large(2, 100_000);
    let (served, asked) = (bytes.clone(), AtomicUsize::new(0));
    let web = Web::serve(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => cut(Answer::of(served.clone())),
        _ => Answer::of(served.clone()),
    });
    laid(&node, &host, source(&format!("{}/x", web.url), &bytes)).await.unwrap_or_else(|p| panic!("{p}"));
    // What is here in part may be of something else altogether.
    let bytes = large(3, 100_000);
    fs::write(partial(&node, &bytes), "not the beginning of it").unwrap();
    let served = bytes.clone();
    let web = Web::serve(move |asked| ranged(asked, &served, "\"two\""));
    laid(&node, &host, source(&format!("{}/x", web.url), &bytes)).await.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(web.asked().len(), 2);
    // Or longer than all of it.
    let bytes = large(4, 10_000);
    fs::write(partial(&node, &bytes), large(5, 50_000)).unwrap();
    let served = bytes.clone();
    let web = Web::serve(move |asked| match asked.headers.contains_key("range") {
        true => Answer { status: 416, ..Answer::nothing() },
        false => Answer::of(served.clone()),
    });
    laid(&node, &host, source(&format!("{}/x", web.url), &bytes)).await.unwrap_or_else(|p| panic!("{p}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_one_release_are_fetched_side_by_side_as_nobody() {
    let (node, host) = builds(UID + 72).await;
    let cache = node.state().canonicalize().unwrap().join("host/cache/partial");
    let all: Vec<Vec<u8>> = (0..3).map(|n| large(n, 1000)).collect();
    let files: BTreeMap<String, Vec<u8>> =
        all.iter().map(|bytes| (format!("/{}", hex(bytes)), bytes.clone())).collect();
    let here = Arc::new((Mutex::new(0), Condvar::new()));
    let (gate, seen) = (here.clone(), Arc::new(Mutex::new(Vec::new())));
    let users = seen.clone();
    let web = Web::serve(move |asked| {
        // Nobody is answered before all have asked.
        let (count, changed) = &*gate;
        let mut count = count.lock().unwrap();
        *count += 1;
        changed.notify_all();
        let (count, late) = changed.wait_timeout_while(count, Duration::from_secs(20), |count| *count < 3).unwrap();
        assert!(!late.timed_out(), "only {count} have asked");
        users.lock().unwrap().extend(fetchers(&cache));
        Answer::of(files[&asked.path].clone())
    });
    let sources: serde_json::Map<_, _> = all
        .iter()
        .enumerate()
        .map(|(n, bytes)| {
            let mut source = source(&format!("{}/{}", web.url, hex(bytes)), bytes);
            source["archive"]["into"] = format!("s{n}").into();
            (format!("s{n}"), source)
        })
        .collect();
    let (_, done) = install(&host, &document(sources.into(), &[])).await;
    done.unwrap_or_else(|p| panic!("{p}"));
    if is_root() {
        let seen = seen.lock().unwrap();
        assert!(seen.contains(&65534) && seen.iter().all(|uid| [0, 65534].contains(uid)), "{seen:?}");
    }
}

/// Users of the processes that ask servers for this node: what they write is in its cache. The agent's own, which wait for
/// them, hold those files too.
fn fetchers(cache: &Path) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|path| path.starts_with(cache))
    };
    let user = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().next()?.parse::<u32>().ok())
    };
    pids.filter(holds).filter_map(user).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_releases_need_is_fetched_once() {
    let (_node, host) = builds(UID + 73).await;
    let bytes = large(6, 200_000);
    let web = Web::of(BTreeMap::from([("/x".to_owned(), bytes.clone()), ("/y".to_owned(), bytes.clone())]));
    let of = |path: &str, command: &str| {
        document(serde_json::json!({"app": source(&format!("{}/{path}", web.url), &bytes)}), &[&["sh", "-c", command]])
    };
    let (one, two) = (of("x", "true"), of("y", "exit 0"));
    let (one, two) = tokio::join!(install(&host, &one), install(&host, &two));
    one.1.unwrap();
    two.1.unwrap();
    assert_eq!(web.asked().len(), 1, "{:?}", web.asked());
    // With the server gone, a third.
    let gone = document(serde_json::json!({"app": source("http://127.0.0.1:9/x", &bytes)}), &[]);
    install(&host, &gone).await.1.unwrap_or_else(|p| panic!("{p}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_in_the_cache_is_fetched_again() {
    let (node, host) = builds(UID + 74).await;
    let bytes = large(7, 50_000);
    let web = Web::of(BTreeMap::from([("/x".to_owned(), bytes.clone())]));
    let url = format!("{}/x", web.url);
    laid(&node, &host, source(&url, &bytes)).await.unwrap();
    let path = entry(&node, &bytes);
    let mut damaged = bytes.clone();
    damaged[40_000] ^= 1;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, &damaged).unwrap();
    let again = document(serde_json::json!({"app": source(&url, &bytes)}), &[&["true"]]);
    let (digest, done) = install(&host, &again).await;
    done.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(web.asked().len(), 2);
    assert_eq!(fs::read(path).unwrap(), bytes);
    assert!(log(&node, &digest).contains("was damaged in the cache"), "{}", log(&node, &digest));
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_asked_first_and_cannot_deceive() {
    let (node, host) = builds(UID + 75).await;
    drop(host);
    let (near, far) = (large(8, 20_000), large(9, 20_000));
    let path = |bytes: &[u8]| format!("/sha256/{}", hex(bytes));
    let lies = BTreeMap::from([(path(&near), far.clone()), (path(&far), b"something else".to_vec())]);
    let (liar, empty) = (Web::of(lies), Web::of(BTreeMap::new()));
    let shelf = node.folder.path().join("mirror");
    fs::create_dir_all(shelf.join("sha256")).unwrap();
    fs::write(shelf.join("sha256").join(hex(&near)), &near).unwrap();
    let upstream = Web::of(BTreeMap::from([("/near".to_owned(), near.clone()), ("/far".to_owned(), far.clone())]));
    let settings = ReleaseSettings {
        mirrors: vec![liar.url.clone(), format!("{}/", empty.url), shelf.display().to_string()],
        ..ReleaseSettings::default()
    };
    let host = open_with(&node, &settings).await;
    for bytes in [&near, &far] {
        let name = if bytes == &near { "near" } else { "far" };
        let folder = laid(&node, &host, source(&format!("{}/{name}", upstream.url), bytes)).await;
        assert!(folder.unwrap_or_else(|p| panic!("{p}")).join("x").exists());
    }
    assert_eq!(upstream.asked(), ["/far"]);
    assert_eq!(empty.asked(), [path(&near), path(&far)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_given_up_for_the_next() {
    let (node, host) = builds(UID + 76).await;
    drop(host);
    let bytes = large(10, 10_000);
    let upstream = Web::of(BTreeMap::from([("/x".to_owned(), bytes.clone())]));
    // It accepts, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = ReleaseSettings {
        mirrors: vec![format!("http://{}", silent.local_addr().unwrap())],
        silence: Duration::from_secs(1),
        ..ReleaseSettings::default()
    };
    let host = open_with(&node, &settings).await;
    let began = Instant::now();
    laid(&node, &host, source(&format!("{}/x", upstream.url), &bytes)).await.unwrap_or_else(|p| panic!("{p}"));
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

/// Installs the second while the first one's command runs, which is let go when `is_done` says so.
async fn beside(node: &Node, host: &LinuxHost, texts: [&str; 2], is_done: impl AsyncFnMut() -> bool) {
    let [first, second] = texts;
    let digest = Digest::parse(&hex(first.as_bytes())).unwrap();
    let second = async {
        until("the first one's command runs", async || {
            matches!(host.observe_release(&digest).await, ReleaseFact::Building(what) if what.starts_with("running"))
        })
        .await;
        install(host, second).await.1
    };
    let done = async {
        until("the second one has come so far", is_done).await;
        go_on(node, &digest);
    };
    let (first, second, ()) = tokio::join!(install(host, first), second, done);
    first.1.unwrap();
    second.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn fetching_waits_for_nobodys_build() {
    let (node, host) = builds(UID + 77).await;
    let slow = document(archive(&node, &large(11, 1000)), &[&["sh", "-c", WAIT]]);
    let bytes = large(12, 1000);
    let web = Web::of(BTreeMap::from([("/x".to_owned(), bytes.clone())]));
    let quick = document(serde_json::json!({"app": source(&format!("{}/x", web.url), &bytes)}), &[&["true"]]);
    beside(&node, &host, [&slow, &quick], async || entry(&node, &bytes).exists()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_only_unpacked_waits_for_nobodys_build_and_is_sealed() {
    let (node, host) = builds(UID + 116).await;
    let slow = document(archive(&node, &large(11, 1000)), &[&["sh", "-c", WAIT]]);
    let bytes = large(15, 1000);
    let web = Web::of(BTreeMap::from([("/x".to_owned(), bytes.clone())]));
    let quick = document(serde_json::json!({"app": source(&format!("{}/x", web.url), &bytes)}), &[]);
    let digest = Digest::parse(&hex(quick.as_bytes())).unwrap();
    let is_there = async || host.observe_release(&digest).await == ReleaseFact::Installed;
    beside(&node, &host, [&slow, &quick], is_there).await;
    let folder = node.folder.path().join("releases").join(digest.as_str());
    for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap()) {
        assert!(entry.uid() == nix::unistd::geteuid().as_raw() && entry.mode() & 0o222 == 0 || entry.is_dir());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_a_build_does_not_pass_while_it_waits_for_another() {
    if !root_is_here() {
        return;
    }
    let (node, host) = builds(UID + 117).await;
    drop(host);
    let build = BuildLimits { longest_seconds: 8, ..BuildLimits::default() };
    let host = open_with(&node, &ReleaseSettings { build, ..ReleaseSettings::default() }).await;
    let texts = ["one", "other"].map(|name| {
        let command = format!("{WAIT}; : {name}");
        document(archive(&node, &large(11, 1000)), &[&["sh", "-c", &command]])
    });
    let digests = texts.each_ref().map(|text| Digest::parse(&hex(text.as_bytes())).unwrap());
    let building = async |which: usize, what: &str| {
        let is = |fact| matches!(fact, ReleaseFact::Building(doing) if doing.starts_with(what));
        until(what, async || is(host.observe_release(&digests[which]).await)).await;
    };
    // Together they take longer than each may.
    let lasts = async |which: usize, seconds: u64| {
        building(which, "running").await;
        let begun = Instant::now();
        until("it has lasted", async || begun.elapsed() > Duration::from_secs(seconds)).await;
        go_on(&node, &digests[which]);
    };
    let second = async {
        building(0, "running").await;
        install(&host, &texts[1]).await.1
    };
    let in_turn = async {
        building(1, "waiting for another release to be built").await;
        lasts(0, 5).await;
        lasts(1, 4).await;
    };
    let (first, second, ()) = tokio::join!(install(&host, &texts[0]), second, in_turn);
    first.1.unwrap_or_else(|problem| panic!("{problem}"));
    second.unwrap_or_else(|problem| panic!("{problem}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_that_nobody_waits_for_ends_and_keeps_what_came() {
    let (node, host) = builds(UID + 78).await;
    let bytes = large(13, 400_000);
    let (served, open) = (bytes.clone(), Arc::new((Mutex::new(false), Condvar::new())));
    let (gate, asked) = (open.clone(), AtomicUsize::new(0));
    let web = Web::serve(move |request| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => cut(ranged(request, &served, "\"a\"")),
        1 => {
            let (open, changed) = &*gate;
            drop(changed.wait_timeout_while(open.lock().unwrap(), Duration::from_secs(20), |open| !*open).unwrap());
            Answer::nothing()
        }
        _ => ranged(request, &served, "\"a\""),
    });
    let text = document(serde_json::json!({"app": source(&format!("{}/x", web.url), &bytes)}), &[]);
    let building = install(&host, &text);
    let seen = until("it is asked for the rest", async || web.asked().len() == 2);
    tokio::select! {
        _ = building => panic!("it cannot have ended"),
        () = seen => {}
    }
    assert!(partial(&node, &bytes).exists());
    *open.0.lock().unwrap() = true;
    open.1.notify_all();
    install(&host, &text).await.1.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(web.asked().len(), 3);
}

/// A Debian package of these files, with the programs that make one.
fn package(node: &Node, name: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let folder = node.folder.path().join(format!("package-{name}"));
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    write(
        "DEBIAN/control",
        &format!("Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: x\n"),
    );
    write("DEBIAN/postinst", "#!/bin/sh\ntouch /tmp/plat-a-script-ran\n");
    files.iter().for_each(|(path, text)| write(path, text));
    symlink("/usr/bin/run", folder.join("link")).unwrap();
    let file = node.folder.path().join(format!("{name}.deb"));
    let made =
        std::process::Command::new("dpkg-deb").args(["--root-owner-group", "-b"]).arg(&folder).arg(&file).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    fs::read(file).unwrap()
}

fn locked(url: &str, kind: &str, packages: &[(&str, &[u8])]) -> serde_json::Value {
    let one = |(name, bytes): &(&str, &[u8])| serde_json::json!({"name": name, "version": "1", "url": format!("{url}/{name}.deb"), "sha256": hex(bytes)});
    let all: Vec<_> = packages.iter().map(one).collect();
    serde_json::json!({"deb": {"packages": ["app"], "locks": {kind: {"of": ["app"], "packages": all}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn packages_that_a_lock_names_are_files_like_any_other() {
    let (node, host) = builds(UID + 79).await;
    let app = package(&node, "app", &[("bin/run", "#!/bin/sh\n"), ("usr/share/app/text", "x")]);
    let library = package(&node, "library", &[("usr/lib/it.so", "y")]);
    let files = BTreeMap::from([("/app.deb".to_owned(), app.clone()), ("/library.deb".to_owned(), library.clone())]);
    let web = Web::of(files);
    let here = plat_source::here().unwrap().to_string();
    let source = locked(&web.url, &here, &[("app", &app), ("library", &library)]);
    let folder = laid(&node, &host, source).await.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!(fs::metadata(folder.join("usr/bin/run")).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(fs::read_link(folder.join("bin")).unwrap(), Path::new("usr/bin"));
    assert_eq!(fs::read_to_string(folder.join("link")).unwrap(), "#!/bin/sh\n");
    assert_eq!(fs::read_to_string(folder.join("usr/lib/it.so")).unwrap(), "y");
    assert!(!folder.join("DEBIAN").exists() && !Path::new("/tmp/plat-a-script-ran").exists());
    let manifest = super::sources::manifest(&folder);
    assert_eq!(manifest["sources"]["app"][1]["sha256"], hex(&library));
    // Another file at the same address, and another kind of machine.
    let problem = laid(&node, &host, locked(&web.url, &here, &[("app", b"another")])).await.unwrap_err();
    assert_eq!(problem.code, codes::SOURCE_CHECKSUM, "{problem}");
    let problem = laid(&node, &host, locked(&web.url, "pdp11-unix-7", &[("app", &app)])).await.unwrap_err();
    assert_eq!((problem.code, problem.at.as_str()), (codes::PREREQUISITE, "sources.app"));
    assert!(problem.why.contains("pdp11-unix-7") && problem.todo.contains("plat release lock"), "{problem}");
}

/// Runs the package tools as this test.
struct Plain;

impl plat_source::Tools for Plain {
    fn run(&self, command: Vec<String>, environment: BTreeMap<String, String>) -> Result<plat_source::Ran, Problem> {
        let ran = std::process::Command::new(&command[0]).args(&command[1..]).env_clear().envs(environment).output();
        let failed =
            |ran: &std::process::Output| Problem::new(codes::SOURCE_FETCH, String::from_utf8_lossy(&ran.stderr));
        let ran = ran.unwrap();
        Ok(plat_source::Ran { failure: (!ran.status.success()).then(|| failed(&ran)) })
    }

    fn tell(&self, _doing: &str) -> Result<(), Problem> {
        Ok(())
    }
}

/// Needs the Debian package archive.
#[tokio::test(flavor = "multi_thread")]
async fn redis_of_a_lock_is_the_one_that_was_locked_and_runs() {
    let (node, host) = builds(UID + 83).await;
    let folder = tempfile::tempdir().unwrap();
    let apt = plat_source::Apt { folder: folder.path(), tools: &Plain };
    let names = ["redis-server".to_owned(), "redis-tools".to_owned()];
    let (packages, ()) = apt.packages(&names, |_| Ok(())).unwrap_or_else(|p| panic!("{p}"));
    let one = |p: &plat_source::Package| serde_json::json!({"name": p.name, "version": p.version, "url": p.url, "sha256": p.sha256});
    let all: Vec<_> = packages.iter().map(one).collect();
    let lock = serde_json::json!({"of": names, "packages": all});
    let kind = plat_source::here().unwrap().to_string();
    let folder = laid(&node, &host, serde_json::json!({"deb": {"packages": names, "locks": {kind: lock}}})).await;
    let folder = folder.unwrap_or_else(|p| panic!("{p}"));
    let libraries = format!("{0}/usr/lib/x86_64-linux-gnu:{0}/usr/lib/aarch64-linux-gnu", folder.display());
    let server = std::process::Command::new(folder.join("usr/bin/redis-server"))
        .arg("--version")
        .env_clear()
        .env("LD_LIBRARY_PATH", libraries)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&server.stdout).contains("Redis server v="), "{server:?}");
    assert!(!node.folder.path().join("releases/.packages/apt.conf").exists(), "apt was not asked");
}

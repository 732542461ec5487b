//! Fetching where servers are slow, or others fetch the same.

use super::cache::{entry, large, log, open_with, partial, source};
use super::sources::builds;
use super::web::{Answer, Web};
use super::*;
use plat_agent::config::ReleaseSettings;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

/// A server that sends a piece of something without end every now and then, and its address.
fn dripping(piece: usize, every: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let drip = move |mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
        while stream.write_all(&vec![b'x'; piece]).is_ok() {
            std::thread::park_timeout(every);
        }
    };
    std::thread::spawn(move || {
        listener.incoming().flatten().for_each(|stream| drop(std::thread::spawn(move || drip(stream))))
    });
    url
}

/// Installs a release of a file that a mirror drips.
async fn past(node: &Node, mirror: String, settings: ReleaseSettings) -> String {
    let bytes = large(50, 10_000);
    let upstream = Web::of(BTreeMap::from([("/x".to_owned(), bytes.clone())]));
    let host = open_with(node, &ReleaseSettings { mirrors: vec![mirror], ..settings }).await;
    let text = document(serde_json::json!({"app": source(&format!("{}/x", upstream.url), &bytes)}), &[]);
    let (digest, done) = install(&host, &text).await;
    done.unwrap_or_else(|p| panic!("{p}"));
    log(node, &digest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_sends_a_byte_now_and_then_is_given_up_for_where_the_release_says() {
    let (node, host) = builds(UID + 110).await;
    drop(host);
    let settings = ReleaseSettings { silence: Duration::from_secs(1), ..ReleaseSettings::default() };
    let said = past(&node, dripping(1, Duration::from_millis(300)), settings).await;
    assert!(said.contains("it sends less than 1024 bytes a second"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_never_comes_to_an_end_leaves_time_for_where_the_release_says() {
    let (node, host) = builds(UID + 111).await;
    drop(host);
    let longest = Duration::from_secs(4);
    let settings = ReleaseSettings { longest, silence: Duration::from_secs(1), ..ReleaseSettings::default() };
    let said = past(&node, dripping(4096, Duration::from_millis(100)), settings).await;
    assert!(said.contains("it takes longer than there is time for it"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_fetches_is_waited_for_and_not_written_to() {
    let (node, host) = builds(UID + 112).await;
    let bytes = large(51, 10_000);
    let web = Web::of(BTreeMap::from([("/x".to_owned(), bytes.clone())]));
    let (path, whole) = (partial(&node, &bytes), entry(&node, &bytes));
    [&path, &whole].into_iter().for_each(|path| fs::create_dir_all(path.parent().unwrap()).unwrap());
    let mut file = fs::File::create(&path).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).unwrap();
    file.write_all(&bytes[..100]).unwrap();
    let text = document(serde_json::json!({"app": source(&format!("{}/x", web.url), &bytes)}), &[]);
    let digest = Digest::parse(&hex(text.as_bytes())).unwrap();
    let other = async {
        until("it waits for the other process", async || {
            matches!(host.observe_release(&digest).await, ReleaseFact::Building(what) if what.contains("another process"))
        })
        .await;
        assert_eq!(fs::metadata(&path).unwrap().len(), 100);
        file.write_all(&bytes[100..]).unwrap();
        fs::rename(&path, &whole).unwrap();
        drop(file);
    };
    let ((_, done), ()) = tokio::join!(install(&host, &text), other);
    done.unwrap_or_else(|p| panic!("{p}"));
    assert_eq!((web.asked().len(), fs::read(&whole).unwrap()), (0, bytes));
    assert!(!path.exists());
}

/// Files beneath a folder that processes hold.
fn held(folder: &Path) -> Vec<PathBuf> {
    let fds = holders(folder).into_iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten());
    let links = fds.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    links.filter(|path| path.starts_with(folder)).collect()
}

/// Processes that hold a file beneath a folder.
fn holders(folder: &Path) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let holds = |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|path| path.starts_with(folder))
    };
    pids.filter(holds).collect()
}

fn parent(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_a_server_ends_with_who_waits_for_it() {
    let (node, host) = builds(UID + 113).await;
    let bytes = large(52, 10_000);
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let web = Web::serve(move |_| {
        let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(30));
        Answer::nothing()
    });
    let text = document(serde_json::json!({"app": source(&format!("{}/x", web.url), &bytes)}), &[]);
    let folder = node.state().canonicalize().unwrap().join("host/cache/partial");
    let end = async {
        until("the server is asked", async || web.asked().len() == 1 && holders(&folder).len() == 2).await;
        let both = holders(&folder);
        let waits = both.iter().find(|pid| both.iter().any(|other| parent(*other) == **pid)).unwrap();
        kill9(u64::from(*waits));
        until("nobody holds the file any more", async || holders(&folder).is_empty()).await;
    };
    let ((_, done), ()) = tokio::join!(install(&host, &text), end);
    assert!(done.is_err());
    drop(go);
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_of_a_slow_server_hold_no_other_up_and_what_is_in_the_cache_waits_for_no_server() {
    let (node, host) = builds(UID + 143).await;
    let (cached, fresh, late) = (large(60, 1000), large(61, 1000), large(62, 1000));
    let files = [&cached, &fresh, &late].map(|bytes| (format!("/{}", hex(bytes)), bytes.clone()));
    let web = Web::of(files.into_iter().collect());
    let here = |bytes: &[u8], name: &str| {
        let source = source(&format!("{}/{}", web.url, hex(bytes)), bytes);
        whole(serde_json::json!({"sources": {"app": source}, "title": name}))
    };
    install(&host, &here(&cached, "one")).await.1.unwrap_or_else(|p| panic!("{p}"));
    let slow = dripping(4096, Duration::from_millis(100));
    let slow = |n: usize| {
        let of = |m: usize| {
            let pin = hex(format!("{n} {m}").as_bytes());
            (
                format!("s{m}"),
                serde_json::json!({"archive": {"url": format!("{slow}/{n}/{m}"), "sha256": pin, "into": format!("s{m}")}}),
            )
        };
        document((0..6).map(of).collect::<serde_json::Map<_, _>>().into(), &[])
    };
    let doing = async |text: &str| match host.observe_release(&Digest::parse(&hex(text.as_bytes())).unwrap()).await {
        ReleaseFact::Building(doing) => doing,
        _ => String::new(),
    };
    // One of them has no more than its share.
    let texts: Vec<String> = (0..8).map(slow).collect();
    let beside = async {
        until("it has its share", async || fetches(&node) == 3).await;
        install(&host, &here(&fresh, "two")).await.1.unwrap_or_else(|p| panic!("{p}"));
        assert_eq!(fetches(&node), 3);
    };
    tokio::select! {
        (_, done) = install(&host, &texts[0]) => panic!("{done:?}"),
        () = beside => {}
    }
    until("nothing is fetched any more", async || fetches(&node) == 0).await;
    // As many as there are turns for.
    let all = futures_util::future::join_all(texts.iter().map(|text| install(&host, text)));
    let late = here(&late, "three");
    let rest = async {
        until("all turns are taken", async || fetches(&node) == 24).await;
        install(&host, &here(&cached, "four")).await.1.unwrap_or_else(|p| panic!("{p}"));
        tokio::select! {
            (_, done) = install(&host, &late) => panic!("nothing is left for it: {done:?}"),
            () = until("it says what it waits for", async || doing(&late).await.contains("waiting for a turn to fetch")) => {}
        }
    };
    tokio::select! {
        done = all => panic!("{done:?}"),
        () = rest => {}
    }
}

/// Files that are being fetched.
fn fetches(node: &Node) -> usize {
    let folder = node.state().canonicalize().unwrap().join("host/cache/partial");
    let open: std::collections::BTreeSet<PathBuf> = held(&folder).into_iter().collect();
    open.len()
}

//! Archives that ask for more than a node gives to a build: a few bytes that take gigabytes of memory, or of disk.

use super::cache::{open_with, source};
use super::room::SmallDisk;
use super::sources::builds;
use super::web::{Answer, Web};
use super::*;
use plat_agent::config::{BuildLimits, ReleaseSettings};
use plat_agent_plan::KeepPolicy;

const MIB: u64 = 1 << 20;

/// A node whose builds have the least that there is; with a builder, where there is root.
async fn small(uid: u32) -> (Node, LinuxHost) {
    let (node, host) = builds(uid).await;
    drop(host);
    let build = BuildLimits { memory: 64 * MIB, disk: 16 * MIB, ..BuildLimits::default() };
    let policy = KeepPolicy { min_free: 0, ..KeepPolicy::default() };
    let host = open_with(&node, &ReleaseSettings { build, policy, ..ReleaseSettings::default() }).await;
    (node, host)
}

/// What becomes of a release of this archive, laid by the builder and, where it is only unpacked, by `nobody`.
async fn comes_of(node: &Node, host: &LinuxHost, bytes: &[u8]) -> [Result<(), Problem>; 2] {
    let web = Web::of(BTreeMap::from([("/x".to_owned(), bytes.to_owned())]));
    let by_builder = install(host, &document(archive(node, bytes), &[])).await.1;
    let app = serde_json::json!({"app": source(&format!("{}/x", web.url), bytes)});
    [by_builder, install(host, &document(app, &[])).await.1]
}

/// Files of zeros, so many and each of so many MiB.
fn zeros(count: u32, mib: usize) -> Vec<u8> {
    let text = "\0".repeat(mib << 20);
    let names: Vec<String> = (0..count).map(|n| format!("a/{n}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), text.as_str(), tar::EntryType::Regular)).collect();
    tar(&entries)
}

fn zstd(bytes: &[u8], window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(window_log).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An archive that says that it takes a dictionary of 4 GiB.
fn with_huge_dictionary(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
    encoder.write_all(bytes).unwrap();
    let mut made = encoder.finish().unwrap();
    // After the stream's head of 12 bytes: the size of the block's head, flags, the filter LZMA2 with one byte of properties.
    let size = (usize::from(made[12]) + 1) * 4;
    let head = &mut made[12..12 + size];
    assert_eq!(head[2..4], [0x21, 1], "{head:?}");
    head[4] = 40;
    let mut sum = flate2::Crc::new();
    sum.update(&head[..size - 4]);
    head[size - 4..].copy_from_slice(&sum.sum().to_le_bytes());
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_takes_more_memory_than_a_build_may_is_refused() {
    let (node, host) = small(UID + 140).await;
    let inner = zeros(1, 1);
    for bytes in [with_huge_dictionary(&inner), zstd(&inner, 27)] {
        for done in comes_of(&node, &host, &bytes).await {
            let problem = done.unwrap_err();
            assert_eq!(problem.code, codes::BAD_ARCHIVE, "{problem}");
            assert!(problem.why.contains("more than 32 MiB of memory"), "{problem}");
        }
    }
    for done in comes_of(&node, &host, &zstd(&inner, 24)).await {
        done.unwrap_or_else(|p| panic!("{p}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_are_no_larger_than_what_a_build_may_write() {
    let (node, host) = small(UID + 141).await;
    for (bomb, why) in [(zeros(1, 17), "one of its files"), (zeros(5, 4), "it wrote more than 16 MiB")] {
        for done in comes_of(&node, &host, &zstd(&bomb, 20)).await {
            let problem = done.unwrap_err();
            assert_eq!(problem.code, codes::BUILD_FAILED, "{problem}");
            assert!(problem.why.contains(why) && problem.why.contains("`build.disk_mib`"), "{problem}");
        }
    }
    assert!(!fs::read_dir(node.folder.path().join("releases")).unwrap().any(|entry| {
        let name = entry.unwrap().file_name().into_string().unwrap();
        Digest::parse(&name).is_ok()
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn laying_sources_leaves_free_what_is_to_stay_free() {
    if !root_is_here() {
        return;
    }
    let (node, host) = builds(UID + 142).await;
    drop(host);
    fs::remove_dir_all(node.state()).unwrap();
    let disk = SmallDisk::under(&node, 256);
    let policy = KeepPolicy { min_free: 128 * MIB, ..KeepPolicy::default() };
    let host = open_with(&node, &ReleaseSettings { policy, ..ReleaseSettings::default() }).await;
    let bomb = zstd(&zeros(100, 2), 20);
    let before = disk.free();
    for done in comes_of(&node, &host, &bomb).await {
        let problem = done.unwrap_err();
        assert_eq!(problem.code, codes::DISK_FULL, "{problem}");
    }
    until("what was laid is gone", async || disk.free() + MIB > before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lays_sources_is_in_the_groups_of_its_build() {
    if !root_is_here() {
        return;
    }
    let (_node, host) = builds(UID + 144).await;
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let silent = Web::serve(move |_| {
        let _gone = wait.lock().unwrap().recv();
        Answer::nothing()
    });
    let git = serde_json::json!({"git": {"url": format!("{}/app.git", silent.url), "commit": "a".repeat(40)}});
    let groups = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let document = document(serde_json::json!({ "app": git }), &[]);
    let limits = host.enforces();
    let seen = async {
        until("git asks", async || !silent.asked().is_empty()).await;
        let of_builder = running_as(UID + 144);
        assert!(!of_builder.is_empty());
        for pid in of_builder {
            let groups = groups(pid);
            assert_eq!(groups.contains("/.builds"), limits.memory || limits.processes, "{groups}");
        }
    };
    tokio::select! {
        (_, done) = install(&host, &document) => panic!("{done:?}"),
        () = seen => drop(go),
    }
}

//! The part with the network in somebody else's hands: releases that nobody made, and what could be piled up on root's disk.

use super::forged::{Kept, checked, remote, run, settled, started};
use super::*;
use futures_util::stream::{FuturesUnordered, StreamExt};
use plat_model::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// Releases that no master takes in.
fn forged_releases() -> Vec<String> {
    let archive = |url: &str, into: &str| json!({"archive": {"url": url, "sha256": "a".repeat(64), "into": into}});
    let sourced = |source: Value| whole(json!({"sources": {"app": source}}));
    let built = |build: Value| whole(json!({"build": build}));
    vec![
        "{}".into(),
        "\u{0}".into(),
        json!({"version": 1, "name": "app"}).to_string(),
        sourced(archive("/x", "../..")),
        sourced(archive("/x", "/etc")),
        sourced(archive("ftp://h/x", "")),
        sourced(json!({"directory": {"path": "/srv/../etc"}})),
        sourced(json!({"git": {"url": "--upload-pack=/bin/sh", "commit": "a".repeat(40)}})),
        sourced(json!({"git": {"url": "http://h/x", "commit": "--output=/etc/x"}})),
        sourced(json!({"deb": {"packages": ["-oDir::Etc=/tmp"]}})),
        sourced(json!({"pypi": {"packages": [{"name": "a\n--editable /", "version": "1", "sha256": "a".repeat(64)}]}})),
        whole(json!({"sources": {"../x": {"directory": {"path": "/srv"}}}})),
        built(json!({"commands": [[]]})),
        built(json!({"commands": [["{{ secrets.password }}"]]})),
        built(json!({"commands": [["true"]], "timeout_seconds": u32::MAX})),
        built(json!({"commands": vec![["true"]; 100_000]})),
        built(json!({"commands": [["true"]], "user": "root"})),
    ]
}

#[tokio::test]
async fn a_release_that_no_master_takes_in_is_begun_nowhere() {
    let node = Node::new(None);
    let host = Arc::new(node.open().await);
    let outside = remote(&host).await;
    for document in forged_releases() {
        let (logs, guard) = Kept::logs();
        let problem = outside.perform(&install_of(&document)).await.expect_err(&document);
        drop(guard);
        assert_eq!(problem.code, codes::BAD_VALUE, "{document}: {problem}");
        assert!(logs.text().contains("refused"), "{}", logs.text());
    }
    assert!(!node.state().join("host/releases").exists(), "nothing was begun");
    outside.perform(&install_of(&document(json!({}), &[]))).await.unwrap();
    drop(outside);
    drop(settled(host).await);
}

fn install_of(document: &str) -> Action {
    let digest = Digest::parse(&hex(document.as_bytes())).unwrap();
    Action::InstallRelease { digest, document: document.into() }
}

#[tokio::test]
async fn nothing_is_remembered_of_releases_that_are_not_there_and_few_of_their_logs() {
    let node = Node::new(None);
    let host = Arc::new(node.open().await);
    let outside = remote(&host).await;
    let logs = node.state().join("host/releases");
    fs::create_dir_all(&logs).unwrap();
    let digest = |n: usize| Digest::parse(&format!("{n:064x}")).unwrap();
    (0..300).for_each(|n| fs::write(logs.join(format!("{}.log", digest(n))), "failed").unwrap());
    outside.perform(&Action::NoteUnused { digest: digest(1), since: Timestamp(1) }).await.unwrap();
    assert!(!logs.join(format!("{}.unused", digest(1))).exists());
    let (installed, done) = install(&host, &document(json!({}), &[])).await;
    done.unwrap();
    let left = fs::read_dir(&logs).unwrap().count();
    assert!((2..=202).contains(&left), "{left}");
    assert!(logs.join(format!("{installed}.log")).exists());
    outside.perform(&Action::NoteUnused { digest: installed.clone(), since: Timestamp(1) }).await.unwrap();
    assert!(logs.join(format!("{installed}.unused")).exists(), "of one that is there it is");
    drop(outside);
    drop(settled(host).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_releases_are_built_at_once_and_no_more() {
    let node = Node::new(None);
    let host = node.open().await;
    let documents: Vec<String> =
        (0..17).map(|n| document(json!({}), &[&["sh", "-c", &format!("exec sleep {}", 600 + n)]])).collect();
    let mut installs: FuturesUnordered<_> = documents.iter().map(|document| install(&host, document)).collect();
    let problem = installs.next().await.unwrap().1.unwrap_err();
    assert_eq!(problem.code, codes::TOO_MANY, "{problem}");
}

#[tokio::test]
async fn logs_of_names_that_were_never_heard_of_come_to_an_end() {
    let node = Node::new(None);
    let host = Arc::new(node.occupied().await);
    let outside = remote(&host).await;
    let services = node.state().join("host/partitions/p0/services");
    (0..1024).for_each(|n| fs::create_dir_all(services.join(format!("s{n}"))).unwrap());
    let told = run("reload-another", &["/bin/true"]);
    let refused = [
        started(|_| {}),
        checked(Check::Exec(vec!["/bin/true".into()]), 5),
        Action::Reload {
            partition: part(),
            service: service("another"),
            run: "1".into(),
            how: ReloadHow::Command(told),
        },
    ];
    for action in &refused {
        assert_eq!(outside.perform(action).await.unwrap_err().code, codes::FORGED, "{action:?}");
    }
    // Those that there are go on, and the others once there is room.
    outside.perform(&started(|spec| spec.name = service("s7"))).await.unwrap();
    fs::remove_dir(services.join("s9")).unwrap();
    outside.perform(&refused[1]).await.unwrap();
    drop(outside);
    node.done(Arc::into_inner(settled(host).await).unwrap()).await;
}

//! A shim where there is no room: its service's end is written down all the same.

use super::*;
use plat_agent_plan::facts::Ending;
use plat_document::release::{Restart, ServiceKind};

/// A node whose agent's state has a small disk of its own.
fn with_small_disk() -> (Node, Bind) {
    let node = Node::new(None);
    fs::create_dir(node.state()).unwrap();
    let place = node.state();
    let (flags, options) = (nix::mount::MsFlags::empty(), Some("size=1m"));
    nix::mount::mount(Some("tmpfs"), &place, Some("tmpfs"), flags, options).unwrap();
    (node, Bind(place))
}

/// Takes all the room that there is.
fn fill(disk: &Bind) -> PathBuf {
    let path = disk.0.join("ballast");
    let mut file = fs::File::create(&path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    path
}

/// Starts a one-shot that is done when it is let go, lets it go when there is no room left, and waits until its shim has
/// tried to write that down.
async fn succeeds_on_a_full_disk(node: &Node, host: &LinuxHost, disk: &Bind) -> PathBuf {
    let once = ServiceSpec {
        kind: ServiceKind::Oneshot,
        restart: Restart::Never,
        ..spec("once", "until [ -e go ]; do sleep 0.01; done")
    };
    start(host, &once).await.unwrap();
    let main = running(&fact(host, "once").await);
    let ballast = fill(disk);
    let folder = node.state().join("host/partitions/p0/services/once");
    let touched = || fs::metadata(&folder).unwrap().modified().unwrap();
    let before = touched();
    fs::write(node.home().join("go"), "").unwrap();
    until("its shim has tried", async || !alive(main) && touched() != before).await;
    ballast
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_shot_that_succeeded_when_the_disk_was_full_has_succeeded() {
    if !root_is_here() {
        return;
    }
    let (node, disk) = with_small_disk();
    let host = node.occupied().await;
    let ballast = succeeds_on_a_full_disk(&node, &host, &disk).await;
    fs::remove_file(ballast).unwrap();
    let fact = ended(&host, "once").await;
    assert!(matches!(fact.state, ServiceRun::Ended { how: Ending::Success, .. }), "{fact:?}");
    assert_eq!(fact.last_exit, "exit code 0");
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ends_a_service_does_not_wait_for_room_on_the_disk() {
    if !root_is_here() {
        return;
    }
    let (node, disk) = with_small_disk();
    let host = node.occupied().await;
    let ballast = succeeds_on_a_full_disk(&node, &host, &disk).await;
    let shim = node.service_state("once")["shim"]["pid"].as_u64().unwrap();
    assert!(alive(shim.try_into().unwrap()));
    let stop = async { host.runtime().stop(&part(), &service("once")).await };
    let problem = tokio::time::timeout(Duration::from_secs(20), stop).await.unwrap().unwrap_err();
    assert_eq!(problem.code, codes::DISK_FULL, "{problem}");
    assert!(!alive(shim.try_into().unwrap()));
    fs::remove_file(ballast).unwrap();
    host.runtime().stop(&part(), &service("once")).await.unwrap();
    assert!(matches!(fact(&host, "once").await.state, ServiceRun::Ended { how: Ending::Told, .. }));
    node.done(host).await;
}

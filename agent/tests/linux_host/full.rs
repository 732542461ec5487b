//! A shim where there is no room: its service's end is written down all the same, and nothing is left of what cannot start.

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

/// Starts a one-shot that is done when it is let go, and lets it go when there is no room left.
async fn succeeds_on_a_full_disk(node: &Node, host: &LinuxHost, disk: &Bind, keeps_room: bool) -> PathBuf {
    let once = ServiceSpec {
        kind: ServiceKind::Oneshot,
        restart: Restart::Never,
        ..spec("once", "until [ -e go ]; do sleep 0.01; done")
    };
    start(host, &once).await.unwrap();
    let main = running(&fact(host, "once").await);
    let folder = node.state().join("host/partitions/p0/services/once");
    let room = folder.join("state.room");
    until("room is kept", async || room.exists()).await;
    if !keeps_room {
        fs::remove_file(room).unwrap();
    }
    let ballast = fill(disk);
    let touched = || fs::metadata(&folder).unwrap().modified().unwrap();
    let before = touched();
    fs::write(node.home().join("go"), "").unwrap();
    until("its shim has tried to write that down", async || !alive(main) && touched() != before).await;
    ballast
}

#[tokio::test(flavor = "multi_thread")]
async fn a_one_shot_that_succeeded_when_the_disk_was_full_has_succeeded() {
    if !root_is_here() {
        return;
    }
    let (node, disk) = with_small_disk();
    let host = node.occupied().await;
    for keeps_room in [true, false] {
        let ballast = succeeds_on_a_full_disk(&node, &host, &disk, keeps_room).await;
        if !keeps_room {
            fs::remove_file(&ballast).unwrap();
        }
        let fact = ended(&host, "once").await;
        assert!(matches!(fact.state, ServiceRun::Ended { how: Ending::Success, .. }), "{fact:?}");
        assert_eq!(fact.last_exit, "exit code 0");
        let _gone_already = fs::remove_file(ballast);
        fs::remove_file(node.home().join("go")).unwrap();
    }
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_on_a_full_disk_leaves_nobody_behind_and_its_record_as_it_was() {
    if !root_is_here() {
        return;
    }
    let (node, disk) = with_small_disk();
    let host = node.occupied().await;
    start(&host, &spec("witness", "sleep 1000")).await.unwrap();
    let witness = node.service_state("witness")["shim"]["pid"].as_u64().unwrap();
    let stat = fs::read_to_string(format!("/proc/{witness}/stat")).unwrap();
    let spawner: u32 = stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap();
    start(&host, &spec("brief", "exit 3")).await.unwrap();
    let before = ended(&host, "brief").await;
    let ballast = fill(&disk);
    for _ in 0..3 {
        let problem = start(&host, &spec("brief", "exit 4")).await.unwrap_err();
        assert_eq!(problem.code, codes::DISK_FULL, "{problem}");
    }
    until("nobody but the witness is left", async || children(spawner).len() == 1).await;
    fs::remove_file(ballast).unwrap();
    assert_eq!(fact(&host, "brief").await, before);
    node.done(host).await;
}

/// The processes that this one has started.
fn children(parent: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|one| one.file_name().to_str()?.parse().ok());
    let is_one = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.split(' ').nth(1) == Some(&parent.to_string()))
    };
    pids.filter(is_one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ends_a_service_does_not_wait_for_room_on_the_disk() {
    if !root_is_here() {
        return;
    }
    let (node, disk) = with_small_disk();
    let host = node.occupied().await;
    let ballast = succeeds_on_a_full_disk(&node, &host, &disk, false).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn what_a_check_said_is_known_where_it_cannot_be_written_and_fails_nothing() {
    if !root_is_here() {
        return;
    }
    let (node, disk) = with_small_disk();
    let host = node.occupied().await;
    let promise = PromiseName::parse("answers").unwrap();
    let said = async || {
        let ask = Action::CheckPromise {
            partition: part(),
            promise: promise.clone(),
            of: String::new(),
            check: Check::Exec(vec!["/bin/test".into(), "!".into(), "-e".into(), "sick".into()]),
            timeout_seconds: 5,
            environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        };
        host.perform(&ask).await.unwrap();
        host.observe_partition(&part()).await.unwrap().promises[&promise].holds
    };
    let ballast = fill(&disk);
    assert!(said().await);
    fs::write(node.home().join("sick"), "").unwrap();
    assert!(!said().await, "there is no room for this either");
    fs::remove_file(ballast).unwrap();
    fs::remove_file(node.home().join("sick")).unwrap();
    assert!(said().await);
    node.done(host).await;
}

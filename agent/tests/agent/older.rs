//! What agents of before have left on disks is opened by this one: `tests/older` has a folder for each, and says how one is
//! made.

use crate::binary::{Node, files, formatted};
use crate::master::Master;
use crate::rig::{instance, part, until};
use plat_document::Release;
use plat_model::instance::{InstanceDesired, InstanceState, Wish};
use plat_model::node::NodeDesired;
use plat_model::usage::{Amount, Meter, UsageRecord, UsageReport};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// Nothing of it is in the folder of one machine. What only newer agents can do stands in [`SINCE`].
const RELEASE: &str = r#"
version: 1
name: sleeper
secrets: {key: {length: 12}}
files:
  etc/key: {template: "{{ secrets.key }}"}
hooks:
  init: {command: [/bin/sh, -c, "echo once >> began"]}
services:
  serve: {command: [/bin/sh, -c, "echo up >> ran; exec sleep 1000"], stop_timeout_seconds: 2}
promises:
  ran: {exec: [/usr/bin/test, -e, "{{ partition.directory }}/ran"]}
publish: {where: "{{ partition.address }}"}
"#;

const SINCE: &str = r#"
  prepare: {kind: oneshot, command: [/bin/sh, -c, "echo once >> prepared"]}
  yearly: {kind: oneshot, schedule: "@yearly", command: [/bin/true]}
promises:"#;

/// A file of an agent's that is larger is a log or a program.
const STATE_MAX: u64 = 256 * 1024;
/// Since whose agents a service that runs goes on through the upgrade: its fingerprint is of the same things. Before, nothing
/// was released.
const SAME_SINCE: &str = "2026-11-22-79bdc24";
const CENTURY: u64 = 100 * 365 * 24 * 3600;

/// Where all of them were made: what is rendered has the paths of its node in it. For one at a time.
fn place() -> (TempDir, fs::File) {
    let alone = fs::File::create("/tmp/plat-older.lock").unwrap();
    alone.lock().unwrap();
    let _left_by_one_that_was_killed = fs::remove_dir_all("/tmp/plat-older");
    (tempfile::Builder::new().prefix("plat-older").rand_bytes(0).tempdir_in("/tmp").unwrap(), alone)
}

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/older");
    let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.is_dir());
    all.sort();
    assert!(all.len() >= 2, "{all:?}");
    all
}

/// Copies plain files of a state's size; what an agent keeps to itself stays so.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (about, to) = (entry.metadata().unwrap(), to.join(entry.file_name()));
        if about.is_dir() {
            copy(&entry.path(), &to);
        } else if about.is_file() && (1..STATE_MAX).contains(&about.len()) {
            fs::write(&to, fs::read(entry.path()).unwrap()).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// Reports that wait in an outbox, in their order.
fn waiting(outbox: &Path) -> Vec<UsageReport> {
    let text = fs::read_to_string(outbox).unwrap_or_default();
    let taken = text.lines().filter_map(|line| {
        let body: serde_json::Value = serde_json::from_str(&line[line.find('{')?..]).ok()?;
        serde_json::from_value(body.get("Taken")?.get("report")?.clone()).ok()
    });
    taken.collect()
}

fn booked(path: &Path) -> Vec<UsageReport> {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// `PLAT_OLDER_AGENT`: the agent that writes, this one if it is not set. `PLAT_OLDER_INTO`: where to.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it makes a folder of tests/older"]
async fn write_what_an_agent_leaves() {
    let into = PathBuf::from(std::env::var_os("PLAT_OLDER_INTO").expect("PLAT_OLDER_INTO names a folder"));
    let (master, (folder, _alone)) = (Master::new(), place());
    formatted(folder.path());
    let mut node = Node::new(folder, master.clone());
    let older = std::env::var_os("PLAT_OLDER_AGENT");
    let release = sleeper(older.is_some());
    if let Some(older) = older {
        node.executable = older.into();
    }
    {
        let mut state = master.state();
        (state.node_life, state.renewed_life, state.rejoin_life) = (CENTURY, CENTURY, CENTURY);
    }
    let server = master.serve(0).await;
    node.enroll(&server.address);
    node.start();
    let desired = InstanceDesired { release: release.digest(), ..instance(1, Wish::Started) };
    master.want_instance(desired, &release.to_canonical_json());
    node.until_state(InstanceState::Ready).await;
    until("some of it is booked", || (master.state().ledger.len() > 3, ())).await;
    server.stop().await;
    let outbox = node.folder.path().join("data/outbox");
    until("some of it waits", || (waiting(&outbox).len() > master.state().ledger.len() + 3, ())).await;
    node.kill();
    // As with the machine: nobody is left to write down how it ended.
    let service = node.service_pid().unwrap();
    let status = fs::read_to_string(format!("/proc/{service}/status")).unwrap();
    let shim = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
    assert_ne!(shim, "1");
    assert!(Command::new("kill").args(["-9", &shim, &service.to_string()]).status().unwrap().success());
    copy(&node.folder.path().join("data"), &into.join("data"));
    for name in ["releases", "cache"] {
        let _ = fs::remove_dir_all(into.join("data/host").join(name));
    }
    copy(&node.folder.path().join("partitions/part0"), &into.join("partition"));
    let ledger = master.state().ledger.clone();
    fs::create_dir_all(into.join("master")).unwrap();
    master.keep(&into.join("master"));
    fs::write(into.join("master/booked.json"), serde_json::to_vec(&ledger).unwrap()).unwrap();
}

/// A release with all that this agent knows, or that `older` does.
fn sleeper(older: bool) -> Release {
    let text = if older { RELEASE.to_owned() } else { RELEASE.replace("\npromises:", SINCE) };
    Release::parse_yaml(&text, "sleeper.yaml").unwrap_or_else(|problems| panic!("{problems}"))
}

/// `PLAT_OLDER_AGENT`: the one that is upgraded.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes the program of an agent of before"]
async fn what_an_agent_of_before_runs_goes_on_under_this_one() {
    let older = std::env::var_os("PLAT_OLDER_AGENT").expect("PLAT_OLDER_AGENT names a program");
    let (master, (folder, _alone)) = (Master::new(), place());
    formatted(folder.path());
    let mut node = Node::new(folder, master.clone());
    node.executable = older.into();
    let server = master.serve(0).await;
    node.enroll(&server.address);
    node.start();
    let release = sleeper(true);
    let desired = InstanceDesired { release: release.digest(), ..instance(1, Wish::Started) };
    master.want_instance(desired.clone(), &release.to_canonical_json());
    node.until_state(InstanceState::Ready).await;
    let pid = node.service_pid();
    until("some of it is booked", || (master.state().ledger.len() > 3, ())).await;
    node.kill();
    let before = master.state().syncs;
    let booked = master.state().ledger.len();
    node.executable = env!("CARGO_BIN_EXE_plat-agent").into();
    node.start();
    until("the new one has reported, and what it uses is booked", || {
        let state = master.state();
        (state.syncs > before && state.ledger.len() > booked + 3, (state.syncs, state.ledger.len()))
    })
    .await;
    node.until_state(InstanceState::Ready).await;
    assert_eq!(node.service_pid(), pid, "it was started again");
    let home = node.folder.path().join("partitions/part0");
    assert_eq!((lines(&home.join("began")), lines(&home.join("ran"))), (1, 1));
    is_told_once(&master.state().ledger, "upgraded");
    let wall = master.state().booked(Meter::WallMillis);
    let all: Duration =
        master.state().ledger.iter().flat_map(|report| &report.records).map(|one| one.window.duration()).sum();
    assert!(Duration::from_millis(wall) <= all + Duration::from_secs(1), "{wall} ms of {all:?}");
    master.want_instance(InstanceDesired { wish: Wish::Destroyed, ..desired }, &release.to_canonical_json());
    node.until_state(InstanceState::Destroyed).await;
    assert_eq!(files(&home), Vec::<PathBuf>::new());
}

/// A node as one of before has left it, on a machine that was started anew, with its master away.
async fn found(fixture: &Path, folder: TempDir) -> (Node, u16) {
    let master = Master::kept(&fixture.join("master"));
    formatted(folder.path());
    let node = Node::new(folder, master.clone());
    let place = node.folder.path();
    copy(&fixture.join("data"), &place.join("data"));
    copy(&fixture.join("partition"), &place.join("partitions/part0"));
    let desired = fs::read_to_string(fixture.join("data/desired")).unwrap();
    let desired: NodeDesired = serde_json::from_str(desired.split_once('\n').unwrap().1).unwrap();
    {
        let mut state = master.state();
        (state.desired, state.ledger) = (desired, booked(&fixture.join("master/booked.json")));
    }
    let server = master.serve(0).await;
    let (address, port) = (server.address.to_string(), server.address.port());
    server.stop().await;
    let config = place.join("agent.toml");
    fs::write(&config, format!("{}master = \"{address}\"\n", fs::read_to_string(&config).unwrap())).unwrap();
    (node, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_of_before_has_left_goes_on_where_it_was() {
    for fixture in fixtures() {
        let what = fixture.file_name().unwrap().to_string_lossy().into_owned();
        let (folder, _alone) = place();
        let (mut node, port) = found(&fixture, folder).await;
        let home = node.folder.path().join("partitions/part0");
        let (key, ran) = (fs::read_to_string(home.join("etc/key")).unwrap(), lines(&home.join("ran")));
        let told = fs::metadata(fixture.join("data/outbox")).unwrap().len();
        assert_eq!((key.len(), ran), (12, 1), "{what}");

        // From what it was last told, with nobody to ask.
        node.start();
        until(&format!("{what}: its service runs"), || (lines(&home.join("ran")) == 2, lines(&home.join("ran")))).await;
        let outbox = node.folder.path().join("data/outbox");
        until(&format!("{what}: it goes on counting"), || (fs::metadata(&outbox).unwrap().len() > told, ())).await;
        let master = node.master.clone();
        let _server = master.serve(port).await;
        node.until_state(InstanceState::Ready).await;
        let status = master.state().statuses[&instance(1, Wish::Started).id].clone();
        assert_eq!(
            status.connection.as_map().get("where").and_then(|value| value.as_str()),
            Some("127.0.0.1"),
            "{what}"
        );
        assert_eq!(fs::read_to_string(home.join("etc/key")).unwrap(), key, "{what}: it has other secrets");
        assert_eq!(lines(&home.join("began")), 1, "{what}: it was begun again");
        if home.join("prepared").exists() {
            assert_eq!(lines(&home.join("prepared")), 1, "{what}: its one-shot ran again");
            let yearly = status.services.iter().find(|one| one.name.as_str() == "yearly").unwrap();
            assert!(yearly.next.is_some(), "{what}: {yearly:?}");
        }

        let state = |data: &Path| {
            let text = fs::read(data.join("host/partitions/part0/services/serve/state.json")).unwrap();
            serde_json::from_slice::<serde_json::Value>(&text).unwrap()["fingerprint"].clone()
        };
        let (before, now) = (state(&fixture.join("data")), state(&node.folder.path().join("data")));
        assert_eq!(before == now, what.as_str() >= SAME_SINCE, "{what}: an upgrade would start its service again");

        is_billed_once(&fixture, &node, &what).await;

        let gone = InstanceDesired {
            wish: Wish::Destroyed,
            ..master.state().desired.instances.values().next().unwrap().clone()
        };
        let document = master.state().desired.releases[&gone.release].clone();
        master.want_instance(gone, &document);
        node.until_state(InstanceState::Destroyed).await;
        assert_eq!(files(&home), Vec::<PathBuf>::new(), "{what}");
    }
}

/// What was booked stays, what waited comes as it was, and what came since begins where that ended.
async fn is_billed_once(fixture: &Path, node: &Node, what: &str) {
    let (before, waited) = (booked(&fixture.join("master/booked.json")), waiting(&fixture.join("data/outbox")));
    let reports: BTreeMap<u64, UsageReport> =
        before.iter().chain(&waited).map(|report| (report.sequence, report.clone())).collect();
    assert!(reports.len() > before.len(), "{what}: nothing waits");
    until(&format!("{what}: what waited is booked, and more"), || {
        let booked = node.master.state().ledger.len();
        (booked > reports.len() + 2, booked)
    })
    .await;
    let ledger = node.master.state().ledger.clone();
    let same: Vec<_> = ledger.iter().take(reports.len()).collect();
    assert_eq!(same, reports.values().collect::<Vec<_>>(), "{what}");
    let records = is_told_once(&ledger, what);
    let new: Vec<_> = records.iter().skip_while(|record| record.window.start < last(&reports)).collect();
    for record in new {
        let wall = record.amounts.get(&Meter::WallMillis);
        let most = record.window.duration() + Duration::from_secs(2);
        assert!(
            !matches!(wall, Some(Amount::Known(wall)) if u128::from(*wall) > most.as_millis()),
            "{what}: more than there was: {record:?}"
        );
    }
}

/// All records, in the order of their windows, none of which overlap.
fn is_told_once<'a>(ledger: &'a [UsageReport], what: &str) -> Vec<&'a UsageRecord> {
    let mut records: Vec<_> = ledger.iter().flat_map(|report| &report.records).collect();
    assert!(records.iter().all(|record| record.partition == part()), "{what}");
    records.sort_by_key(|record| record.window.start);
    for pair in records.windows(2) {
        assert!(pair[0].window.end <= pair[1].window.start, "{what}: told twice: {pair:?}");
    }
    records
}

/// When the last window that was told of before ended.
fn last(reports: &BTreeMap<u64, UsageReport>) -> plat_model::Timestamp {
    let ends = reports.values().flat_map(|report| &report.records).map(|record| record.window.end);
    ends.max().unwrap()
}

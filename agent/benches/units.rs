//! What systemd needs for many services, and what the agent needs through it: as root on a machine whose first process is
//! systemd, `cargo bench -p plat-agent --bench units`; what the agent needs with shims, anywhere: the same with `-- shim`.
//! Prints one line for each measure.
//!
//! First 500 units that were prepared as files, each a copy of one that the agent has started, and started by one
//! `systemctl`; then as many services of 50 partitions by the agent's host, and some one after the other. At the end of each
//! all are stopped.

use futures_util::future::join_all;
use plat_agent::config::Runtime;
use plat_agent::host::Host;
use plat_agent::host::linux::runtime::Place;
use plat_agent::host::linux::{LinuxConfig, LinuxHost};
use plat_agent_plan::Action;
use plat_agent_plan::action::ServiceSpec;
use plat_model::id::{InstanceId, PartitionName, ServiceName};
use plat_model::node::{NodeFile, NodePartition};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const PARTITIONS: usize = 50;
const SERVICES: usize = 10;
const SINGLE: usize = 20;

fn main() {
    let kind = if std::env::args().any(|argument| argument == "shim") { Runtime::Shim } else { Runtime::Systemd };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build().unwrap();
    runtime.block_on(measure(kind));
}

fn report(what: &str, took: Duration) -> Duration {
    println!("{what:<44} {:>8.1} ms", took.as_secs_f64() * 1e3);
    took
}

fn systemctl(arguments: &[&str]) {
    let went = Command::new("systemctl").args(arguments).status().unwrap();
    assert!(went.success(), "systemctl {arguments:?}");
}

/// How long it takes to start units like this one, and to stop them.
fn prepared(text: &str) -> [Duration; 2] {
    let names: Vec<String> = (0..PARTITIONS * SERVICES).map(|n| format!("prepared-{n}.service")).collect();
    let file = |name: &String| Path::new("/run/systemd/system").join(name);
    names.iter().for_each(|name| std::fs::write(file(name), text).unwrap());
    systemctl(&["daemon-reload"]);
    let all = |verb| [&[verb][..], &names.iter().map(String::as_str).collect::<Vec<_>>()].concat();
    let begun = Instant::now();
    systemctl(&all("start"));
    let start = report("500 prepared units", begun.elapsed());
    let begun = Instant::now();
    systemctl(&all("stop"));
    let stop = report("stopping them", begun.elapsed());
    names.iter().for_each(|name| std::fs::remove_file(file(name)).unwrap());
    systemctl(&["daemon-reload"]);
    [start, stop]
}

/// The file of a unit that the agent has started.
fn transient() -> String {
    let mut units = std::fs::read_dir("/run/systemd/transient").unwrap().flatten().map(|entry| entry.path());
    let is_service = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("plat-") && name.ends_with(".service")
    };
    let text = std::fs::read_to_string(units.find(is_service).expect("the agent has started a unit")).unwrap();
    // As systemd 252 writes it and does not read it.
    text.replace("ExecStartEx=", "ExecStart=")
}

async fn measure(runtime: Runtime) {
    let folder = tempfile::tempdir_in("/srv").unwrap();
    let names: Vec<_> = (0..PARTITIONS).map(|n| PartitionName::parse(&format!("part{n}")).unwrap()).collect();
    let partitions = names.iter().cloned().map(NodePartition::bare).collect();
    let node = NodeFile { partitions, ..NodeFile::bare(folder.path()) };
    std::fs::write(folder.path().join("node.json"), node.to_json()).unwrap();
    let host = LinuxHost::open(LinuxConfig {
        state: folder.path().join("state"),
        node_file: folder.path().join("node.json"),
        executable: env!("CARGO_BIN_EXE_plat-agent").into(),
        network: Default::default(),
        clock: std::sync::Arc::new(plat_agent::clock::SystemClock),
        runtime,
    })
    .await
    .unwrap_or_else(|problem| panic!("{problem}"));
    // Somebody must hear of what happens, or the host waits.
    let mut events = host.events();
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    let place = |name: &PartitionName| {
        let directory = folder.path().join("partitions").join(name.as_str());
        std::fs::create_dir_all(&directory).unwrap();
        Place { partition: NodePartition::bare(name.clone()), directory, releases: folder.path().join("releases") }
    };
    let places: Vec<Place> = names.iter().map(place).collect();
    let instance = InstanceId::parse(&"a".repeat(32)).unwrap();
    let spec = |name: String| {
        let command = vec!["/bin/sleep".into(), "600".into()];
        ServiceSpec::bare(ServiceName::parse(&name).unwrap(), instance.clone(), command)
    };
    let specs: Vec<ServiceSpec> = (0..SERVICES).map(|n| spec(format!("s{n}"))).collect();
    join_all(names.iter().map(|partition| {
        let (partition, secrets) = (partition.clone(), BTreeMap::new());
        let occupy = Action::Occupy { partition, instance: instance.clone(), secrets };
        let host = &host;
        async move { host.perform(&occupy).await.unwrap() }
    }))
    .await;
    let single = async |name: String| {
        let begun = Instant::now();
        host.runtime().start(&places[0], &[spec(name)]).await.into_iter().for_each(Result::unwrap);
        begun.elapsed()
    };
    single("first".into()).await;
    let prepared = (host.runtime_name() == "systemd").then(|| prepared(&transient()));
    let begun = Instant::now();
    let went = join_all(places.iter().map(|place| host.runtime().start(place, &specs))).await;
    let took = report("500 services through the agent", begun.elapsed());
    if let Some(problem) = went.iter().flatten().find_map(|went| went.as_ref().err()) {
        panic!("{problem}");
    }
    let mut each = Vec::new();
    for n in 0..SINGLE {
        each.push(single(format!("t{n}")).await);
    }
    each.sort();
    report("one more, median", each[SINGLE / 2]);
    let begun = Instant::now();
    join_all(places.iter().map(|place| async { host.runtime().clear(place).await.unwrap() })).await;
    let ended = report("ending all of them", begun.elapsed());
    if let Some([start, stop]) = prepared {
        let times = |ours: Duration, theirs: Duration| ours.as_secs_f64() / theirs.as_secs_f64();
        println!("{:<44} {:>8.2}", "times what systemd itself needs to start them", times(took, start));
        println!("{:<44} {:>8.2}", "and to stop them", times(ended, stop));
    }
    join_all(names.iter().map(|name| async { host.runtime().forget(name).await.unwrap() })).await;
}

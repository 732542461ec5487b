//! What bringing up a full node costs its disk: `cargo bench -p plat-agent --bench bring_up`. Prints one line for each
//! measure.
//!
//! All that is written down of 500 instances from nothing to ready, their partitions side by side as the agent has them.
//! No service is started, and no file of theirs written.

use futures_util::future::join_all;
use plat_agent::host::Host;
use plat_agent::host::linux::{LinuxConfig, LinuxHost};
use plat_agent_plan::action::{Note, ServiceSpec};
use plat_agent_plan::{Action, Upkeep};
use plat_model::id::{InstanceId, PartitionName, ServiceName};
use plat_model::node::{NodeFile, NodePartition};
use plat_model::parameters::Parameters;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PARTITIONS: usize = 500;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    // Where syncs cost what they cost the agent: not in memory.
    let folder = tempfile::tempdir_in("/var/tmp").unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<_> = (0..PARTITIONS).map(|n| PartitionName::parse(&format!("part{n}")).unwrap()).collect();
    let partitions = names.iter().cloned().map(NodePartition::bare).collect();
    let node = NodeFile { partitions, ..NodeFile::bare(folder.path()) };
    std::fs::write(folder.path().join("node.json"), node.to_json()).unwrap();
    let open = async || {
        LinuxHost::open(LinuxConfig {
            state: folder.path().join("state"),
            node_file: folder.path().join("node.json"),
            executable: env!("CARGO_BIN_EXE_plat-agent").into(),
            network: Default::default(),
            clock: std::sync::Arc::new(plat_agent::clock::SystemClock),
            runtime: plat_agent::config::Runtime::Shim,
        })
        .await
        .unwrap_or_else(|problem| panic!("{problem}"))
    };
    let host = open().await;
    // How long the agent's only thread does nothing else.
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    let held = tokio::spawn(async move {
        loop {
            tokio::task::yield_now().await;
            longest = longest.max(last.elapsed());
            last = Instant::now();
            if HELD.load(std::sync::atomic::Ordering::Relaxed) {
                return longest;
            }
        }
    });
    let begun = Instant::now();
    join_all(names.iter().enumerate().map(|(n, name)| bring_up(&host, n, name))).await;
    report("all of it", begun.elapsed());
    HELD.store(true, std::sync::atomic::Ordering::Relaxed);
    report("the thread was held at once for", held.await.unwrap());
    let begun = Instant::now();
    for name in &names {
        assert!(host.observe_partition(name).await.unwrap().occupant.is_some_and(|occupant| occupant.ready));
    }
    report("one look at each", begun.elapsed());
    drop(host);
    let begun = Instant::now();
    let host = open().await;
    report("an agent that is started again", begun.elapsed());
    join_all(names.iter().map(|name| perform(&host, Action::Free { partition: name.clone() }))).await;
}

static HELD: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

fn report(what: &str, took: Duration) {
    println!("{what:<34} {:>8.1} ms", took.as_secs_f64() * 1e3);
}

async fn bring_up(host: &LinuxHost, n: usize, partition: &PartitionName) {
    let instance = InstanceId::parse(&format!("{n:032x}")).unwrap();
    let secrets = BTreeMap::from([("password".to_owned(), 24)]);
    perform(host, Action::Occupy { partition: partition.clone(), instance: instance.clone(), secrets }).await;
    let command = (0..20).map(|n| format!("--option-{n}=some value")).collect();
    let services = vec![ServiceSpec::bare(ServiceName::parse("web").unwrap(), instance, command)];
    let upkeep = Box::new(Upkeep { services, ..Upkeep::default() });
    let connection = Parameters::parse_json(r#"{"url": "http://[fd00::1]:8080/"}"#).unwrap();
    for note in [
        Note::Initialised,
        Note::Configured { fingerprint: "release/files".into(), upkeep },
        Note::Started,
        Note::Published(connection),
    ] {
        perform(host, Action::Note { partition: partition.clone(), note }).await;
    }
}

async fn perform(host: &LinuxHost, action: Action) {
    if let Err(problem) = host.perform(&action).await {
        panic!("{}: {problem}", action.step());
    }
}

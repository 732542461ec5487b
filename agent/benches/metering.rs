//! What metering a full node costs: `cargo bench -p plat-agent --bench metering`, as root. Prints one line for each
//! measure.
//!
//! A real node of 1,000 partitions, each with one service that sleeps, under its shim and, where there are control groups,
//! in one. A window of 60 s has five samples of levels and one reading of all totals, which is made durable, and from
//! which a report is taken into the outbox. Of the whole window the processor time of this process is told too.

use plat_agent::clock::SystemClock;
use plat_agent::host::linux::{LinuxConfig, LinuxHost};
use plat_agent::host::{Host, Wanted};
use plat_agent::usage::{Arrival, Metering};
use plat_agent_plan::Action;
use plat_agent_plan::action::ServiceSpec;
use plat_model::id::{InstanceId, PartitionName, ServiceName};
use plat_model::node::{NodeFile, NodePartition};
use sha2::Digest as _;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PARTITIONS: usize = 1000;
const ROUNDS: usize = 15;
/// Samples of levels in a window, beside the reading of all.
const SAMPLES: u32 = 5;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let folder = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<PartitionName> = (0..PARTITIONS).map(name).collect();
    std::fs::write(folder.path().join("node.json"), node(folder.path(), &names).to_json()).unwrap();
    let opened = LinuxHost::open(LinuxConfig {
        state: folder.path().join("state"),
        node_file: folder.path().join("node.json"),
        executable: env!("CARGO_BIN_EXE_plat-agent").into(),
        network: Default::default(),
        clock: Arc::new(SystemClock),
        runtime: plat_agent::config::Runtime::Shim,
    });
    let host = Arc::new(opened.await.unwrap_or_else(|problem| panic!("{problem}")));
    // Somebody must hear of what happens, or the host waits.
    let mut events = host.events();
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    println!("control groups             {}", host.without_cgroups().unwrap_or("used"));
    for (n, partition) in names.iter().enumerate() {
        std::fs::create_dir_all(folder.path().join("partitions").join(partition.as_str())).unwrap();
        let instance = instance(n);
        let spec = Box::new(spec(&instance));
        let occupy = Action::Occupy { partition: partition.clone(), instance, secrets: BTreeMap::new() };
        perform(&host, occupy).await;
        perform(&host, Action::StartService { partition: partition.clone(), spec: *spec }).await;
    }
    let levels = median(&host, &names, Wanted::Levels).await;
    let all = median(&host, &names, Wanted::All).await;
    println!("one sample of levels       {:>8.1} ms", millis(levels));
    println!("one reading of all         {:>8.1} ms", millis(all));
    let (time, processor) = window(&host, &names, &folder.path().join("outbox")).await;
    println!("a window of 60 s           {:>8.1} ms", millis(time));
    println!("  of the processor         {:>8.1} ms", millis(processor));
    for partition in names {
        perform(&host, Action::Erase { partition: partition.clone() }).await;
        perform(&host, Action::Free { partition }).await;
    }
    let state = folder.path().join("state/host");
    drop(host);
    cleared(&state);
}

/// The agent leaves its part of the trees of control groups, empty, for its next start: there is none.
fn cleared(state: &Path) {
    let hash = sha2::Sha256::digest(state.canonicalize().unwrap().as_os_str().as_encoded_bytes());
    let id: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let trees = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for tree in trees.chain(["/sys/fs/cgroup".into()]) {
        let _ = std::fs::remove_dir(tree.join("plat").join(&id));
    }
}

async fn perform(host: &LinuxHost, action: Action) {
    if let Err(problem) = host.perform(&action).await {
        panic!("{}: {problem}", action.step());
    }
}

async fn median(host: &LinuxHost, names: &[PartitionName], wanted: Wanted) -> Duration {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let read = host.counters(names, wanted).await;
        times.push(begun.elapsed());
        assert!(read.len() == names.len() && read.iter().all(|(_, read)| read.is_ok()), "each is read");
    }
    times.sort_unstable();
    times[ROUNDS / 2]
}

/// All that metering does in a window: the median, and of the processor's time too.
async fn window(host: &Arc<LinuxHost>, names: &[PartitionName], outbox: &Path) -> (Duration, Duration) {
    let metering = Metering::open(host.clone(), Arc::new(SystemClock), Duration::from_secs(60), outbox).unwrap();
    for (n, partition) in names.iter().enumerate() {
        metering.follow(partition, &instance(n), Arrival::New).await;
    }
    metering.booked(0).await.unwrap();
    let (mut times, mut processor) = (Vec::new(), Vec::new());
    for report in 1..=ROUNDS as u64 {
        let (begun, before) = (Instant::now(), used());
        for _ in 0..SAMPLES {
            metering.pass(Wanted::Levels, None).await;
        }
        metering.pass(Wanted::All, None).await;
        times.push(begun.elapsed());
        processor.push(used() - before);
        let waits = metering.to_send(99).await.unwrap_or_default();
        assert_eq!(waits.iter().map(|report| report.records.len()).collect::<Vec<_>>(), [names.len()]);
        metering.booked(report).await.unwrap();
    }
    times.sort_unstable();
    processor.sort_unstable();
    (times[ROUNDS / 2], processor[ROUNDS / 2])
}

/// Processor time of this process so far.
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn instance(n: usize) -> InstanceId {
    InstanceId::parse(&format!("{n:032x}")).unwrap()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn name(n: usize) -> PartitionName {
    PartitionName::parse(&format!("part{n}")).unwrap()
}

fn spec(instance: &InstanceId) -> ServiceSpec {
    let command = vec!["/bin/sleep".into(), "86400".into()];
    ServiceSpec::bare(ServiceName::parse("sleeps").unwrap(), instance.clone(), command)
}

fn node(folder: &Path, names: &[PartitionName]) -> NodeFile {
    let partition = |name: &PartitionName| NodePartition {
        addresses: vec!["127.0.0.1".parse().unwrap()],
        ..NodePartition::bare(name.clone())
    };
    NodeFile { partitions: names.iter().map(partition).collect(), ..NodeFile::bare(folder) }
}

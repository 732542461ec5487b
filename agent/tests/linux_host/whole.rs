//! On a kernel that has every controller of cgroup v2 and limits of disks: `tests/guest` runs these on Debian's.

use super::*;
use plat_agent::host::linux::runtime::{Counted, Memory};

const MIB: u64 = 1 << 20;

fn shell(script: String) -> Run {
    Run {
        name: "configure".into(),
        command: vec!["/bin/sh".into(), "-c".into(), script],
        environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        directory: String::new(),
        timeout_seconds: 60,
    }
}

/// Writes a file and waits for the disk.
fn writes(file: &str, mib: u64) -> String {
    format!("LC_ALL=C dd if=/dev/zero of={file} bs=1M count={mib} conv=fsync status=none")
}

async fn all_is_limited_and_counted_by_one_group(runtime: Runtime) {
    let mut node = Node::new(None);
    node.runtime = runtime;
    let host = node.occupied().await;
    let enforced = host.runtime().enforces();
    assert_eq!((enforced.cpu, enforced.memory, enforced.processes), (true, true, true), "{enforced:?}");
    let holds = "exec perl -e 'my $held = \"x\" x (64 << 20); open(my $up, \">\", \"up\"); sleep 600'";
    start(&host, &spec("works", &format!("{}; {holds}", writes("file", 8)))).await.unwrap();
    until("it has written, and holds what it wants", async || node.home().join("up").exists()).await;

    let usage = host.runtime().usage(&part(), Memory::Asked).unwrap();
    assert_eq!(usage.runs.iter().map(|run| run.counted).collect::<Vec<_>>(), [Counted::ALL], "nothing by processes");
    let group = host.runtime().group(&part()).unwrap();
    let file = |name: &str| fs::read_to_string(group.join(name)).unwrap();
    let (memory, current) =
        (usage.group.unwrap().memory_bytes.unwrap(), file("memory.current").trim().parse::<u64>().unwrap());
    assert!(memory.abs_diff(current) < 4 * MIB && memory > 64 * MIB, "{memory} counted, the kernel says {current}");
    let level = host.counters(&[part()], Wanted::Levels).await.pop().unwrap().1.unwrap();
    assert!(known(&level, Meter::MemoryByteSeconds).abs_diff(current) < 4 * MIB, "{level:?}");

    let first = known(&counters(&host).await, Meter::IoBytes);
    let moved = |field: &str| field.strip_prefix("rbytes=").or(field.strip_prefix("wbytes="))?.parse::<u64>().ok();
    let kernel: u64 = file("io.stat").split_whitespace().filter_map(moved).sum();
    assert!(first >= 8 * MIB && first <= kernel, "{first} counted, the kernel says {kernel}");
    // Of a hook as of a service, once each, and over the end of both.
    host.perform(&Action::RunHook { partition: part(), run: shell(writes("more", 8)) }).await.unwrap();
    host.perform(&Action::StopService { partition: part(), service: service("works") }).await.unwrap();
    let second = known(&counters(&host).await, Meter::IoBytes);
    assert!((8 * MIB..16 * MIB).contains(&(second - first)), "{first} and then {second}");
    // Nothing was left in the group: what it counts goes on all the same, also for another agent.
    drop(host);
    let host = node.open().await;
    start(&host, &spec("works", &writes("again", 8))).await.unwrap();
    ended(&host, "works").await;
    let third = known(&counters(&host).await, Meter::IoBytes);
    assert!((8 * MIB..16 * MIB).contains(&(third - second)), "{second} and then {third}");
    // What is in memory counts as its memory.
    let resources = plat_model::resources::Resources { memory_mib: Some(64), ..Default::default() };
    host.perform(&Action::Limit { partition: part(), resources }).await.unwrap();
    let full = shell("head -c 100000000 /dev/zero > /dev/shm/full".into());
    host.perform(&Action::RunHook { partition: part(), run: full }).await.unwrap_err();
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the kernel must have every controller of cgroup v2"]
async fn under_shims_all_is_limited_and_counted_by_one_group() {
    all_is_limited_and_counted_by_one_group(Runtime::Shim).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the machine's first process must be systemd, and the kernel have every controller of cgroup v2"]
async fn under_systemd_all_is_limited_and_counted_by_one_group() {
    all_is_limited_and_counted_by_one_group(Runtime::Systemd).await;
}

/// How a service ended, with its last line.
async fn serves(host: &LinuxHost, partition: &PartitionName, instance: &InstanceId, script: &str) -> (String, String) {
    let spec = ServiceSpec {
        instance: instance.clone(),
        fingerprint: format!("{script} {:?}", Instant::now()),
        ..spec("writes", script)
    };
    host.perform(&Action::StartService { partition: partition.clone(), spec: spec.clone() }).await.unwrap();
    let fact = async || host.observe_partition(partition).await.unwrap().services[&spec.name].clone();
    until("it has ended", async || matches!(fact().await.state, ServiceRun::Ended { .. })).await;
    let fact = fact().await;
    (fact.last_exit, fact.last_lines.join("\n"))
}

/// Of a node that node-format made, with 16 MiB for each partition.
async fn a_full_partition_is_full_for_all_in_it_and_for_nobody_else(runtime: Runtime) {
    let node_file = std::env::var_os("PLAT_NODE_FILE").expect("the path of a node.json");
    let folder = tempfile::tempdir().unwrap();
    let config = LinuxConfig {
        state: folder.path().join("state"),
        node_file: node_file.into(),
        executable: env!("CARGO_BIN_EXE_plat-agent").into(),
        network: Default::default(),
        clock: std::sync::Arc::new(plat_agent::clock::SystemClock),
        runtime,
    };
    let host = LinuxHost::open(config).await.unwrap();
    let node = host.node().await.unwrap();
    assert!(node.skeleton.limited, "it was formatted with limits");
    let of = |n: usize| (node.partitions[n].name.clone(), InstanceId::parse(&n.to_string().repeat(32)).unwrap());
    let [(full, one), (other, two)] = [of(0), of(1)];
    let occupy = async |partition: &PartitionName, instance: &InstanceId| {
        let (partition, instance) = (partition.clone(), instance.clone());
        host.perform(&Action::Occupy { partition, instance, secrets: BTreeMap::new() }).await.unwrap();
    };
    let hook = async |partition: &PartitionName, script| {
        host.perform(&Action::RunHook { partition: partition.clone(), run: shell(script) }).await
    };
    let says_so = |said: &str| said.contains("Disk quota exceeded") || said.contains("No space left on device");
    occupy(&full, &one).await;
    occupy(&other, &two).await;

    let (exit, said) = serves(&host, &full, &one, &writes("srv/file", 32)).await;
    assert!(exit != "exit code 0" && says_so(&said), "{exit}: {said}");
    let refused = hook(&full, writes("srv/more", 4)).await.unwrap_err();
    assert!(refused.code == codes::DISK_FULL && says_so(&refused.why), "{refused}");
    assert_eq!(serves(&host, &other, &two, &writes("srv/file", 8)).await, ("exit code 0".into(), String::new()));
    hook(&other, writes("srv/more", 4)).await.unwrap();

    // What was refused is nobody's, and is not on the bill.
    let levels = async || {
        let read = host.counters(&[full.clone(), other.clone()], Wanted::Levels).await;
        read.into_iter().map(|(_, read)| read.unwrap().readings[&Meter::DiskByteSeconds].clone()).collect::<Vec<_>>()
    };
    until("the disk has been asked", async || levels().await.iter().all(|level| matches!(level, Amount::Known(_))))
        .await;
    let [Amount::Known(of_full), Amount::Known(of_other)] = levels().await[..] else { panic!("it was known") };
    assert!((15 * MIB..=16 * MIB).contains(&of_full), "{of_full}");
    assert!((12 * MIB..13 * MIB).contains(&of_other), "{of_other}");

    // The next instance has all of the room, and no more.
    for partition in [&full, &other] {
        host.perform(&Action::Erase { partition: partition.clone() }).await.unwrap();
        host.perform(&Action::Free { partition: partition.clone() }).await.unwrap();
    }
    occupy(&full, &two).await;
    hook(&full, writes("srv/file", 12)).await.unwrap();
    let (exit, said) = serves(&host, &full, &two, &writes("srv/more", 8)).await;
    assert!(exit != "exit code 0" && says_so(&said), "{exit}: {said}");
    host.perform(&Action::Erase { partition: full.clone() }).await.unwrap();
    host.perform(&Action::Free { partition: full }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a node must have been formatted with limits of disks"]
async fn under_shims_a_full_partition_is_full_for_all_in_it_and_for_nobody_else() {
    a_full_partition_is_full_for_all_in_it_and_for_nobody_else(Runtime::Shim).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the machine's first process must be systemd, and a node have been formatted with limits of disks"]
async fn under_systemd_a_full_partition_is_full_for_all_in_it_and_for_nobody_else() {
    a_full_partition_is_full_for_all_in_it_and_for_nobody_else(Runtime::Systemd).await;
}

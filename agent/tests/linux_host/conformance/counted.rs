//! What is counted, beside what the kernel says of the same.

use super::bounds::open_folder;
use super::*;

const MIB: u64 = 1 << 20;

/// The same node on a disk: what is written to memory is no I/O.
fn on_a_disk(node: &Node) -> Node {
    let mut there = Node::at(open_folder(), node.account.clone());
    there.runtime = node.runtime;
    there
}

/// Whether nobody counts I/O for systemd here.
fn io_is_hidden(node: &Node) -> bool {
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    node.runtime == Runtime::Systemd && !controllers.split_ascii_whitespace().any(|one| one == "io")
}

pub async fn what_is_written_to_the_disk_is_counted(node: Node) {
    let node = on_a_disk(&node);
    let host = node.occupied().await;
    let script = "dd if=/dev/zero of=file bs=1M count=8 conv=fsync";
    let written = async |times: u64| match &counters(&host).await.readings[&Meter::IoBytes] {
        Amount::Known(bytes) => {
            assert!(!io_is_hidden(&node), "nobody counts it, and {bytes} are told");
            assert!((times * 8 * MIB..times * 12 * MIB).contains(bytes), "{bytes} after {times} times 8 MiB");
        }
        Amount::Unknown(why) => assert!(io_is_hidden(&node) && why.contains("may not be read"), "{why}"),
    };
    begin(&host, &node, &spec("writes", script)).await.unwrap();
    ended(&host, "writes").await;
    written(1).await;
    // While it runs, and when another run has followed.
    let goes_on = format!("{script}; echo > done; exec sleep 600");
    begin(&host, &node, &spec("writes", &goes_on)).await.unwrap();
    until("it has written", async || node.home().join("done").exists()).await;
    written(2).await;
    let run = Run { name: "configure".into(), ..program(script, 60) };
    host.perform(&Action::RunHook { partition: part(), run }).await.unwrap();
    written(3).await;
    node.done(host).await;
}

/// What a process has in memory, in bytes.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

pub async fn what_is_held_in_memory_is_what_the_kernel_says(node: Node) {
    let host = node.occupied().await;
    let held = async || known(&counters(&host).await, Meter::MemoryByteSeconds);
    let holds = "exec perl -e 'open(my $zero, \"<\", \"/dev/zero\"); sysread($zero, my $all, 64 << 20);
        open(my $up, \">\", \"up\"); sleep 600'";
    begin(&host, &node, &spec("holds", holds)).await.unwrap();
    until("it holds it", async || node.home().join("up").exists()).await;
    let (said, kernels) = (held().await, resident(running(&fact(&host, "holds").await)));
    assert!(kernels >= 64 * MIB);
    // A group counts caches too, and processes share what is a library's.
    assert!((64 * MIB..kernels + 24 * MIB).contains(&said), "{said}, and the kernel says {kernels}");
    stop(&host, "holds").await;
    let after = held().await;
    assert!(after < 32 * MIB, "{after} when nothing runs");
    node.done(host).await;
}

/// Burns CPU in many short children; the shell says how much the kernel saw.
pub async fn cpu_time_of_many_short_children_agrees_with_the_kernel(node: Node) {
    let host = node.occupied().await;
    let home = node.home();
    let script = "i=0; while [ $i -lt 300 ]; do (j=0; while [ $j -lt 4000 ]; do j=$((j+1)); done); i=$((i+1)); done; times > times";
    begin(&host, &node, &spec("busy", script)).await.unwrap();
    until("the counters are read while it runs", async || known(&counters(&host).await, Meter::CpuMicros) > 0).await;
    ended(&host, "busy").await;
    for _ in 0..10 {
        begin(&host, &node, &spec("short", "exec sleep 0.05")).await.unwrap();
        ended(&host, "short").await;
    }
    let said = fs::read_to_string(home.join("times")).unwrap();
    let micros: f64 = said
        .split_ascii_whitespace()
        .map(|t| {
            let (m, s) = t.trim_end_matches('s').split_once('m').unwrap();
            (m.parse::<f64>().unwrap() * 60.0 + s.parse::<f64>().unwrap()) * 1e6
        })
        .sum();
    let before = counters(&host).await;
    let counted = known(&before, Meter::CpuMicros) as f64;
    // Each start and end of a process with mounts of its own is on the bill too: of a shim's below 10 ms, of systemd's more.
    let starts = if node.runtime == Runtime::Systemd { 600_000.0 } else { 100_000.0 };
    assert!(counted > micros * 0.98 && counted < micros * 1.02 + starts, "counted {counted}, the shell says {micros}");
    assert!(known(&before, Meter::WallMillis) >= 500);
    drop(host);
    let host = node.open().await;
    let after = counters(&host).await;
    assert_eq!(after.epoch, before.epoch);
    assert!(known(&after, Meter::CpuMicros) >= known(&before, Meter::CpuMicros));
    assert!(known(&after, Meter::CpuMicros) as f64 <= counted + 20_000.0);
    node.done(host).await;
}

//! What an instance asks for is what its partition is held to, while it runs.

use super::*;
use plat_model::resources::Resources;

async fn limit(host: &LinuxHost, resources: Resources) {
    host.perform(&Action::Limit { partition: part(), resources }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_limit_holds_for_what_runs_already_and_restarts_nothing() {
    let node = Node::new(None);
    let host = node.occupied().await;
    assert_eq!(host.observe_partition(&part()).await.unwrap().limits, Some(Resources::default()));
    if !host.enforces().processes {
        eprintln!("SKIPPED: no control group limits processes here");
        return node.done(host).await;
    }
    let script = "while [ ! -e go ]; do sleep 0.01; done; i=0; \
                  while [ $i -lt 40 ]; do sleep 600 & i=$((i+1)); echo $i > begun; done; exec sleep 600";
    start(&host, &spec("many", script)).await.unwrap();
    let before = fact(&host, "many").await;
    let resources = Resources { processes: Some(10), ..Resources::default() };
    limit(&host, resources).await;
    let seen = host.observe_partition(&part()).await.unwrap();
    assert_eq!(seen.limits, Some(resources));
    assert_eq!(seen.services[&service("many")].run, before.run);
    fs::write(node.home().join("go"), "").unwrap();
    ended(&host, "many").await;
    let begun: u32 = fs::read_to_string(node.home().join("begun")).unwrap().trim().parse().unwrap();
    assert!(begun < 10, "{begun} processes in a partition of ten");
    // An agent that has just been started knows nothing, and is told again.
    drop(host);
    let host = node.open().await;
    assert_eq!(host.observe_partition(&part()).await.unwrap().limits, None);
    node.done(host).await;
}

/// How often the partition had to wait for CPU time, as its group says; `None` where none limits it.
fn throttled(node: &Node) -> Option<u64> {
    let id = node.id();
    ["/sys/fs/cgroup", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"].into_iter().find_map(|mount| {
        let text = fs::read_to_string(Path::new(mount).join("plat").join(&id).join("p0/cpu.stat")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("nr_throttled ")?.parse().ok())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn cpu_time_is_given_out_as_asked() {
    let node = Node::new(None);
    let host = node.occupied().await;
    if !host.enforces().cpu {
        eprintln!("SKIPPED: no control group limits CPU time here");
        return node.done(host).await;
    }
    start(&host, &spec("busy", "while :; do :; done")).await.unwrap();
    assert_eq!(throttled(&node).unwrap_or(0), 0);
    limit(&host, Resources { cpu_millis: Some(50), ..Resources::default() }).await;
    until("it has to wait for its turn", async || throttled(&node).is_some_and(|times| times > 2)).await;
    limit(&host, Resources::default()).await;
    node.done(host).await;
}

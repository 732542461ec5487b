//! Totals over the agent's end, whenever it comes, and over damage to what it wrote down.

use super::*;

fn kept(node: &Node) -> PathBuf {
    node.state().join("host/counters")
}

/// A partition whose service has used some CPU time that has been told of.
async fn used(node: &Node) -> (LinuxHost, Counters) {
    let host = node.occupied().await;
    start(&host, &spec("works", "while :; do :; done")).await.unwrap();
    until("it has used CPU time", async || known(&counters(&host).await, Meter::CpuMicros) > 100_000).await;
    let told = counters(&host).await;
    (host, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_told_is_never_more_than_what_is_told_after_the_agent_was_killed() {
    let node = Node::new(None);
    let (mut host, mut told) = used(&node).await;
    for half in ["", "1 half of a line that was cut"] {
        drop(host);
        fs::OpenOptions::new().append(true).open(kept(&node)).unwrap().write_all(half.as_bytes()).unwrap();
        host = node.open();
        let now = counters(&host).await;
        assert_eq!((now.epoch, &now.lost), (told.epoch, &None));
        for meter in [Meter::CpuMicros, Meter::WallMillis] {
            assert!(known(&now, meter) >= known(&told, meter), "{meter}: {now:?} after {told:?}");
        }
        told = now;
    }
    // A run that ended, and whose record the next one wrote over, while nobody asked.
    host.perform(&Action::StopService { partition: part(), service: service("works") }).await.unwrap();
    start(&host, &spec("works", "sleep 600")).await.unwrap();
    drop(host);
    let host = node.open();
    let now = counters(&host).await;
    assert!(now.epoch == told.epoch && known(&now, Meter::CpuMicros) >= known(&told, Meter::CpuMicros));
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_damage_counting_begins_anew_and_says_that_something_was_lost() {
    let node = Node::new(None);
    let (host, told) = used(&node).await;
    drop(host);
    let mut bytes = fs::read(kept(&node)).unwrap();
    bytes[80] ^= 1;
    fs::write(kept(&node), bytes).unwrap();
    let host = node.open();
    let now = counters(&host).await;
    assert_ne!(now.epoch, told.epoch);
    assert!(now.lost.as_deref().unwrap().contains("lost"), "{now:?}");
    assert!(known(&now, Meter::CpuMicros) < known(&told, Meter::CpuMicros), "what was billed is not billed again");
    let aside = fs::read_dir(node.state().join("host")).unwrap().flatten();
    assert_eq!(aside.filter(|e| e.file_name().to_string_lossy().starts_with("counters.damaged-")).count(), 1);
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_of_the_form_before_are_taken_over() {
    let node = Node::new(None);
    let host = node.occupied().await;
    drop(host);
    fs::remove_file(kept(&node)).unwrap();
    let before = node.state().join("host/partitions/p0/counters.json");
    let text = format!(
        r#"{{"version":1,"epoch":5,"instance":"{}","cpu_micros":77000000,"io_bytes":1,"wall_millis":2,
            "wall_until":"2026-11-21T00:00:00Z","group":null,"runs":{{}}}}"#,
        instance()
    );
    fs::write(&before, text).unwrap();
    let host = node.open();
    let now = counters(&host).await;
    assert!(now.epoch == 5 && now.lost.is_none() && known(&now, Meter::CpuMicros) >= 77_000_000, "{now:?}");
    assert!(!before.exists());
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_of_levels_writes_nothing() {
    let node = Node::new(None);
    let (host, _) = used(&node).await;
    let before = fs::read(kept(&node)).unwrap();
    let (_, read) = host.counters(&[part()], Wanted::Levels).await.pop().unwrap();
    let read = read.unwrap();
    assert!(read.readings.contains_key(&Meter::MemoryByteSeconds) && !read.readings.contains_key(&Meter::CpuMicros));
    assert!(fs::read(kept(&node)).unwrap() == before);
    node.done(host).await;
}

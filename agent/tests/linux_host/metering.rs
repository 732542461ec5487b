//! Totals over the agent's end, whenever it comes, and over damage to what it wrote down.

use super::wires::{in_network, inside, join, socket};
use super::*;
use std::net::UdpSocket;

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
        host = node.open().await;
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
    let host = node.open().await;
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
    let host = node.open().await;
    let now = counters(&host).await;
    assert_ne!(now.epoch, told.epoch);
    assert!(now.lost.as_deref().unwrap().contains("lost"), "{now:?}");
    assert!(known(&now, Meter::CpuMicros) < known(&told, Meter::CpuMicros), "what was billed is not billed again");
    let aside = fs::read_dir(node.state().join("host")).unwrap().flatten();
    assert_eq!(aside.filter(|e| e.file_name().to_string_lossy().starts_with("counters.damaged-")).count(), 1);
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_has_run_also_where_what_it_used_cannot_be_written_down_yet() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let before = counters(&host).await;
    drop(host);
    let beside = node.state().join("host/counters.new");
    fs::create_dir(&beside).unwrap();
    let host = node.open().await;
    let script =
        "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; dd if=/dev/zero of=file bs=64k count=16 conv=fsync";
    let run = Run {
        name: "configure".into(),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
        directory: String::new(),
        timeout_seconds: 60,
    };
    host.perform(&Action::RunHook { partition: part(), run }).await.unwrap();
    let (_, unwritten) = host.counters(&[part()], Wanted::All).await.pop().unwrap();
    unwritten.unwrap_err();
    fs::remove_dir(&beside).unwrap();
    let now = counters(&host).await;
    assert_eq!(now.epoch, before.epoch);
    assert!(known(&now, Meter::CpuMicros) >= known(&before, Meter::CpuMicros) + 10_000, "{now:?}");
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
    fs::create_dir_all(before.parent().unwrap()).unwrap();
    fs::write(&before, text).unwrap();
    let host = node.open().await;
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

/// Sends datagrams of 1,000 bytes there and back.
fn exchange(one: UdpSocket, other: UdpSocket, times: usize) {
    let wait = Some(Duration::from_secs(20));
    let mut buffer = [0; 1000];
    for (from, to) in [(&one, &other), (&other, &one)].repeat(times) {
        to.set_read_timeout(wait).unwrap();
        from.send_to(&[1; 1000], to.local_addr().unwrap()).unwrap();
        assert_eq!(to.recv(&mut buffer).unwrap(), 1000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_in_a_partitions_namespace_is_counted_by_direction_over_links_that_are_made_again() {
    if !root_is_here() {
        return;
    }
    let (own, other) = (namespace::Namespace::new(), namespace::Namespace::new());
    join(own.file(), other.file());
    let talk = |times| exchange(socket(own.file(), "10.9.0.1"), socket(other.file(), "10.9.0.2"), times);
    talk(3);
    let mut node = Node::new(None);
    node.namespace = Some(own.file().to_owned());
    node.write_node_file();
    let host = node.occupied().await;
    let bytes = |counters: &Counters| {
        [Meter::NetworkReceivedBytes, Meter::NetworkSentBytes, Meter::NetworkBytes].map(|meter| known(counters, meter))
    };
    let first = bytes(&counters(&host).await);
    assert!(first[2] < 6000, "what was before it came is not its own: {first:?}");

    talk(20);
    exchange(socket(own.file(), "127.0.0.1"), socket(own.file(), "127.0.0.1"), 20);
    let second = bytes(&counters(&host).await);
    for (before, after) in first.iter().zip(&second).take(2) {
        assert!((20_000..30_000).contains(&(after - before)), "{first:?} {second:?}");
    }
    assert_eq!(second[0] + second[1], second[2]);

    // Killed, and the links made again meanwhile.
    drop(host);
    inside(own.file(), "ip link delete eth0");
    join(own.file(), other.file());
    talk(40);
    let host = node.open().await;
    let third = bytes(&counters(&host).await);
    for (before, after) in second.iter().zip(&third).take(2) {
        assert!((40_000..60_000).contains(&(after - before)), "{second:?} {third:?}");
    }
    node.done(host).await;
}

#[test]
fn traffic_behind_a_tap_is_its_partitions_seen_from_the_guest() {
    if !root_is_here() {
        return;
    }
    let (own, guest) = (namespace::Namespace::new(), namespace::Namespace::new());
    join(own.file(), guest.file());
    in_network(own.file(), async || {
        let mut node = Node::new(None);
        // Any link counts as a tap does.
        node.tap = Some("eth0".into());
        node.write_node_file();
        let host = node.occupied().await;
        let before = counters(&host).await;
        let (sent, received) = (known(&before, Meter::NetworkSentBytes), known(&before, Meter::NetworkReceivedBytes));
        let (from, to) = (socket(guest.file(), "10.9.0.2"), socket(own.file(), "10.9.0.1"));
        to.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        for _ in 0..20 {
            from.send_to(&[1; 1000], to.local_addr().unwrap()).unwrap();
            to.recv(&mut [0; 1000]).unwrap();
        }
        let after = counters(&host).await;
        assert!((20_000..30_000).contains(&(known(&after, Meter::NetworkSentBytes) - sent)), "{before:?} {after:?}");
        assert!(known(&after, Meter::NetworkReceivedBytes) - received < 5_000, "{before:?} {after:?}");
        node.done(host).await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_is_unknown_where_the_kernel_may_not_be_asked_to_count_it() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let read = counters(&host).await;
    for meter in [Meter::NetworkBytes, Meter::NetworkReceivedBytes, Meter::NetworkSentBytes] {
        match &read.readings[&meter] {
            Amount::Unknown(why) => assert!(!is_root() && !why.is_empty(), "{why}"),
            Amount::Known(bytes) => assert!(is_root() && *bytes == 0),
        }
    }
    node.done(host).await;
}

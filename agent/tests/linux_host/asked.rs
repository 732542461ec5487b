//! Hooks that somebody asks for, with real processes.

use super::*;
use plat_model::id::HookName;
use plat_model::run::{RunEnd, RunResult};
use tokio::sync::mpsc::Receiver;

fn asked(number: u64, script: &str) -> Action {
    let run = Run {
        name: "configure".into(),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        environment: [("PATH".to_owned(), "/usr/bin:/bin".to_owned())].into(),
        directory: String::new(),
        timeout_seconds: 30,
    };
    Action::RunAsked { partition: part(), number, run }
}

async fn over(host: &LinuxHost) -> Vec<RunResult> {
    host.observe_partition(&part()).await.unwrap().occupant.unwrap().asked.over
}

async fn log(host: &LinuxHost, follow: Follow) -> Receiver<(ServiceName, String)> {
    let of = LogOf::Hook(part(), HookName::parse("configure").unwrap());
    host.logs(&LogsAsked { of, lines: 100, follow }).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_becomes_of_a_run_is_known_and_can_be_read_also_after_a_restart() {
    let node = Node::new(None);
    let host = node.occupied().await;
    host.perform(&asked(1, "for n in $(seq 1 30); do echo line $n; done; exit 3")).await.unwrap();
    host.perform(&asked(2, "kill -9 $$")).await.unwrap();
    host.perform(&Action::RunAsked { partition: part(), number: 3, run: missing() }).await.unwrap();
    let before = over(&host).await;
    let ends: Vec<_> = before.iter().map(|run| (run.number, run.end)).collect();
    assert_eq!(ends, [(1, RunEnd::Exited(3)), (2, RunEnd::Killed), (3, RunEnd::NotRun)]);
    assert_eq!((before[0].how.as_str(), before[0].tail.last().unwrap().as_str()), ("exit code 3", "line 30"));
    assert_eq!(before[0].tail.len(), 10);
    assert!(before[1].how.contains("SIGKILL") && before[2].how.contains("/nowhere"), "{before:?}");
    drop(host);
    let host = node.open().await;
    assert_eq!(over(&host).await, before);
    let mut lines = log(&host, Follow::No).await;
    let mut read = Vec::new();
    while let Some((hook, line)) = lines.recv().await {
        assert_eq!(hook.as_str(), "configure");
        read.push(line);
    }
    assert_eq!((read.len(), read[0].as_str()), (30, "line 1"));
    node.done(host).await;
}

fn missing() -> Run {
    let command = vec!["/nowhere/to/be/found".into()];
    let (name, directory) = ("configure".into(), String::new());
    Run { name, command, environment: BTreeMap::new(), directory, timeout_seconds: 5 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_nobody_waits_for_any_more_is_ended_and_never_begun_again() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let hangs = asked(7, "sleep 600 & echo $!; exec sleep 600");
    let mut lines = log(&host, Follow::Yes).await;
    let child: u32 = tokio::select! {
        done = host.perform(&hangs) => panic!("it does not end: {done:?}"),
        line = lines.recv() => line.unwrap().1.parse().unwrap(),
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while alive(child) {
        assert!(Instant::now() < deadline, "what it started lives on");
        tokio::task::yield_now().await;
    }
    let begun = async |host: &LinuxHost| {
        let asked = host.observe_partition(&part()).await.unwrap().occupant.unwrap().asked;
        (asked.begun.map(|begun| begun.number), asked.over.len())
    };
    assert_eq!(begun(&host).await, (Some(7), 0));
    drop(host);
    let host = node.open().await;
    assert_eq!(begun(&host).await, (Some(7), 0), "it is on the disk");
    assert_eq!(host.perform(&hangs).await.unwrap_err().code, codes::FORGED);
    assert_eq!(host.perform(&asked(6, "true")).await.unwrap_err().code, codes::FORGED);
    node.done(host).await;
}

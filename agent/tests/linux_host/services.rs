//! What is the shims' own of keeping services, and the host's: see `conformance` for what every runtime does.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_shim_leaves_no_second_service() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let spec = spec("db", "sleep 600 & exec sleep 600");
    start(&host, &spec).await.unwrap();
    let pid = running(&fact(&host, "db").await);
    kill9(node.service_state("db")["shim"]["pid"].as_u64().unwrap());
    let fact = ended(&host, "db").await;
    assert!(fact.last_exit.contains("supervisor"), "{}", fact.last_exit);
    assert!(!alive(pid));
    start(&host, &spec).await.unwrap();
    let first = running(&self::fact(&host, "db").await);
    // Both at once: the next agent finds neither shim nor agent.
    let shim = node.service_state("db")["shim"]["pid"].as_u64().unwrap();
    drop(host);
    kill9(shim);
    let host = node.open().await;
    ended(&host, "db").await;
    assert!(!alive(first));
    node.done(host).await;
}

/// As one that hangs, whatever for.
fn hold_still(shim: u64) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim as i32), nix::sys::signal::Signal::SIGSTOP).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_does_not_end_is_killed_when_its_service_is_to_stop() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let spec = spec("db", "sleep 600 & exec sleep 600");
    start(&host, &spec).await.unwrap();
    let (pid, shim) = (running(&fact(&host, "db").await), node.service_state("db")["shim"]["pid"].as_u64().unwrap());
    hold_still(shim);
    let stop = Action::StopService { partition: part(), service: service("db") };
    tokio::time::timeout(Duration::from_secs(45), host.perform(&stop)).await.expect("it is waited for").unwrap();
    assert!(!alive(pid) && !alive(shim as u32));
    let fact = ended(&host, "db").await;
    assert!(fact.last_exit.contains("supervisor"), "{}", fact.last_exit);
    start(&host, &spec).await.unwrap();
    running(&self::fact(&host, "db").await);
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_does_not_end_keeps_no_partition_from_being_erased() {
    let node = Node::new(None);
    let host = node.occupied().await;
    // However long it would have to stop.
    start(&host, &ServiceSpec { stop_timeout_seconds: 3600, ..spec("db", "exec sleep 600") }).await.unwrap();
    let (pid, shim) = (running(&fact(&host, "db").await), node.service_state("db")["shim"]["pid"].as_u64().unwrap());
    hold_still(shim);
    let erase = Action::Erase { partition: part() };
    tokio::time::timeout(Duration::from_secs(45), host.perform(&erase)).await.expect("it is waited for").unwrap();
    assert!(!alive(pid) && !alive(shim as u32));
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_an_instances_log_reads_on_and_nothing_of_the_next_instance() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let asked = LogsAsked { of: LogOf::Services(part(), Some(service("talks"))), lines: 10, follow: Follow::Yes };
    start(&host, &spec("talks", "echo one; while [ ! -e go ]; do sleep 0.01; done; echo two; exec sleep 600"))
        .await
        .unwrap();
    let mut lines = host.logs(&asked).await.unwrap();
    assert_eq!(lines.recv().await, Some((service("talks"), "one".into())));
    fs::write(node.home().join("go"), "").unwrap();
    assert_eq!(lines.recv().await, Some((service("talks"), "two".into())));
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    host.perform(&Action::Free { partition: part() }).await.unwrap();
    let other = InstanceId::parse(&"b".repeat(32)).unwrap();
    host.perform(&Action::Occupy { partition: part(), instance: other.clone(), secrets: BTreeMap::new() })
        .await
        .unwrap();
    let next = ServiceSpec { instance: other, ..spec("talks", "echo secret; exec sleep 600") };
    start(&host, &next).await.unwrap();
    assert_eq!(lines.recv().await, None);
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_says_too_much_is_held_back_and_looked_after() {
    let node = Node::new(None);
    let host = node.occupied().await;
    start(&host, &spec("talks", "exec yes ''")).await.unwrap();
    let main = running(&fact(&host, "talks").await);
    let said = || {
        let io = fs::read_to_string(format!("/proc/{main}/io")).unwrap();
        let bytes: u64 = io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap();
        bytes
    };
    // As much as may come at once, and what a pipe holds.
    until("it has said much", async || said() > 170_000).await;
    let (begun, before) = (Instant::now(), said());
    until("it has said more", async || said() > before + 20_000).await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    kill9(main.into());
    assert_eq!(ended(&host, "talks").await.last_exit, "signal 9 (SIGKILL)");
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_is_small() {
    let node = Node::new(None);
    let host = node.occupied().await;
    // What several have in common is nobody's own.
    for n in 0..5 {
        start(&host, &spec(&format!("s{n}"), "exec sleep 600")).await.unwrap();
    }
    let shim = node.service_state("s3")["shim"]["pid"].as_u64().unwrap();
    let rollup = fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).unwrap();
    let kib = |name: &str| -> u64 {
        rollup.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    };
    let private = kib("Private_Clean:") + kib("Private_Dirty:");
    assert!(private <= 512, "{private} KiB");
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_reloads_by_a_signal_or_a_command_and_goes_on_with_the_same_process() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let script = "trap 'echo again >> reloaded' HUP; echo up > up; while :; do sleep 0.02; done";
    let files = "files of before".to_owned();
    let reload = Some(ReloadSpec { how: ReloadHow::Signal(ReloadSignal::Hup), files });
    start(&host, &ServiceSpec { reload, ..spec("web", script) }).await.unwrap();
    until("it is up", async || node.home().join("up").exists()).await;
    let before = fact(&host, "web").await;
    assert_eq!(before.loaded, "files of before");
    let ask =
        |run: &str, how: ReloadHow| Action::Reload { partition: part(), service: service("web"), run: run.into(), how };
    host.perform(&ask(&before.run, ReloadHow::Signal(ReloadSignal::Hup))).await.unwrap();
    until("it has reloaded", async || node.home().join("reloaded").exists()).await;
    let command = |script: &str| {
        ReloadHow::Command(Run {
            name: "reload-web".into(),
            command: vec!["/bin/sh".into(), "-c".into(), script.into()],
            environment: BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]),
            directory: String::new(),
            timeout_seconds: 5,
        })
    };
    host.perform(&ask(&before.run, command("echo told > told"))).await.unwrap();
    assert!(node.home().join("told").exists());
    let problem = host.perform(&ask(&before.run, command("exit 3"))).await.unwrap_err();
    assert_eq!(problem.code, codes::HOOK_FAILED);
    // Of a run that is over there is nothing to tell.
    host.perform(&ask("another run", ReloadHow::Signal(ReloadSignal::Usr1))).await.unwrap();
    assert_eq!(running(&fact(&host, "web").await), running(&before));
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_process_is_not_ended_for_the_mark_it_gave_itself() {
    use std::os::unix::process::CommandExt;
    if !root_is_here() {
        return;
    }
    let node = Node::new(Some(account(UID + 16)));
    let host = node.occupied().await;
    start(&host, &spec("db", "sleep 600 & exec sleep 600")).await.unwrap();
    let main = running(&fact(&host, "db").await);
    let mut mark = None;
    // While a process becomes another program it shows no environment at all.
    until("the service bears its mark", async || {
        let environment = fs::read_to_string(format!("/proc/{main}/environ")).unwrap_or_default();
        mark = environment.split('\0').find_map(|v| v.strip_prefix("PLAT_RUN=")).map(str::to_owned);
        mark.is_some()
    })
    .await;
    let mark = mark.unwrap();
    let mut stranger = std::process::Command::new("/bin/sleep");
    let mut stranger = stranger.arg("600").uid(UID + 17).gid(UID + 17).env("PLAT_RUN", mark).spawn().unwrap();
    kill9(node.service_state("db")["shim"]["pid"].as_u64().unwrap());
    ended(&host, "db").await;
    assert!(!alive(main) && alive(stranger.id()));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    node.done(host).await;
}

//! Services: started, stopped, found again.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_outlives_its_agent_and_is_found_again() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let spec = spec("db", "echo begun; exec sleep 600");
    start(&host, &spec).await.unwrap();
    let pid = running(&fact(&host, "db").await);
    let log = node.state().join("host/partitions/p0/services/db/log");
    until("it wrote", async || fs::read_to_string(&log).is_ok_and(|t| t.contains("begun"))).await;
    drop(host);
    assert!(alive(pid));

    let host = node.open();
    let mut events = host.events();
    assert_eq!(running(&fact(&host, "db").await), pid);
    start(&host, &spec).await.unwrap();
    assert_eq!(running(&fact(&host, "db").await), pid, "it was not started twice");
    kill9(pid.into());
    let told = tokio::time::timeout(Duration::from_secs(5), events.recv()).await.unwrap().unwrap();
    assert_eq!(told, Event::Partition(part()));
    let fact = ended(&host, "db").await;
    assert_eq!((fact.last_exit.as_str(), fact.restarts, fact.short_runs), ("signal 9 (SIGKILL)", 1, 1));
    assert_eq!(fact.last_lines, ["begun"]);
    start(&host, &spec).await.unwrap();
    host.perform(&Action::StopService { partition: part(), service: service("db") }).await.unwrap();
    let fact = ended(&host, "db").await;
    assert_eq!((fact.restarts, fact.short_runs), (2, 0));
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_kills_what_ignores_the_signal_and_what_detached() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let home = node.home();
    let script = format!(
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > {0}/detached; while :; do sleep 1; done' & while :; do sleep 1; done",
        home.display()
    );
    start(&host, &spec("stubborn", &script)).await.unwrap();
    let pid = running(&fact(&host, "stubborn").await);
    until("it detached", async || fs::read_to_string(home.join("detached")).is_ok_and(|t| t.ends_with('\n'))).await;
    let detached: u32 = fs::read_to_string(home.join("detached")).unwrap().trim().parse().unwrap();
    host.perform(&Action::StopService { partition: part(), service: service("stubborn") }).await.unwrap();
    assert!(!alive(pid) && !alive(detached));
    assert!(matches!(fact(&host, "stubborn").await.state, ServiceRun::Ended { .. }));
    node.done(host).await;
}

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
    let host = node.open();
    ended(&host, "db").await;
    assert!(!alive(first));
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_be_started_is_a_problem_that_says_why() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let mut spec = spec("db", "");
    spec.command = vec!["/nowhere/postgres".into()];
    let problem = start(&host, &spec).await.unwrap_err();
    assert_eq!(problem.code, codes::SERVICE_START);
    assert!(problem.why.contains("No such file"), "{problem}");
    assert!(matches!(fact(&host, "db").await.state, ServiceRun::Ended { .. }));
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flooding_service_fills_no_disk_and_its_last_lines_can_be_read() {
    let node = Node::new(None);
    let host = node.occupied().await;
    start(&host, &spec("noisy", "head -c 20000000 /dev/zero | tr '\\0' 'x' | fold -w 100; echo; echo the end"))
        .await
        .unwrap();
    ended(&host, "noisy").await;
    let asked = LogsAsked { service: None, lines: 1, follow: Follow::No };
    let mut lines = host.logs(&part(), &asked).await.unwrap();
    assert_eq!(lines.recv().await, Some((service("noisy"), "the end".into())));
    assert_eq!(lines.recv().await, None);
    let folder = node.state().join("host/partitions/p0/services/noisy");
    let size: u64 = fs::read_dir(folder).unwrap().map(|e| e.unwrap().metadata().unwrap().len()).sum();
    assert!(size < 3 << 20, "{size}");
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_an_instances_log_reads_on_and_nothing_of_the_next_instance() {
    let node = Node::new(None);
    let host = node.occupied().await;
    let asked = LogsAsked { service: Some(service("talks")), lines: 10, follow: Follow::Yes };
    start(&host, &spec("talks", "echo one; while [ ! -e go ]; do sleep 0.01; done; echo two; exec sleep 600"))
        .await
        .unwrap();
    let mut lines = host.logs(&part(), &asked).await.unwrap();
    assert_eq!(lines.recv().await, Some((service("talks"), "one".into())));
    fs::write(node.home().join("go"), "").unwrap();
    assert_eq!(lines.recv().await, Some((service("talks"), "two".into())));
    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    host.perform(&Action::Free { partition: part() }).await.unwrap();
    let other = InstanceId::parse(&"b".repeat(32)).unwrap();
    host.perform(&Action::Occupy { partition: part(), instance: other, secrets: BTreeMap::new() }).await.unwrap();
    start(&host, &spec("talks", "echo secret; exec sleep 600")).await.unwrap();
    assert_eq!(lines.recv().await, None);
    node.done(host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_starts_fast_and_its_shim_is_small() {
    let node = Node::new(None);
    let host = node.occupied().await;
    start(&host, &spec("first", "exec sleep 600")).await.unwrap();
    let mut times = Vec::new();
    for n in 0..20 {
        let began = Instant::now();
        start(&host, &spec(&format!("s{n}"), "exec sleep 600")).await.unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    let shim = node.service_state("s3")["shim"]["pid"].as_u64().unwrap();
    let rollup = fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).unwrap();
    let kib = |name: &str| -> u64 {
        rollup.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    };
    let private = kib("Private_Clean:") + kib("Private_Dirty:");
    println!("start: median {:?}, slowest {:?}; private memory of a shim: {private} KiB", times[10], times[19]);
    assert!(private <= 512, "{private} KiB");
    assert!(times[10] < Duration::from_millis(100), "{times:?}");
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

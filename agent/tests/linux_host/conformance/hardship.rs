//! What goes on beside what takes its time, is dead and not waited for, was started by an agent of another version, or lost its
//! control groups.

use super::amounts::at_once;
use super::*;

pub async fn what_takes_its_time_to_stop_keeps_nothing_else(node: Node) {
    let host = node.occupied().await;
    let slow = ServiceSpec {
        stop_timeout_seconds: 3600,
        ..spec("slow", "trap '' TERM; echo $$ > slow; while :; do sleep 1; done")
    };
    let quick = spec("quick", "exec sleep 600");
    begin(&host, &node, &slow).await.unwrap();
    begin(&host, &node, &quick).await.unwrap();
    let pid = number_in(&node.home().join("slow")).await;
    let others = async {
        until("it is being stopped", async || matches!(fact(&host, "slow").await.state, ServiceRun::Stopping { .. }))
            .await;
        stop(&host, "quick").await;
        begin(&host, &node, &quick).await.unwrap();
        running(&fact(&host, "quick").await);
    };
    tokio::select! {
        () = stop(&host, "slow") => panic!("it ignores its signal, and has an hour"),
        () = others => {}
    }
    assert!(alive(pid));
    // Nor does it hold up the end of all.
    host.runtime().clear(&place(&node)).await.unwrap();
    assert!(!alive(pid));
    node.done(host).await;
}

pub async fn however_many_take_their_time_to_stop_others_are_told_to_and_have_their_own(node: Node) {
    let host = node.occupied().await;
    let deaf = |name: &str| spec(name, &format!("trap '' TERM; echo > {name}; exec sleep 600"));
    let hour = |spec| ServiceSpec { stop_timeout_seconds: 3600, ..spec };
    // As many as systemd is told to stop at once.
    let slow: Vec<_> = (0..32).map(|n| hour(deaf(&format!("slow{n}")))).collect();
    let hears = hour(spec("hears", "trap 'echo > heard; exit' TERM; echo > hears; while :; do sleep 0.1; done"));
    let all: Vec<_> = slow.iter().cloned().chain([deaf("deaf"), hears]).collect();
    for began in host.runtime().start(&place(&node), &all).await {
        began.unwrap();
    }
    until("all are ready", async || all.iter().all(|one| node.home().join(one.name.as_str()).exists())).await;
    let others = async {
        until("they are being stopped", async || {
            let services = host.observe_partition(&part()).await.unwrap().services;
            services.values().filter(|fact| matches!(fact.state, ServiceRun::Stopping { .. })).count() == slow.len()
        })
        .await;
        tokio::join!(stop(&host, "hears"), stop(&host, "deaf"));
    };
    tokio::select! {
        _ = join_all(slow.iter().map(|one| stop(&host, one.name.as_str()))) => panic!("they ignore their signal, and have an hour"),
        done = tokio::time::timeout(Duration::from_secs(60), others) => done.expect("they wait for the others"),
    }
    assert!(node.home().join("heard").exists(), "it was not told, or had no time");
    for name in ["hears", "deaf"] {
        let fact = fact(&host, name).await;
        assert!(matches!(fact.state, ServiceRun::Ended { how: Ending::Told, .. }), "{fact:?}");
    }
    host.runtime().clear(&place(&node)).await.unwrap();
    node.done(host).await;
}

/// A process whose parent has not asked how it ended.
fn dead_child_of(parent: u32) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let mut children = children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok());
    children.find(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|text| text.contains(") Z ")))
}

pub async fn dead_processes_that_nobody_waits_for_are_no_hindrance_and_go_with_the_service(node: Node) {
    let host = node.occupied().await;
    // The shell begins it, and is a program then that waits for nobody.
    begin(&host, &node, &spec("careless", "/bin/true & exec sleep 600")).await.unwrap();
    let main = running(&fact(&host, "careless").await);
    until("its child is dead", async || dead_child_of(main).is_some()).await;
    let child = dead_child_of(main).unwrap();
    counters(&host).await;
    stop(&host, "careless").await;
    until("the child is gone", async || !Path::new(&format!("/proc/{child}")).exists()).await;
    assert!(!alive(main));
    node.done(host).await;
}

pub async fn an_agent_of_another_version_finds_what_runs_and_goes_on_with_it(node: Node) {
    let binary = |version: &str| {
        let path = node.folder.path().join(version);
        fs::copy(env!("CARGO_BIN_EXE_plat-agent"), &path).unwrap();
        path
    };
    let old = binary("old");
    let host = node.open_as(&old).await;
    host.perform(&Action::Occupy { partition: part(), instance: instance(), secrets: BTreeMap::new() }).await.unwrap();
    let db = spec("db", "exec sleep 600");
    begin(&host, &node, &db).await.unwrap();
    let before = fact(&host, "db").await;
    drop(host);
    fs::remove_file(&old).unwrap();

    let host = node.open_as(&binary("new")).await;
    assert_eq!(fact(&host, "db").await, before);
    begin(&host, &node, &db).await.unwrap();
    assert_eq!(fact(&host, "db").await.run, before.run, "what runs as it should is not started again");
    begin(&host, &node, &spec("more", "exec sleep 600")).await.unwrap();
    kill9(running(&before).into());
    assert_eq!(ended(&host, "db").await.last_exit, "signal 9 (SIGKILL)");
    stop(&host, "more").await;
    node.done(host).await;
}

/// The partition's groups, of either version: those of a process, and the one of all of it.
fn groups(host: &LinuxHost, pid: u32) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    let of = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let of: Vec<&str> = of.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
    let under = |mount| of.iter().filter(|path| path.starts_with("/plat")).map(move |path| format!("{mount}{path}"));
    let all = mounts.flat_map(under).map(PathBuf::from).filter(|group| group.exists());
    all.chain(host.runtime().group(&part())).collect()
}

/// Kills all in these groups, and removes them.
async fn take_away(groups: &[PathBuf]) {
    for group in groups {
        let _none_of_version_1 = fs::write(group.join("cgroup.kill"), "1");
    }
    until("the groups are gone", async || {
        for group in groups {
            for within in fs::read_dir(group).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(within.path());
            }
            let _ = fs::remove_dir(group);
        }
        groups.iter().all(|group| !group.exists())
    })
    .await;
}

pub async fn groups_that_somebody_takes_away_are_made_again_with_their_limits_and_the_gap_is_told(node: Node) {
    let host = node.occupied().await;
    if host.runtime().group(&part()).is_none() {
        eprintln!("SKIPPED: there are no control groups here");
        return node.done(host).await;
    }
    let resources = Resources { processes: Some(30), memory_mib: Some(512), ..Resources::default() };
    let limit = async || host.perform(&Action::Limit { partition: part(), resources }).await.unwrap();
    let limits = async || host.observe_partition(&part()).await.unwrap().limits;
    let busy = spec("busy", "while :; do :; done");
    limit().await;
    begin(&host, &node, &busy).await.unwrap();
    until("it has used CPU time", async || known(&counters(&host).await, Meter::CpuMicros) > 100_000).await;
    let told = counters(&host).await;
    assert_eq!(limits().await, Some(resources), "it is told once");

    // While it runs.
    let all = groups(&host, running(&fact(&host, "busy").await));
    take_away(&all).await;
    let ended = ended(&host, "busy").await;
    assert_eq!((how(&ended), ended.restarts), (Ending::Failure, 1));
    assert_eq!(limits().await, None, "nothing holds it any more");
    limit().await;
    begin(&host, &node, &busy).await.unwrap();
    assert_eq!(limits().await, Some(resources));
    let run = fact(&host, "busy").await.run;
    let many = at_once(60);
    let held = host.runtime().run(&place(&node), &many).await.unwrap().exit.to_string() != "exit code 0";
    assert_eq!(held, host.enforces().processes);
    let gap = counters(&host).await;
    assert!(gap.epoch != told.epoch && gap.lost.as_deref().is_some_and(|why| why.contains("taken away")), "{gap:?}");
    let fresh = known(&gap, Meter::CpuMicros);
    until("it is counted", async || known(&counters(&host).await, Meter::CpuMicros) > fresh).await;
    assert_eq!(fact(&host, "busy").await.run, run);

    // And while nothing does.
    stop(&host, "busy").await;
    let before = counters(&host).await;
    assert_eq!(before.epoch, gap.epoch, "a stop is no gap");
    take_away(&all).await;
    assert_eq!(limits().await, None);
    limit().await;
    begin(&host, &node, &busy).await.unwrap();
    assert_eq!(limits().await, Some(resources));
    assert_ne!(counters(&host).await.epoch, before.epoch);
    node.done(host).await;
}

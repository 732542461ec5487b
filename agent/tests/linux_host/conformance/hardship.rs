//! What goes on beside what takes its time, is dead and not waited for, or was started by an agent of another version.

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

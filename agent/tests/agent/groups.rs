//! Control groups that somebody takes away beneath a running agent.

use crate::binary::{Node, formatted, wanted};
use crate::master::Master;
use crate::rig::until;
use plat_model::instance::{InstanceDesired, InstanceState, Wish};
use plat_model::resources::Resources;
use plat_model::usage::{Amount, Meter};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folders of a process's groups that are this agent's: of version 1 one for each controller, of version 2 its own.
fn groups(pid: u32) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = mounts.lines().filter(|line| line.contains(" - cgroup")).filter_map(|line| line.split(' ').nth(4));
    let of = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let of: Vec<&str> = of.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
    let under = |mount| of.iter().filter(|path| path.starts_with("/plat/")).map(move |path| format!("{mount}{path}"));
    mounts.flat_map(under).map(PathBuf::from).filter(|group| group.exists()).collect()
}

/// What limits the number of processes in one of these groups.
fn most_processes(groups: &[PathBuf]) -> Option<String> {
    let up = |group: &Path| group.ancestors().map(|group| group.join("pids.max")).collect::<Vec<_>>();
    let texts = groups.iter().flat_map(|group| up(group)).filter_map(|file| fs::read_to_string(file).ok());
    texts.map(|text| text.trim().to_owned()).find(|text| text != "max")
}

async fn until_pid(node: &Node, not: Option<u32>) -> u32 {
    until("the service runs", || {
        let pid = node.service_pid().filter(|pid| Some(*pid) != not);
        (pid.is_some(), pid)
    })
    .await;
    node.service_pid().unwrap()
}

/// Of CPU time, in the order of the ledger.
fn cpu(master: &Master) -> Vec<Amount> {
    let state = master.state();
    let records = state.ledger.iter().flat_map(|report| &report.records);
    records.filter_map(|record| record.amounts.get(&Meter::CpuMicros).cloned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_somebody_takes_away_are_made_again_with_their_limits_and_the_bill_says_that_there_is_a_gap() {
    let master: Arc<Master> = Master::new();
    let server = master.serve(0).await;
    let folder = tempfile::tempdir().unwrap();
    formatted(folder.path());
    let busy = folder.path().join("source/serve");
    fs::write(&busy, "#!/bin/sh\ntouch var-ran\nwhile :; do :; done\n").unwrap();
    fs::set_permissions(&busy, fs::Permissions::from_mode(0o755)).unwrap();
    let mut node = Node::new(folder, master.clone());
    node.enroll(&server.address);
    node.start();
    let (desired, document) = wanted(node.folder.path(), Wish::Started);
    let resources = Resources { processes: Some(50), cpu_millis: Some(200), ..Resources::default() };
    let desired = InstanceDesired { resources, ..desired };
    master.want_instance(desired.clone(), &document);
    node.until_state(InstanceState::Ready).await;
    let pid = until_pid(&node, None).await;
    let own = groups(pid);
    if own.is_empty() {
        eprintln!("SKIPPED: there are no control groups here");
    } else {
        let most = most_processes(&own);
        until("its CPU time is on the bill", || {
            let told = cpu(&master);
            (told.iter().any(|amount| matches!(amount, Amount::Known(more) if *more > 0)), told)
        })
        .await;
        let before = cpu(&master).len();
        // All that is the agent's, up to the folder of its name: of this agent alone.
        let tops: Vec<PathBuf> = own.iter().map(|group| of_agent(group)).collect();
        until("the groups are gone", || {
            tops.iter().for_each(|top| remove(top));
            (tops.iter().all(|top| !top.join("part0").exists()), tops.clone())
        })
        .await;
        let next = until_pid(&node, Some(pid)).await;
        node.until_state(InstanceState::Ready).await;
        until("it is held to its limits again", || {
            let now = groups(next);
            (now.len() == own.len() && most_processes(&now) == most, (now, most.clone()))
        })
        .await;
        until("the gap is on the bill, and what comes after it", || {
            let told = cpu(&master).split_off(before);
            let gap = told.iter().position(
                |amount| matches!(amount, Amount::Unknown(why) if why.contains("taken away") || why.contains("cannot be read")),
            );
            let after = gap.map(|gap| &told[gap..]).unwrap_or_default();
            (after.iter().any(|amount| matches!(amount, Amount::Known(more) if *more > 0)), told.clone())
        })
        .await;
        assert_eq!(node.service_pid(), Some(next), "that was its only end");
    }
    master.want_instance(InstanceDesired { wish: Wish::Destroyed, ..desired }, &document);
    node.until_state(InstanceState::Destroyed).await;
}

/// The folder `plat/ID` that a group is in.
fn of_agent(group: &Path) -> PathBuf {
    let is_plat = |folder: &&Path| folder.parent().is_some_and(|above| above.ends_with("plat"));
    group.ancestors().find(is_plat).unwrap().to_owned()
}

/// Kills all in a tree of groups, and removes what has none left in it.
fn remove(top: &Path) {
    let _none_of_version_1 = fs::write(top.join("cgroup.kill"), "1");
    for within in fs::read_dir(top).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove(&within.path());
    }
    let _held = fs::remove_dir(top);
}

//! A master that is away for longer than a certificate lives.

use crate::binary::{Node, enrolled, is_alive, wanted as sleeper};
use crate::burst::{count, want, wanted};
use crate::rig::{Rig, part, until};
use plat_agent::clock::{Clock, SystemClock};
use plat_agent_plan::facts::ServiceRun;
use plat_link::Address;
use plat_model::id::{NodeId, ServiceName};
use plat_model::identity::Identity;
use plat_model::instance::{InstanceState, Wish};
use plat_model::time::Window;
use plat_model::usage::Meter;
use std::fs;
use std::process::Command;
use std::time::Duration;

const DAY: i64 = 24 * 3600;
/// How long certificates are good before the master goes.
const LIFE: u64 = 4;
/// How much usage may wait: as little as can be set.
const ROOM: u64 = 1 << 20;
/// So many instances say more than that within some windows.
const MANY: u32 = 200;

fn waiting(rig: &Rig) -> u64 {
    fs::metadata(rig.data().join("outbox")).map_or(0, |about| about.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_week_without_its_master_a_node_has_kept_its_services_and_its_bill_and_comes_back_by_itself() {
    let mut rig = Rig::of(MANY).await;
    (rig.window, rig.outbox_bytes) = (Duration::from_millis(20), ROOM);
    {
        let mut state = rig.master.state();
        (state.node_life, state.renewed_life) = (LIFE, LIFE);
    }
    rig.enroll("goodsecret").await.unwrap();
    rig.start();
    want(&rig, (1..=MANY).map(|n| wanted(n, Wish::Started, 1)));
    until("all are ready", || (count(&rig, InstanceState::Ready) == MANY as usize, ())).await;
    rig.master_away().await;
    let ends = SystemClock.now().plus(Duration::from_secs(LIFE + 1));

    // Each day its service ends and is started again; on every other one the agent is too.
    let (echo, mut used) = (ServiceName::parse("echo").unwrap(), 0);
    let run = |rig: &Rig| match rig.host.fact(&part()).services[&echo].state {
        ServiceRun::Running { since, .. } => Some(since),
        _ => None,
    };
    for day in 1..=7 {
        let before = run(&rig);
        rig.clock.pass(DAY);
        rig.host.use_cpu(&part(), 1000 + day);
        used += 1000 + day;
        let was = waiting(&rig);
        rig.host.end_service(&part(), &echo, "exit code 1");
        until("the service runs again", || (run(&rig).is_some() && run(&rig) != before, run(&rig))).await;
        until("what it used waits to be booked, where there is room", || {
            let now = waiting(&rig);
            (now > was || now >= ROOM, (was, now))
        })
        .await;
        if day % 2 == 0 {
            rig.kill().await;
            rig.start();
        }
    }
    until("there is room for no more", || (waiting(&rig) >= ROOM, waiting(&rig))).await;
    rig.host.use_cpu(&part(), 500_000);
    until("its certificate has ended", || (SystemClock.now() > ends, SystemClock.now())).await;
    assert!(waiting(&rig) < ROOM + ROOM / 4, "{} bytes wait", waiting(&rig));

    rig.master.state().renewed_life = 60 * DAY.unsigned_abs();
    let renewed = rig.master.state().renewed_by.len();
    rig.master_back().await;
    until("it is let in again", || {
        let by = rig.master.state().renewed_by.split_off(renewed);
        (by == [Identity::Rejoin(NodeId::parse("n1").unwrap())], by)
    })
    .await;
    until("all that was used is booked", || {
        let booked = rig.master.state().booked(Meter::CpuMicros);
        (booked == used + 500_000, (booked, used + 500_000))
    })
    .await;
    want(&rig, [wanted(1, Wish::Stopped, 2)].into_iter());
    rig.until_state(1, InstanceState::Stopped).await;

    let state = rig.master.state();
    let of_one = state.ledger.iter().flat_map(|report| &report.records).filter(|one| one.partition == part());
    let windows: Vec<Window> = of_one.map(|one| one.window).collect();
    assert!(windows.is_sorted_by(|one, next| one.end <= next.start), "{windows:?}");
    let days = windows.last().unwrap().end.since(windows[0].start).as_secs() / DAY.unsigned_abs();
    assert_eq!(days, 7, "{windows:?}");
    assert_eq!(state.booked(Meter::CpuMicros), used + 500_000, "and nothing twice");
}

/// Shows a token for a node that is enrolled already, to get certificates that are good for so many seconds.
fn enroll_again(node: &Node, master: &Address, seconds: u64) {
    {
        let mut state = node.master.state();
        (state.node_life, state.rejoin_life) = (seconds, seconds);
    }
    let mut command = node.command();
    command.args(["enroll", "--again", "--master", &master.to_string(), "--token-file"]);
    assert!(command.arg(node.folder.path().join("token")).status().unwrap().success());
}

/// Its service's run, as the agent has written it down.
fn run_of(node: &Node) -> String {
    let file = node.folder.path().join("data/host/partitions/part0/services/serve/state.json");
    let state: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    if state["phase"] == "Running" { state["run"].to_string() } else { String::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_slept_past_both_its_certificates_keeps_its_services_and_says_how_to_come_back() {
    let (master, server, mut node) = enrolled().await;
    node.start();
    let (desired, document) = sleeper(node.folder.path(), Wish::Started);
    master.want_instance(desired, &document);
    node.until_state(InstanceState::Ready).await;
    let pid = node.service_pid().unwrap();
    node.kill();
    enroll_again(&node, &server.address, 1);
    let ends = SystemClock.now().plus(Duration::from_secs(2));
    until("both certificates have ended", || (SystemClock.now() > ends, SystemClock.now())).await;

    let log = node.folder.path().join("log");
    let mut run = node.command();
    run.arg("run").stderr(fs::File::create(&log).unwrap());
    node.agent = Some(run.spawn().unwrap());
    until("it says how to come back", || {
        let said = fs::read_to_string(&log).unwrap();
        let says = |text: &str| said.lines().any(|line| line.contains("both certificates") && line.contains(text));
        (says("P0602") && says("plat token create --node") && says("plat-agent enroll --again"), said)
    })
    .await;
    assert!(is_alive(pid), "its service goes on");
    let before = run_of(&node);
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    until("the service is started again", || {
        let now = run_of(&node);
        (!now.is_empty() && now != before, now)
    })
    .await;

    node.kill();
    enroll_again(&node, &server.address, 3600);
    node.start();
    until("it has told what runs now", || {
        let now = node.service_pid();
        (now.is_some_and(|now| now != pid), now)
    })
    .await;
    let (desired, document) = sleeper(node.folder.path(), Wish::Destroyed);
    master.want_instance(desired, &document);
    node.until_state(InstanceState::Destroyed).await;
}

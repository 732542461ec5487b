//! Each unit of use is booked exactly once.

use crate::rig::{Rig, part, until};
use plat_model::instance::{InstanceState, Wish};
use plat_model::usage::{Amount, Meter};

#[tokio::test(flavor = "multi_thread")]
async fn use_is_booked_once_although_answers_are_lost_and_the_agent_is_killed_again_and_again() {
    let mut rig = Rig::running().await;
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    let mut used = 0;
    for round in 0..4_u64 {
        rig.master.state().lose_answers = round % 2 == 0;
        rig.host.use_cpu(&part(), 1000 + round);
        used += 1000 + round;
        let pushes = rig.master.state().pushes;
        until("something is pushed", || {
            let now = rig.master.state().pushes;
            (now > pushes, now)
        })
        .await;
        if round == 1 {
            // A fake keeps no totals over a reboot, so all must have been counted before.
            until("all so far is booked", || {
                let booked = rig.master.state().booked(Meter::CpuMicros);
                (booked == used, booked)
            })
            .await;
        }
        rig.kill().await;
        if round == 1 {
            rig.host.reboot();
        }
        rig.host.use_cpu(&part(), 50);
        used += 50;
        rig.start();
    }
    rig.master.state().lose_answers = false;
    until("all is booked", || {
        let booked = rig.master.state().booked(Meter::CpuMicros);
        (booked >= used, booked)
    })
    .await;
    // What ends is counted to its last moment.
    rig.host.use_cpu(&part(), 7);
    rig.want(1, Wish::Destroyed);
    rig.until_state(1, InstanceState::Destroyed).await;
    until("the last of it is booked", || {
        let booked = rig.master.state().booked(Meter::CpuMicros);
        (booked >= used + 7, booked)
    })
    .await;
    let state = rig.master.state();
    assert_eq!(state.booked(Meter::CpuMicros), used + 7);
    let records = state.ledger.iter().flat_map(|report| &report.records);
    let network = records.map(|record| record.amounts[&Meter::NetworkBytes].clone());
    assert!(network.into_iter().all(|amount| matches!(amount, Amount::Unknown(_))), "unknown is never zero");
}

#[tokio::test(flavor = "multi_thread")]
async fn use_that_could_not_be_pushed_waits_on_disk() {
    let mut rig = Rig::running().await;
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    rig.master_away().await;
    rig.host.use_cpu(&part(), 12_345);
    let outbox = rig.data().join("outbox");
    until("it is taken", || {
        let text = std::fs::read_to_string(&outbox).unwrap_or_default();
        (text.contains("12345"), text.len())
    })
    .await;
    rig.kill().await;
    rig.master_back().await;
    rig.start();
    until("it is booked", || {
        let booked = rig.master.state().booked(Meter::CpuMicros);
        (booked == 12_345, booked)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_damaged_outbox_what_is_lost_is_unknown_and_nothing_is_booked_twice() {
    let mut rig = Rig::running().await;
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    rig.host.use_cpu(&part(), 1000);
    let booked = |rig: &Rig, sum: u64| {
        let booked = rig.master.state().booked(Meter::CpuMicros);
        (booked == sum, booked)
    };
    until("it is booked", || booked(&rig, 1000)).await;
    rig.kill().await;
    let outbox = rig.data().join("outbox");
    let mut bytes = std::fs::read(&outbox).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&outbox, bytes).unwrap();
    rig.host.use_cpu(&part(), 50);
    rig.start();
    until("the new outbox is there", || {
        let text = std::fs::read_to_string(&outbox).unwrap_or_default();
        (text.contains("\"lost\":true"), text)
    })
    .await;
    // As if it had been killed before anything was counted.
    rig.kill().await;
    rig.start();
    until("the loss is told", || {
        let state = rig.master.state();
        let amounts = state.ledger.iter().flat_map(|report| &report.records).map(|one| &one.amounts[&Meter::CpuMicros]);
        let unknown = amounts.filter(|amount| matches!(amount, Amount::Unknown(_))).count();
        (unknown == 1, unknown)
    })
    .await;
    rig.host.use_cpu(&part(), 7);
    until("what comes after it is booked", || booked(&rig, 1007)).await;
}

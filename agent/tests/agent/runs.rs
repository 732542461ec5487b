//! Hooks that somebody asks for.

use crate::rig::{RELEASE, Rig, instance, part, until};
use plat_document::Release;
use plat_model::id::HookName;
use plat_model::instance::{InstanceDesired, InstanceState, Wish};
use plat_model::run::{RunEnd, RunWanted};

const STEP: &str = "run hook configure as run 1";

fn document() -> Release {
    let text = RELEASE.replace("hooks:\n", "hooks:\n  configure: {command: [/bin/configure]}\n");
    Release::parse_yaml(&text, "echo.yaml").unwrap()
}

fn want(rig: &Rig, wish: Wish, runs: &[u64]) {
    let hook: HookName = "configure".parse().unwrap();
    let wanted = |number: &u64| RunWanted { number: *number, hook: hook.clone() };
    let (release, runs) = (document().digest(), runs.iter().map(wanted).collect());
    let wanted = InstanceDesired { release, runs, ..instance(1, wish) };
    rig.master.want_instance(wanted, &document().to_canonical_json());
}

fn ran(rig: &Rig) -> Vec<(u64, RunEnd)> {
    rig.status(1).map(|status| status.ran.iter().map(|run| (run.number, run.end)).collect()).unwrap_or_default()
}

async fn until_ran(rig: &Rig, expected: &[(u64, RunEnd)]) {
    until("it is over", || (ran(rig) == expected, ran(rig))).await;
}

fn times(rig: &Rig) -> usize {
    rig.host.performed().iter().filter(|step| step.ends_with(STEP)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_in_a_run_says_so_and_does_not_run_it_again() {
    let mut rig = Rig::running().await;
    want(&rig, Wish::Started, &[]);
    rig.until_state(1, InstanceState::Ready).await;
    rig.host.block(STEP);
    want(&rig, Wish::Started, &[1]);
    let begun = |rig: &Rig| rig.host.fact(&part()).occupant.and_then(|occupant| occupant.asked.begun);
    until("it has begun", || (begun(&rig).is_some(), begun(&rig))).await;
    rig.kill().await;
    rig.host.unblock(STEP);
    rig.start();
    until_ran(&rig, &[(1, RunEnd::Interrupted)]).await;
    want(&rig, Wish::Started, &[1, 2]);
    until_ran(&rig, &[(1, RunEnd::Interrupted), (2, RunEnd::Exited(0))]).await;
    assert_eq!(times(&rig), 0, "the first was never run to its end: {:?}", rig.host.performed());
    assert!(rig.master.state().inventory.as_ref().unwrap().does_once, "it says that it can");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_does_not_wait_for_a_run_that_was_asked_for() {
    let rig = Rig::running().await;
    want(&rig, Wish::Started, &[]);
    rig.until_state(1, InstanceState::Ready).await;
    rig.host.block(STEP);
    want(&rig, Wish::Started, &[1, 2]);
    until("it runs", || {
        let detail = rig.status(1).map(|status| status.detail);
        (detail.as_ref().is_some_and(|detail| detail.contains("run 1")), detail)
    })
    .await;
    want(&rig, Wish::Stopped, &[1, 2]);
    until_ran(&rig, &[(1, RunEnd::Interrupted), (2, RunEnd::NotRun)]).await;
    rig.until_state(1, InstanceState::Stopped).await;
}

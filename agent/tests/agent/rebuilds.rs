//! Releases that are to be built again.

use crate::rig::{RELEASE, Rig, instance, release, until};
use plat_document::Release;
use plat_model::Code;
use plat_model::id::Digest;
use plat_model::instance::{InstanceDesired, InstanceState, Wish};
use plat_model::problem::codes;
use plat_model::release::{InstallState, Installation};

/// The release is to be there, and to be built again so often.
fn want(rig: &Rig, number: u64) {
    rig.master.want(|desired| {
        desired.releases.insert(release().digest(), release().to_canonical_json());
        desired.rebuilds.insert(release().digest(), number);
    });
}

fn attempts(rig: &Rig, what: &str) -> usize {
    let step = format!("- {what} release {}", release().digest().short());
    rig.host.performed().iter().filter(|done| **done == step).count()
}

/// The last wish that what is told follows from.
fn acted_on(rig: &Rig) -> u64 {
    rig.master.state().installed[&release().digest()].rebuild
}

async fn until_state(rig: &Rig, state: InstallState) {
    until(&format!("it is {state:?}"), || {
        let told = rig.master.state().installed.get(&release().digest()).cloned();
        (told.as_ref().is_some_and(|told| told.state == state), told)
    })
    .await;
}

/// What is told is this state, of this wish, with this problem.
async fn until_told(rig: &Rig, state: InstallState, rebuild: u64, code: Option<Code>) {
    until("it is told so", || {
        let told = rig.master.state().installed.get(&release().digest()).cloned();
        let seen = told.map(|told| (told.state, told.rebuild, told.problem.map(|problem| problem.code)));
        (seen == Some((state, rebuild, code)), seen)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_failed_is_tried_again_at_once_when_that_is_asked_for() {
    let mut rig = Rig::enrolled().await;
    let step = format!("install release {}", release().digest().short());
    rig.host.fail(&step, 5);
    want(&rig, 0);
    rig.start();
    until_state(&rig, InstallState::Failed).await;
    // By itself it would be tried after 5, 10, 20, 40 and 80 seconds.
    for number in 1..=5 {
        want(&rig, number);
        let before = usize::try_from(number).unwrap();
        until("it is tried again", || (attempts(&rig, "install") > before, attempts(&rig, "install"))).await;
    }
    until_state(&rig, InstallState::Installed).await;
    assert_eq!(acted_on(&rig), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_nothing_uses_is_removed_and_built_again_once_and_one_in_use_is_left_alone() {
    let mut rig = Rig::running().await;
    want(&rig, 0);
    until_state(&rig, InstallState::Installed).await;
    want(&rig, 3);
    until("it is built again", || {
        let done = (attempts(&rig, "remove"), attempts(&rig, "install"));
        (done == (1, 2), done)
    })
    .await;
    until_state(&rig, InstallState::Installed).await;
    // Another agent on the same disk knows that it has been.
    rig.kill().await;
    rig.start();
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    want(&rig, 4);
    until_told(&rig, InstallState::Installed, 4, Some(codes::IN_USE)).await;
    rig.want(1, Wish::Stopped);
    rig.until_state(1, InstanceState::Stopped).await;
    assert_eq!((attempts(&rig, "remove"), attempts(&rig, "install")), (1, 2));
    assert!(rig.host.is_installed(&instance(1, Wish::Started).release));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_that_was_declined_is_told_as_that_also_by_the_next_agent_and_when_nothing_uses_the_release_any_more() {
    let mut rig = Rig::running().await;
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    want(&rig, 1);
    until_told(&rig, InstallState::Installed, 1, Some(codes::IN_USE)).await;
    rig.kill().await;
    rig.master.state().installed.clear();
    rig.start();
    until_told(&rig, InstallState::Installed, 1, Some(codes::IN_USE)).await;
    rig.want(1, Wish::Destroyed);
    rig.until_state(1, InstanceState::Destroyed).await;
    until_told(&rig, InstallState::Installed, 1, Some(codes::IN_USE)).await;
    assert_eq!((attempts(&rig, "remove"), attempts(&rig, "install")), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_that_cannot_be_removed_is_told_to_be_as_it_was_and_why_and_is_built_again_later() {
    let rig = Rig::running().await;
    want(&rig, 0);
    until_state(&rig, InstallState::Installed).await;
    rig.host.fail(&format!("remove release {}", release().digest().short()), 1);
    want(&rig, 1);
    until_told(&rig, InstallState::Installed, 1, Some(codes::HOOK_FAILED)).await;
    assert!(rig.host.is_installed(&release().digest()));
    assert_eq!((attempts(&rig, "remove"), attempts(&rig, "install")), (1, 1));
    until_told(&rig, InstallState::Installed, 1, None).await;
    assert_eq!((attempts(&rig, "remove"), attempts(&rig, "install")), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_while_a_release_is_removed_to_be_built_again_has_the_next_agent_do_it() {
    let mut rig = Rig::running().await;
    want(&rig, 0);
    until_state(&rig, InstallState::Installed).await;
    let removal = format!("remove release {}", release().digest().short());
    rig.host.block(&removal);
    want(&rig, 1);
    until_told(&rig, InstallState::Installing, 0, None).await;
    rig.kill().await;
    rig.host.unblock(&removal);
    rig.start();
    until_told(&rig, InstallState::Installed, 1, None).await;
    assert_eq!((attempts(&rig, "remove"), attempts(&rig, "install")), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_is_not_removed_to_be_built_again_before_it_is_known_what_runs_in_every_partition() {
    let mut rig = Rig::running().await;
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    rig.kill().await;
    let next = Release::parse_yaml(&RELEASE.replace("name: echo", "name: next"), "next.yaml").unwrap();
    let desired = InstanceDesired { release: next.digest(), ..instance(1, Wish::Started) };
    rig.master.want_instance(desired, &next.to_canonical_json());
    want(&rig, 1);
    // What runs is of the release still.
    rig.host.block(&format!("install release {}", next.digest().short()));
    rig.host.block("observe part0");
    rig.start();
    until("it is told that this is not known yet", || {
        let told = rig.master.state().installed.get(&release().digest()).cloned();
        (told.as_ref().is_some_and(|told| told.rebuild == 0 && told.progress.contains("every partition")), told)
    })
    .await;
    rig.host.unblock("observe part0");
    until_told(&rig, InstallState::Installed, 1, Some(codes::IN_USE)).await;
    assert_eq!((attempts(&rig, "remove"), attempts(&rig, "install")), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_while_there_was_no_room_is_done_when_there_is() {
    let mut rig = Rig::enrolled().await;
    rig.host.fail(&format!("install release {}", release().digest().short()), 4);
    want(&rig, 0);
    rig.start();
    for number in 0..4 {
        want(&rig, number);
        let times = usize::try_from(number).unwrap() + 1;
        until("it is tried again", || (attempts(&rig, "install") == times, attempts(&rig, "install"))).await;
        until("this try is told to have failed", || {
            let told = rig.master.state().installed.get(&release().digest()).cloned();
            let is_of_it = |told: &Installation| told.state == InstallState::Failed && told.rebuild == number;
            (told.as_ref().is_some_and(is_of_it), told)
        })
        .await;
    }
    rig.host.set_free(0);
    want(&rig, 4);
    until_state(&rig, InstallState::Installing).await;
    assert_eq!(acted_on(&rig), 3, "waiting is not acting");
    // By itself it would be tried after 40 seconds.
    rig.host.set_free(1 << 40);
    until("it is tried again", || (attempts(&rig, "install") == 5, attempts(&rig, "install"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_begun_with_a_release_that_is_being_removed_to_be_built_again() {
    let mut rig = Rig::enrolled().await;
    want(&rig, 0);
    rig.start();
    until_state(&rig, InstallState::Installed).await;
    let removal = format!("remove release {}", release().digest().short());
    rig.host.block(&removal);
    want(&rig, 1);
    until_state(&rig, InstallState::Installing).await;
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Installing).await;
    rig.host.unblock(&removal);
    rig.until_state(1, InstanceState::Ready).await;
    assert_eq!((attempts(&rig, "remove"), attempts(&rig, "install")), (1, 2));
}

/// Its installation has run out of room, so often.
async fn roomless(attempts: u32) -> Rig {
    let mut rig = Rig::enrolled().await;
    rig.host.fail_for_room(&format!("install release {}", release().digest().short()), attempts);
    rig.host.set_free(1 << 30);
    want(&rig, 0);
    rig.start();
    until_told(&rig, InstallState::Failed, 0, Some(codes::DISK_FULL)).await;
    for number in 1..u64::from(attempts) {
        want(&rig, number);
        until_told(&rig, InstallState::Failed, number, Some(codes::DISK_FULL)).await;
    }
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_out_of_room_is_begun_again_when_there_is_more_than_it_had() {
    let rig = roomless(9).await;
    // By itself it would be tried after 1280 seconds.
    rig.clock.pass(301);
    rig.host.set_free(1 << 40);
    until_state(&rig, InstallState::Installed).await;
    assert_eq!(attempts(&rig, "install"), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ran_out_of_room_is_soon_begun_again_with_as_much_as_it_had() {
    let rig = roomless(1).await;
    until_state(&rig, InstallState::Installed).await;
    assert_eq!(attempts(&rig, "install"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_release_was_built_is_told_and_where_it_was_not_what_can_be_done() {
    let rig = Rig::running().await;
    rig.host.block(&format!("install release {}", release().digest().short()));
    rig.want(1, Wish::Started);
    until("it is wanted", || (rig.status(1).is_some(), rig.master.state().syncs)).await;
    rig.read_build("t1", &release().digest()).await;
    let told = rig.master.state().log_lines.clone();
    assert!(told[0].starts_with("t1 P0301: it is to be here"), "{told:?}");
    rig.host.unblock(&format!("install release {}", release().digest().short()));
    rig.until_state(1, InstanceState::Ready).await;
    rig.read_build("t2", &release().digest()).await;
    assert_eq!(rig.master.state().log_lines[1..], ["t2 build: a line of build"]);
    rig.read_build("t3", &Digest::parse(&"0".repeat(64)).unwrap()).await;
    let told = rig.master.state().log_lines.clone();
    assert!(told[2].starts_with("t3 P0301: it is not to be here: `plat supply 000000000000"), "{told:?}");
}

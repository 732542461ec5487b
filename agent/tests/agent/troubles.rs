//! What is wrong with a node as a whole is told to the master, for as long as it is.

use crate::rig::{Rig, until};
use plat_model::instance::{InstanceState, Wish};
use plat_model::problem::codes;

fn troubles(rig: &Rig) -> Vec<String> {
    let state = rig.master.state();
    let troubles = state.inventory.iter().flat_map(|inventory| &inventory.troubles);
    troubles.map(|problem| format!("{}: {}", problem.code, problem.what)).collect()
}

async fn until_told(rig: &Rig, code: plat_model::problem::Code) {
    let code = format!("{code}: ");
    until("it is told", || (troubles(rig).iter().any(|one| one.starts_with(&code)), troubles(rig))).await;
}

async fn until_over(rig: &Rig) {
    until("nothing is wrong any more", || (troubles(rig).is_empty(), troubles(rig))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_not_the_masters() {
    let mut rig = Rig::enrolled().await;
    rig.master.state().tells_time = true;
    rig.clock.set(2 * 3600);
    rig.start();
    until_told(&rig, codes::WRONG_CLOCK).await;
    assert!(troubles(&rig)[0].contains("about 2 hours ahead of the master's"), "{:?}", troubles(&rig));
    rig.clock.set(30);
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    until_over(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_does_not_tell_the_time_has_no_other_clock() {
    let mut rig = Rig::enrolled().await;
    rig.clock.set(2 * 3600);
    rig.start();
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    assert_eq!(troubles(&rig), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_word_that_finds_no_room() {
    let rig = Rig::running().await;
    until("it asks", || (rig.master.state().syncs > 0, ())).await;
    let in_the_way = rig.data().join("desired.new");
    // What it was told first may be on its way to the disk by that name.
    until("the way is barred", || (std::fs::create_dir(&in_the_way).is_ok(), ())).await;
    rig.want(1, Wish::Started);
    until_told(&rig, codes::BAD_STATE_FILE).await;
    std::fs::remove_dir(&in_the_way).unwrap();
    until_over(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_with_too_little_room() {
    let mut rig = Rig::enrolled().await;
    rig.host.set_free(rig.policy.min_free - 1);
    rig.start();
    until_told(&rig, codes::DISK_FULL).await;
    rig.host.set_free(2 * rig.policy.min_free);
    // It is looked again when there is another reason to, or in a minute.
    rig.want(1, Wish::Started);
    until_over(&rig).await;
}

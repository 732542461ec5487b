//! Many instances that come to a node at once.

use crate::rig::{Rig, instance, numbered, release, until};
use crate::work::quiet;
use plat_model::Generation;
use plat_model::instance::{InstanceDesired, InstanceState, Wish};
use plat_wire::limits::LIST_BYTES;

const MANY: u32 = 1000;

pub fn wanted(n: u32, wish: Wish, generation: u64) -> InstanceDesired {
    let generation = Generation(generation);
    InstanceDesired { partition: numbered(n - 1), generation, ..instance(n, wish) }
}

pub fn count(rig: &Rig, state: InstanceState) -> usize {
    rig.master.state().statuses.values().filter(|status| status.state == state).count()
}

pub fn want(rig: &Rig, all: impl Iterator<Item = InstanceDesired>) {
    rig.master.want(|desired| {
        desired.releases.insert(release().digest(), release().to_canonical_json());
        desired.instances.extend(all.map(|one| (one.id.clone(), one)));
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_instances_that_come_at_once_all_become_ready_and_keep_nobody_waiting_meanwhile() {
    let mut rig = Rig::of(MANY).await;
    rig.enroll("goodsecret").await.unwrap();
    rig.start();
    want(&rig, [wanted(1, Wish::Started, 1)].into_iter());
    rig.until_state(1, InstanceState::Ready).await;

    // All others come in one word of the master, and are held where their hooks run.
    rig.host.block("run hook init");
    want(&rig, (2..=MANY).map(|n| wanted(n, Wish::Started, 1)));
    until("all are being prepared", || {
        let done = rig.host.performed().iter().filter(|step| step.ends_with("write files")).count();
        (done == MANY as usize, done)
    })
    .await;
    // Meanwhile somebody reads, one is stopped, and one that is on its way is not wanted any more.
    rig.read_logs("t1").await;
    want(&rig, [wanted(1, Wish::Stopped, 2), wanted(MANY, Wish::Destroyed, 2)].into_iter());
    rig.until_state(1, InstanceState::Stopped).await;
    rig.until_state(MANY, InstanceState::Destroyed).await;
    assert_eq!(count(&rig, InstanceState::Ready), 0);

    rig.host.unblock("run hook init");
    until("all the others are ready", || {
        let ready = count(&rig, InstanceState::Ready);
        (ready == MANY as usize - 2, ready)
    })
    .await;
    quiet(&rig).await;
    {
        let state = rig.master.state();
        let told = (state.told, state.syncs, state.largest);
        // Each is told a few times, many of them at once, and never more than there is room for.
        assert!(told.0 < 6 * MANY as usize && told.0 > 10 * told.1 as usize && told.2 < LIST_BYTES, "{told:?}");
    }

    // Another look at all of them finds nothing to do.
    let (done, told) = (rig.host.performed().len(), rig.master.state().told);
    assert!(done < 9 * MANY as usize, "the host remembers some more");
    rig.kill().await;
    rig.start();
    until("the next agent has told of all", || {
        let now = rig.master.state().told;
        (now >= told + MANY as usize - 1, now - told)
    })
    .await;
    quiet(&rig).await;
    assert_eq!(rig.host.performed_after(done), [""; 0]);
    assert_eq!(count(&rig, InstanceState::Ready), MANY as usize - 2);
}

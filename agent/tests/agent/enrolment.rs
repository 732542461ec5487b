//! Joining, renewing, coming back.

use crate::rig::{Rig, until};
use plat_agent::clock::{Clock, SystemClock};
use plat_agent::identity::{Enrolment, enroll, enroll_again, enrolled_already};
use plat_link::Credentials;
use plat_model::id::{GridName, NodeId};
use plat_model::identity::Identity;
use plat_model::instance::{InstanceState, Wish};
use plat_model::parameters::Secret;
use plat_model::problem::codes;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_enrols_once_and_its_keys_are_its_own() {
    let rig = Rig::enrolled().await;
    for name in ["identity.pem", "rejoin.pem", "enrolled"] {
        let mode = rig.data().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(rig.enroll("goodsecret").await.unwrap_err().code, codes::EXISTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_there_is_anything_to_enrol_is_told_without_asking_anybody() {
    let rig = Rig::new().await;
    let (ours, another) = (rig.token("anything"), Secret::new(format!("plat1.0123456789abcdef.s.{}", "ab".repeat(32))));
    let already = |token: &Secret| {
        // Nobody listens there.
        let master = plat_link::Address::parse("https://127.0.0.1:1").unwrap();
        enrolled_already(&Enrolment { master, token: token.clone(), name: None, data: rig.data() })
    };
    assert_eq!(already(&ours).unwrap(), None);
    assert_eq!(already(&Secret::new("no token")).unwrap_err().code, codes::UNKNOWN_TOKEN);
    rig.enroll("goodsecret").await.unwrap();
    assert_eq!(already(&ours).unwrap().unwrap().as_str(), "n1");
    assert_eq!(already(&another).unwrap_err().code, codes::WRONG_CA);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_enrols_again_in_its_grid_and_keeps_what_it_has() {
    let rig = Rig::enrolled().await;
    for kept in ["outbox", "host"] {
        std::fs::create_dir_all(rig.data().join(kept)).unwrap();
        std::fs::write(rig.data().join(kept).join("kept"), "as it was").unwrap();
    }
    let before = std::fs::read(rig.data().join("identity.pem")).unwrap();
    let again = |name: Option<&str>, token: Secret| {
        let name = name.map(|name| NodeId::parse(name).unwrap());
        enroll_again(Enrolment { master: rig.address(), token, name, data: rig.data() }, plat_link::tcp)
    };
    let elsewhere = Secret::new(format!("plat1.0123456789abcdef.goodsecret.{}", "ab".repeat(32)));
    assert_eq!(again(None, elsewhere).await.unwrap_err().code, codes::WRONG_CA);
    assert_eq!(again(Some("n2"), rig.token("goodsecret")).await.unwrap_err().code, codes::BAD_VALUE);
    assert_eq!(again(None, rig.token("badsecret")).await.unwrap_err().code, codes::UNKNOWN_TOKEN);
    assert_eq!(std::fs::read(rig.data().join("identity.pem")).unwrap(), before);

    assert_eq!(again(None, rig.token("goodsecret")).await.unwrap().as_str(), "n1");
    assert_ne!(std::fs::read(rig.data().join("identity.pem")).unwrap(), before);
    for kept in ["outbox", "host"] {
        assert_eq!(std::fs::read_to_string(rig.data().join(kept).join("kept")).unwrap(), "as it was");
    }
    let folder = tempfile::tempdir().unwrap();
    let (master, token) = (rig.address(), rig.token("goodsecret"));
    let never = enroll_again(Enrolment { master, token, name: None, data: folder.path().into() }, plat_link::tcp).await;
    assert_eq!(never.unwrap_err().code, codes::BAD_STATE_FILE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_leaves_the_node_as_it_was() {
    let rig = Rig::new().await;
    assert_eq!(rig.enroll("badsecret").await.unwrap_err().code, codes::UNKNOWN_TOKEN);
    assert!(!rig.data().join("enrolled").exists());
    rig.enroll("goodsecret").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_answer_is_lost_the_same_token_is_shown_with_the_same_keys() {
    let rig = Rig::new().await;
    rig.enroll("badsecret").await.unwrap_err();
    rig.master.state().lose_answers = true;
    rig.enroll("goodsecret").await.unwrap_err();
    let waiting = rig.data().join("enrolling");
    assert_eq!(waiting.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    rig.master.state().lose_answers = false;
    rig.enroll("goodsecret").await.unwrap();
    let keys = rig.master.state().enrolling.clone();
    let [_, _, own, rejoin, own_again, rejoin_again] = &keys[..] else { panic!("{} keys", keys.len()) };
    assert_eq!((own, rejoin), (own_again, rejoin_again));
    assert!(!keys[..2].contains(own) && own != rejoin, "another token is shown with other keys");
    assert!(!waiting.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_of_another_grid_is_not_even_shown_the_token() {
    let rig = Rig::new().await;
    let token = Secret::new(format!("plat1.0123456789abcdef.goodsecret.{}", "ab".repeat(32)));
    let (master, name) = (rig.address(), Some(NodeId::parse("n1").unwrap()));
    let problem = enroll(Enrolment { master, token, name, data: rig.data() }, plat_link::tcp).await.unwrap_err();
    assert_eq!(problem.code, codes::WRONG_CA, "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_before_its_end_and_nudges_go_on() {
    let mut rig = Rig::new().await;
    rig.master.state().node_life = 6;
    rig.enroll("goodsecret").await.unwrap();
    rig.start();
    until("it is renewed", || {
        let by = rig.master.state().renewed_by.clone();
        (by == [Identity::Node(NodeId::parse("n1").unwrap())], by)
    })
    .await;
    // With its rejoin certificate, which lasted 36 000 s when the node enrolled.
    until("the rejoin certificate is renewed", || {
        let rejoin = Credentials::load(GridName::parse("campus").unwrap(), &rig.data().join("rejoin.pem")).unwrap();
        let until = rejoin.validity().not_after;
        (until > SystemClock.now().plus(Duration::from_secs(70_000)), until)
    })
    .await;
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_slept_past_its_certificate_comes_back_by_itself() {
    let mut rig = Rig::new().await;
    rig.master.state().node_life = 1;
    rig.enroll("goodsecret").await.unwrap();
    let ends = SystemClock.now().plus(Duration::from_secs(1));
    until("the certificate has ended", || (SystemClock.now() > ends, SystemClock.now())).await;
    rig.start();
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    assert_eq!(rig.master.state().renewed_by, [Identity::Rejoin(NodeId::parse("n1").unwrap())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_far_ahead_renews_seldom_and_keeps_its_tenants() {
    let mut rig = Rig::enrolled().await;
    // Certificates are good for an hour: by this clock each new one is due as soon as it is made.
    rig.clock.set(45 * 60);
    rig.start();
    rig.want(1, Wish::Started);
    rig.until_state(1, InstanceState::Ready).await;
    let renewals = || rig.master.state().renewed_by.len();
    until("it is renewed", || (renewals() > 0, renewals())).await;
    let (first, began) = (renewals(), Instant::now());
    until("it is renewed twice more", || (renewals() >= first + 2, renewals())).await;
    assert!(began.elapsed() > Duration::from_secs(1), "{} renewals in {:?}", renewals() - first, began.elapsed());
    rig.clock.set(0);
    rig.want(1, Wish::Stopped);
    rig.until_state(1, InstanceState::Stopped).await;
}

use crate::world::{code, key, problem, request, soon, world};
use futures_util::FutureExt;
use plat_link::{Key, Peer};
use plat_model::problem::codes;
use plat_wire::{ends, v1};
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_node_joins_once_by_its_token_and_then_works() {
    let world = world().await;
    let token = world.node_token("n1").await;
    let joined = world.enroll(&token, "").await.unwrap();
    let synced = world.node_client(&joined.credentials).sync(v1::SyncRequest::default()).await.unwrap();
    assert_eq!(synced.into_inner().refused, []);
    assert_eq!(code(world.enroll(&token, "").await.map(drop)), codes::USED_TOKEN);
}

#[tokio::test]
async fn a_node_whose_answer_was_lost_asks_again_with_the_same_keys() {
    let world = world().await;
    let token = world.node_token("n1").await;
    let (key, rejoin) = (Key::generate().unwrap(), Key::generate().unwrap());
    let ask = v1::EnrollRequest {
        token: token.clone(),
        name: String::new(),
        csr_der: key.csr_der().unwrap(),
        rejoin_csr_der: rejoin.csr_der().unwrap(),
    };
    let mut client = ends::node_client(world.nobody());
    client.enroll(ask.clone()).await.unwrap();
    let made = client.enroll(ask).await.unwrap().into_inner();
    assert_eq!(made.node, "n1");
    let credentials = world.credentials(key, made.chain_der);
    world.node_client(&credentials).sync(v1::SyncRequest::default()).await.unwrap();
    world.renew(&world.credentials(rejoin, made.rejoin_chain_der)).await.unwrap();
}

#[tokio::test]
async fn an_unknown_an_expired_and_a_revoked_token_admit_nobody() {
    let world = world().await;
    let token = world.node_token("").await;
    let parts: Vec<&str> = token.split('.').collect();
    let forged = format!("{}.{}.{}.{}", parts[0], parts[1], "A".repeat(43), parts[3]);
    assert_eq!(code(world.enroll(&forged, "n1").await.map(drop)), codes::UNKNOWN_TOKEN);
    assert_eq!(code(world.enroll("plat1", "n1").await.map(drop)), codes::UNKNOWN_TOKEN);
    world.clock.advance(Duration::from_secs(3601));
    assert_eq!(code(world.enroll(&token, "n1").await.map(drop)), codes::EXPIRED_TOKEN);
    let token = world.node_token("").await;
    let id = token.split('.').nth(1).unwrap().to_owned();
    world.admin().revoke_token(v1::TokenKey { id }).await.unwrap();
    assert!(world.enroll(&token, "n1").await.is_err());
}

#[tokio::test]
async fn an_old_certificate_counts_until_its_successor_is_used() {
    let world = world().await;
    let joined = world.node("n1").await;
    let mut old = world.node_client(&joined.credentials);
    let mut stream = old.watch(v1::WatchRequest {}).await.unwrap().into_inner();
    soon(stream.message()).await.unwrap().unwrap();
    let renewed = world.renew(&joined.credentials).await.unwrap();
    old.sync(v1::SyncRequest::default()).await.unwrap();
    world.node_client(&renewed).sync(v1::SyncRequest::default()).await.unwrap();
    assert_eq!(code(old.sync(v1::SyncRequest::default()).await), codes::STALE_CERTIFICATE);
    // The stream that the old one opened goes on.
    world.release().await;
    assert!(soon(stream.message()).await.unwrap().unwrap().generation > 0);
}

#[tokio::test]
async fn a_user_renews_his_own_certificate_and_stays_who_he_is() {
    let world = world().await;
    let eve = world.user("eve", "member", "shop").await;
    let renewed = world.renew(&eve).await.unwrap();
    let me = world.grid_client(&renewed).who_am_i(v1::WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!((me.user.as_str(), me.role.as_str(), me.project.as_str()), ("eve", "member", "shop"));
    assert!(renewed.validity().not_after >= eve.validity().not_after);
    // Programs that run go on with the old one.
    world.grid_client(&eve).who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    world.admin().revoke_user(v1::UserKey { user: "eve".into() }).await.unwrap();
    assert_eq!(code(world.renew(&renewed).await), codes::REVOKED);
    assert_eq!(code(world.renew(&eve).await), codes::REVOKED);
}

#[tokio::test]
async fn a_node_that_slept_comes_back_with_its_rejoin_certificate_and_that_is_good_for_nothing_else() {
    let world = world().await;
    let joined = world.node("n1").await;
    let mut asleep = world.node_client(&joined.rejoin);
    assert_eq!(code(asleep.sync(v1::SyncRequest::default()).await), codes::DENIED);
    let awake = world.renew(&joined.rejoin).await.unwrap();
    world.node_client(&awake).sync(v1::SyncRequest::default()).await.unwrap();
}

#[tokio::test]
async fn a_renewal_also_makes_the_rejoin_certificate_anew_and_both_of_them_admit() {
    let world = world().await;
    let joined = world.node("n1").await;
    // Less than certificates are dated back, for TLS goes by the machine's clock.
    world.clock.advance(Duration::from_secs(60));
    let ask = v1::RenewRequest {
        csr_der: joined.rejoin.csr_der().unwrap(),
        rejoin_csr_der: joined.rejoin.csr_der().unwrap(),
    };
    let made = world.node_client(&joined.credentials).renew(ask).await.unwrap().into_inner();
    let rejoin = joined.rejoin.recertified(made.rejoin_chain_der, vec![made.root_der]).unwrap();
    assert_eq!(rejoin.identity().identity, joined.rejoin.identity().identity);
    assert!(rejoin.validity().not_after >= joined.rejoin.validity().not_after.plus(Duration::from_secs(60)));
    // Whether or not the answer arrived.
    world.renew(&joined.rejoin).await.unwrap();
    world.renew(&rejoin).await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_ends_ends_what_was_opened_with_it() {
    let world = world().await;
    let joined = world.node("n1").await;
    let mut client = world.node_client(&joined.credentials);
    client.sync(v1::SyncRequest::default()).await.unwrap();
    let peer = Peer { identity: Some(joined.credentials.identity()), remote: ([127, 0, 0, 1], 1).into() };
    let caller = world.grid.admit("plat.v1.NodeService/Watch", Some(&peer)).unwrap();
    let mut ended = Box::pin(world.grid.ended(&caller));
    assert!(ended.as_mut().now_or_never().is_none());
    world.clock.advance(Duration::from_secs(25 * 3600));
    // On the connection that was opened before.
    assert_eq!(code(client.sync(v1::SyncRequest::default()).await), codes::NO_CERTIFICATE);
    // From here on time passes as soon as nothing else happens.
    tokio::time::pause();
    assert_eq!(ended.await.code, codes::NO_CERTIFICATE);
}

#[tokio::test]
async fn a_revoked_node_is_out_within_a_tenth_of_a_second_with_its_open_streams() {
    let world = world().await;
    let (joined, mut stream) = world.present("n1").await;
    soon(stream.message()).await.unwrap().unwrap();
    let mut admin = world.admin();
    admin.list_tokens(v1::ListRequest::default()).await.unwrap();
    let ended = tokio::spawn(async move {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended without saying why"),
                Err(status) => return (Instant::now(), problem(&status).code),
            }
        }
    });
    let view = admin.revoke_node(v1::NodeKey { node: "n1".into() }).await.unwrap().into_inner();
    let revoked = Instant::now();
    assert!(view.revoked);
    let (at, code_of_end) = soon(ended).await.unwrap();
    assert_eq!(code_of_end, codes::REVOKED);
    let took = at.saturating_duration_since(revoked);
    assert!(took <= Duration::from_millis(100), "{took:?}");
    assert_eq!(code(world.node_client(&joined.credentials).sync(v1::SyncRequest::default()).await), codes::REVOKED);
    assert_eq!(code(world.renew(&joined.rejoin).await), codes::REVOKED);
    // It may be enrolled anew, and its old certificates stay out.
    world.node("n1").await;
    assert!(world.renew(&joined.rejoin).await.is_err());
}

#[tokio::test]
async fn a_revoked_user_is_out_with_his_open_streams() {
    let world = world().await;
    world.release().await;
    let eve = world.user("eve", "member", "shop").await;
    let mut client = world.grid_client(&eve);
    client.request(request("", "db")).await.unwrap();
    let mut one = client.watch_instance(key("", "db")).await.unwrap().into_inner();
    let mut all = client.watch_grid(v1::WatchGridRequest {}).await.unwrap().into_inner();
    soon(one.message()).await.unwrap().unwrap();
    soon(all.message()).await.unwrap().unwrap();
    world.admin().revoke_user(v1::UserKey { user: "eve".into() }).await.unwrap();
    for ended in [
        soon(async {
            while one.message().await?.is_some() {}
            Ok(())
        })
        .await,
        soon(async {
            while all.message().await?.is_some() {}
            Ok(())
        })
        .await,
    ] {
        assert_eq!(code::<()>(ended), codes::REVOKED);
    }
    assert_eq!(code(client.who_am_i(v1::WhoAmIRequest {}).await), codes::REVOKED);
}

#[tokio::test]
async fn every_change_is_in_the_audit_log_with_who_and_from_where() {
    let world = world().await;
    world.release().await;
    let eve = world.user("eve", "member", "shop").await;
    let mut client = world.grid_client(&eve);
    client.request(request("", "db")).await.unwrap();
    for wish in [v1::Wish::Stopped, v1::Wish::Started, v1::Wish::Destroyed] {
        client
            .set_wish(v1::SetWishRequest { key: Some(key("", "db")), wish: wish.into(), keep_seconds: 0 })
            .await
            .unwrap();
    }
    world.node("n1").await;
    let token = world.node_token("n2").await;
    let id = token.split('.').nth(1).unwrap().to_owned();
    world.admin().revoke_token(v1::TokenKey { id }).await.unwrap();
    let log = world.admin().audit(v1::AuditRequest::default()).await.unwrap().into_inner().entries;
    let told: Vec<_> = log.iter().map(|e| format!("{} {} {}", e.who, e.verb, e.subject)).collect();
    for expected in [
        "user/ada AddRelease release/web",
        "user/ada Supply release/web",
        "user/ada RevokeToken token/",
        "user/ada CreateToken token/",
        "anonymous Login user/eve",
        "anonymous Enroll node/n1",
        "user/eve Stop instance/shop/db",
        "user/eve Start instance/shop/db",
        "user/eve Destroy instance/shop/db",
        "user/eve Request instance/shop/db",
    ] {
        assert!(
            told.iter().any(|line| line == expected || (expected.ends_with("/") && line.starts_with(expected))),
            "{expected} is missing in {told:#?}"
        );
    }
    assert!(log.iter().all(|entry| entry.from == "127.0.0.1" && entry.outcome == "ok"));
}

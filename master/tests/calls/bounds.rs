//! How much one caller may have of the master, and of what he is told.

use crate::world::{code, key, request, world};
use plat_model::problem::codes;
use plat_wire::v1;

#[tokio::test]
async fn a_member_is_told_why_an_instance_waits_and_nothing_of_the_nodes() {
    let world = world().await;
    world.release().await;
    let (_n1, _open) = world.present("rack-one").await;
    let label = [("disk".to_owned(), "hidden-value".to_owned())].into();
    let label = v1::LabelNodeRequest { node: "rack-one".into(), set: label, ..Default::default() };
    world.admin().label_node(label).await.unwrap();
    let member = world.user("mia", "member", "shop").await;
    let mut client = world.grid_client(&member);
    let rules = v1::PlacementRules { labels: [("disk".to_owned(), "ssd".to_owned())].into(), ..Default::default() };
    let view =
        client.request(v1::RequestRequest { rules: Some(rules), ..request("", "db") }).await.unwrap().into_inner();
    assert_eq!(view.waiting[0].on, "a node that fits (1 node: it has no label disk=ssd)");
    let why = client.explain_instance(key("", "db")).await.unwrap().into_inner();
    assert_eq!(why.nodes, []);
    let told = format!("{why:?}");
    assert!(!told.contains("rack-one") && !told.contains("hidden-value"), "{told}");
    let mut operator = world.grid_client(&world.operator);
    let why = operator.explain_instance(key("shop", "db")).await.unwrap().into_inner();
    assert!(why.nodes[0].reasons[0].contains("hidden-value"), "{why:?}");
}

#[tokio::test]
async fn use_is_looked_up_for_a_hundred_days_at_most() {
    let world = world().await;
    let mut client = plat_wire::ends::usage_client(world.channel(&world.operator));
    let day = 24 * 3600 * 1000;
    let now = world.grid.now().0;
    let ask = |days: i64| {
        let ask = v1::QueryUsageRequest { start_ms: now - days * day, end_ms: now, ..Default::default() };
        let mut client = client.clone();
        async move { client.query_usage(ask).await }
    };
    ask(100).await.unwrap();
    assert_eq!(code(ask(101).await), codes::BAD_VALUE);
    let until = v1::QueryUsageRequest { end_ms: now, ..Default::default() };
    assert_eq!(code(client.query_usage(until).await), codes::BAD_VALUE);
}

#[tokio::test]
async fn a_node_whose_shape_or_troubles_change_without_end_is_slowed_down() {
    let world = world().await;
    let node = world.node("n1").await;
    let mut client = world.node_client(&node.credentials);
    let shape = |memory| {
        let capacity = v1::Resources { memory_mib: Some(memory), ..Default::default() };
        v1::Inventory { capacity: Some(capacity), ..Default::default() }
    };
    let trouble = |number| {
        let trouble =
            v1::Problem { code: "P0404".into(), what: format!("{number} bytes are free"), ..Default::default() };
        v1::Inventory { troubles: vec![trouble], ..shape(7) }
    };
    // Neither takes from what the other may do.
    for inventory in [&trouble as &dyn Fn(u32) -> v1::Inventory, &shape] {
        let mut refused = None;
        for number in 10..=50 {
            let answer =
                client.sync(v1::SyncRequest { inventory: Some(inventory(number)), ..Default::default() }).await;
            if answer.is_err() {
                refused = Some((number, code(answer)));
                break;
            }
        }
        let (number, code) = refused.unwrap();
        assert!(number > 20 && code == codes::OVERLOADED, "{number}");
        client.sync(v1::SyncRequest::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_node_that_renews_without_end_is_slowed_down_and_others_are_not() {
    let world = world().await;
    let (mut credentials, other) = (world.node("n1").await.credentials, world.node("n2").await);
    let mut refused = None;
    for _ in 0..40 {
        match world.renew(&credentials).await {
            Ok(next) => credentials = next,
            answer => {
                refused = Some(code(answer));
                break;
            }
        }
    }
    assert_eq!(refused, Some(codes::OVERLOADED));
    world.node_client(&credentials).sync(v1::SyncRequest::default()).await.unwrap();
    world.renew(&other.credentials).await.unwrap();
}

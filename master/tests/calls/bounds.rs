//! How much one caller may have of the master.

use crate::world::{code, world};
use plat_model::problem::codes;
use plat_wire::v1;

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
async fn a_node_whose_shape_changes_without_end_is_slowed_down() {
    let world = world().await;
    let node = world.node("n1").await;
    let mut client = world.node_client(&node.credentials);
    let mut refused = None;
    for memory in 1..=40 {
        let capacity = v1::Resources { memory_mib: Some(memory), ..Default::default() };
        let inventory = v1::Inventory { capacity: Some(capacity), partitions: Vec::new() };
        let answer = client.sync(v1::SyncRequest { inventory: Some(inventory), ..Default::default() }).await;
        if answer.is_err() {
            refused = Some(code(answer));
            break;
        }
    }
    assert_eq!(refused, Some(codes::OVERLOADED));
    client.sync(v1::SyncRequest::default()).await.unwrap();
}

use crate::world::{World, request, world};
use plat_wire::v1;
use std::collections::BTreeMap;

/// 40 instances on one node, that together are more than one message holds.
async fn fat(world: &World) {
    let document = "version: 1\nname: web\nparameters:\n  type: object\n  properties: {blob: {type: string}}\nservices:\n  web:\n    command: [\"/bin/true\"]\n";
    let mut client = world.grid_client(&world.operator);
    let add = v1::AddReleaseRequest { name: String::new(), document: document.into() };
    let digest = client.add_release(add).await.unwrap().into_inner().digest;
    client.supply(v1::SupplyRequest { release: digest, all_nodes: true, ..Default::default() }).await.unwrap();
    let blob = "x".repeat(250 * 1024);
    for n in 0..40 {
        let rules = v1::PlacementRules { node: "n1".into(), ..Default::default() };
        let parameters_json = Some(format!(r#"{{"blob": "{blob}"}}"#));
        let ask = v1::RequestRequest { parameters_json, rules: Some(rules), ..request("shop", &format!("web{n}")) };
        client.request(ask).await.unwrap();
    }
}

#[tokio::test]
async fn a_list_past_the_size_of_a_message_comes_in_pages() {
    let world = world().await;
    fat(&world).await;
    let mut client = world.grid_client(&world.operator);
    let mut names = Vec::new();
    let mut page_token = String::new();
    loop {
        let ask = v1::ListInstancesRequest { page_token, ..Default::default() };
        let page = client.list_instances(ask).await.unwrap().into_inner();
        assert!(!page.instances.is_empty());
        names.extend(page.instances.into_iter().map(|view| view.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 40);
}

#[tokio::test]
async fn a_desired_state_past_the_size_of_a_message_reaches_its_node_in_parts() {
    let world = world().await;
    let node = world.node("n1").await;
    let mut client = world.node_client(&node.credentials);
    let offer = |n| v1::PartitionOffer { name: format!("part{n}"), ..Default::default() };
    let inventory = v1::Inventory { partitions: (0..40).map(offer).collect(), ..Default::default() };
    client.sync(v1::SyncRequest { inventory: Some(inventory), ..Default::default() }).await.unwrap();
    let mut nudges = client.watch(v1::WatchRequest {}).await.unwrap().into_inner();
    fat(&world).await;
    let (mut held, mut releases, mut answers) = (BTreeMap::new(), Vec::new(), 0);
    while held.len() < 40 {
        let held_instances =
            held.iter().map(|(id, generation)| v1::HeldInstance { id: String::clone(id), generation: *generation });
        let held_instances = held_instances.collect();
        let ask = v1::SyncRequest { held_instances, held_releases: releases.clone(), ..Default::default() };
        let answer = client.sync(ask).await.unwrap().into_inner();
        releases.extend(answer.documents.into_iter().map(|document| document.digest));
        let before = held.len();
        held.extend(answer.bodies.into_iter().map(|body| (body.id, body.generation)));
        answers += usize::from(held.len() > before);
        if held.len() == answer.instances.len() && held.len() < 40 {
            // The rounds have not placed all of them yet.
            crate::world::soon(nudges.message()).await.unwrap().unwrap();
        }
    }
    assert!(answers > 2, "{answers}");
}

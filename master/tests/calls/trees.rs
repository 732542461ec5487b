use crate::world::{code, key, request, soon, world};
use plat_model::id::{InstanceId, InstanceName};
use plat_model::problem::codes;
use plat_model::tree::{Child, ChildAsk, Kind, TreeAsk};
use plat_wire::IntoModel;
use plat_wire::convert::for_instance;
use plat_wire::v1;

fn child(name: &str) -> TreeAsk {
    TreeAsk::Request(Box::new(ChildAsk {
        name: InstanceName::parse(name).unwrap(),
        release: Some("web".into()),
        parameters: None,
        resources: None,
        wish: None,
        kind: Kind::Own,
    }))
}

#[tokio::test]
async fn an_instance_asks_through_the_node_that_holds_it_and_through_no_other() {
    let world = world().await;
    world.release().await;
    let (joined, _nudges) = world.present("n1").await;
    let stranger = world.node("n2").await;
    let mut client = world.grid_client(&world.operator);
    client.request(request("shop", "web")).await.unwrap();
    let placed = async {
        while client.show_instance(key("shop", "web")).await.unwrap().into_inner().placement.is_none() {
            tokio::task::yield_now().await;
        }
    };
    soon(placed).await;
    let id = client.show_instance(key("shop", "web")).await.unwrap().into_inner().id;
    let id = InstanceId::parse(&id).unwrap();
    let ask = |ask: &TreeAsk| for_instance(&id, ask);
    let refused = world.node_client(&stranger.credentials).for_instance(ask(&child("db"))).await;
    assert_eq!(code(refused), codes::NOT_YOURS);
    let person = world.node_client(&world.operator).for_instance(ask(&TreeAsk::Bang)).await;
    assert_eq!(code(person), codes::DENIED);

    let mut node = world.node_client(&joined.credentials);
    let made: Vec<Child> = node.for_instance(ask(&child("db"))).await.unwrap().into_inner().into_model().unwrap();
    assert_eq!((made.len(), made[0].name.as_str(), made[0].instance.as_str()), (1, "db", "web-db"));
    let all = node.for_instance(ask(&TreeAsk::Children)).await.unwrap().into_inner().into_model().unwrap();
    assert_eq!(all, made);
    let seen = client.show_instance(key("shop", "web-db")).await.unwrap().into_inner();
    assert_eq!((seen.parent.as_str(), seen.id), ("web", made[0].id.to_string()));
    node.for_instance(ask(&TreeAsk::Bang)).await.unwrap();
    let synced = node.sync(v1::SyncRequest::default()).await.unwrap().into_inner();
    assert_eq!(synced.bodies[0].bang, 1);

    // What was done is in the audit log, with who spoke for whom.
    let mut entries = Vec::new();
    loop {
        let after = entries.last().map_or(0, |entry: &v1::AuditEntry| entry.number);
        let more = world.admin().audit(v1::AuditRequest { after, page_size: 0 }).await.unwrap().into_inner().entries;
        if more.is_empty() {
            break;
        }
        entries.extend(more);
    }
    let done = entries.iter().filter(|entry| entry.verb == "ForInstance" && entry.subject == "node/n1/instance/web");
    assert_eq!(done.count(), 2);
}

#[tokio::test]
async fn one_instance_that_asks_all_the_time_is_refused_and_no_other() {
    let world = world().await;
    world.release().await;
    let (one, _nudges) = world.present("n1").await;
    let (two, _nudges_too) = world.present("n2").await;
    let mut client = world.grid_client(&world.operator);
    let mut ids = std::collections::BTreeMap::new();
    for name in ["hasty", "calm"] {
        client.request(request("shop", name)).await.unwrap();
        let placed = async {
            loop {
                let view = client.show_instance(key("shop", name)).await.unwrap().into_inner();
                if let Some(place) = view.placement {
                    return (place.node, InstanceId::parse(&view.id).unwrap());
                }
                tokio::task::yield_now().await;
            }
        };
        let (node, id) = soon(placed).await;
        ids.insert(name, (if node == "n1" { &one } else { &two }, id));
    }
    let ask = async |name: &str| {
        let (node, id) = &ids[name];
        world.node_client(&node.credentials).for_instance(for_instance(id, &TreeAsk::Children)).await
    };
    let refused = async {
        loop {
            if let Err(status) = ask("hasty").await {
                return status;
            }
        }
    };
    assert_eq!(code::<()>(Err(soon(refused).await)), codes::OVERLOADED);
    ask("calm").await.unwrap();
}

//! Every call there is, by everybody there is.

use crate::world::{World, code, key, problem, request, world};
use plat_master_plan::access;
use plat_model::principal::PrincipalKind;
use plat_model::problem::codes;
use plat_wire::v1;
use prost::Message;
use std::time::Duration;
use tonic::Status;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

/// All calls, as `plat.v1.Service/Method`.
fn calls() -> Vec<String> {
    let set = prost_types::FileDescriptorSet::decode(plat_wire::FILE_DESCRIPTOR_SET).unwrap();
    let services = set.file.iter().flat_map(|file| &file.service);
    let calls: Vec<_> =
        services.flat_map(|s| s.method.iter().map(|m| format!("plat.v1.{}/{}", s.name(), m.name()))).collect();
    assert!(calls.len() > 30, "{}", calls.len());
    calls
}

/// Makes a call with an empty message; `Ok` if the answer began.
async fn call(channel: &Channel, rpc: &str) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = PathAndQuery::try_from(format!("/{rpc}")).unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let mut stream = client.server_streaming(tonic::Request::new(()), path, codec).await?.into_inner();
    match tokio::time::timeout(Duration::from_millis(200), stream.message()).await {
        Ok(Err(status)) => Err(status),
        _ => Ok(()),
    }
}

async fn everybody(world: &World) -> Vec<(PrincipalKind, Channel)> {
    let node = world.node("n1").await;
    vec![
        (PrincipalKind::Anonymous, world.nobody()),
        (PrincipalKind::Operator, world.channel(&world.operator)),
        (PrincipalKind::Member, world.channel(&world.user("mia", "member", "shop").await)),
        (PrincipalKind::Billing, world.channel(&world.user("bill", "billing", "").await)),
        (PrincipalKind::Node, world.channel(&node.credentials)),
        (PrincipalKind::Rejoin, world.channel(&node.rejoin)),
    ]
}

#[tokio::test]
async fn every_call_is_refused_to_everybody_who_has_no_right_to_it() {
    let world = world().await;
    let everybody = everybody(&world).await;
    let (mut refused, mut let_in) = (0, 0);
    for rpc in calls() {
        let row = access::row(&rpc).unwrap_or_else(|| panic!("{rpc} is not in the access table"));
        for (kind, channel) in &everybody {
            let code = call(channel, &rpc).await.err().map(|status| problem(&status).code);
            let out = matches!(code, Some(codes::DENIED | codes::NO_CERTIFICATE));
            if row.kinds.contains(kind) {
                // What is left to go wrong is the empty message.
                let by_kind = matches!(code, Some(codes::NO_CERTIFICATE | codes::REVOKED));
                assert!(!by_kind, "{rpc} by {kind:?}: {code:?}");
                let_in += 1;
            } else {
                assert!(out, "{rpc} by {kind:?}: {code:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 100 && let_in > 40, "{refused} refused, {let_in} let in");
}

#[tokio::test]
async fn a_call_that_is_not_in_the_table_is_refused_to_everybody() {
    let world = world().await;
    for (kind, channel) in everybody(&world).await {
        for rpc in ["plat.v1.GridService/Nonsense", "plat.v1.Backdoor/Open", "plat.v1.GridService/"] {
            let code = call(&channel, rpc).await.err().map(|status| problem(&status).code);
            assert!(matches!(code, Some(codes::DENIED | codes::NO_CERTIFICATE)), "{rpc} by {kind:?}: {code:?}");
        }
    }
}

#[tokio::test]
async fn health_is_for_all_and_reflection_for_those_who_are_known() {
    let world = world().await;
    let nobody = world.nobody();
    assert!(call(&nobody, "grpc.health.v1.Health/Check").await.is_ok());
    let reflection = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    assert_eq!(code(call(&nobody, reflection).await), codes::NO_CERTIFICATE);
    // The empty message passes the gate and is refused by the service itself.
    let answered = call(&world.channel(&world.operator), reflection).await.unwrap_err();
    assert_eq!(answered.code(), tonic::Code::InvalidArgument, "{answered:?}");
}

#[tokio::test]
async fn a_member_sees_its_own_project_only() {
    let world = world().await;
    world.release().await;
    let mia = world.user("mia", "member", "shop").await;
    let eve = world.user("eve", "member", "shopx").await;
    let mut own = world.grid_client(&mia);
    own.request(request("", "db")).await.unwrap();
    let mut other = world.grid_client(&eve);
    let listed = other.list_instances(v1::ListInstancesRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.instances, []);
    let asked = v1::ListInstancesRequest { project: "shop".into(), ..Default::default() };
    assert_eq!(code(other.list_instances(asked).await), codes::DENIED);
    assert_eq!(code(other.show_instance(key("shop", "db")).await), codes::DENIED);
    assert_eq!(code(other.watch_instance(key("shop", "db")).await.map(drop)), codes::DENIED);
    assert_eq!(code(other.explain_instance(key("shop", "db")).await), codes::DENIED);
    assert_eq!(code(other.request(request("shop", "db")).await), codes::DENIED);
    let logs = v1::LogsRequest { key: Some(key("shop", "db")), ..Default::default() };
    assert_eq!(code(other.logs(logs).await.map(drop)), codes::DENIED);
    let wish = v1::SetWishRequest { key: Some(key("shop", "db")), wish: v1::Wish::Destroyed.into(), keep_seconds: 0 };
    assert_eq!(code(other.set_wish(wish).await), codes::DENIED);
    let listed = own.list_instances(v1::ListInstancesRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.instances.len(), 1);
}

#[tokio::test]
async fn what_others_do_wakes_no_member() {
    let world = world().await;
    world.release().await;
    let eve = world.user("eve", "member", "shopx").await;
    let mut stream = world.grid_client(&eve).watch_grid(v1::WatchGridRequest {}).await.unwrap().into_inner();
    crate::world::soon(stream.message()).await.unwrap().unwrap();
    world.grid_client(&world.operator).request(request("shop", "db")).await.unwrap();
    let own = world.grid_client(&eve).request(request("", "own")).await.unwrap().into_inner();
    let told = crate::world::soon(stream.message()).await.unwrap().unwrap().revision;
    // The next word is about the own instance, which came after the other's.
    let snapshot = world.store.snapshot();
    assert!(told <= snapshot.revision);
    assert!(snapshot.state.instances.len() == 2 && !own.id.is_empty());
}

use crate::world::{code, key, request, soon, world};
use plat_model::Problem;
use plat_model::problem::codes;
use plat_wire::ends::GridClient;
use plat_wire::status::to_problem;
use plat_wire::v1;

fn chunk(ticket: &str, text: &str) -> v1::LogChunk {
    let line = v1::LogText { service: "web".into(), text: text.into() };
    v1::LogChunk { ticket: ticket.into(), lines: vec![line], problem: None }
}

/// The next log that the node is asked for.
async fn wanted(nudges: &mut tonic::Streaming<v1::Nudge>) -> v1::LogsWanted {
    soon(async {
        loop {
            if let Some(wanted) = nudges.message().await.unwrap().unwrap().logs.pop() {
                return wanted;
            }
        }
    })
    .await
}

/// Requests shop/db, and waits until a node has it.
async fn placed(client: &mut GridClient) {
    client.request(request("shop", "db")).await.unwrap();
    let placed = async {
        while client.show_instance(key("shop", "db")).await.unwrap().into_inner().placement.is_none() {
            tokio::task::yield_now().await;
        }
    };
    soon(placed).await;
}

#[tokio::test]
async fn logs_travel_from_the_node_to_whoever_asked_and_from_no_other_node() {
    let world = world().await;
    world.release().await;
    let (joined, mut nudges) = world.present("n1").await;
    let stranger = world.node("n2").await;
    let mut client = world.grid_client(&world.operator);
    placed(&mut client).await;
    let ask = v1::LogsRequest {
        key: Some(key("shop", "db")),
        service: "web".into(),
        lines: 5,
        promises: true,
        ..Default::default()
    };
    let mut lines = client.logs(ask).await.unwrap().into_inner();
    let wanted = wanted(&mut nudges).await;
    assert_eq!((wanted.service.as_str(), wanted.lines, wanted.promises), ("web", 5, true));
    let forged = tokio_stream::iter(vec![chunk(&wanted.ticket, "lies")]);
    assert_eq!(code(world.node_client(&stranger.credentials).push_logs(forged).await), codes::NOT_YOURS);
    let pushed = tokio_stream::iter(vec![chunk(&wanted.ticket, "one"), chunk(&wanted.ticket, "two")]);
    world.node_client(&joined.credentials).push_logs(pushed).await.unwrap();
    let mut texts = Vec::new();
    while let Some(some) = soon(lines.message()).await.unwrap() {
        texts.extend(some.lines.into_iter().map(|line| line.text));
    }
    assert_eq!(texts, ["one", "two"]);
}

#[tokio::test]
async fn logs_of_an_instance_whose_node_is_away_say_so() {
    let world = world().await;
    world.release().await;
    let (_joined, nudges) = world.present("n1").await;
    let mut client = world.grid_client(&world.operator);
    placed(&mut client).await;
    drop(nudges);
    let ask = v1::LogsRequest { key: Some(key("shop", "db")), ..Default::default() };
    let away = async {
        loop {
            match client.logs(ask.clone()).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(status) => return status,
            }
        }
    };
    assert_eq!(code::<()>(Err(soon(away).await)), codes::UNREACHABLE);
}

#[tokio::test]
async fn logs_of_what_an_instance_does_not_have_are_refused_with_what_it_has() {
    let world = world().await;
    world.release().await;
    let (_joined, _nudges) = world.present("n1").await;
    let mut client = world.grid_client(&world.operator);
    placed(&mut client).await;
    let ask = v1::LogsRequest { key: Some(key("shop", "db")), ..Default::default() };
    let service = client.logs(v1::LogsRequest { service: "wbe".into(), follow: true, ..ask.clone() }).await;
    let problem = to_problem(&service.unwrap_err());
    assert_eq!((problem.code, problem.todo.as_str()), (codes::NOT_FOUND, "it has web"));
    let hook = client.logs(v1::LogsRequest { hook: "configure".into(), ..ask.clone() }).await;
    let problem = to_problem(&hook.unwrap_err());
    assert_eq!((problem.code, problem.todo.as_str()), (codes::NOT_FOUND, "its release has no hooks"));
    client.logs(v1::LogsRequest { service: "web".into(), ..ask }).await.unwrap();
}

fn built(node: &str) -> v1::ReleaseLogRequest {
    v1::ReleaseLogRequest { release: "web".into(), node: node.into(), lines: 0, follow: true }
}

#[tokio::test]
async fn the_log_of_a_build_travels_from_its_node_to_an_operator_and_to_nobody_else() {
    let world = world().await;
    let digest = world.release().await;
    let (joined, mut nudges) = world.present("n1").await;
    let stranger = world.node("n2").await;
    for (role, project) in [("member", "shop"), ("billing", "")] {
        let other = world.user(role, role, project).await;
        assert_eq!(code(world.grid_client(&other).release_log(built("n1")).await.map(drop)), codes::DENIED);
    }
    let mut client = world.grid_client(&world.operator);
    let mut lines = client.release_log(built("n1")).await.unwrap().into_inner();
    let wanted = wanted(&mut nudges).await;
    assert_eq!((wanted.release.as_str(), wanted.instance.as_str()), (digest.as_str(), ""));
    assert_eq!((wanted.lines, wanted.follow), (100, true));
    let forged = tokio_stream::iter(vec![chunk(&wanted.ticket, "lies")]);
    assert_eq!(code(world.node_client(&stranger.credentials).push_logs(forged).await), codes::NOT_YOURS);
    let pushed = tokio_stream::iter(vec![chunk(&wanted.ticket, "one"), chunk(&wanted.ticket, "two")]);
    world.node_client(&joined.credentials).push_logs(pushed).await.unwrap();
    let mut texts = Vec::new();
    while let Some(some) = soon(lines.message()).await.unwrap() {
        texts.extend(some.lines.into_iter().map(|line| line.text));
    }
    assert_eq!(texts, ["one", "two"]);
}

#[tokio::test]
async fn what_a_node_says_instead_of_the_log_of_a_build_is_told() {
    let world = world().await;
    world.release().await;
    let (joined, mut nudges) = world.present("n1").await;
    let mut lines = world.grid_client(&world.operator).release_log(built("n1")).await.unwrap().into_inner();
    let ticket = wanted(&mut nudges).await.ticket;
    let why = Problem::new(codes::NOT_FOUND, "it has no log").fix("supply it");
    let chunk = v1::LogChunk { ticket, lines: Vec::new(), problem: Some((&why).into()) };
    world.node_client(&joined.credentials).push_logs(tokio_stream::iter(vec![chunk])).await.unwrap();
    let told = to_problem(&soon(lines.message()).await.unwrap_err());
    assert_eq!((told.code, told.todo.as_str()), (codes::NOT_FOUND, "supply it"));
}

#[tokio::test]
async fn the_log_of_a_build_is_refused_where_nobody_can_tell_it() {
    let world = world().await;
    world.release().await;
    let mut client = world.grid_client(&world.operator);
    assert_eq!(code(client.release_log(built("")).await.map(drop)), codes::BAD_NAME);
    assert_eq!(code(client.release_log(built("n1")).await.map(drop)), codes::NOT_FOUND);
    let (joined, nudges) = world.present("n1").await;
    let unknown = v1::ReleaseLogRequest { release: "../web".into(), ..built("n1") };
    assert_eq!(code(client.release_log(unknown).await.map(drop)), codes::NOT_FOUND);
    drop(nudges);
    let away = async {
        loop {
            match client.release_log(built("n1")).await {
                Ok(_) => tokio::task::yield_now().await,
                Err(status) => return status,
            }
        }
    };
    assert_eq!(code::<()>(Err(soon(away).await)), codes::UNREACHABLE);
    // An agent that was set back to a version that does not tell.
    let report = v1::SyncRequest { inventory: Some(v1::Inventory::default()), ..Default::default() };
    world.node_client(&joined.credentials).sync(report).await.unwrap();
    assert_eq!(code(client.release_log(built("n1")).await.map(drop)), codes::VERSION_SKEW);
}

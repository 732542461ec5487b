use crate::world::{code, key, request, soon, world, world_over};
use async_trait::async_trait;
use plat_master::store::{CommitError, MemoryStore, Snapshot, Store};
use plat_master_plan::record::AuditEntry;
use plat_master_plan::{Change, Expected};
use plat_model::Problem;
use plat_model::id::NodeId;
use plat_model::problem::codes;
use plat_model::usage::LedgerEntry;
use plat_wire::v1;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;

#[tokio::test]
async fn the_same_request_twice_is_one_instance() {
    let world = world().await;
    world.release().await;
    let mut client = world.grid_client(&world.operator);
    let first = client.request(request("shop", "db")).await.unwrap().into_inner();
    let again = client.request(request("shop", "db")).await.unwrap().into_inner();
    assert_eq!((first.created, again.created), (true, false));
    assert_eq!((&first.id, first.generation), (&again.id, again.generation));
}

#[tokio::test]
async fn many_callers_with_one_request_get_one_instance() {
    let world = Arc::new(world().await);
    world.release().await;
    let calls = (0..16).map(|_| {
        let world = world.clone();
        tokio::spawn(async move {
            world.grid_client(&world.operator).request(request("shop", "db")).await.unwrap().into_inner()
        })
    });
    let mut views = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        views.push(soon(call).await.unwrap());
    }
    assert!(views.iter().all(|view| view.id == views[0].id));
    assert_eq!(views.iter().filter(|view| view.created).count(), 1);
    assert_eq!(world.store.snapshot().state.instances.len(), 1);
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_tells_what_would_be() {
    let world = world().await;
    world.release().await;
    let mut client = world.grid_client(&world.operator);
    let dry = v1::RequestRequest { dry_run: true, ..request("shop", "db") };
    assert!(client.request(dry).await.unwrap().into_inner().created);
    assert_eq!(code(client.show_instance(key("shop", "db")).await), codes::NOT_FOUND);
}

#[tokio::test]
async fn an_instance_is_placed_and_its_node_is_nudged_and_told() {
    let world = world().await;
    world.release().await;
    let (joined, mut nudges) = world.present("n1").await;
    let before = soon(nudges.message()).await.unwrap().unwrap().generation;
    let mut client = world.grid_client(&world.operator);
    let made = client.request(request("shop", "db")).await.unwrap().into_inner();
    let after = soon(nudges.message()).await.unwrap().unwrap().generation;
    assert!(after > before);
    let told = world.node_client(&joined.credentials).sync(v1::SyncRequest::default()).await.unwrap().into_inner();
    assert_eq!(told.bodies.iter().map(|body| body.id.as_str()).collect::<Vec<_>>(), [made.id.as_str()]);
    assert_eq!(told.documents.len(), 1);
    // What the node holds is not sent again.
    let held = v1::HeldInstance { id: made.id, generation: told.bodies[0].generation };
    let report =
        v1::SyncRequest { held_instances: vec![held], held_releases: told.releases.clone(), ..Default::default() };
    let told = world.node_client(&joined.credentials).sync(report).await.unwrap().into_inner();
    assert_eq!((told.instances.len(), told.bodies.len(), told.documents.len()), (1, 0, 0));
}

#[tokio::test]
async fn a_watcher_sees_each_change_until_the_instance_is_gone() {
    let world = world().await;
    world.release().await;
    let mut client = world.grid_client(&world.operator);
    client.request(request("shop", "db")).await.unwrap();
    let mut views = client.watch_instance(key("shop", "db")).await.unwrap().into_inner();
    assert_eq!(soon(views.message()).await.unwrap().unwrap().wish(), v1::Wish::Started);
    let wish = |wish: v1::Wish| v1::SetWishRequest { key: Some(key("shop", "db")), wish: wish.into(), keep_seconds: 0 };
    client.set_wish(wish(v1::Wish::Stopped)).await.unwrap();
    assert_eq!(soon(views.message()).await.unwrap().unwrap().wish(), v1::Wish::Stopped);
    client.set_wish(wish(v1::Wish::Destroyed)).await.unwrap();
    let last = soon(views.message()).await.unwrap().unwrap();
    assert_eq!(last.status.unwrap().state(), v1::InstanceState::Destroyed);
    assert_eq!(soon(views.message()).await.unwrap(), None);
}

#[tokio::test]
async fn whoever_looks_at_an_instance_hears_that_its_node_went_away() {
    let world = world().await;
    world.release().await;
    let (_joined, stream) = world.present("n1").await;
    let mut client = world.grid_client(&world.operator);
    client.request(request("shop", "db")).await.unwrap();
    let mut views = client.watch_instance(key("shop", "db")).await.unwrap().into_inner();
    let mut waits_on = async |what: &str| {
        loop {
            let view = soon(views.message()).await.unwrap().unwrap();
            if view.waiting.iter().any(|waiting| waiting.on.contains(what)) {
                return;
            }
        }
    };
    waits_on("to take it up").await;
    drop(stream);
    waits_on("offline").await;
}

#[tokio::test]
async fn all_mistakes_of_a_request_are_told_at_once() {
    let world = world().await;
    let wrong = v1::RequestRequest {
        project: "../x".into(),
        name: "a\nb".into(),
        parameters_json: Some("[1]".into()),
        wish: 77,
        ..Default::default()
    };
    let status = world.grid_client(&world.operator).request(wrong).await.unwrap_err();
    let problems = plat_wire::status::to_problems(&status).0;
    assert_eq!(problems.len(), 4, "{problems:#?}");
}

/// A store whose disk can be stopped, for everything or for whoever waits for a look at the newest state.
struct Slow {
    inner: MemoryStore,
    moving: watch::Sender<bool>,
    settling: watch::Sender<bool>,
    commits: AtomicUsize,
}

impl Slow {
    fn new() -> Self {
        let (moving, settling) = (watch::Sender::new(true), watch::Sender::new(true));
        Self { inner: MemoryStore::new(), moving, settling, commits: AtomicUsize::new(0) }
    }

    async fn wait(&self) {
        self.moving.subscribe().wait_for(|moving| *moving).await.unwrap();
    }
}

#[async_trait]
impl Store for Slow {
    fn snapshot(&self) -> Snapshot {
        self.inner.snapshot()
    }
    async fn commit(&self, expected: Expected, changes: Vec<Change>) -> Result<u64, CommitError> {
        self.commits.fetch_add(1, Ordering::Relaxed);
        let revision = self.inner.commit(expected, changes).await?;
        self.wait().await;
        Ok(revision)
    }
    async fn settled(&self, revision: u64) -> Result<(), Problem> {
        self.wait().await;
        self.settling.subscribe().wait_for(|settling| *settling).await.unwrap();
        self.inner.settled(revision).await
    }
    fn watch(&self) -> watch::Receiver<u64> {
        self.inner.watch()
    }
    async fn ledger(&self, node: Option<NodeId>, after: u64, limit: usize) -> Result<Vec<LedgerEntry>, Problem> {
        self.inner.ledger(node, after, limit).await
    }
    async fn audit(&self, after: u64, limit: usize) -> Result<Vec<AuditEntry>, Problem> {
        self.inner.audit(after, limit).await
    }
}

#[tokio::test]
async fn a_request_waits_for_its_own_commit_and_not_for_those_after_it() {
    let store = Arc::new(Slow::new());
    let world = Arc::new(world_over(store.clone()).await);
    world.release().await;
    // As if others' commits kept coming: the newest state never is the durable one.
    store.settling.send_replace(false);
    let mut client = world.grid_client(&world.operator);
    assert!(soon(client.request(request("shop", "db"))).await.unwrap().into_inner().created);
    let stop = v1::SetWishRequest { key: Some(key("shop", "db")), wish: v1::Wish::Stopped.into(), keep_seconds: 0 };
    assert_eq!(soon(client.set_wish(stop)).await.unwrap().into_inner().wish(), v1::Wish::Stopped);
    let destroy =
        v1::SetWishRequest { key: Some(key("shop", "db")), wish: v1::Wish::Destroyed.into(), keep_seconds: 0 };
    let last = soon(client.set_wish(destroy)).await.unwrap().into_inner();
    assert_eq!(last.status.unwrap().state(), v1::InstanceState::Destroyed);
}

#[tokio::test]
async fn requests_of_different_names_at_once_cost_one_commit_each() {
    let store = Arc::new(Slow::new());
    let world = Arc::new(world_over(store.clone()).await);
    world.release().await;
    let before = store.commits.load(Ordering::Relaxed);
    // All are decided on the same state, and none is durable before the last is decided.
    store.moving.send_replace(false);
    let calls: Vec<_> = (0..16)
        .map(|n| {
            let world = world.clone();
            let call = async move {
                world.grid_client(&world.operator).request(request("shop", &format!("db{n}"))).await.unwrap()
            };
            tokio::spawn(call)
        })
        .collect();
    let all = async {
        let mut instances = store.watch();
        while store.snapshot().state.instances.len() < 16 {
            instances.changed().await.unwrap();
        }
    };
    soon(all).await;
    store.moving.send_replace(true);
    for call in calls {
        assert!(soon(call).await.unwrap().into_inner().created);
    }
    assert_eq!(store.commits.load(Ordering::Relaxed) - before, 16, "one that conflicted was decided again");
}

#[tokio::test]
async fn nothing_is_told_before_it_survives_power_loss() {
    let store = Arc::new(Slow::new());
    let world = Arc::new(world_over(store.clone()).await);
    world.release().await;
    let (reader, writer) = (world.grid_client(&world.operator), world.grid_client(&world.operator));
    reader.clone().who_am_i(v1::WhoAmIRequest {}).await.unwrap();
    store.moving.send_replace(false);
    let mut asked = tokio::spawn({
        let mut writer = writer.clone();
        async move { writer.request(request("shop", "db")).await }
    });
    soon(async {
        while store.snapshot().state.instances.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut shown = tokio::spawn({
        let mut reader = reader.clone();
        async move { reader.show_instance(key("shop", "db")).await }
    });
    let early = Duration::from_millis(300);
    assert!(tokio::time::timeout(early, &mut asked).await.is_err(), "acknowledged before it was durable");
    assert!(tokio::time::timeout(early, &mut shown).await.is_err(), "told before it was durable");
    store.moving.send_replace(true);
    assert!(soon(asked).await.unwrap().unwrap().into_inner().created);
    soon(shown).await.unwrap().unwrap();
}

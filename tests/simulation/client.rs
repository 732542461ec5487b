//! A user who asks for things at random, asks again when an answer was lost, and writes down what was acknowledged.

use crate::world::{World, node_name, pass};
use plat_model::id::{InstanceId, InstanceName, NodeId, ProjectName};
use plat_model::instance::Wish;
use plat_model::parameters::Parameters;
use plat_model::{Category, Problem, Timestamp};
use plat_tests::invariants::Told;
use plat_wire::ends;
use plat_wire::status::to_problem;
use plat_wire::v1;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tonic::{Response, Status};

const ROUNDS: usize = 16;
const NAMES: usize = 5;
/// How long an answer may take before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(5);

const RELEASE: &str = "
version: 1
name: counter
parameters:
  type: object
  properties: {size: {type: integer, minimum: 1, default: 1}}
secrets: {word: {length: 24}}
hooks:
  configure: {command: [/bin/configure]}
  start: {command: [/bin/start]}
files:
  etc/size: {template: \"{{ parameters.size }} {{ secrets.word }}\"}
services:
  counter: {command: [/bin/counter]}
  prepare: {command: [/bin/prepare], kind: oneshot, files: []}
  tick: {command: [/bin/tick], kind: oneshot, schedule: \"* * * * *\", files: []}
promises:
  breathes: {role: alive, exec: [/bin/breathes], period_seconds: 5, delay_seconds: 1, threshold: 1}
  counts: {tcp: {address: \"{{ partition.address }}\", port: \"80\"}}
publish: {size: \"{{ parameters.size }}\"}
resources: {memory_mib: 256}
";

/// What clients share with whoever checks.
#[derive(Default)]
pub struct Notes {
    /// What was acknowledged last, without the names of which nobody knows: a call is under way, or its answer was lost.
    pub told: BTreeMap<(ProjectName, InstanceName), Told>,
    /// Whose services may end: something was asked of them after they were first requested.
    pub asked_to_change: BTreeSet<InstanceId>,
    /// Processes that ended by themselves, or with their machine.
    pub ended: BTreeSet<(NodeId, u32)>,
    /// Those of whom nobody may ever read what they used, and nobody has taken note of it yet.
    pub uncounted: BTreeSet<(NodeId, InstanceId)>,
    /// Those of them whose control group was taken away.
    pub ungrouped: BTreeSet<(NodeId, InstanceId)>,
    /// Machines whose clock was off by more than an hour.
    pub far_off: BTreeSet<NodeId>,
    /// Whom somebody asked to be destroyed at once.
    pub to_destroy: BTreeSet<InstanceId>,
    /// Whom somebody asked to be destroyed later: those below stop too, until they are wished again.
    pub to_leave: BTreeSet<InstanceId>,
    /// The number of the last run that was acknowledged, of each instance.
    pub runs: BTreeMap<InstanceId, u64>,
    pub revoked: BTreeSet<NodeId>,
    pub acknowledged: usize,
    pub lost: usize,
}

pub type Shared = Arc<Mutex<Notes>>;

pub fn lock(notes: &Shared) -> MutexGuard<'_, Notes> {
    notes.lock().expect("nobody panics with the notes in hand")
}

/// How a call ended.
enum Answer<T> {
    Yes(T),
    /// Refused, and so not done.
    No(Problem),
    /// Nobody knows.
    Lost,
}

async fn ask<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Answer<T> {
    match tokio::time::timeout(PATIENCE, call).await {
        Ok(Ok(answer)) => Answer::Yes(answer.into_inner()),
        Ok(Err(status)) => {
            let problem = to_problem(&status);
            match problem.category() {
                Category::Unavailable | Category::TimedOut | Category::Failed => Answer::Lost,
                _ => Answer::No(problem),
            }
        }
        Err(_) => Answer::Lost,
    }
}

/// The operator: supplies the release, and makes a token for each node that lacks one. If the answer to a node that
/// joined was lost, its token is spent and its name taken: the name is shut out, and the node joins anew.
pub async fn operate(world: Arc<World>, notes: Shared) {
    let add = v1::AddReleaseRequest { name: String::new(), document: RELEASE.into() };
    let digest = loop {
        match ask(ends::grid_client(world.channel()).add_release(add.clone())).await {
            Answer::Yes(view) => break view.digest,
            Answer::No(problem) => panic!("a good release was refused: {problem}"),
            Answer::Lost => pass(Duration::from_millis(200)).await,
        }
    };
    let supply = v1::SupplyRequest { release: digest, all_nodes: true, ..Default::default() };
    while !matches!(ask(ends::grid_client(world.channel()).supply(supply.clone())).await, Answer::Yes(_)) {
        pass(Duration::from_millis(200)).await;
    }
    loop {
        for node in world.hosts.keys() {
            let shut_out = lock(&notes).revoked.contains(node);
            if !shut_out && !world.tokens.borrow().contains_key(node) {
                admit(&world, node).await;
            }
        }
        pass(Duration::from_millis(200)).await;
    }
}

async fn admit(world: &World, node: &NodeId) {
    if world.state().nodes.contains_key(node) {
        let key = v1::NodeKey { node: node.to_string() };
        let _asked_again = ask(ends::admin_client(world.channel()).revoke_node(key)).await;
    }
    let purpose = Some(v1::create_token_request::Purpose::Node(node.to_string()));
    let ask_for = v1::CreateTokenRequest { purpose, valid_seconds: 3600 };
    if let Answer::Yes(token) = ask(ends::admin_client(world.channel()).create_token(ask_for)).await {
        world.tokens.send_modify(|tokens| drop(tokens.insert(node.clone(), token.token)));
    }
}

pub struct Client {
    world: Arc<World>,
    notes: Shared,
    random: StdRng,
    project: ProjectName,
}

impl Client {
    pub fn new(world: Arc<World>, notes: Shared, number: u64) -> Self {
        let random = StdRng::seed_from_u64(world.seed.wrapping_mul(31).wrapping_add(number));
        let project = ProjectName::parse(&format!("project{number}")).expect("a legal name");
        Self { world, notes, random, project }
    }

    /// Asks and asks, then returns.
    pub async fn run(mut self) {
        for _ in 0..ROUNDS {
            pass(Duration::from_millis(self.random.random_range(50..3000))).await;
            let name = format!("i{}", self.random.random_range(0..NAMES));
            let name = InstanceName::parse(&name).expect("a legal name");
            match self.random.random_range(0..12) {
                0..=4 => self.request(&name).await,
                5 => self.wish(&name, v1::Wish::Destroyed, Wish::Destroyed).await,
                6 => self.keep(&name).await,
                7 => self.wish(&name, v1::Wish::Stopped, Wish::Stopped).await,
                8 => self.wish(&name, v1::Wish::Started, Wish::Started).await,
                9..=10 => self.run_hook(&name).await,
                _ => self.revoke().await,
            }
        }
    }

    fn key(&self, name: &InstanceName) -> (ProjectName, InstanceName) {
        (self.project.clone(), name.clone())
    }

    /// From here on nobody knows, until there is an answer; what it was known as, and who it is.
    fn begin(&self, name: &InstanceName) -> (Option<Told>, Option<InstanceId>) {
        let mut notes = lock(&self.notes);
        let told = notes.told.remove(&self.key(name));
        // Also what was lost before may be there, under an id that nobody was told.
        let state = self.world.state();
        let id = told.as_ref().map(|told| told.id.clone()).or_else(|| state.by_name.get(&self.key(name)).cloned());
        notes.asked_to_change.extend(id.clone());
        (told, id)
    }

    fn acknowledge(&self, view: &v1::InstanceView, name: &InstanceName) {
        let wish = match view.wish() {
            v1::Wish::Stopped => Wish::Stopped,
            v1::Wish::Destroyed => Wish::Destroyed,
            _ => Wish::Started,
        };
        let id = InstanceId::parse(&view.id).expect("the master sends legal ids");
        let parameters = Parameters::parse_json(&view.parameters_json).expect("the master sends legal parameters");
        let leaves = Some(Timestamp(view.leaves_ms)).filter(|at| at.0 > 0);
        let mut notes = lock(&self.notes);
        notes.acknowledged += 1;
        notes.told.insert(self.key(name), Told { id, wish, leaves, parameters });
    }

    async fn request(&mut self, name: &InstanceName) {
        let (before, _) = self.begin(name);
        let ask_for = v1::RequestRequest {
            project: self.project.to_string(),
            name: name.to_string(),
            release: "counter".into(),
            parameters_json: Some(format!("{{\"size\": {}}}", self.random.random_range(1..5))),
            ..Default::default()
        };
        let mut first: Option<String> = None;
        loop {
            match ask(ends::grid_client(self.world.channel()).request(ask_for.clone())).await {
                Answer::Yes(view) => {
                    // The same request twice is one instance.
                    let earlier = before.as_ref().filter(|told| told.wish != Wish::Destroyed && told.leaves.is_none());
                    let earlier = earlier.map(|told| told.id.to_string()).or(first.take());
                    assert!(earlier.is_none_or(|id| id == view.id), "{name} is two instances");
                    let again = ask(ends::grid_client(self.world.channel()).request(ask_for.clone())).await;
                    if let Answer::Yes(again) = &again {
                        assert_eq!(again.id, view.id, "{name} asked for twice is two instances");
                        assert!(!again.created, "{name} was created twice");
                    }
                    return self.acknowledge(&view, name);
                }
                Answer::No(problem) => {
                    let expected = problem.category() == Category::Conflict;
                    assert!(expected, "a good request was refused: {problem}");
                    return self.restore(name, before);
                }
                Answer::Lost => {
                    lock(&self.notes).lost += 1;
                    let state = self.world.state();
                    let made = state.by_name.get(&self.key(name)).and_then(|id| state.instances.get(id));
                    first = made
                        .filter(|one| one.wish != Wish::Destroyed && one.leaving.is_none())
                        .map(|one| one.id.to_string());
                    pass(Duration::from_millis(300)).await;
                }
            }
        }
    }

    /// Has it destroyed later, and may be sorry for that.
    async fn keep(&mut self, name: &InstanceName) {
        let seconds = self.random.random_range(1..20);
        self.set(name, v1::Wish::Destroyed, Wish::Stopped, seconds).await;
        if self.random.random_bool(0.5) {
            pass(Duration::from_millis(self.random.random_range(50..10_000))).await;
            self.wish(name, v1::Wish::Started, Wish::Started).await;
        }
    }

    async fn wish(&mut self, name: &InstanceName, wire: v1::Wish, wish: Wish) {
        self.set(name, wire, wish, 0).await;
    }

    async fn set(&mut self, name: &InstanceName, wire: v1::Wish, wish: Wish, keep_seconds: u64) {
        let (before, id) = self.begin(name);
        match wish {
            Wish::Destroyed => lock(&self.notes).to_destroy.extend(id),
            _ if keep_seconds > 0 => lock(&self.notes).to_leave.extend(id),
            _ => {}
        }
        let key = v1::InstanceKey { project: self.project.to_string(), name: name.to_string() };
        let ask_for = v1::SetWishRequest { key: Some(key), wish: wire.into(), keep_seconds };
        let mut lost = false;
        loop {
            match ask(ends::grid_client(self.world.channel()).set_wish(ask_for.clone())).await {
                Answer::Yes(view) => {
                    self.acknowledge(&view, name);
                    let told = lock(&self.notes).told.get(&self.key(name)).cloned();
                    let fits = |told: &Told| told.wish == wish && told.leaves.is_some() == (keep_seconds > 0);
                    assert!(told.as_ref().is_some_and(fits), "{name} was asked to be {wish} and is {told:?}");
                    return;
                }
                // What was destroyed by a call whose answer was lost is not there when it is asked for again.
                Answer::No(_) if lost => return,
                Answer::No(problem) => {
                    let expected = matches!(problem.category(), Category::NotFound | Category::Conflict);
                    assert!(expected, "a good wish was refused: {problem}");
                    return self.restore(name, before);
                }
                Answer::Lost => {
                    lost = true;
                    lock(&self.notes).lost += 1;
                    pass(Duration::from_millis(300)).await;
                }
            }
        }
    }

    /// Asks for a run once: asked again it would be another one.
    async fn run_hook(&mut self, name: &InstanceName) {
        let key = v1::InstanceKey { project: self.project.to_string(), name: name.to_string() };
        let hook = ["configure", "start"][self.random.random_range(0..2)].to_owned();
        let ask_for = v1::RunHookRequest { key: Some(key), hook };
        match ask(ends::grid_client(self.world.channel()).run_hook(ask_for)).await {
            Answer::Yes(answer) => {
                let id = answer.instance.map(|view| view.id).unwrap_or_default();
                let id = InstanceId::parse(&id).expect("the master sends legal ids");
                let before = lock(&self.notes).runs.insert(id, answer.number).unwrap_or(0);
                assert!(answer.number > before, "{name} was given run {} after run {before}", answer.number);
            }
            Answer::No(problem) => {
                let expected =
                    matches!(problem.category(), Category::NotFound | Category::Conflict | Category::Exhausted);
                assert!(expected, "a good run was refused: {problem}");
            }
            Answer::Lost => lock(&self.notes).lost += 1,
        }
    }

    fn restore(&self, name: &InstanceName, before: Option<Told>) {
        if let Some(told) = before {
            lock(&self.notes).told.insert(self.key(name), told);
        }
    }

    /// Shuts the last node out, in every fourth seed.
    async fn revoke(&mut self) {
        if !self.world.seed.is_multiple_of(4) {
            return;
        }
        let node = node_name(crate::world::NODES);
        lock(&self.notes).revoked.insert(node.clone());
        let ask_for = v1::NodeKey { node: node.to_string() };
        if !self.world.state().nodes.contains_key(&node) {
            return;
        }
        while let Answer::Lost = ask(ends::admin_client(self.world.channel()).revoke_node(ask_for.clone())).await {
            pass(Duration::from_millis(300)).await;
        }
    }
}

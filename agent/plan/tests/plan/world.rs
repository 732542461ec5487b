//! A small node: one partition or more, a release with everything in it, and facts that actions edit.

use plat_agent_plan::action::{Note, ServiceSpec};
use plat_agent_plan::facts::{Failure, ServiceRun};
use plat_agent_plan::{
    Action, Begun, End, Ground, Moment, NodeFacts, NodePlan, Outcomes, PartitionFact, PartitionPlan, Place,
    ReleaseFact, RunBegun, Steady, permit, plan,
};
use plat_document::Release;
use plat_document::release::ServiceKind;
use plat_model::id::{Digest, InstanceId, InstanceName, NodeId, PartitionName, PromiseName, ServiceName};
use plat_model::instance::{InstanceDesired, InstanceStatus, Wish};
use plat_model::node::{NodeDesired, NodeFile, NodePartition};
use plat_model::parameters::Parameters;
use plat_model::run::{RUNS_MAX, RunWanted};
use plat_model::{Generation, Timestamp};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

pub const RELEASE: &str = r#"
version: 1
name: shop
parameters:
  type: object
  properties:
    port: {type: integer, default: 8080}
    greeting: {type: string, default: hello}
secrets:
  password: {length: 16}
files:
  etc/shop.conf:
    template: |
      password={{ secrets.password }}
      greeting={{ parameters.greeting }}
hooks:
  init: {command: ["{{ release.directory }}/bin/init"]}
  start: {command: ["{{ release.directory }}/bin/started"]}
  stop: {command: ["{{ release.directory }}/bin/stopping"]}
  clean: {command: ["{{ release.directory }}/bin/clean"]}
services:
  web:
    command: ["{{ release.directory }}/bin/web", "--port", "{{ parameters.port }}"]
  worker:
    command: ["{{ release.directory }}/bin/worker"]
promises:
  answers:
    tcp: {address: "{{ partition.address }}", port: "{{ parameters.port }}"}
  breathes:
    role: alive
    exec: ["{{ release.directory }}/bin/breathes"]
publish:
  url: "http://{{ partition.url_host }}:{{ parameters.port }}/"
"#;

pub fn release() -> Release {
    Release::parse_yaml(RELEASE, "shop.yaml").unwrap()
}

pub fn part(n: usize) -> PartitionName {
    PartitionName::parse(&format!("part{n}")).unwrap()
}

pub fn instance_id(n: usize) -> InstanceId {
    InstanceId::parse(&format!("{n:032x}")).unwrap()
}

pub struct World {
    pub place: Place,
    pub file: NodeFile,
    pub desired: NodeDesired,
    pub facts: NodeFacts,
    pub now: Moment,
    /// Services and promises that misbehave.
    pub crashing: BTreeSet<ServiceName>,
    /// One-shots that do not end by themselves; all others do at once.
    pub slow: BTreeSet<ServiceName>,
    pub broken: BTreeSet<String>,
    pub failing: BTreeSet<String>,
    pub done: Vec<String>,
    /// How many services were started.
    starts: u32,
    /// The release, with what a test added to it.
    text: String,
}

/// A moment of a machine whose clocks agree.
pub fn at(wall: Timestamp) -> Moment {
    Moment { wall, steady: Steady(wall.0.unsigned_abs()) }
}

impl World {
    pub fn new(partitions: usize) -> Self {
        let file = NodeFile {
            partitions: (0..partitions)
                .map(|n| NodePartition {
                    addresses: vec![format!("fd00::{}", n + 1).parse().unwrap()],
                    ..NodePartition::bare(part(n))
                })
                .collect(),
            ..NodeFile::bare(Path::new("/srv"))
        };
        let facts = NodeFacts {
            partitions: file.partitions.iter().map(|p| (p.name.clone(), PartitionFact::default())).collect(),
            ..NodeFacts::default()
        };
        Self {
            place: Place::new(NodeId::parse("n1").unwrap(), &file),
            file,
            desired: NodeDesired::default(),
            facts,
            now: at(Timestamp::from_seconds(1_800_000_000)),
            starts: 0,
            text: RELEASE.into(),
            crashing: BTreeSet::new(),
            slow: BTreeSet::new(),
            broken: BTreeSet::new(),
            failing: BTreeSet::new(),
            done: Vec::new(),
        }
    }

    /// The release has one more promise.
    pub fn promise(&mut self, name: &str, promise: &str) {
        self.text = self.text.replace("promises:\n", &format!("promises:\n  {name}: {promise}\n"));
    }

    pub fn wish(&mut self, instance: usize, partition: usize, wish: Wish, parameters: &str) {
        let release = Release::parse_yaml(&self.text, "shop.yaml").unwrap();
        let digest = release.digest();
        self.desired.generation = self.desired.generation.next();
        self.desired.releases.insert(digest.clone(), release.to_canonical_json());
        self.facts.releases.entry(digest.clone()).or_insert(ReleaseFact::Absent);
        let before = self.desired.instances.get(&instance_id(instance));
        let runs = before.map(|before| before.runs.clone()).unwrap_or_default();
        let before = before.map_or(Generation::ZERO, |before| before.generation);
        let desired = InstanceDesired {
            runs,
            name: InstanceName::parse(&format!("shop{instance}")).unwrap(),
            generation: before.next(),
            parameters: Parameters::parse_json(parameters).unwrap(),
            wish,
            ..InstanceDesired::bare(instance_id(instance), part(partition), digest)
        };
        self.desired.instances.insert(desired.id.clone(), desired);
    }

    /// A run of a hook is asked for; its number.
    pub fn ask(&mut self, instance: usize, hook: &str) -> Option<u64> {
        let ran = self.status(instance).and_then(|status| status.ran.last()).map_or(0, |run| run.number);
        let one = self.desired.instances.get_mut(&instance_id(instance))?;
        let number = one.runs.last().map_or(0, |run| run.number).max(ran) + 1;
        one.runs.retain(|run| run.number > ran);
        if one.runs.len() >= RUNS_MAX || one.wish != Wish::Started {
            return None;
        }
        one.runs.push(RunWanted { number, hook: hook.parse().unwrap() });
        one.generation = one.generation.next();
        self.desired.generation = self.desired.generation.next();
        Some(number)
    }

    /// The agent is killed after it has written down that a run begins.
    pub fn killed_in_a_run(&mut self, partition: usize) -> bool {
        let actions = self.plan_of(partition).actions;
        let Some(Action::RunAsked { number, run, .. }) = actions.iter().find(|a| matches!(a, Action::RunAsked { .. }))
        else {
            return false;
        };
        let begun = RunBegun { number: *number, hook: run.name.parse().unwrap(), at: self.now.wall };
        let fact = self.facts.partitions.get_mut(&part(partition)).unwrap();
        fact.occupant.as_mut().unwrap().note(&Note::RunBegun(begun));
        true
    }

    /// The release is another from the beginning.
    pub fn with_release(text: &str) -> Self {
        Self { text: text.into(), ..Self::new(1) }
    }

    /// The instance is to consist of another release, which cannot be had yet.
    pub fn upgrade(&mut self, instance: usize, fact: ReleaseFact) -> Digest {
        let text = RELEASE.replace("bin/web", "bin/web2").replace("hello", "welcome");
        let next = Release::parse_yaml(&text, "shop.yaml").unwrap();
        self.desired.generation = self.desired.generation.next();
        self.desired.releases.insert(next.digest(), next.to_canonical_json());
        self.facts.releases.insert(next.digest(), fact);
        let one = self.desired.instances.get_mut(&instance_id(instance)).unwrap();
        (one.release, one.generation) = (next.digest(), one.generation.next());
        next.digest()
    }

    /// A service that runs ends by itself.
    pub fn end(&mut self, partition: usize, service: &str) {
        let fact = self.facts.partitions.get_mut(&part(partition)).unwrap();
        let one = fact.services.get_mut(&ServiceName::parse(service).unwrap()).unwrap();
        one.state = ServiceRun::Ended { at: self.now, how: plat_agent_plan::facts::Ending::Failure };
    }

    /// The same, as it says.
    pub fn finish(&mut self, partition: usize, service: &str, how: &str) {
        let fact = self.facts.partitions.get_mut(&part(partition)).unwrap();
        let one = fact.services.get_mut(&ServiceName::parse(service).unwrap()).unwrap();
        one.end(End { how: how.into(), last_lines: Vec::new() }, self.now);
    }

    /// A partition has been looked at, and there is nothing in it.
    pub fn empty(&mut self, partition: usize) {
        self.facts.partitions.insert(part(partition), PartitionFact::default());
    }

    pub fn forget(&mut self, instance: usize) {
        self.desired.generation = self.desired.generation.next();
        self.desired.instances.remove(&instance_id(instance));
    }

    pub fn plan(&self) -> NodePlan {
        plan(&self.place, &self.file, &self.desired, &self.facts, self.now)
    }

    pub fn plan_of(&self, partition: usize) -> PartitionPlan {
        self.plan().partitions.remove(&part(partition)).unwrap()
    }

    pub fn status(&self, instance: usize) -> Option<&InstanceStatus> {
        self.facts.reported.get(&instance_id(instance))
    }

    /// Plans and applies until nothing is left to do at this instant. Panics if that does not happen.
    pub fn settle(&mut self) {
        for _ in 0..100 {
            if !self.step() {
                return;
            }
        }
        panic!("the plan does not become empty: {:?}", self.plan());
    }

    /// One round; whether anything was done.
    pub fn step(&mut self) -> bool {
        let plan = self.plan();
        let mut did = false;
        for (digest, plan) in plan.releases {
            match plan.action {
                Some(Action::InstallRelease { .. }) => {
                    self.facts.releases.insert(digest, ReleaseFact::Installed);
                    did = true;
                }
                Some(_) => {
                    self.facts.releases.insert(digest, ReleaseFact::Absent);
                    did = true;
                }
                None => {}
            }
        }
        for (name, plan) in plan.partitions {
            if let Some(status) = plan.status {
                self.facts.reported.insert(status.id.clone(), status);
            }
            let mut failed = false;
            for action in &plan.actions {
                // As in the daemon, services start beside each other.
                if failed && !matches!(action, Action::StartService { .. }) {
                    break;
                }
                did = true;
                let step = action.step();
                self.done.push(format!("{name} {step}"));
                if self.failing.contains(&step) {
                    failed = true;
                    self.failed(&name, step);
                } else {
                    self.apply(&name, action);
                    self.facts.partitions.get_mut(&name).unwrap().failures.retain(|failure| failure.step != step);
                }
            }
            if !failed && !plan.held_back {
                self.facts.partitions.get_mut(&name).unwrap().failures.retain(Failure::outlasts_rest);
            }
        }
        did
    }

    fn failed(&mut self, name: &PartitionName, step: String) {
        let fact = self.facts.partitions.get_mut(name).unwrap();
        let attempts = fact.failure(&step).map_or(0, |failure| failure.attempts) + 1;
        fact.failures.retain(|failure| failure.step != step);
        let problem = plat_model::Problem::new(plat_model::problem::codes::HOOK_FAILED, "it failed");
        fact.failures.push(Failure { step, problem, attempts, at: self.now });
    }

    fn apply(&mut self, name: &PartitionName, action: &Action) {
        let fact = self.facts.partitions.get_mut(name).unwrap();
        if let Action::StopService { service, .. } = action {
            assert!(fact.services.contains_key(service), "only what is known is stopped");
        }
        let (node, occupant) = (&self.file, fact.occupant.as_ref());
        let ground = Ground { node, occupant, logged: &BTreeSet::new() };
        permit(action, ground).unwrap_or_else(|problem| panic!("{action:?}: {problem}"));
        let mut machine =
            Machine { starts: &mut self.starts, crashing: &self.crashing, slow: &self.slow, broken: &self.broken };
        fact.effect(action, self.now, &mut machine).unwrap();
    }

    pub fn later(&mut self, seconds: u64) {
        self.now = self.now.plus(Duration::from_secs(seconds));
    }

    /// Somebody sets the wall clock.
    pub fn set_clock(&mut self, seconds: i64) {
        self.now.wall = Timestamp::from_seconds(self.now.wall.seconds() + seconds);
    }

    /// What was done since the last call.
    pub fn take_done(&mut self) -> Vec<String> {
        std::mem::take(&mut self.done)
    }
}

/// What the world decides of an action.
struct Machine<'a> {
    starts: &'a mut u32,
    crashing: &'a BTreeSet<ServiceName>,
    slow: &'a BTreeSet<ServiceName>,
    broken: &'a BTreeSet<String>,
}

impl Outcomes for Machine<'_> {
    fn start(&mut self, spec: &ServiceSpec) -> Begun {
        *self.starts += 1;
        let crash = || End { how: "exit code 1".into(), last_lines: vec!["cannot open the shop".into()] };
        let ends = spec.kind == ServiceKind::Oneshot && !self.slow.contains(&spec.name);
        let end = self.crashing.contains(&spec.name).then(crash).or_else(|| ends.then(End::success));
        Begun { run: format!("run{}", self.starts), pid: 7, end }
    }

    fn check(&mut self, promise: &PromiseName) -> (bool, String) {
        (!self.broken.contains(promise.as_str()), "said".into())
    }
}

pub fn digest() -> Digest {
    release().digest()
}

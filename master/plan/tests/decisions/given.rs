//! A grid in memory, built by the decisions themselves: every change goes through `State::apply`, and every record is
//! kept too, so that a test can load the state anew.

use plat_master_plan::access::Subject;
use plat_master_plan::allocate::{Allocation, allocate};
use plat_master_plan::record::{Purpose, Record};
use plat_master_plan::request::{RequestAsk, Requested, request, set_wish};
use plat_master_plan::{Change, Decision, Key, State, absorb, access, certify, desired, release, tree};
use plat_model::id::{Digest, InstanceId, InstanceName, NodeId, PartitionName, ProjectName, TokenId, UserName};
use plat_model::instance::{Instance, InstanceState, InstanceStatus, PlacementRules, Wish};
use plat_model::node::{Inventory, NodeFile, NodePartition, NodeReport};
use plat_model::principal::{Principal, Role};
use plat_model::problem::{Code, Problems};
use plat_model::release::SupplyState;
use plat_model::resources::Resources;
use plat_model::tree::{ChildAsk, Kind};
use plat_model::{Generation, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

pub const NOW: Timestamp = Timestamp(1_795_249_800_000); // 2026-11-21T08:30:00Z

#[derive(Clone)]
pub struct Grid {
    pub state: State,
    pub records: BTreeMap<Key, Record>,
    pub revision: u64,
    pub online: BTreeSet<NodeId>,
    pub now: Timestamp,
    ids: u64,
}

pub fn node(name: &str) -> NodeId {
    NodeId::parse(name).unwrap()
}

pub fn project(name: &str) -> ProjectName {
    ProjectName::parse(name).unwrap()
}

pub fn name(name: &str) -> InstanceName {
    InstanceName::parse(name).unwrap()
}

pub fn memory(mib: u32) -> Resources {
    Resources { memory_mib: Some(mib), ..Resources::default() }
}

pub fn operator() -> Principal {
    Principal::User { name: UserName::parse("ada").unwrap(), role: Role::Operator }
}

pub fn may(grid: &Grid, who: &Principal, rpc: &str, subject: &Subject) -> bool {
    access::authorize(&grid.state, who, rpc, subject).is_ok()
}

pub fn code<T: std::fmt::Debug>(result: Result<T, Problems>) -> Code {
    result.unwrap_err().0[0].code
}

impl Grid {
    pub fn new() -> Self {
        let (state, records, online) = (State::default(), BTreeMap::new(), BTreeSet::new());
        let mut grid = Self { state, records, revision: 0, online, now: NOW, ids: 0 };
        let ada = certify::first_operator(&grid.state, UserName::parse("ada").unwrap(), "aa").unwrap();
        grid.commit(ada);
        grid
    }

    pub fn commit<T>(&mut self, decision: Decision<T>) -> T {
        self.apply(&decision.changes);
        decision.answer
    }

    pub fn apply(&mut self, changes: &[Change]) {
        self.revision += 1;
        for change in changes {
            self.state.apply(change, self.revision);
            match change {
                Change::Put(record) => drop(self.records.insert(record.key(), (**record).clone())),
                Change::Delete(key) => drop(self.records.remove(key)),
            }
        }
    }

    pub fn fresh(&mut self) -> InstanceId {
        self.ids += 1;
        InstanceId::parse(&format!("{:032x}", self.ids)).unwrap()
    }

    pub fn token(&mut self, purpose: Purpose) -> (TokenId, Digest) {
        self.ids += 1;
        let id = TokenId::parse(&format!("{:016x}", self.ids)).unwrap();
        let secret = Digest::parse(&format!("{:064x}", self.ids)).unwrap();
        let token =
            certify::create_token(&self.state, id.clone(), secret.clone(), purpose, certify::TOKEN_VALIDITY, self.now);
        self.commit(token.unwrap());
        (id, secret)
    }

    /// An enrolled node that is online, with `partitions` partitions.
    pub fn node(&mut self, id: &str, partitions: usize, capacity: Resources) {
        let (token, secret) = self.token(Purpose::Node(Some(node(id))));
        let serials = certify::NewSerials { node: format!("{id}-1"), rejoin: format!("{id}-r") };
        let claim = certify::Claim { token: &token, secret_hash: &secret, keys: &secret };
        let decision = certify::enroll(&self.state, &claim, None, serials, self.now).unwrap();
        self.commit(decision);
        self.online.insert(node(id));
        self.inventory(id, partitions, capacity);
    }

    pub fn inventory(&mut self, id: &str, partitions: usize, capacity: Resources) -> absorb::Absorbed {
        let partition = |n| NodePartition::bare(PartitionName::parse(&format!("part{n:04}")).unwrap());
        let partitions = (0..partitions).map(partition).collect();
        let told = NodeFile { capacity, partitions, ..NodeFile::bare(Path::new("/srv")) }.inventory();
        let inventory = Some(Inventory { does_once: true, ..told });
        self.report(id, NodeReport { inventory, ..NodeReport::default() })
    }

    pub fn report(&mut self, id: &str, report: NodeReport) -> absorb::Absorbed {
        let absorbed = absorb::absorb(&self.state, &node(id), &report, self.now);
        self.apply(&absorbed.changes);
        absorbed
    }

    /// Adds a release and supplies it to all.
    pub fn release(&mut self, name: &str) -> Digest {
        let text = format!(
            "version: 1\nname: {name}\nparameters:\n  type: object\n  properties:\n    port: {{type: integer}}\nshared:\n  type: object\n  properties:\n    database: {{type: string}}\nservices:\n  db:\n    command: [/bin/db]\n"
        );
        self.document(&text)
    }

    pub fn document(&mut self, text: &str) -> Digest {
        let document = plat_document::Release::parse_yaml(text, "release.yaml").unwrap();
        let digest = release::add(&self.state, &document, self.now).unwrap();
        let digest = self.commit(digest);
        let all = release::supply(&self.state, &digest, &release::Targets::All, SupplyState::Available).unwrap();
        self.commit(all);
        digest
    }

    pub fn ask(&self, instance: &str) -> RequestAsk {
        let release = release::resolve(&self.state, "pg").ok();
        let (project, name) = (project("shop"), name(instance));
        RequestAsk {
            project,
            name,
            release,
            parameters: None,
            rules: None,
            resources: None,
            wish: None,
            parent: None,
            kind: Kind::Own,
        }
    }

    pub fn request(&mut self, ask: RequestAsk) -> Result<Requested, Problems> {
        let fresh = self.fresh();
        let decision = request(&self.state, ask, fresh, self.now)?;
        Ok(self.commit(decision))
    }

    /// What an instance asks for.
    pub fn child_ask(&self, child: &str) -> ChildAsk {
        let (name, release) = (name(child), Some("pg".to_owned()));
        ChildAsk { name, release, parameters: None, resources: None, wish: None, kind: Kind::Own }
    }

    /// An instance of the project asks for another.
    pub fn asks(&mut self, parent: &str, ask: &ChildAsk) -> Result<InstanceId, Problems> {
        let fresh = self.fresh();
        let parent = self.instance(parent);
        let decision = tree::request_child(&self.state, parent, ask, fresh, self.now)?;
        Ok(self.commit(decision).expect("there is a child"))
    }

    pub fn wants(&mut self, instance: &str, resources: Resources) -> InstanceId {
        let ask = RequestAsk { resources: Some(resources), ..self.ask(instance) };
        self.request(ask).unwrap().id
    }

    pub fn wish(&mut self, instance: &str, wish: Wish) {
        let decision = set_wish(&self.state, &project("shop"), &name(instance), wish, self.now).unwrap();
        self.commit(decision);
    }

    pub fn allocate(&mut self) -> Allocation {
        let round = allocate(&self.state, &self.online, self.now);
        self.apply(&round.changes);
        round
    }

    pub fn instance(&self, instance: &str) -> &Instance {
        self.state.instance(&project("shop"), &name(instance)).expect("the instance is there")
    }

    pub fn status(&self, id: &InstanceId, state: InstanceState, generation: Generation) -> NodeReport {
        let status = InstanceStatus::bare(id.clone(), generation, state, self.now);
        NodeReport { instances: vec![status], ..NodeReport::default() }
    }

    pub fn reports(&mut self, id: &InstanceId, state: InstanceState) -> absorb::Absorbed {
        let instance = &self.state.instances[id];
        let on = instance.placement.as_ref().unwrap().node.to_string();
        let report = self.status(id, state, instance.generation);
        self.report(&on, report)
    }

    pub fn desired(&self, id: &str) -> plat_model::node::NodeDesired {
        desired::desired(&self.state, &node(id))
    }

    pub fn later(&mut self, by: Duration) {
        self.now = self.now.plus(by);
    }

    /// The state as a store would load it: from the records alone.
    pub fn reloaded(&self, backwards: bool) -> State {
        let mut state = State::default();
        let mut records: Vec<&Record> = self.records.values().collect();
        if backwards {
            records.reverse();
        }
        records.into_iter().for_each(|record| state.apply(&Change::put(record.clone()), 1));
        state.touch_all(1);
        state
    }

    /// What must always hold.
    pub fn check(&self) {
        self.check_but_capacity_of_shrunk_nodes();
        for id in self.state.nodes.keys() {
            let (used, capacity) = self.memory_of(id);
            assert!(used <= capacity, "{id}: {used} of {capacity} MiB");
        }
    }

    /// What the instances on a node ask for, from their rows, and what it offers.
    pub fn memory_of(&self, id: &NodeId) -> (u32, u32) {
        let used = self.state.instances_on(id).map(|instance| instance.resources.memory_mib.unwrap_or(0)).sum();
        (used, self.state.nodes[id].inventory.capacity.memory_mib.unwrap_or(u32::MAX))
    }

    pub fn check_but_capacity_of_shrunk_nodes(&self) {
        for backwards in [false, true] {
            let loaded = self.reloaded(backwards);
            let mut kept = self.state.clone();
            kept.desired_revision = loaded.desired_revision.clone();
            assert!(kept == loaded, "the state kept differs from the state loaded (backwards: {backwards})");
        }
        for instance in self.state.instances.values() {
            let above = instance.parent.iter().map(|parent| &parent.instance).chain(&instance.rides);
            let answered =
                |above: &InstanceId| self.state.instances.get(above).is_some_and(|above| above.wish != Wish::Destroyed);
            assert!(
                instance.wish == Wish::Destroyed || above.into_iter().all(answered),
                "{} is nobody's",
                instance.name
            );
            assert!(instance.rides.is_none() || instance.placement.is_none(), "{} is shared", instance.name);
        }
        let mut held = BTreeSet::new();
        for id in self.state.nodes.keys() {
            for instance in self.state.instances_on(id) {
                let place = instance.placement.clone().unwrap();
                let seat = self.state.seats.get(&place).and_then(|seat| seat.instance.clone());
                assert_eq!(seat.as_ref(), Some(&instance.id), "the seat of {place}");
                assert!(held.insert(place.clone()), "{place} holds two instances");
            }
        }
    }
}

pub fn rules(node_name: Option<&str>, labels: &[(&str, &str)]) -> PlacementRules {
    let labels = labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    PlacementRules { node: node_name.map(node), labels, ..Default::default() }
}

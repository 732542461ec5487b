//! What holds after any sequence of what people and nodes do, late and repeated messages included.

use super::given::*;
use plat_master_plan::request::RequestAsk;
use plat_model::Generation;
use plat_model::id::InstanceId;
use plat_model::instance::{InstanceState, Wish};
use plat_model::node::NodeReport;
use plat_model::tree::{ChildAsk, Kind};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
enum Step {
    Request(u8, u32),
    Wish(u8, Wish),
    /// An instance asks for a child, perhaps for a shared one.
    Child(u8, u8, bool),
    Allocate,
    Report(u8, InstanceState),
    /// An earlier report comes again.
    Again(usize),
    Inventory(u8, usize, u32),
    Offline(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let wish = prop_oneof![Just(Wish::Started), Just(Wish::Stopped), Just(Wish::Destroyed)];
    let state = prop_oneof![Just(InstanceState::Ready), Just(InstanceState::Failed), Just(InstanceState::Destroyed)];
    prop_oneof![
        3 => (0..6u8, 1..80u32).prop_map(|(n, m)| Step::Request(n, m)),
        2 => (0..6u8, wish).prop_map(|(n, w)| Step::Wish(n, w)),
        3 => (0..6u8, 0..3u8, any::<bool>()).prop_map(|(n, c, shared)| Step::Child(n, c, shared)),
        4 => Just(Step::Allocate),
        4 => (0..6u8, state).prop_map(|(n, s)| Step::Report(n, s)),
        2 => any::<usize>().prop_map(Step::Again),
        1 => (0..2u8, 0..4usize, 100..200u32).prop_map(|(n, p, m)| Step::Inventory(n, p, m)),
        1 => (0..2u8).prop_map(Step::Offline),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_sequence_keeps_the_invariants(steps in prop::collection::vec(step(), 1..60)) {
        let mut grid = Grid::new();
        grid.node("n0", 2, memory(100));
        grid.node("n1", 3, memory(100));
        grid.release("pg");
        let mut sent: Vec<(String, NodeReport)> = Vec::new();
        let mut seen: BTreeMap<InstanceId, (Generation, Generation)> = BTreeMap::new();
        let mut most = BTreeMap::new();
        for step in steps {
            match step {
                Step::Request(n, mib) => {
                    let ask = RequestAsk { resources: Some(memory(mib)), ..grid.ask(&format!("i{n}")) };
                    let _ = grid.request(ask);
                }
                Step::Wish(n, wish) => {
                    let (project, name) = (project("shop"), name(&format!("i{n}")));
                    let decision = plat_master_plan::request::set_wish(&grid.state, &project, &name, wish, grid.now);
                    if let Ok(decision) = decision {
                        grid.commit(decision);
                    }
                }
                Step::Child(n, c, shared) => {
                    let parent = format!("i{n}");
                    let Some(instance) = grid.state.instance(&project("shop"), &name(&parent)) else { continue };
                    if instance.wish != Wish::Destroyed {
                        let kind = if shared { Kind::Shared { on: None } } else { Kind::Own };
                        let _ = grid.asks(&parent, &ChildAsk { kind, ..grid.child_ask(&format!("c{c}")) });
                    }
                }
                Step::Allocate => {
                    grid.allocate();
                    prop_assert!(grid.allocate().changes.is_empty(), "allocating again places nothing");
                }
                Step::Report(n, state) => {
                    let instance = grid.state.instance(&project("shop"), &name(&format!("i{n}"))).cloned();
                    let Some(instance) = instance else { continue };
                    let Some(place) = &instance.placement else { continue };
                    let report = grid.status(&instance.id, state, instance.generation);
                    sent.push((place.node.to_string(), report.clone()));
                    grid.report(place.node.as_str(), report);
                }
                Step::Again(at) if !sent.is_empty() => {
                    let (node, report) = sent[at % sent.len()].clone();
                    grid.report(&node, report);
                }
                Step::Again(_) => {}
                Step::Inventory(n, partitions, mib) => drop(grid.inventory(&format!("n{n}"), partitions, memory(mib))),
                Step::Offline(n) => {
                    let n = node(&format!("n{n}"));
                    if !grid.online.remove(&n) {
                        grid.online.insert(n);
                    }
                }
            }
            grid.check_but_capacity_of_shrunk_nodes();
            // A node may shrink below what is on it; nothing that is decided adds to that.
            for id in ["n0", "n1"].map(node) {
                let (used, capacity) = grid.memory_of(&id);
                let before = most.get(&id).copied().unwrap_or(0);
                prop_assert!(used <= capacity || used <= before, "{id}: {used} of {capacity} MiB, {before} before");
                most.insert(id, used);
            }
            for (id, instance) in &grid.state.instances {
                let status = grid.state.statuses.get(id).map_or(Generation::ZERO, |status| status.generation);
                let before = seen.insert(id.clone(), (instance.generation, status)).unwrap_or_default();
                prop_assert!(before.0 <= instance.generation && before.1 <= status, "a generation went back");
            }
        }
    }
}

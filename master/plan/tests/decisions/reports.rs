use super::given::*;
use plat_master_plan::allocate::allocate;
use plat_master_plan::{Change, desired};
use plat_model::id::{InstanceId, PromiseName, ServiceName};
use plat_model::instance::{
    InstanceState, InstanceStatus, PromiseStatus, ServiceKind, ServiceState, ServiceStatus, Wish,
};
use plat_model::node::NodeReport;
use plat_model::problem::codes;
use plat_model::{Generation, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn placed() -> (Grid, InstanceId) {
    let mut grid = Grid::new();
    grid.node("n1", 2, memory(100));
    grid.release("pg");
    let id = grid.wants("db", memory(10));
    grid.allocate();
    (grid, id)
}

#[test]
fn a_report_that_says_nothing_new_changes_nothing() {
    let (mut grid, id) = placed();
    assert_eq!(grid.reports(&id, InstanceState::Ready).changes.len(), 1);
    assert!(grid.reports(&id, InstanceState::Ready).changes.is_empty());
    assert!(grid.inventory("n1", 2, memory(100)).changes.is_empty());
}

#[test]
fn a_partition_that_goes_and_a_placement_into_it_conflict() {
    let mut grid = Grid::new();
    grid.node("n1", 1, memory(100));
    grid.release("pg");
    grid.wants("db", memory(10));
    // Both are decided on the same state.
    let placement = allocate(&grid.state, &grid.online, grid.now);
    let goes = grid.clone().inventory("n1", 0, memory(100));
    let written: Vec<_> = placement.changes.iter().map(Change::key).collect();
    assert!(goes.read.iter().any(|key| written.contains(key)), "{:?} and {written:?}", goes.read);
}

#[test]
fn a_node_reports_only_what_is_on_it() {
    let (mut grid, id) = placed();
    grid.node("n2", 1, memory(1));
    let other = if grid.instance("db").placement.as_ref().unwrap().node == node("n1") { "n2" } else { "n1" };
    let report = grid.status(&id, InstanceState::Ready, grid.instance("db").generation);
    let absorbed = grid.report(other, report);
    assert_eq!((absorbed.changes.len(), absorbed.refused[0].code), (0, codes::NOT_YOURS));
}

#[test]
fn an_older_generation_is_refused_and_one_that_does_not_exist_too() {
    let (mut grid, id) = placed();
    let old = grid.status(&id, InstanceState::Ready, Generation(1));
    grid.reports(&id, InstanceState::Ready);
    let absorbed = grid.report("n1", old);
    assert_eq!((absorbed.changes.len(), absorbed.refused[0].code), (0, codes::STALE_REPORT));
    let future = grid.status(&id, InstanceState::Ready, Generation(9));
    assert_eq!(grid.report("n1", future).refused[0].code, codes::BAD_VALUE);
}

#[test]
fn an_instance_that_nobody_destroyed_is_not_removed_by_a_report() {
    let (mut grid, id) = placed();
    let absorbed = grid.reports(&id, InstanceState::Destroyed);
    assert_eq!((absorbed.changes.len(), absorbed.refused[0].code), (0, codes::STALE_REPORT));
}

#[test]
fn the_last_word_about_an_instance_may_come_twice() {
    let (mut grid, id) = placed();
    grid.wish("db", Wish::Destroyed);
    let last = grid.status(&id, InstanceState::Destroyed, grid.instance("db").generation);
    assert!(!grid.report("n1", last.clone()).changes.is_empty());
    let again = grid.report("n1", last);
    assert!(again.changes.is_empty() && again.refused.is_empty());
    assert!(grid.state.free[&node("n1")].len() == 2);
    grid.check();
}

#[test]
fn a_partition_that_vanishes_with_its_occupant_is_kept_and_told() {
    let (mut grid, _) = placed();
    let absorbed = grid.inventory("n1", 0, memory(100));
    assert_eq!(absorbed.refused[0].code, codes::IN_USE);
    assert_eq!(grid.state.nodes[&node("n1")].inventory.partitions.len(), 1);
    assert!(grid.inventory("n1", 0, memory(100)).changes.is_empty());
    grid.check();
}

#[test]
fn a_revoked_node_is_told_nothing_and_believed_nothing() {
    let (mut grid, _) = placed();
    let decision = plat_master_plan::certify::revoke_node(&grid.state, &node("n1"), grid.now).unwrap();
    grid.commit(decision);
    assert_eq!(grid.desired("n1"), Default::default());
    assert_eq!(grid.report("n1", NodeReport::default()).refused[0].code, codes::REVOKED);
}

#[test]
fn what_a_node_lacks_comes_as_far_as_there_is_room() {
    let (mut grid, _) = placed();
    grid.wants("web", memory(10));
    grid.allocate();
    let index = desired::index(&grid.state, &node("n1"));
    let (mut held, mut releases) = (BTreeMap::new(), BTreeSet::new());
    for (documents_sent, bodies_sent) in [(1, 0), (0, 1), (0, 1), (0, 0)] {
        let (documents, bodies) = desired::lacking(&grid.state, &index, &held, &releases, 1);
        assert_eq!((documents.len(), bodies.len()), (documents_sent, bodies_sent));
        releases.extend(documents.into_keys());
        held.extend(bodies.into_iter().map(|body| (body.id, body.generation)));
    }
}

#[test]
fn only_what_a_node_does_not_hold_is_sent_and_its_generation_grows_with_each_change() {
    let (mut grid, id) = placed();
    let index = desired::index(&grid.state, &node("n1"));
    let all: BTreeMap<_, _> = index.instances.iter().cloned().collect();
    let lacking = |grid: &Grid, index| desired::lacking(&grid.state, index, &all, &index.releases, usize::MAX);
    assert_eq!(lacking(&grid, &index), Default::default());
    grid.wish("db", Wish::Stopped);
    let next = desired::index(&grid.state, &node("n1"));
    assert!(next.generation > index.generation);
    let (documents, bodies) = lacking(&grid, &next);
    assert!(documents.is_empty());
    assert_eq!(bodies.iter().map(|body| &body.id).collect::<Vec<_>>(), [&id]);
    grid.reports(&id, InstanceState::Stopped);
    assert_eq!(desired::generation(&grid.state, &node("n1")), next.generation);
}

#[test]
fn since_when_an_instance_is_as_it_is_goes_on_over_a_new_agent_and_ends_with_what_an_agent_saw() {
    let (mut grid, id) = placed();
    let began = grid.now;
    let generation = grid.instance("db").generation;
    // As an agent tells that has just begun to look, or (`seen`) that has seen it become so.
    let ready = |now, pid, holds, seen: Option<Timestamp>| {
        let mut status = InstanceStatus::bare(id.clone(), generation, InstanceState::Ready, seen.unwrap_or(now));
        status.found = seen.is_none();
        status.services = vec![ServiceStatus {
            name: ServiceName::parse("db").unwrap(),
            kind: ServiceKind::Service,
            state: ServiceState::Running,
            pid: Some(pid),
            restarts: 0,
            last_exit: String::new(),
            since: began,
            schedule: String::new(),
            next: None,
            skipped: 0,
        }];
        let name = PromiseName::parse("answers").unwrap();
        status.promises = vec![PromiseStatus { name, holds, message: String::new(), checked: now, since: seen }];
        NodeReport { instances: vec![status], ..NodeReport::default() }
    };
    let since = |grid: &Grid| {
        let status = &grid.state.statuses[&id];
        (status.since, status.promises[0].since.unwrap(), status.promises[0].checked)
    };
    let hour = Duration::from_secs(3600);
    grid.report("n1", ready(began, 7, true, Some(began)));
    grid.later(hour);
    let anew = grid.now;
    grid.report("n1", ready(anew, 7, true, None));
    assert_eq!(since(&grid), (began, began, anew), "another agent found it so");
    grid.later(hour);
    let broken = grid.now;
    grid.report("n1", ready(broken, 7, false, None));
    assert_eq!(since(&grid), (began, broken, broken), "the promise is another word");
    grid.report("n1", ready(broken, 8, false, None));
    assert_eq!(since(&grid), (broken, broken, broken), "its process is another");
    grid.later(hour);
    let between = grid.now;
    grid.later(hour);
    let now = grid.now;
    grid.report("n1", ready(now, 8, false, Some(between)));
    assert_eq!(since(&grid), (between, between, now), "it was otherwise while the master was away");
    for wrong in [Timestamp(1), Timestamp(now.0 + 86_400_000)] {
        grid.report("n1", ready(now, 8, false, Some(wrong)));
        assert_eq!(since(&grid), (between, between, now), "a clock that is wrong says nothing");
    }
    grid.later(hour);
    let failed = grid.now;
    grid.reports(&id, InstanceState::Failed);
    assert_eq!(grid.state.statuses[&id].since, failed);
}

use super::given::*;
use plat_master_plan::Change;
use plat_master_plan::access::Subject;
use plat_master_plan::record::{Record, User};
use plat_master_plan::request::{RequestAsk, destroy_later};
use plat_master_plan::run::run_hook;
use plat_model::Timestamp;
use plat_model::id::{HookName, InstanceId, UserName};
use plat_model::instance::{InstanceState, InstanceStatus, Wish};
use plat_model::node::NodeReport;
use plat_model::principal::{Principal, Role};
use plat_model::problem::{Problem, codes};
use plat_model::run::{RUNS_MAX, RunEnd, RunResult};
use std::time::Duration;

const HOOKED: &str = "version: 1\nname: hooked\nhooks:\n  init: {command: [/bin/init]}\n  configure: {command: [/bin/configure]}\n\
                      services:\n  db: {command: [/bin/db]}\n";

/// A grid with an instance on a node whose agent knows of this.
fn grid() -> (Grid, InstanceId) {
    let mut grid = Grid::new();
    grid.node("n1", 2, memory(1000));
    grid.release("pg");
    let release = Some(grid.document(HOOKED));
    let id = grid.request(RequestAsk { release, ..grid.ask("web") }).unwrap().id;
    grid.allocate();
    (grid, id)
}

fn ask(grid: &mut Grid, instance: &str, hook: &str) -> Result<u64, Problem> {
    let hook = HookName::parse(hook).unwrap();
    let decision = run_hook(&grid.state, &project("shop"), &name(instance), &hook, grid.now)?;
    Ok(grid.commit(decision).1)
}

/// Its node says that the runs up to this one are over.
fn over(grid: &mut Grid, id: &InstanceId, numbers: impl IntoIterator<Item = u64>) -> Vec<Problem> {
    let result = |number| RunResult {
        number,
        hook: HookName::parse("configure").unwrap(),
        began: Timestamp(1),
        ended: Timestamp(2),
        end: RunEnd::Exited(0),
        how: "exit code 0".into(),
        tail: Vec::new(),
    };
    let bare = InstanceStatus::bare(id.clone(), grid.instance("web").generation, InstanceState::Ready, grid.now);
    let status = InstanceStatus { ran: numbers.into_iter().map(result).collect(), ..bare };
    grid.report("n1", NodeReport { instances: vec![status], ..NodeReport::default() }).refused
}

fn wanted(grid: &Grid, id: &InstanceId) -> Vec<u64> {
    grid.desired("n1").instances[id].runs.iter().map(|run| run.number).collect()
}

#[test]
fn each_run_that_is_asked_for_has_a_number_of_its_own_and_is_told_to_the_node_until_it_is_over() {
    let (mut grid, id) = grid();
    let before = grid.instance("web").generation;
    assert_eq!(ask(&mut grid, "web", "configure"), Ok(1));
    assert_eq!(ask(&mut grid, "web", "configure"), Ok(2));
    assert!(grid.instance("web").generation > before, "its node is told");
    assert_eq!(wanted(&grid, &id), [1, 2]);
    over(&mut grid, &id, [1]);
    assert_eq!(wanted(&grid, &id), [2]);
    over(&mut grid, &id, [1, 2]);
    assert_eq!(wanted(&grid, &id), Vec::<u64>::new());
    assert_eq!(ask(&mut grid, "web", "configure"), Ok(3));
    assert_eq!(grid.instance("web").runs.len(), 1, "what is over is forgotten");
    grid.check();
}

#[test]
fn a_node_that_remembers_more_than_the_master_is_given_no_number_twice() {
    let (mut grid, id) = grid();
    over(&mut grid, &id, [41]);
    assert_eq!(ask(&mut grid, "web", "configure"), Ok(42));
    assert_eq!(wanted(&grid, &id), [42]);
}

#[test]
fn a_node_that_claims_the_last_number_of_all_is_asked_for_no_more() {
    let (mut grid, id) = grid();
    over(&mut grid, &id, [u64::MAX]);
    let problem = ask(&mut grid, "web", "configure").unwrap_err();
    assert_eq!(problem.code, codes::TOO_MANY);
    assert!(problem.why.contains("no greater one"), "{problem}");
}

#[test]
fn no_more_are_asked_for_than_a_node_keeps_results_of() {
    let (mut grid, id) = grid();
    for number in 1..=RUNS_MAX as u64 {
        assert_eq!(ask(&mut grid, "web", "configure"), Ok(number));
    }
    assert_eq!(ask(&mut grid, "web", "configure").unwrap_err().code, codes::TOO_MANY);
    over(&mut grid, &id, [1]);
    assert!(ask(&mut grid, "web", "configure").is_ok());
    // Nor may a node report more.
    assert_eq!(over(&mut grid, &id, 1..=RUNS_MAX as u64 + 1)[0].code, codes::TOO_LARGE);
}

#[test]
fn a_hook_that_does_what_is_done_once_or_that_there_is_not_is_refused_with_those_that_there_are() {
    let (mut grid, _) = grid();
    for (hook, why) in [("init", "only configure, start may be asked for"), ("start", "no such hook"), ("x", "only")] {
        let problem = ask(&mut grid, "web", hook).unwrap_err();
        assert_eq!(problem.code, codes::NOT_FOUND);
        assert!(problem.why.contains(why) && problem.todo.contains("it has configure"), "{problem}");
    }
    grid.wants("plain", memory(1));
    assert!(ask(&mut grid, "plain", "configure").unwrap_err().todo.contains("none"));
    assert_eq!(ask(&mut grid, "nobody", "configure").unwrap_err().code, codes::NOT_FOUND);
}

#[test]
fn what_does_not_run_runs_no_hooks() {
    let (mut grid, _) = grid();
    let release = Some(grid.document(HOOKED));
    let rules = Some(rules(Some("n9"), &[]));
    grid.request(RequestAsk { release, rules, ..grid.ask("nowhere") }).unwrap();
    assert_eq!(ask(&mut grid, "nowhere", "configure").unwrap_err().code, codes::NOT_RUNNING);
    grid.wish("web", Wish::Stopped);
    assert!(ask(&mut grid, "web", "configure").unwrap_err().todo.contains("plat start web"));
    grid.wish("web", Wish::Started);
    let hour = Duration::from_secs(3600);
    let kept = destroy_later(&grid.state, &project("shop"), &name("web"), hour, grid.now).unwrap();
    grid.commit(kept);
    assert!(ask(&mut grid, "web", "configure").unwrap_err().todo.contains("undestroy"));
    grid.wish("web", Wish::Destroyed);
    assert_eq!(ask(&mut grid, "web", "configure").unwrap_err().code, codes::DESTROYED);
}

#[test]
fn a_node_with_an_older_agent_is_named_instead_of_waited_for() {
    let (mut grid, _) = grid();
    let inventory =
        Some(plat_model::node::Inventory { does_once: false, ..grid.state.nodes[&node("n1")].inventory.clone() });
    grid.report("n1", NodeReport { inventory, ..NodeReport::default() });
    let problem = ask(&mut grid, "web", "configure").unwrap_err();
    assert!(problem.code == codes::VERSION_SKEW && problem.what.contains("n1"), "{problem}");
}

#[test]
fn members_ask_for_runs_in_their_own_project() {
    let (mut grid, _) = grid();
    let role = Role::Member(project("shop"));
    let mia = Principal::User { name: UserName::parse("mia").unwrap(), role: role.clone() };
    let user = User { name: UserName::parse("mia").unwrap(), role, serial: "m".into(), renewed: None, revoked: false };
    grid.apply(&[Change::put(Record::User(user))]);
    let rpc = "plat.v1.GridService/RunHook";
    assert!(may(&grid, &mia, rpc, &Subject::Instance(project("shop"))));
    assert!(!may(&grid, &mia, rpc, &Subject::Instance(project("other"))));
}

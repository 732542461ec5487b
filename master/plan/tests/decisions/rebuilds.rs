use super::given::*;
use plat_master_plan::certify;
use plat_master_plan::rebuild::{Rebuild, rebuild};
use plat_master_plan::record::Purpose;
use plat_master_plan::release::{Targets, supply};
use plat_model::id::Digest;
use plat_model::instance::InstanceState;
use plat_model::node::{Inventory, NodeReport};
use plat_model::problem::{Problems, codes};
use plat_model::release::{InstallState, Installation, SupplyState};

fn grid() -> (Grid, Digest) {
    let mut grid = Grid::new();
    grid.node("n1", 2, memory(1000));
    grid.node("n2", 2, memory(1000));
    let digest = grid.release("pg");
    (grid, digest)
}

fn reports(grid: &mut Grid, on: &str, digest: &Digest, state: InstallState) {
    let installation =
        Installation { digest: digest.clone(), state, progress: String::new(), problem: None, rebuild: 0 };
    grid.report(on, NodeReport { installations: vec![installation], ..NodeReport::default() });
}

fn ask(grid: &mut Grid, digest: &Digest, nodes: &[&str]) -> Result<Vec<Rebuild>, Problems> {
    let decision = rebuild(&grid.state, digest, &nodes.iter().map(|name| node(name)).collect(), grid.now)?;
    Ok(grid.commit(decision))
}

fn number(grid: &Grid, on: &str, digest: &Digest) -> Option<u64> {
    grid.desired(on).rebuilds.get(digest).copied()
}

#[test]
fn each_node_is_told_that_can_do_something_and_the_others_say_why_not() {
    let (mut grid, digest) = grid();
    reports(&mut grid, "n1", &digest, InstallState::Failed);
    reports(&mut grid, "n2", &digest, InstallState::Installing);
    let before = (grid.desired("n1").generation, grid.desired("n2").generation);
    let told: Vec<_> = ask(&mut grid, &digest, &[]).unwrap().into_iter().map(|one| (one.asked, one.number)).collect();
    let first = u64::try_from(grid.now.0).unwrap();
    assert_eq!(told, [(true, first), (false, 0)]);
    assert_eq!((number(&grid, "n1", &digest), number(&grid, "n2", &digest)), (Some(first), None));
    let after = (grid.desired("n1").generation, grid.desired("n2").generation);
    assert!(after.0 > before.0 && after.1 == before.1, "only one of them has anything to learn");
    ask(&mut grid, &digest, &["n1"]).unwrap();
    assert_eq!(number(&grid, "n1", &digest), Some(first + 1), "also within one millisecond");
    grid.check();
}

#[test]
fn a_master_that_was_restored_from_a_copy_gives_no_number_that_a_node_has_had() {
    let (mut grid, digest) = grid();
    reports(&mut grid, "n1", &digest, InstallState::Failed);
    let copy = grid.state.clone();
    let given: Vec<u64> = (0..3).map(|_| ask(&mut grid, &digest, &["n1"]).unwrap()[0].number).collect();
    grid.state = copy;
    grid.now = grid.now.plus(std::time::Duration::from_secs(1));
    let next = ask(&mut grid, &digest, &["n1"]).unwrap()[0].number;
    assert!(given.iter().all(|number| *number < next), "{next} after {given:?}");
}

#[test]
fn what_an_instance_uses_is_not_built_again_and_it_is_named() {
    let (mut grid, digest) = grid();
    let id = grid.wants("db", memory(10));
    grid.allocate();
    let on = grid.state.instances[&id].placement.clone().unwrap().node.to_string();
    reports(&mut grid, &on, &digest, InstallState::Installed);
    let problem = ask(&mut grid, &digest, &[&on]).unwrap_err().into_one();
    assert!(problem.code == codes::IN_USE && problem.why.contains("shop/db"), "{problem}");
    grid.wish("db", plat_model::instance::Wish::Destroyed);
    assert!(ask(&mut grid, &digest, &[&on]).is_err(), "it is there until its node says otherwise");
    grid.reports(&id, InstanceState::Destroyed);
    assert!(ask(&mut grid, &digest, &[&on]).unwrap()[0].asked);
}

#[test]
fn a_node_that_there_is_not_or_that_is_to_be_without_it_is_refused() {
    let (mut grid, digest) = grid();
    assert_eq!(code(ask(&mut grid, &digest, &["n9"])), codes::NOT_FOUND);
    let without = Targets::Nodes([node("n2")].into());
    let decision = supply(&grid.state, &digest, &without, SupplyState::Removed).unwrap();
    grid.commit(decision);
    assert_eq!(code(ask(&mut grid, &digest, &["n2"])), codes::NOT_FOUND);
}

#[test]
fn a_node_with_an_older_agent_is_not_asked() {
    let (mut grid, digest) = grid();
    for on in ["n1", "n2"] {
        let inventory = Some(Inventory { does_once: false, ..grid.state.nodes[&node(on)].inventory.clone() });
        grid.report(on, NodeReport { inventory, ..NodeReport::default() });
        reports(&mut grid, on, &digest, InstallState::Failed);
    }
    let problem = ask(&mut grid, &digest, &[]).unwrap_err().into_one();
    assert!(problem.why.contains("n1: P0605") && problem.why.contains("n2: P0605"), "{problem}");
}

#[test]
fn a_node_that_enrols_again_is_given_no_number_twice() {
    let (mut grid, digest) = grid();
    reports(&mut grid, "n1", &digest, InstallState::Failed);
    let given = ask(&mut grid, &digest, &["n1"]).unwrap()[0].number;
    let revoked = certify::revoke_node(&grid.state, &node("n1"), grid.now).unwrap();
    grid.commit(revoked);
    let (token, secret) = grid.token(Purpose::Node(Some(node("n1"))));
    let serials = certify::NewSerials { node: "b".into(), rejoin: "c".into() };
    let claim = certify::Claim { token: &token, secret_hash: &secret, keys: &secret };
    let enrolled = certify::enroll(&grid.state, &claim, None, serials, grid.now).unwrap();
    grid.commit(enrolled);
    assert_eq!(number(&grid, "n1", &digest), Some(given));
}

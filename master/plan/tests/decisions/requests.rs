use super::given::*;
use plat_master_plan::request::PROJECT_MAX;
use plat_master_plan::request::{RequestAsk, destroy_later, overdue, request, set_wish};
use plat_master_plan::{certify, release};
use plat_model::instance::{InstanceState, Leaving, Wish};
use plat_model::parameters::Parameters;
use plat_model::problem::codes;
use plat_model::release::SupplyState;
use plat_model::resources::Resources;
use std::time::Duration;

fn grid() -> Grid {
    let mut grid = Grid::new();
    grid.node("n1", 2, memory(1000));
    grid.release("pg");
    grid
}

#[test]
fn the_same_request_twice_is_one_instance_and_changes_nothing() {
    let mut grid = grid();
    let first = grid.request(grid.ask("db")).unwrap();
    let fresh = grid.fresh();
    let again = request(&grid.state, grid.ask("db"), fresh, grid.now).unwrap();
    assert!(first.created && !again.answer.created);
    assert_eq!((again.answer.id, again.changes), (first.id, vec![]));
}

#[test]
fn a_request_without_parameters_keeps_them_and_one_with_others_grows_the_generation() {
    let mut grid = grid();
    let with = |json| Some(Parameters::parse_json(json).unwrap());
    grid.request(RequestAsk { parameters: with(r#"{"port": 1}"#), ..grid.ask("db") }).unwrap();
    let before = grid.instance("db").clone();
    grid.request(grid.ask("db")).unwrap();
    assert_eq!(grid.instance("db"), &before);
    grid.request(RequestAsk { parameters: with(r#"{"port": 2}"#), ..grid.ask("db") }).unwrap();
    assert_eq!(grid.instance("db").generation, before.generation.next());
    let wrong = RequestAsk { parameters: with(r#"{"port": "x"}"#), ..grid.ask("db") };
    assert_eq!(code(grid.request(wrong)), codes::BAD_PARAMETERS);
}

#[test]
fn a_name_is_free_again_only_once_its_node_has_removed_everything() {
    let mut grid = grid();
    let id = grid.wants("db", memory(100));
    grid.allocate();
    grid.wish("db", Wish::Destroyed);
    assert_eq!(code(grid.request(grid.ask("db"))), codes::DESTROYED);
    let late = set_wish(&grid.state, &project("shop"), &name("db"), Wish::Started, grid.now);
    assert_eq!(late.unwrap_err().code, codes::DESTROYED);
    grid.reports(&id, InstanceState::Destroyed);
    assert!(grid.request(grid.ask("db")).unwrap().created);
    grid.check();
}

#[test]
fn an_instance_is_kept_stopped_before_it_is_destroyed_and_can_be_had_back() {
    let mut grid = grid();
    let id = grid.wants("db", memory(100));
    grid.allocate();
    let week = Duration::from_secs(7 * 24 * 3600);
    let leave = |grid: &mut Grid| {
        let decision = destroy_later(&grid.state, &project("shop"), &name("db"), week, grid.now).unwrap();
        grid.commit(decision);
    };
    leave(&mut grid);
    let at = grid.now.plus(week);
    assert_eq!(grid.instance("db").wish, Wish::Stopped);
    assert_eq!(grid.instance("db").leaving, Some(Leaving { at, before: Wish::Started }));
    // What is asked without a wish neither changes it nor keeps it by accident.
    assert_eq!(code(grid.request(grid.ask("db"))), codes::DESTROYED);
    assert!(overdue(&grid.state, grid.now).is_none());
    // Taken back, it is as it was; asked for again, it was still started before.
    leave(&mut grid);
    assert_eq!(grid.instance("db").leaving.unwrap().before, Wish::Started);
    grid.wish("db", Wish::Stopped);
    assert_eq!(grid.instance("db").leaving, None);
    assert!(overdue(&grid.state, at).is_none());
    // Its time comes, once.
    leave(&mut grid);
    let decision = overdue(&grid.state, at).unwrap();
    assert_eq!(decision.answer, id);
    grid.commit(decision);
    assert_eq!((grid.instance("db").wish, grid.instance("db").leaving), (Wish::Destroyed, None));
    assert!(overdue(&grid.state, at).is_none());
    let late = destroy_later(&grid.state, &project("shop"), &name("db"), week, grid.now);
    assert_eq!(late.unwrap_err().code, codes::DESTROYED);
    grid.reports(&id, InstanceState::Destroyed);
    grid.check();
}

#[test]
fn what_is_to_be_destroyed_is_not_placed_and_not_kept_for_ever() {
    let mut grid = grid();
    let id = grid.wants("db", memory(100));
    let for_ever = destroy_later(&grid.state, &project("shop"), &name("db"), Duration::MAX, grid.now);
    assert_eq!(for_ever.unwrap_err().code, codes::BAD_VALUE);
    let hour = Duration::from_secs(3600);
    let decision = destroy_later(&grid.state, &project("shop"), &name("db"), hour, grid.now).unwrap();
    grid.commit(decision);
    grid.allocate();
    assert_eq!(grid.instance("db").placement, None);
    let decision = overdue(&grid.state, grid.now.plus(hour)).unwrap();
    assert_eq!(grid.commit(decision), id);
    assert!(grid.state.instance(&project("shop"), &name("db")).is_none());
    grid.check();
}

#[test]
fn an_instance_that_was_never_placed_is_gone_at_once() {
    let mut grid = grid();
    let id = grid.wants("db", memory(100));
    grid.wish("db", Wish::Destroyed);
    assert!(!grid.state.instances.contains_key(&id) && grid.state.unplaced.is_empty());
    grid.check();
}

#[test]
fn a_placed_instance_cannot_grow_past_its_node_and_may_always_shrink() {
    let mut grid = grid();
    grid.wants("a", memory(600));
    grid.wants("b", memory(300));
    grid.allocate();
    let ask = |grid: &Grid, mib| RequestAsk { resources: Some(memory(mib)), ..grid.ask("a") };
    assert_eq!(code(grid.request(ask(&grid, 701))), codes::NO_PLACE);
    grid.request(ask(&grid, 700)).unwrap();
    grid.inventory("n1", 2, memory(500));
    grid.request(ask(&grid, 650)).unwrap();
    assert_eq!(code(grid.request(ask(&grid, 651))), codes::NO_PLACE);
}

#[test]
fn a_release_in_use_cannot_be_removed_and_an_unused_one_can() {
    let mut grid = grid();
    let digest = grid.release("pg");
    let all = release::Targets::All;
    let id = grid.wants("db", Resources::default());
    grid.allocate();
    let refused = release::supply(&grid.state, &digest, &all, SupplyState::Removed).unwrap_err();
    assert!(refused.0[0].why.contains("shop/db"), "{refused}");
    assert_eq!(refused.0[0].code, codes::IN_USE);
    grid.wish("db", Wish::Destroyed);
    grid.reports(&id, InstanceState::Destroyed);
    let removed = release::supply(&grid.state, &digest, &all, SupplyState::Removed).unwrap();
    grid.commit(removed);
    assert!(grid.desired("n1").releases.is_empty());
    grid.check();
}

#[test]
fn one_node_can_be_left_out_of_a_release_for_all() {
    let mut grid = grid();
    grid.node("n2", 1, memory(100));
    let digest = grid.release("pg");
    let only = release::Targets::Nodes([node("n2")].into());
    let decision = release::supply(&grid.state, &digest, &only, SupplyState::Removed).unwrap();
    grid.commit(decision);
    assert!(grid.state.is_supplied(&node("n1"), &digest) && !grid.state.is_supplied(&node("n2"), &digest));
    let again = release::supply(&grid.state, &digest, &release::Targets::All, SupplyState::Available).unwrap();
    grid.commit(again);
    assert!(grid.state.is_supplied(&node("n2"), &digest));
    grid.check();
}

#[test]
fn a_release_is_found_by_name_digest_and_unique_beginning() {
    let mut grid = grid();
    let digest = grid.release("pg");
    for text in ["pg", digest.as_str(), digest.short(), &digest.as_str()[..40]] {
        assert_eq!(release::resolve(&grid.state, text), Ok(digest.clone()), "{text}");
    }
    for text in ["nope", &digest.as_str()[..11], "", "ffffffffffff"] {
        assert_eq!(release::resolve(&grid.state, text).unwrap_err().code, codes::NOT_FOUND, "{text}");
    }
}

#[test]
fn what_was_being_destroyed_on_a_revoked_node_is_given_up() {
    let mut grid = grid();
    let id = grid.wants("db", memory(1));
    grid.wants("kept", memory(1));
    grid.allocate();
    grid.wish("db", Wish::Destroyed);
    let revoked = certify::revoke_node(&grid.state, &node("n1"), grid.now).unwrap();
    grid.commit(revoked);
    assert!(!grid.state.instances.contains_key(&id));
    grid.wish("kept", Wish::Destroyed);
    assert!(grid.state.instances.is_empty());
    grid.check();
}

#[test]
fn members_request_no_more_than_a_projects_share_and_may_still_change_what_there_is() {
    let mut grid = Grid::new();
    grid.release("pg");
    let room = |grid: &Grid, of: &str, instance: &str| {
        plat_master_plan::request::room(&grid.state, &project(of), &name(instance))
    };
    for n in 1..PROJECT_MAX {
        grid.wants(&format!("db{n}"), memory(1));
    }
    assert_eq!(room(&grid, "shop", "db0"), Ok(()));
    grid.wants("db0", memory(1));
    assert_eq!(room(&grid, "shop", "web").unwrap_err().code, codes::TOO_MANY);
    assert_eq!(
        (room(&grid, "shop", "db7"), room(&grid, "shoq", "web"), room(&grid, "shoo", "web")),
        (Ok(()), Ok(()), Ok(()))
    );
}

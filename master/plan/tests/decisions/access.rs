use super::given::*;
use plat_master_plan::access::{Subject, TABLE};
use plat_master_plan::record::{Record, User};
use plat_master_plan::{Change, view};
use plat_model::id::UserName;
use plat_model::principal::{Principal, PrincipalKind, Role};

fn member(grid: &mut Grid) -> Principal {
    let (name, role) = (UserName::parse("eve").unwrap(), Role::Member(project("shop")));
    let user = User { name: name.clone(), role: role.clone(), serial: "e".into(), renewed: None, revoked: false };
    grid.apply(&[Change::put(Record::User(user))]);
    Principal::User { name, role }
}

#[test]
fn a_call_that_is_not_in_the_table_is_denied_to_everyone() {
    let grid = Grid::new();
    for rpc in ["plat.v1.GridService/Nothing", "plat.v1.GridService/Reques", "", "plat.v1.GridService/Request2"] {
        assert!(!may(&grid, &operator(), rpc, &Subject::Grid), "{rpc}");
    }
    let rpcs: std::collections::BTreeSet<_> = TABLE.iter().map(|row| row.rpc).collect();
    assert_eq!(rpcs.len(), TABLE.len());
}

#[test]
fn a_member_reaches_its_own_project_and_no_other() {
    let mut grid = Grid::new();
    let eve = member(&mut grid);
    let request = "plat.v1.GridService/Request";
    assert!(may(&grid, &eve, request, &Subject::Project(project("shop"))));
    assert!(!may(&grid, &eve, request, &Subject::Project(project("shop2"))));
    assert!(!may(&grid, &eve, request, &Subject::Grid));
    assert!(!may(&grid, &eve, "plat.v1.AdminService/CreateToken", &Subject::Grid));
    assert!(view::sees(&eve, &project("shop")) && !view::sees(&eve, &project("shop2")));
}

#[test]
fn a_node_speaks_of_itself_and_only_through_the_nodes_service() {
    let mut grid = Grid::new();
    grid.node("n1", 1, memory(1));
    grid.node("n2", 1, memory(1));
    let n1 = Principal::Node(node("n1"));
    for row in TABLE {
        let is_nodes = row.rpc.starts_with("plat.v1.NodeService/") && !row.rpc.ends_with("/Enroll");
        assert_eq!(may(&grid, &n1, row.rpc, &Subject::Node(node("n1"))), is_nodes, "{}", row.rpc);
        assert!(!may(&grid, &n1, row.rpc, &Subject::Node(node("n2"))), "{}", row.rpc);
        let rejoin = may(&grid, &Principal::Rejoin(node("n1")), row.rpc, &Subject::Node(node("n1")));
        assert_eq!(rejoin, row.rpc.ends_with("/Renew"), "{}", row.rpc);
        let anonymous = row.kinds.contains(&PrincipalKind::Anonymous);
        assert_eq!(anonymous, row.rpc.ends_with("/Enroll") || row.rpc.ends_with("/Login"), "{}", row.rpc);
    }
}

#[test]
fn a_user_renews_its_own_credentials_and_calls_nothing_else_of_the_nodes() {
    let mut grid = Grid::new();
    grid.node("n1", 1, memory(1));
    let eve = member(&mut grid);
    let user = |name: &str| Subject::User(UserName::parse(name).unwrap());
    for row in TABLE.iter().filter(|row| row.rpc.starts_with("plat.v1.NodeService/")) {
        assert_eq!(may(&grid, &eve, row.rpc, &user("eve")), row.rpc.ends_with("/Renew"), "{}", row.rpc);
        for other in [user("ada"), Subject::Node(node("n1")), Subject::Grid] {
            assert!(!may(&grid, &eve, row.rpc, &other), "{} about {other:?}", row.rpc);
        }
        assert!(!may(&grid, &Principal::Node(node("n1")), row.rpc, &user("eve")), "{}", row.rpc);
    }
}

#[test]
fn a_stream_ends_when_its_callers_row_is_revoked_or_its_role_changes() {
    let mut grid = Grid::new();
    let eve = member(&mut grid);
    let subject = Subject::Project(project("shop"));
    assert!(may(&grid, &eve, "plat.v1.GridService/WatchInstance", &subject));
    let mut row = grid.state.users["eve"].clone();
    row.role = Role::Billing;
    grid.apply(&[Change::put(Record::User(row))]);
    assert!(!may(&grid, &eve, "plat.v1.GridService/WatchInstance", &subject));
}

#[test]
fn a_list_goes_on_after_its_last_item_and_never_leaves_the_callers_project() {
    let mut grid = Grid::new();
    grid.release("pg");
    let eve = member(&mut grid);
    for n in 0..5 {
        let mut ask = grid.ask(&format!("i{n}"));
        grid.request(ask.clone()).unwrap();
        ask.project = project("zoo");
        grid.request(ask).unwrap();
    }
    let first = view::instances(&grid.state, &eve, None, None, 3);
    let after = (first[2].project.clone(), first[2].name.clone());
    let rest = view::instances(&grid.state, &eve, None, Some(&after), 3);
    assert_eq!((first.len(), rest.len()), (3, 2));
    assert_eq!(view::instances(&grid.state, &operator(), None, None, 100).len(), 10);
    assert_eq!(view::instances(&grid.state, &eve, Some(&project("zoo")), None, 100).len(), 0);
}

use super::given::*;
use plat_master_plan::Change;
use plat_master_plan::authenticate::authenticate;
use plat_master_plan::certify::{
    Claim, NewSerials, create_token, enroll, login, recover_operator, rejoin, renew, renew_user, revoke_node,
    revoke_user, used,
};
use plat_master_plan::decision::Decision;
use plat_master_plan::expire::{KEPT, expire};
use plat_master_plan::record::{Key, Purpose, Record, Token};
use plat_model::id::{Digest, ProjectName, TokenId, UserName};
use plat_model::identity::Identity;
use plat_model::principal::{Principal, Role};
use plat_model::problem::codes;
use std::time::Duration;

fn serials() -> NewSerials {
    NewSerials { node: "1".into(), rejoin: "2".into() }
}

fn claim<'a>(token: &'a TokenId, secret_hash: &'a Digest) -> Claim<'a> {
    Claim { token, secret_hash, keys: secret_hash }
}

fn is_in(grid: &Grid, serial: &str) -> bool {
    authenticate(&grid.state, &Identity::Node(node("n1")), serial).is_ok()
}

#[test]
fn a_token_is_good_once_and_for_a_time_and_only_with_its_secret() {
    let mut grid = Grid::new();
    let (id, secret) = grid.token(Purpose::Node(None));
    let wrong = Digest::parse(&"f".repeat(64)).unwrap();
    let name = node("n1");
    let by = |grid: &Grid, secret, name| enroll(&grid.state, &claim(&id, secret), name, serials(), grid.now);
    assert_eq!(by(&grid, &wrong, Some(&name)).unwrap_err().code, codes::UNKNOWN_TOKEN);
    assert_eq!(by(&grid, &secret, None).unwrap_err().code, codes::BAD_VALUE);
    assert_eq!(login(&grid.state, &claim(&id, &secret), "1", grid.now).unwrap_err().code, codes::UNKNOWN_TOKEN);
    let mut late = grid.clone();
    late.later(Duration::from_secs(3600));
    assert_eq!(by(&late, &secret, Some(&name)).unwrap_err().code, codes::EXPIRED_TOKEN);
    let decision = by(&grid, &secret, Some(&name)).unwrap();
    grid.commit(decision);
    let other = Claim { keys: &wrong, ..claim(&id, &secret) };
    let again = enroll(&grid.state, &other, Some(&name), serials(), grid.now);
    assert_eq!(again.unwrap_err().code, codes::USED_TOKEN);
}

#[test]
fn whoever_lost_the_answer_asks_again_with_the_same_keys_and_nobody_else_may() {
    let mut grid = Grid::new();
    let (n1, other) = (node("n1"), Digest::parse(&"f".repeat(64)).unwrap());
    let (id, secret) = grid.token(Purpose::Node(None));
    let first = enroll(&grid.state, &claim(&id, &secret), Some(&n1), serials(), grid.now).unwrap();
    grid.commit(first);
    let ask = |grid: &Grid, keys, name: &str| {
        let fresh = NewSerials { node: "3".into(), rejoin: "4".into() };
        let claim = Claim { keys, ..claim(&id, &secret) };
        enroll(&grid.state, &claim, Some(&node(name)), fresh, grid.now)
    };
    let again = ask(&grid, &secret, "n1").unwrap();
    assert_eq!((again.changes.len(), again.answer), (0, (n1.clone(), serials())));
    assert_eq!(ask(&grid, &other, "n1").unwrap_err().code, codes::USED_TOKEN);
    assert_eq!(ask(&grid, &secret, "n2").unwrap_err().code, codes::USED_TOKEN);
    let mut late = grid.clone();
    late.later(Duration::from_secs(3600));
    assert_eq!(ask(&late, &secret, "n1").unwrap_err().code, codes::EXPIRED_TOKEN);
    let decision = revoke_node(&grid.state, &n1, grid.now).unwrap();
    grid.commit(decision);
    assert_eq!(ask(&grid, &secret, "n1").unwrap_err().code, codes::USED_TOKEN);

    let name = UserName::parse("eve").unwrap();
    let (id, secret) = grid.token(Purpose::User { name: name.clone(), role: Role::Billing });
    let first = login(&grid.state, &claim(&id, &secret), "e1", grid.now).unwrap();
    grid.commit(first);
    let again = login(&grid.state, &claim(&id, &secret), "e2", grid.now).unwrap();
    assert_eq!((again.changes.len(), again.answer), (0, (name, "e1".to_string())));
    let stranger = Claim { keys: &other, ..claim(&id, &secret) };
    assert_eq!(login(&grid.state, &stranger, "e2", grid.now).unwrap_err().code, codes::USED_TOKEN);
}

#[test]
fn a_revoked_name_is_given_again_only_by_a_token_made_for_it() {
    let mut grid = Grid::new();
    grid.node("n1", 1, memory(1));
    let (any, secret) = grid.token(Purpose::Node(None));
    let again = |grid: &Grid, id: &TokenId, secret: &Digest| {
        enroll(&grid.state, &claim(id, secret), Some(&node("n1")), serials(), grid.now)
            .map(|decision| decision.answer.0)
    };
    assert_eq!(again(&grid, &any, &secret).unwrap_err().code, codes::EXISTS);
    let decision = revoke_node(&grid.state, &node("n1"), grid.now).unwrap();
    grid.commit(decision);
    assert_eq!(authenticate(&grid.state, &Identity::Node(node("n1")), "n1-1").unwrap_err().code, codes::REVOKED);
    assert_eq!(again(&grid, &any, &secret).unwrap_err().code, codes::EXISTS);
    let (own, secret) = grid.token(Purpose::Node(Some(node("n1"))));
    assert_eq!(again(&grid, &own, &secret), Ok(node("n1")));
}

#[test]
fn a_renewed_node_keeps_its_certificate_until_the_new_one_is_used() {
    let mut grid = Grid::new();
    grid.node("n1", 1, memory(1));
    let n1 = node("n1");
    for lost in ["b", "c"] {
        let decision = renew(&grid.state, &n1, "n1-1", lost).unwrap();
        grid.commit(decision);
    }
    assert!(is_in(&grid, "n1-1") && is_in(&grid, "c") && !is_in(&grid, "b"));
    assert!(used(&grid.state, &n1, "n1-1").is_none());
    let first_use = used(&grid.state, &n1, "c").unwrap();
    grid.commit(first_use);
    assert!(is_in(&grid, "c") && !is_in(&grid, "n1-1") && used(&grid.state, &n1, "c").is_none());
    assert_eq!(renew(&grid.state, &n1, "n1-1", "d").unwrap_err().code, codes::STALE_CERTIFICATE);
    assert_eq!(rejoin(&grid.state, &n1, "c", "d").unwrap_err().code, codes::STALE_CERTIFICATE);
    let decision = rejoin(&grid.state, &n1, "n1-r", "d").unwrap();
    grid.commit(decision);
    assert!(is_in(&grid, "d") && !is_in(&grid, "c"));
    assert_eq!(authenticate(&grid.state, &Identity::Rejoin(n1.clone()), "n1-r"), Ok(Principal::Rejoin(n1)),);
}

#[test]
fn a_users_role_is_the_tokens_and_the_last_operator_stays() {
    let mut grid = Grid::new();
    let name = UserName::parse("eve").unwrap();
    let role = Role::Member(ProjectName::parse("shop").unwrap());
    let (id, secret) = grid.token(Purpose::User { name: name.clone(), role: role.clone() });
    let decision = login(&grid.state, &claim(&id, &secret), "e1", grid.now).unwrap();
    grid.commit(decision);
    let eve = authenticate(&grid.state, &Identity::User(name.clone()), "e1").unwrap();
    assert_eq!(eve, Principal::User { name: name.clone(), role });
    let stale = authenticate(&grid.state, &Identity::User(name), "e0").unwrap_err();
    assert_eq!(stale.code, codes::STALE_CERTIFICATE);
    let ada = UserName::parse("ada").unwrap();
    assert_eq!(revoke_user(&grid.state, &ada).unwrap_err().code, codes::IN_USE);
    assert_eq!(authenticate(&grid.state, &Identity::Master, "aa").unwrap_err().code, codes::NO_CERTIFICATE);
}

#[test]
fn a_login_never_leaves_the_grid_without_an_operator() {
    let mut grid = Grid::new();
    let ada = UserName::parse("ada").unwrap();
    let shop = Role::Member(ProjectName::parse("shop").unwrap());
    // Made while there was no such user, so that nothing was to be refused then.
    let token = Token {
        id: TokenId::parse(&"d".repeat(16)).unwrap(),
        secret_hash: Digest::parse(&"d".repeat(64)).unwrap(),
        purpose: Purpose::User { name: ada.clone(), role: shop },
        created: grid.now,
        expires: grid.now.plus(Duration::from_secs(60)),
        used: None,
        given: None,
        revoked: false,
    };
    let made = Decision::new(vec![Change::put(Record::Token(token.clone()))], Vec::new(), ());
    grid.commit(made);
    let refused = login(&grid.state, &claim(&token.id, &token.secret_hash), "a2", grid.now).unwrap_err();
    assert_eq!(refused.code, codes::IN_USE, "{refused}");

    let (id, secret) = grid.token(Purpose::User { name: UserName::parse("bob").unwrap(), role: Role::Operator });
    let second = login(&grid.state, &claim(&id, &secret), "b1", grid.now).unwrap();
    grid.commit(second);
    let allowed = login(&grid.state, &claim(&token.id, &token.secret_hash), "a2", grid.now).unwrap();
    assert!(allowed.read.contains(&Key::User(UserName::parse("bob").unwrap())), "the other operator is relied on");
}

#[test]
fn a_users_renewed_certificate_and_the_one_before_both_count_until_the_next_renewal() {
    let mut grid = Grid::new();
    let ada = UserName::parse("ada").unwrap();
    let is_in = |grid: &Grid, serial: &str| authenticate(&grid.state, &Identity::User(ada.clone()), serial).is_ok();
    // The first answer is lost; the second is used.
    for serial in ["lost", "b"] {
        let decision = renew_user(&grid.state, &ada, "aa", serial).unwrap();
        grid.commit(decision);
    }
    assert!(is_in(&grid, "aa") && is_in(&grid, "b") && !is_in(&grid, "lost"));
    let decision = renew_user(&grid.state, &ada, "b", "c").unwrap();
    grid.commit(decision);
    assert!(is_in(&grid, "b") && is_in(&grid, "c") && !is_in(&grid, "aa"));
    assert_eq!(renew_user(&grid.state, &ada, "aa", "d").unwrap_err().code, codes::STALE_CERTIFICATE);
}

#[test]
fn an_operator_is_made_anew_by_whoever_holds_the_data_and_no_member_becomes_one() {
    let mut grid = Grid::new();
    let (ada, eve) = (UserName::parse("ada").unwrap(), UserName::parse("eve").unwrap());
    let decision = recover_operator(&grid.state, ada.clone(), "a2").unwrap();
    grid.commit(decision);
    assert!(authenticate(&grid.state, &Identity::User(ada.clone()), "a2").is_ok());
    assert!(authenticate(&grid.state, &Identity::User(ada), "aa").is_err(), "lost ones end");
    let shop = Role::Member(ProjectName::parse("shop").unwrap());
    let (id, secret) = grid.token(Purpose::User { name: eve.clone(), role: shop });
    let decision = login(&grid.state, &claim(&id, &secret), "e1", grid.now).unwrap();
    grid.commit(decision);
    assert_eq!(recover_operator(&grid.state, eve, "e2").unwrap_err().code, codes::EXISTS);
}

#[test]
fn a_token_does_not_change_what_a_user_may() {
    let grid = Grid::new();
    let ada = UserName::parse("ada").unwrap();
    let (id, secret) = (TokenId::parse(&"e".repeat(16)).unwrap(), Digest::parse(&"e".repeat(64)).unwrap());
    let token = |role| {
        let purpose = Purpose::User { name: ada.clone(), role };
        create_token(&grid.state, id.clone(), secret.clone(), purpose, Duration::from_secs(60), grid.now)
    };
    assert_eq!(token(Role::Billing).unwrap_err().code, codes::EXISTS);
    assert!(token(Role::Operator).is_ok(), "new credentials of the same role");
}

#[test]
fn a_token_is_never_valid_for_more_than_thirty_days_and_goes_some_time_after() {
    let mut grid = Grid::new();
    let (id, secret) = grid.token(Purpose::Node(None));
    let (other, days) = (TokenId::parse(&"e".repeat(16)).unwrap(), Duration::from_secs(31 * 86400));
    let long = create_token(&grid.state, other, secret, Purpose::Node(None), days, grid.now);
    assert_eq!(long.unwrap_err().code, codes::BAD_VALUE);
    grid.later(KEPT);
    assert_eq!(expire(&grid.state, grid.now).answer, 0);
    grid.later(Duration::from_secs(3600));
    let decision = expire(&grid.state, grid.now);
    grid.commit(decision);
    assert!(!grid.state.tokens.contains_key(&id));
}

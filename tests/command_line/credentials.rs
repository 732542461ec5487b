//! Credentials renew themselves, and there is a way back for those that ended.

use crate::world::{World, end_of, new_operator, plat};

#[test]
fn credentials_past_half_their_life_are_renewed_by_the_next_command() {
    let world = World::aged(20);
    let file = world.path("ada/credentials.pem");
    let before = std::fs::read(&file).unwrap();
    world.done(&["node", "list"]);
    let renewed = std::fs::read(&file).unwrap();
    assert_ne!(renewed, before);
    world.done(&["whoami"]);
    assert_eq!(std::fs::read(&file).unwrap(), renewed, "once is enough");
    for format in ["table", "wide", "yaml", "json"] {
        let told = world.done(&["whoami", "-o", format]).out;
        assert!(told.to_lowercase().contains("expires") && told.contains(&end_of(&world.plat)), "{told}");
    }
}

#[test]
fn credentials_that_are_young_stay_as_they_are() {
    let world = World::aged(10);
    let file = world.path("ada/credentials.pem");
    let before = std::fs::read(&file).unwrap();
    world.done(&["whoami"]);
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

#[test]
fn a_renewal_that_fails_shortly_before_the_end_is_told_with_the_way_back() {
    let mut world = World::aged(25);
    world.stop_master();
    let ran = world.plat.run(&["whoami"]);
    assert_eq!(ran.code, 7, "{}", ran.errors);
    for part in ["warning: the credentials of ada end at", "plat token create --user ada", "plat login --again"] {
        assert!(ran.errors.contains(part), "{part} is missing: {}", ran.errors);
    }
}

#[test]
fn whoever_holds_the_masters_data_makes_an_operator_when_all_credentials_have_ended() {
    let mut world = World::aged(40);
    let said = world.plat.refused(1, "P0211", &["whoami"]);
    assert!(said.contains("plat-master operator"), "{said}");
    world.stop_master();
    let made = new_operator(&world.config(), &world.path("again"));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    world.start_master();
    let again = plat(world.path("again"));
    assert_eq!(again.json(&["whoami"])["role"], "operator");
    let audit = again.json(&["audit"]);
    assert!(audit.to_string().contains("RecoverOperator"), "{audit}");
    // And with that operator's token the old profile is good again.
    let token = world.path("ada.token").display().to_string();
    assert_eq!(again.run(&["token", "create", "--user", "ada", "--operator", "--out", &token]).code, 0);
    world.done(&["login", "--again", "--token-file", &token]);
    world.done(&["whoami"]);
}

#[test]
fn a_login_again_is_for_the_same_user_only() {
    let world = World::new();
    let token = world.token(&["--user", "mia", "--member", "shop"]);
    let before = std::fs::read(world.path("ada/credentials.pem")).unwrap();
    world.plat.refused(5, "P0302", &["login", "--master", &world.url, "--token-file", &token]);
    world.plat.refused(5, "P0302", &["login", "--again", "--token-file", &token]);
    assert_eq!(std::fs::read(world.path("ada/credentials.pem")).unwrap(), before);
}

#[test]
fn no_token_makes_the_last_operator_something_else() {
    let world = World::new();
    let refused = world.plat.refused(5, "P0302", &["token", "create", "--user", "ada", "--member", "shop"]);
    assert!(refused.contains("operator"), "{refused}");
    world.plat.refused(5, "P0303", &["user", "revoke", "ada", "--yes"]);
}

#[test]
fn what_cannot_be_undone_is_asked_for() {
    let world = World::new();
    for verb in [["user", "revoke", "ada"], ["token", "revoke", "0123456789abcdef"], ["node", "revoke", "n1"]] {
        let said = world.plat.refused(2, "P0701", &verb);
        assert!(said.contains("--yes"), "{said}");
    }
}

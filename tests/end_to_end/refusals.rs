//! What must be refused, and how: a code, a reason, an exit code.

use crate::grid::quiet_grid;
use plat_tests::binaries::binary;
use plat_tests::eventually::eventually;
use plat_tests::grid::PATIENCE;
use plat_tests::grid::{Grid, URL};
use plat_tests::namespace::root_or_skip;
use serde_json::Value;

/// Enrols the first node's machine once more, in another data folder; what was said to refuse it.
#[track_caller]
fn refused_to_enrol(grid: &Grid, token: &str) -> String {
    let data = grid.folder.path().join("another-agent");
    let mut command = grid.nodes[0].space.command(binary("plat-agent"));
    command.args(["enroll", "--master", URL, "--token-file", token, "--data"]).arg(&data);
    let out = command.output().expect("it can be run");
    assert!(!out.status.success() && !data.join("enrolled").exists());
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn tokens_that_are_unknown_used_expired_or_of_another_grid_admit_nobody() {
    if !root_or_skip("tokens") {
        return;
    }
    let grid = quiet_grid("tokens", &[1]);
    let used = grid.folder.path().join("n1.token").display().to_string();
    assert!(refused_to_enrol(&grid, &used).contains("error[P0203]"), "used");

    let good = std::fs::read_to_string(&used).expect("the token is there");
    let parts: Vec<&str> = good.trim().split('.').collect();
    let unknown = grid.write("unknown.token", &format!("{}.0123456789abcdef.{}.{}", parts[0], parts[2], parts[3]));
    assert!(refused_to_enrol(&grid, &unknown).contains("error[P0201]"), "unknown");

    let other = grid.write("other.token", &format!("{}.{}.{}.{}", parts[0], parts[1], parts[2], "ab".repeat(32)));
    let said = refused_to_enrol(&grid, &other);
    assert!(said.contains("error[P0204]"), "another grid's CA: {said}");

    let expired = grid.token("expired.token", &["--node", "late", "--valid", "1"]);
    eventually("expired", PATIENCE, || {
        let list = grid.plat.json(&["token", "list"]);
        let late = list.as_array().into_iter().flatten().find(|token| token["purpose"].to_string().contains("late"));
        if late.is_some_and(|token| token["state"] == "expired") { Ok(()) } else { Err(list.to_string()) }
    });
    assert!(refused_to_enrol(&grid, &expired).contains("error[P0202]"), "expired");
}

#[test]
fn a_member_sees_and_touches_its_own_project_only() {
    if !root_or_skip("members") {
        return;
    }
    let grid = quiet_grid("members", &[2]);
    let (mia, eve) = (grid.login("mia", &["--member", "shop"]), grid.login("eve", &["--member", "other"]));
    mia.json(&["request", "db", "--release", "quiet", "--wait", "--timeout", "60"]);
    assert_eq!(eve.json(&["list", "--all"]), Value::Array(Vec::new()));
    eve.refused(3, "P0301", &["show", "db"]);
    for verb in [&["show", "db"][..], &["stop", "db"], &["destroy", "--yes", "db"], &["logs", "db"], &["usage"]] {
        eve.refused(4, "P0208", &[&["--project", "shop"], verb].concat());
    }
    eve.refused(4, "P0208", &["token", "list"]);
    eve.refused(4, "P0208", &["node", "revoke", "--yes", "n1"]);
    grid.plat.json(&["user", "revoke", "--yes", "mia"]);
    mia.refused(4, "P0206", &["list"]);
}

#[test]
fn releases_and_requests_that_are_wrong_are_refused_with_what_is_wrong() {
    if !root_or_skip("wrong input") {
        return;
    }
    let grid = quiet_grid("wrong", &[1]);
    let unknown_key = grid.write("unknown.yaml", "version: 1\nname: x\nservces: {}\n");
    let said = grid.plat.refused(1, "P0111", &["release", "add", &unknown_key]);
    assert!(said.contains("services"), "the nearest key is named: {said}");

    let said = grid.plat.refused(1, "P0119", &["request", "one", "--release", "quiet", "--param", "greeting=7"]);
    assert!(said.contains("greeting"), "{said}");
    grid.plat.refused(3, "P0301", &["request", "one", "--release", "nothing"]);
    grid.plat.refused(3, "P0301", &["show", "one"]);
    grid.plat.refused(1, "P0101", &["request", "../one", "--release", "quiet"]);
    assert_eq!(grid.plat.run(&["no-such-command"]).code, 2);

    grid.write("x.txt", "not what was pinned");
    let pinned = format!(
        "version: 1\nname: pinned\nsources:\n  x: {{archive: {{url: \"{{folder}}/x.txt\", sha256: {}}}}}\n\
         services: {{x: {{command: [/bin/true]}}}}\n",
        "0".repeat(64)
    );
    grid.release("pinned", &pinned);
    eventually("refused by the node", PATIENCE, || {
        let seen = grid.plat.json(&["release", "show", "pinned"]);
        let text = seen["nodes"][0].to_string();
        if seen["nodes"][0]["state"] == "failed" && text.contains(&"0".repeat(12)) { Ok(()) } else { Err(text) }
    });
}

#[test]
fn a_request_that_fits_nowhere_waits_and_says_why_for_each_node() {
    if !root_or_skip("a request that fits nowhere") {
        return;
    }
    let grid = quiet_grid("nowhere", &[1, 1]);
    grid.plat.json(&["request", "picky", "--release", "quiet", "--where", "zone=north"]);
    let seen = grid.until("picky", "waiting", PATIENCE);
    assert!(!seen["waiting"].as_array().is_none_or(Vec::is_empty), "{seen}");
    let why = grid.plat.json(&["explain", "instance", "picky"]);
    let nodes = why["nodes"].as_array().expect("a list");
    assert_eq!(nodes.len(), 2, "{why}");
    for node in nodes {
        assert!(node["chosen"] == false && node["reasons"].to_string().contains("zone"), "{node}");
    }
    grid.plat.json(&["node", "label", "n2", "zone=north"]);
    let ready = grid.until("picky", "ready", PATIENCE);
    assert_eq!(ready["node"], "n2");

    // Its one partition is taken now.
    grid.plat.json(&["request", "second", "--release", "quiet", "--node", "n2"]);
    let why = grid.plat.json(&["explain", "instance", "second"]);
    assert!(why["nodes"].to_string().contains("partition"), "{why}");
}

#[test]
fn a_node_that_was_shut_out_is_not_heard_any_more() {
    if !root_or_skip("revocation") {
        return;
    }
    let grid = quiet_grid("revoked", &[1]);
    grid.plat.json(&["node", "revoke", "--yes", "n1"]);
    eventually("revoked", PATIENCE, || {
        let seen = grid.plat.json(&["node", "show", "n1"]);
        if seen["state"] == "revoked" { Ok(()) } else { Err(seen.to_string()) }
    });
    eventually("told so", PATIENCE, || {
        let said = grid.nodes[0].agent.said();
        if said.contains("P0206") { Ok(()) } else { Err(said.lines().last().unwrap_or_default().to_owned()) }
    });
}

#[test]
fn the_certificate_of_another_node_makes_nobody_that_node() {
    if !root_or_skip("another node's certificate") {
        return;
    }
    let mut grid = quiet_grid("stolen", &[1, 1]);
    for node in ["n1", "n2"] {
        grid.plat.json(&["request", node, "--release", "quiet", "--node", node, "--wait", "--timeout", "60"]);
    }
    let file = |node: usize| grid.nodes[node].space.path("/var/lib/plat/agent/identity.pem");
    let (first, second) = (file(0), file(1));
    let own = std::fs::read(&second).expect("n2 has credentials");
    let partition = grid.plat.json(&["show", "n2"])["partition"].as_str().expect("it is placed").to_owned();
    let runs = grid.nodes[1].processes_of(&partition);

    grid.nodes[1].agent.kill();
    std::fs::copy(&first, &second).expect("it can be copied");
    let ran = grid.nodes[1].space.command(binary("plat-agent")).arg("run").output().expect("it can be run");
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success() && said.contains("error[P0211]"), "{said}");
    assert!(said.contains("node/n1") && said.contains("node/n2"), "{said}");
    assert_eq!(grid.nodes[1].processes_of(&partition), runs, "what it runs goes on");
    assert_eq!(grid.plat.json(&["node", "show", "n1"])["state"], "online");
    std::fs::write(&second, own).expect("it can be written");
    grid.nodes[1].agent.start();
    grid.until("n2", "ready", PATIENCE);

    // Nor is it anybody's way to the calls of people.
    let thief = grid.folder.path().join("thief");
    std::fs::create_dir(&thief).expect("a folder can be made");
    for entry in std::fs::read_dir(grid.folder.path().join("operator")).expect("the operator's profile") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), thief.join(entry.file_name())).expect("it can be copied");
    }
    std::fs::copy(&first, thief.join("credentials.pem")).expect("it can be copied");
    let plat = grid.plat_of(thief);
    plat.refused(4, "P0208", &["list"]);
    plat.refused(4, "P0208", &["token", "list"]);
}

//! Formats, and how failures are told.

use crate::world::World;
use plat_model::Problem;
use plat_model::problem::codes;
use serde_json::Value;

const WRONG: &str = "version: 1\nname: x\nservces: {}\nfils: {}\n";

#[test]
fn every_problem_is_told_whole() {
    let world = World::new();
    let file = world.write("wrong.yaml", WRONG);
    let said = world.plat.refused(1, "P0111", &["release", "check", &file]);
    assert_eq!(said.matches("error[P0111]").count(), 2, "{said}");
    assert_eq!(said.matches("  at: ").count(), 2, "{said}");
    assert!(!said.contains("also P0111"), "{said}");
}

#[test]
fn programs_are_told_problems_as_one_object() {
    let world = World::new();
    let file = world.write("wrong.yaml", WRONG);
    let ran = world.plat.run(&["-o", "json", "release", "check", &file]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    let told: Value = serde_json::from_str(&ran.errors).unwrap();
    let problems = told["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2, "{told}");
    for problem in problems {
        assert_eq!(problem["code"], "P0111");
        for key in ["what", "because", "fix", "at"] {
            assert!(problem[key].is_string(), "{key} is missing: {problem}");
        }
    }
    let yaml = world.plat.run(&["-o", "yaml", "show", "nothing"]);
    assert!(yaml.code == 3 && yaml.errors.starts_with("problems:"), "{}", yaml.errors);
}

#[test]
fn a_document_that_is_good_is_told_in_the_format_that_was_asked_for() {
    let world = World::new();
    let file = world.write("quiet.yaml", crate::world::RELEASE);
    assert_eq!(world.plat.json(&["release", "check", &file])["name"], "quiet");
    let said = world.done(&["release", "check", &file]);
    assert!(said.out.contains("is good: release quiet") && said.errors.is_empty(), "{}", said.errors);
}

#[test]
fn what_a_document_leaves_open_is_said_when_it_is_checked_and_added() {
    let world = World::new();
    let sources = "sources:\n  files: {directory: {path: /srv/files}}\n  tools: {deb: {packages: [curl]}}\n  \
                   data: {archive: {url: /srv/data.tar, sha256: SUM}}\n";
    let open = crate::world::RELEASE
        .replace("name: quiet\n", &format!("name: open\n{}", sources.replace("SUM", &"0".repeat(64))));
    let file = world.write("open.yaml", &open);
    for verb in ["check", "add"] {
        let said = world.done(&["release", verb, &file]).errors;
        assert!(
            said.contains("not pinned") && said.contains(": files, tools (`plat release lock FILE`"),
            "{verb}: {said}"
        );
    }
}

#[test]
fn csv_is_a_format_of_its_own() {
    let world = World::new();
    for verb in ["usage", "statement"] {
        let ran = world.plat.run(&["-o", "json", verb, "--csv"]);
        assert!(ran.code == 2 && ran.errors.contains("P0701"), "{}", ran.errors);
        assert!(world.done(&[verb, "--csv"]).out.starts_with("project,"));
    }
}

#[test]
fn a_token_in_a_file_is_told_without_its_secret() {
    let world = World::new();
    let path = world.path("t").display().to_string();
    let ran = world.done(&["-o", "json", "token", "create", "--out", &path]);
    let told: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(told["file"] == path.as_str() && told["expires"].is_string() && told["token"].is_null(), "{told}");
    assert!(ran.errors.contains("it is good once, until"), "{}", ran.errors);
}

#[test]
fn a_release_is_shown_with_its_parameters_and_where_it_will_be() {
    let world = World::new();
    world.release();
    let shown = world.done(&["release", "show", "quiet"]).out;
    for part in ["PARAMETER", "port", "integer 1..", "5432", "where it listens", "supplied  to no node"] {
        assert!(shown.contains(part), "{part} is missing: {shown}");
    }
    let said = world.done(&["supply", "quiet", "--all"]).errors;
    assert!(said.contains("every node that joins"), "{said}");
    assert!(world.done(&["release", "show", "quiet"]).out.contains("to every node, those to come included"));
    assert!(world.done(&["release", "list"]).out.contains("all to come"));
    assert_eq!(world.plat.json(&["release", "show", "quiet"])["all_nodes"], true);
    world.node("n1");
    let node = world.done(&["node", "show", "n1"]).out;
    assert!(node.lines().any(|line| line.starts_with("quiet ")), "{node}");
}

#[test]
fn lists_of_all_projects_name_the_project() {
    let world = World::new();
    world.release();
    world.done(&["--project", "shop", "request", "db", "--release", "quiet"]);
    let all = world.done(&["list", "--all"]).out;
    assert!(all.starts_with("PROJECT") && all.contains("shop"), "{all}");
    assert_eq!(all.lines().next().unwrap().matches("PROJECT").count(), 1);
    assert_eq!(world.done(&["list", "--all", "-o", "wide"]).out.lines().next().unwrap().matches("PROJECT").count(), 1);
}

#[test]
fn what_is_wrong_with_a_node_as_a_whole_is_shown_with_what_to_do() {
    let world = World::new();
    world.node("n1");
    let full = Problem::new(codes::DISK_FULL, "there is too little room in /srv").fix("free some space there");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(world.in_trouble("n1", &full));
    let node = world.done(&["node", "show", "n1"]).out;
    assert!(node.contains("P0404") && node.contains("too little room in /srv") && node.contains("free some"), "{node}");
    assert_eq!(world.plat.json(&["node", "show", "n1"])["troubles"][0]["code"], "P0404");
}

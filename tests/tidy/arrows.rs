//! Dependencies point one way. A new arrow is a change of the design: add it here with a decision record.

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use std::collections::BTreeSet;

/// Crate → the crates of the workspace that it may use (tests and builds apart).
const ARROWS: &[(&str, &[&str])] = &[
    ("plat-model", &[]),
    ("plat-document", &["plat-model"]),
    ("plat-wire", &["plat-model"]),
    ("plat-link", &["plat-model"]),
    ("plat-master-plan", &["plat-model", "plat-document"]),
    ("plat-agent-plan", &["plat-model", "plat-document"]),
    ("plat-source", &["plat-model"]),
    ("node-format-plan", &["plat-model"]),
    ("plat-master", &["plat-model", "plat-document", "plat-wire", "plat-link", "plat-master-plan"]),
    ("plat-agent", &["plat-model", "plat-document", "plat-wire", "plat-link", "plat-agent-plan", "plat-source"]),
    ("node-format", &["plat-model", "node-format-plan"]),
    ("plat-cli", &["plat-model", "plat-document", "plat-wire", "plat-link", "plat-source"]),
    ("plat-proxy", &["plat-model", "plat-wire", "plat-link", "plat-master"]),
];

/// What a crate that decides may use besides: nothing that can touch a disk, a socket or a clock.
const PURE: &[(&str, &[&str])] = &[
    ("plat-model", &["serde", "serde_json", "thiserror", "time", "ipnet"]),
    ("plat-document", &["serde", "serde_json", "thiserror", "granit-parser", "minijinja", "jsonschema", "sha2"]),
    ("plat-master-plan", &["serde", "serde_json", "thiserror", "imbl", "sha2"]),
    ("plat-agent-plan", &["serde", "serde_json", "thiserror", "sha2"]),
    ("node-format-plan", &["serde", "serde_json", "thiserror", "indexmap", "ipnet", "toml"]),
];

/// What the tool that root trusts may never link: it opens no network connection but netlink.
const NOT_IN_NODE_FORMAT: &[&str] = &["tonic", "hyper", "rustls", "reqwest", "ureq", "plat-link", "plat-wire"];

fn metadata() -> Metadata {
    let manifest = plat_tests::source::root().join("Cargo.toml");
    // What other systems would need was never fetched.
    let here = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    MetadataCommand::new()
        .manifest_path(manifest)
        .other_options(vec!["--offline".into(), "--filter-platform".into(), here])
        .exec()
        .expect("cargo metadata works")
}

fn normal(package: &Package) -> BTreeSet<&str> {
    let normal = package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal);
    normal.map(|d| d.name.as_str()).collect()
}

#[test]
fn dependencies_point_only_where_the_design_says() {
    let metadata = metadata();
    let ours: BTreeSet<_> = metadata.workspace_packages().iter().map(|p| p.name.to_string()).collect();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        if package.name == "plat-tests" {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name.as_str()) else {
            wrong.push(format!("{} is not in the table", package.name));
            continue;
        };
        let drawn = normal(package).into_iter().filter(|name| ours.contains(*name));
        wrong.extend(drawn.filter(|name| !allowed.contains(name)).map(|name| format!("{} -> {name}", package.name)));
    }
    assert!(wrong.is_empty(), "arrows that the design does not have: {wrong:#?}");
}

#[test]
fn crates_that_decide_can_reach_no_disk_socket_or_clock() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for (name, allowed) in PURE {
        let package = metadata.packages.iter().find(|p| p.name == *name).expect("it is in the workspace");
        let outside = normal(package).into_iter().filter(|d| !d.starts_with("plat-") && !allowed.contains(d));
        wrong.extend(outside.map(|d| format!("{name} -> {d}")));
    }
    assert!(wrong.is_empty(), "not pure any more: {wrong:#?}");
}

#[test]
fn crates_that_decide_hold_no_word_of_disk_socket_or_clock() {
    let banned = [
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::process",
        "SystemTime::now",
        "Instant::now",
        "std::env",
        "HashMap",
    ];
    let mut wrong = Vec::new();
    for folder in ["proto/model/src", "proto/document/src", "master/plan/src", "agent/plan/src", "format-tool/plan/src"]
    {
        for file in plat_tests::source::files(folder, ".rs") {
            let text = plat_tests::source::read(&file);
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for (line, word) in
                code.flat_map(|line| banned.iter().filter(|w| line.contains(**w)).map(move |w| (line, w)))
            {
                wrong.push(format!("{}: {word}: {}", plat_tests::source::shown(&file), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "a planner performs no I/O, reads no clock, and iterates ordered maps only: {wrong:#?}");
}

#[test]
fn node_format_links_nothing_that_opens_a_connection() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().expect("metadata resolves");
    let name = |id: &cargo_metadata::PackageId| metadata[id].name.to_string();
    let start = resolve.nodes.iter().find(|n| name(&n.id) == "node-format").expect("it is in the workspace");
    let mut open = vec![&start.id];
    let mut seen = BTreeSet::new();
    while let Some(id) = open.pop() {
        let node = resolve.nodes.iter().find(|n| &n.id == id).expect("every id has a node");
        for dep in &node.deps {
            let normal = dep.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal);
            if normal && seen.insert(name(&dep.pkg)) {
                open.push(&dep.pkg);
            }
        }
    }
    let wrong: Vec<_> = seen.iter().filter(|name| NOT_IN_NODE_FORMAT.contains(&name.as_str())).collect();
    assert!(wrong.is_empty(), "node-format links {wrong:?}");
}

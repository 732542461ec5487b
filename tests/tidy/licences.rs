//! The rules of deny.toml over `cargo metadata`, so that they hold where cargo-deny is not at hand.

use cargo_metadata::MetadataCommand;
use plat_tests::source::{read, root};

fn allowed() -> Vec<String> {
    let text = read(&root().join("deny.toml"));
    let list =
        text.split("allow = [").nth(1).and_then(|rest| rest.split(']').next()).expect("deny.toml allows licences");
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met by the allowed licences. `/` is the old form of OR; `+` (or later) is met by the
/// version itself.
fn is_met(expression: &str, allowed: &[String]) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    // In the expressions that occur, AND binds groups that were in parentheses: each must be met by one of its options.
    expression
        .split(" AND ")
        .all(|group| group.split(" OR ").any(|one| allowed.iter().any(|a| a == one.trim().trim_end_matches('+'))))
}

#[test]
fn every_licence_is_allowed_and_every_source_is_the_registry() {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options(vec!["--offline".into(), "--filter-platform".into(), "x86_64-unknown-linux-gnu".into()])
        .exec()
        .expect("cargo metadata works");
    let (allowed, mut wrong) = (allowed(), Vec::new());
    assert!(allowed.len() > 5, "deny.toml could not be read");
    let resolved: std::collections::BTreeSet<_> =
        metadata.resolve.as_ref().expect("metadata resolves").nodes.iter().map(|n| n.id.clone()).collect();
    for package in metadata.packages.iter().filter(|p| resolved.contains(&p.id)) {
        match &package.license {
            Some(licence) if is_met(licence, &allowed) => {}
            licence => wrong.push(format!("{} {}: {licence:?}", package.name, package.version)),
        }
        if package.source.as_ref().is_some_and(|source| !source.is_crates_io()) {
            wrong.push(format!("{} comes from elsewhere", package.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_that_is_banned_is_built() {
    let text = read(&root().join("Cargo.lock"));
    let banned = ["openssl-sys", "aws-lc-sys", "native-tls", "cmake", "protoc-bin-vendored"];
    let found: Vec<_> = banned.iter().filter(|name| text.contains(&format!("name = \"{name}\"\n"))).collect();
    assert!(found.is_empty(), "{found:?}");
}

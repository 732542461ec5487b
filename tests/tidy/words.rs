//! One word, one meaning.

use plat_tests::source::{files, read, root, shown};

/// Names that say nothing.
const BANNED_FILES: &[&str] = &["util", "utils", "common", "misc", "helpers", "helper", "types", "manager", "service"];
const BANNED_IN_NAMES: &[&str] = &["Manager", "Helper", "Util", "handle_"];

#[test]
fn no_file_is_named_after_nothing() {
    let wrong: Vec<_> = files("", ".rs")
        .iter()
        .filter(|p| BANNED_FILES.contains(&&*p.file_stem().unwrap_or_default().to_string_lossy()))
        .map(|p| shown(p))
        // One file a proto file: it has the proto's name.
        .filter(|p| p != "proto/wire/src/convert/types.rs")
        .collect();
    assert!(wrong.is_empty(), "name these by what they are for: {wrong:?}");
}

#[test]
fn no_item_is_named_after_nothing() {
    let mut wrong = Vec::new();
    for path in files("", ".rs").iter().filter(|p| !shown(p).starts_with("tests/tidy")) {
        for line in read(path).lines().map(str::trim_start) {
            let item = [
                "pub struct ",
                "struct ",
                "pub fn ",
                "fn ",
                "pub trait ",
                "pub enum ",
                "enum ",
                "async fn ",
                "pub async fn ",
            ];
            let named = item.iter().find_map(|start| line.strip_prefix(start));
            if let Some(rest) = named.filter(|rest| {
                BANNED_IN_NAMES.iter().any(|w| rest.split(['(', '<', ' ', '{']).next().unwrap_or("").contains(w))
            }) {
                wrong.push(format!("{}: {rest}", shown(path)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_mark_of_unfinished_work_is_left() {
    let marks =
        ["TO".to_owned() + "DO", "FIX".to_owned() + "ME", "unimplem".to_owned() + "ented!", "to".to_owned() + "do!("];
    let mut wrong = Vec::new();
    for path in files("", ".rs") {
        for (n, line) in read(&path).lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                wrong.push(format!("{}:{}", shown(&path), n + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "finish these: {wrong:?}");
}

#[test]
fn the_glossary_explains_the_words_of_the_grid() {
    let glossary = read(&root().join("docs/glossary.md")).to_lowercase();
    for word in [
        "node",
        "partition",
        "release",
        "supply",
        "instance",
        "request",
        "placement rules",
        "connection parameters",
        "promise",
        "hook",
        "principal",
        "usage record",
        "ledger",
        "statement",
        "generation",
        "problem",
    ] {
        assert!(glossary.contains(&format!("**{word}**")), "the glossary lacks `{word}`");
    }
}

/// A few milliseconds between two looks at a condition are no sleep.
#[test]
fn sleeping_is_no_way_to_wait() {
    let mut wrong = Vec::new();
    for path in files("", ".rs").iter().filter(|p| !shown(p).starts_with("tests/tidy")) {
        let text = read(path);
        let test = shown(path).contains("tests");
        let sleeps = text
            .lines()
            .filter(|l| l.contains("thread::sleep(") || (test && l.contains("time::sleep(Duration::from_secs")));
        wrong.extend(sleeps.map(|l| format!("{}: {}", shown(path), l.trim())));
    }
    assert!(wrong.is_empty(), "wait for a condition with a deadline: {wrong:#?}");
}

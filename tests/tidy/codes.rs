//! Every error code has its page, and every page its code.

use plat_model::problem::codes;
use plat_tests::source::{files, read, root, shown};
use std::collections::BTreeSet;

#[test]
fn every_code_has_a_page_with_its_title_and_what_to_do() {
    let mut wrong = Vec::new();
    for entry in codes::ALL.iter().flat_map(|table| table.iter()) {
        let path = root().join(format!("docs/errors/{}.md", entry.code));
        if !path.exists() {
            wrong.push(format!("{}: there is no page ({})", entry.code, entry.title));
            continue;
        }
        let text = read(&path);
        let title = format!("# {}: {}", entry.code, entry.title);
        if text.lines().next() != Some(title.as_str()) {
            wrong.push(format!("{}: the page does not begin with `{title}`", entry.code));
        }
        for section in ["## What it means", "## What to do"] {
            if !text.contains(section) {
                wrong.push(format!("{}: the page lacks `{section}`", entry.code));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_page_has_a_code() {
    let known: BTreeSet<_> = codes::ALL.iter().flat_map(|t| t.iter()).map(|e| e.code.to_string()).collect();
    let pages = files("docs/errors", ".md");
    let stale: Vec<_> = pages
        .iter()
        .filter(|p| !known.contains(&*p.file_stem().unwrap_or_default().to_string_lossy()))
        .map(|p| shown(p))
        .collect();
    assert!(stale.is_empty(), "no such codes: {stale:?}");
}

#[test]
fn every_code_is_raised_somewhere() {
    let table = read(&root().join("proto/model/src/problem/codes.rs"));
    let names = table.lines().filter_map(|line| line.trim().split_once(" = ").map(|(name, _)| name.to_owned()));
    let names: Vec<_> = names.filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_')).collect();
    assert!(names.len() > 50, "the table could not be read: {}", names.len());
    let sources: Vec<_> =
        files("", ".rs").iter().filter(|p| !p.ends_with("problem/codes.rs")).map(|p| read(p)).collect();
    let used = |name: &String| sources.iter().any(|text| text.contains(&format!("codes::{name}")));
    let unused: Vec<_> = names.iter().filter(|name| !used(name)).collect();
    assert!(unused.is_empty(), "codes that nothing raises: {unused:?}");
}

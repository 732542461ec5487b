//! Each folder of `tests/cases` is one case: `layout.toml` (the configuration), `facts.toml` (the machine), perhaps
//! `record.toml` (what was made before), and `plan.txt` (what must come of it). `PLAT_BLESS=1` rewrites the last.

#![expect(clippy::disallowed_methods, reason = "the test reads the cases from the disk; the planner does not")]

use node_format_plan::{Claims, Contents, Detail, HostFacts, Layout, Thing, parse, plan, privileges_lacking, render};
use std::fs;
use std::path::Path;

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Record {
    /// Plan the removal of everything.
    reset: bool,
    erase: bool,
    made: Vec<Thing>,
}

fn outcome(case: &Path) -> String {
    let read = |name: &str| fs::read_to_string(case.join(name)).unwrap_or_default();
    let record: Record = toml::from_str(&read("record.toml")).unwrap_or_else(|e| panic!("{}: {e}", case.display()));
    let facts: HostFacts = toml::from_str(&read("facts.toml")).unwrap_or_else(|e| panic!("{}: {e}", case.display()));
    let layout = match parse("layout.toml", &read("layout.toml")) {
        _ if record.reset => Layout::default(),
        Ok(settings) => Layout::new(&settings).expect("checked settings make a layout"),
        Err(problems) => return format!("{problems}\n"),
    };
    let claims: Claims = record.made.into_iter().collect();
    let contents = if record.erase { Contents::Erase } else { Contents::Keep };
    match plan(&layout, &facts, &claims, contents) {
        Err(problems) => format!("{problems}\n"),
        Ok(plan) => {
            let lacking = privileges_lacking(&plan, &facts);
            let lacking = if lacking.is_empty() { String::new() } else { format!("\n{lacking}\n") };
            let forget: String = plan.forget.iter().map(|thing| format!("forget {thing:?}\n")).collect();
            format!("{}{forget}{lacking}", render(&plan, Detail::Things))
        }
    }
}

#[test]
fn every_case_gives_the_plan_beside_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() >= 12, "the cases are missing from {}", folder.display());
    let bless = std::env::var_os("PLAT_BLESS").is_some();
    let mut wrong = Vec::new();
    for case in cases {
        let outcome = outcome(&case);
        let file = case.join("plan.txt");
        if bless {
            fs::write(&file, &outcome).unwrap();
        } else if fs::read_to_string(&file).unwrap_or_default() != outcome {
            wrong.push(format!("{}:\n{outcome}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

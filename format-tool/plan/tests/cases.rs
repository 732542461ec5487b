//! Each folder of `tests/cases` is one case: `layout.toml` (the configuration), `facts.toml` (the machine), and `plan.txt`
//! (what must come of it). With `before.toml` the machine was formatted with that configuration first; `then.toml` says
//! what changed since: `gone` (dotted names of facts), `reboot`, `begun` (paths of directories in
//! the record), `confirmed` (uplinks), and facts that are laid over those there are. In
//! `ask.toml` are `reset`, `erase`, `take_uplink`. `PLAT_BLESS=1` rewrites the plans.

#![expect(clippy::disallowed_methods, reason = "the test reads the cases from the disk; the planner does not")]

use node_format_plan::{
    Claims, Consent, Contents, Detail, HostFacts, Layout, Plan, Thing, parse, plan, privileges_lacking, render, scope,
};
use std::fs;
use std::path::Path;
use toml::{Table, Value};

#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Ask {
    /// Plan the removal of everything.
    reset: bool,
    erase: bool,
    take_uplink: bool,
}

/// What a look at the machine finds that asks for all that such a plan needs.
fn looked_at(facts: &HostFacts, layout: &Layout, claims: &Claims) -> HostFacts {
    facts.seen(&scope(layout, claims))
}

/// The facts a plan makes of a machine, and what the record then holds.
fn perform(plan: &Plan, facts: &mut HostFacts, claims: &mut Claims) {
    for action in &plan.actions {
        action.makes().into_iter().for_each(|thing| claims.add(thing));
        facts.perform(action);
        action.settles().into_iter().for_each(|thing| claims.add(thing));
        action.removes().iter().for_each(|thing| claims.remove(thing));
    }
}

fn layout_of(text: &str, facts: &HostFacts) -> Result<Layout, String> {
    let settings = parse("layout.toml", text).and_then(|settings| settings.resolve(facts));
    settings.map_err(|problems| problems.to_string()).map(|settings| Layout::new(&settings).expect("a layout"))
}

/// Lays one table over another; lists are replaced, and what says anew what it `is`.
fn lay(over: Table, under: &mut Table) {
    for (key, value) in over {
        match (value, under.get_mut(&key)) {
            (Value::Table(over), Some(Value::Table(under))) if !over.contains_key("is") => lay(over, under),
            (value, _) => drop(under.insert(key, value)),
        }
    }
}

/// The machine as it is later.
fn later(mut then: Table, facts: HostFacts, claims: &mut Claims) -> HostFacts {
    let mut whole = Table::try_from(&facts).expect("facts are tables");
    if then.remove("reboot").is_some() {
        *claims = claims.iter().filter(|thing| !thing.is_volatile()).cloned().collect();
        whole.insert("addresses".into(), Value::Array(Vec::new()));
        whole.remove("guard");
        for settings in whole["sysctls"].as_table_mut().into_iter().flat_map(|all| all.iter_mut()) {
            *settings.1 = Value::String("0".into());
        }
        whole["links"].as_table_mut().expect("links").retain(|_, link| link["kind"].get("other").is_some());
    }
    for gone in then.remove("gone").iter().flat_map(|list| list.as_array().expect("a list")) {
        let (table, key) = gone.as_str().and_then(|name| name.split_once(' ')).expect("`TABLE KEY`");
        let held = whole.get_mut(table).unwrap_or_else(|| panic!("no facts {table}"));
        match held {
            Value::Table(table) => {
                table.remove(key);
                // The ports of a bridge that is gone stand alone.
                let links = table.iter_mut().filter_map(|(_, link)| link.as_table_mut());
                let ports = links.filter(|link| link.get("bridge").and_then(Value::as_str) == Some(key));
                ports.for_each(|port| drop(port.remove("bridge")));
            }
            Value::Array(list) => list.retain(|item| item["address"].as_str() != Some(key)),
            _ => panic!("{table} holds nothing by name"),
        }
    }
    for begun in then.remove("begun").iter().flat_map(|list| list.as_array().expect("a list")) {
        claims.add(Thing::BegunDirectory { path: begun.as_str().expect("a path").into() });
    }
    for link in then.remove("confirmed").iter().flat_map(|list| list.as_array().expect("a list")) {
        claims.add(Thing::UplinkConfirmed { link: link.as_str().expect("a name").into() });
    }
    lay(then, &mut whole);
    whole.try_into().expect("facts")
}

fn outcome(case: &Path) -> String {
    let read = |name: &str| fs::read_to_string(case.join(name)).unwrap_or_default();
    let wrong = |e: toml::de::Error| -> ! { panic!("{}: {e}", case.display()) };
    let ask: Ask = toml::from_str(&read("ask.toml")).unwrap_or_else(|e| wrong(e));
    let mut facts: HostFacts = toml::from_str(&read("facts.toml")).unwrap_or_else(|e| wrong(e));
    let mut claims = Claims::default();
    let before = read("before.toml");
    if !before.is_empty() {
        let layout = layout_of(&before, &facts).unwrap_or_else(|problems| panic!("{}: {problems}", case.display()));
        let consent = Consent { take_uplink: true, ..Consent::default() };
        let first = plan(&layout, &looked_at(&facts, &layout, &claims), &claims, consent)
            .unwrap_or_else(|p| panic!("{}: {p}", case.display()));
        perform(&first, &mut facts, &mut claims);
    }
    let then: Table = toml::from_str(&read("then.toml")).unwrap_or_else(|e| wrong(e));
    let facts = later(then, facts, &mut claims);
    let layout = match layout_of(&read("layout.toml"), &facts) {
        _ if ask.reset => Layout::default(),
        Ok(layout) => layout,
        Err(problems) => return format!("{problems}\n"),
    };
    let contents = if ask.erase { Contents::Erase } else { Contents::Keep };
    let facts = looked_at(&facts, &layout, &claims);
    match plan(&layout, &facts, &claims, Consent { contents, take_uplink: ask.take_uplink }) {
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

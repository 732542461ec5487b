//! Placements as folders under `tests/cases`: `given.txt` (the grid), `ask.txt` (the requests), `expected.txt`.

use super::given::*;
use plat_master_plan::certify;
use plat_master_plan::request::RequestAsk;
use plat_model::instance::PlacementRules;
use plat_model::node::{Inventory, NodeReport};
use plat_model::resources::Enforced;
use plat_model::resources::Resources;
use std::collections::BTreeMap;
use std::path::Path;

fn words(line: &str) -> (Vec<&str>, BTreeMap<&str, &str>) {
    let (said, plain): (Vec<&str>, Vec<&str>) = line.split_whitespace().partition(|word| word.contains('='));
    (plain, said.into_iter().filter_map(|word| word.split_once('=')).collect())
}

fn resources(said: &BTreeMap<&str, &str>) -> Resources {
    Resources { memory_mib: said.get("memory").map(|mib| mib.parse().unwrap()), ..Resources::default() }
}

fn labels(said: &BTreeMap<&str, &str>) -> BTreeMap<String, String> {
    said.get("label").and_then(|label| label.split_once(':')).map(|(k, v)| (k.into(), v.into())).into_iter().collect()
}

fn enforced(said: &BTreeMap<&str, &str>, word: &str) -> Enforced {
    let with = |all: Enforced, name| all.with(name).unwrap();
    said.get(word).map(|names| names.split(',').fold(Enforced::default(), with)).unwrap_or_default()
}

fn outcome(case: &Path) -> String {
    let read = |file: &str| std::fs::read_to_string(case.join(file)).unwrap();
    let mut grid = Grid::new();
    grid.release("pg");
    for line in read("given.txt").lines() {
        let (plain, said) = words(line);
        let id = plain[0];
        grid.node(id, said["partitions"].parse().unwrap(), resources(&said));
        let labelled = certify::label_node(&grid.state, &node(id), &labels(&said), &[]).unwrap();
        grid.commit(labelled);
        let enforced = enforced(&said, "enforces");
        let inventory = Some(Inventory { enforced, ..grid.state.nodes[&node(id)].inventory.clone() });
        grid.report(id, NodeReport { inventory, ..NodeReport::default() });
        if plain.contains(&"offline") {
            grid.online.remove(&node(id));
        }
    }
    let asked = read("ask.txt");
    for line in asked.lines() {
        let (plain, said) = words(line);
        let label: Vec<(&str, &str)> = said.get("label").and_then(|l| l.split_once(':')).into_iter().collect();
        let enforced = enforced(&said, "enforced");
        let rules = Some(PlacementRules { enforced, ..rules(said.get("node").copied(), &label) });
        let ask = RequestAsk { resources: Some(resources(&said)), rules, ..grid.ask(plain[0]) };
        grid.request(ask).unwrap();
    }
    let round = grid.allocate();
    grid.check();
    let lines = asked.lines().map(|line| {
        let instance = grid.instance(words(line).0[0]);
        match &instance.placement {
            Some(place) => format!("{} is in {place}\n", instance.name),
            None => {
                let waiting = &round.waiting[&instance.id];
                format!("{} waits for {}\n  try {}\n", instance.name, waiting.on, waiting.todo)
            }
        }
    });
    lines.collect()
}

#[test]
fn every_case_is_decided_as_expected() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut count = 0;
    for case in std::fs::read_dir(cases).unwrap() {
        let case = case.unwrap().path();
        if std::env::var_os("PLAT_BLESS").is_some() {
            std::fs::write(case.join("expected.txt"), outcome(&case)).unwrap();
        }
        let expected = std::fs::read_to_string(case.join("expected.txt")).unwrap();
        assert_eq!(outcome(&case), expected, "{}", case.display());
        count += 1;
    }
    assert!(count >= 5, "only {count} cases were found");
}

use super::*;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn tree(text: &str) -> Node {
    yaml::read(text, "t.yaml", 100_000).unwrap()
}

fn over(base: &str, top: &str) -> Value {
    lay(vec![tree(base), tree(top)]).unwrap_or_else(|p| panic!("{p}")).tree.to_json()
}

fn from_files(files: &[(&str, &str)]) -> Result<Layered, Problems> {
    let held: BTreeMap<_, _> = files.iter().copied().collect();
    let (name, text) = files[0];
    resolve(text, name, &mut |name| {
        Ok(held.get(name).map(|text| Text { file: name.to_owned(), text: (*text).to_owned() }))
    })
}

#[test]
fn maps_are_merged_and_everything_else_is_replaced() {
    assert_eq!(
        over("a: {x: 1, y: 2}\nl: [1, 2]", "a: {y: 3, z: 4}\nl: [9]"),
        json!({"a": {"x": 1, "y": 3, "z": 4}, "l": [9]})
    );
    assert_eq!(over("a: {x: 1}", "a: null"), json!({"a": null}));
    assert_eq!(over("a: 1", "a: {x: 1}"), json!({"a": {"x": 1}}));
    assert_eq!(over("a: {x: 1}", "a: {}"), json!({"a": {"x": 1}}));
}

#[test]
fn each_directive_does_what_it_says_and_disappears() {
    assert_eq!(over("a: {x: 1}", "a: {$replace: {y: 2}}"), json!({"a": {"y": 2}}));
    assert_eq!(over("a: 1\nb: 2", "a: {$delete: true}"), json!({"b": 2}));
    assert_eq!(over("a: {x: 1, y: 2, z: 3}", "a: {$delete: [x, y], w: 4}"), json!({"a": {"z": 3, "w": 4}}));
    assert_eq!(over("l: [2]", "l: {$append: [3], $prepend: [1]}"), json!({"l": [1, 2, 3]}));
    assert_eq!(over("l: [1, {a: 1}]", "l: {$union: [{a: 1}, 2, 2]}"), json!({"l": [1, {"a": 1}, 2]}));
    assert_eq!(over("", "l: {$append: [{$replace: 5}]}"), json!({"l": [5]}));
    assert_eq!(over("a: 1", "b: {$ref: x, $defs: {}}"), json!({"a": 1, "b": {"$ref": "x", "$defs": {}}}));
}

#[test]
fn a_misused_directive_is_told_with_its_place() {
    for (base, top, expected) in [
        ("a: {bcd: 1}", "a: {$delete: [bce]}", "did you mean `bcd`?"),
        ("a: 1", "b: {$delete: true}", "not there"),
        ("a: 1", "a: {$append: [1]}", "added to a number"),
        ("a: [1]", "a: {$append: 1}", "not a list"),
        ("a: [1]", "a: {$append: [1], b: 2}", "beside other keys"),
        ("a: [1]", "a: {$apend: [1]}", "did you mean `$append`?"),
        ("a: [1]", "a: {$replace: 1, $delete: true}", "beside other keys"),
        ("a: {b: 1}", "a: {$delete: 5}", "neither `true` nor a list"),
    ] {
        let problems = lay(vec![tree(base), tree(top)]).expect_err(top);
        assert!(problems.to_string().contains(expected), "{top}: {problems}");
        assert!(
            problems.0.iter().all(|p| p.code == codes::BAD_DIRECTIVE && p.at.starts_with("t.yaml:1:")),
            "{problems}"
        );
    }
}

#[test]
fn extends_goes_depth_first_and_left_to_right_and_lays_nothing_down_twice() {
    let layered = from_files(&[
        ("top", "extends: [a, b]\nt: 1"),
        ("a", "extends: base\nx: a\nl: {$append: [a]}"),
        ("b", "extends: base\nl: {$append: [b]}"),
        ("base", "x: base\ny: base\nl: [base]"),
    ])
    .unwrap();
    assert_eq!(layered.tree.to_json(), json!({"l": ["base", "a", "b"], "t": 1, "x": "a", "y": "base"}));
}

#[test]
fn circles_unknown_names_and_all_other_problems_are_told_at_once() {
    let problems = from_files(&[("top", "extends: [a, missing, [x]]"), ("a", "extends: top\nx: 1\nx: 2")]).unwrap_err();
    let codes_told: Vec<_> = problems.0.iter().map(|p| p.code).collect();
    assert_eq!(codes_told, [codes::BAD_VALUE, codes::DUPLICATE_KEY, codes::EXTENDS_UNKNOWN], "{problems}");
    let problems = from_files(&[("top", "extends: a"), ("a", "extends: b"), ("b", "extends: a")]).unwrap_err();
    assert_eq!(problems.0[0].code, codes::EXTENDS_CYCLE);
    assert_eq!(problems.0[0].why, "a extends b extends a");
    assert_eq!(problems.0[0].at, "b:1:10");
}

#[test]
fn a_chain_without_end_is_refused() {
    let mut n = 0;
    let problems = resolve("extends: d0", "top", &mut |_| {
        n += 1;
        Ok(Some(Text { file: format!("d{n}"), text: format!("extends: d{n}") }))
    })
    .unwrap_err();
    assert_eq!(problems.0[0].code, codes::TOO_LARGE);
}

#[test]
fn explain_says_who_set_a_value_and_who_was_overruled() {
    let layered = from_files(&[
        ("top", "extends: [a, b]\nfiles:\n  etc/app.conf: {mode: '3'}\ngone: {$delete: true}"),
        ("a", "files:\n  etc/app.conf: {mode: '1', template: x}\ngone: {deep: 1}"),
        ("b", "files:\n  etc/app.conf: {mode: '2'}"),
    ])
    .unwrap();
    assert_eq!(
        layered.explain("files.etc/app.conf.mode").unwrap().to_string(),
        "files.etc/app.conf.mode = \"3\"\n  set at top:3:24\n  overruled b:2:24: \"2\"\n  overruled a:2:24: \"1\""
    );
    assert_eq!(layered.explain("files.etc/app.conf.template").unwrap().set_by.file.as_ref(), "a");
    let gone = layered.explain("gone").unwrap();
    assert_eq!((gone.value.as_ref(), gone.set_by.line, gone.overruled[0].place.line), (None, 4, 3));
    let problem = layered.explain("files.etc/app.conf.moed").unwrap_err();
    assert!(problem.todo.contains("`mode`"), "{problem}");
}

/// Documents with directives that are legal wherever they stand.
fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(json!(null)), Just(json!(1)), Just(json!("x")), Just(json!([1, {"$replace": 2}]))];
    let value = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::btree_map("[a-d]", inner.clone(), 0..4).prop_map(|map| json!(map)),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(|items| json!(items)),
            inner.prop_map(|value| json!({ "$replace": value })),
            Just(json!({"$append": [1]})),
        ]
    });
    proptest::collection::btree_map("[a-d]", value, 0..4).prop_map(|map| json!(map))
}

fn holds_directive(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(holds_directive),
        Value::Object(map) => {
            map.iter().any(|(key, value)| DIRECTIVES.contains(&key.as_str()) || holds_directive(value))
        }
        _ => false,
    }
}

/// The same value with the keys of each map in the opposite order.
fn reversed(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(reversed).collect()),
        Value::Object(map) => Value::Object(map.iter().rev().map(|(k, v)| (k.clone(), reversed(v))).collect()),
        other => other.clone(),
    }
}

proptest! {
    #[test]
    fn an_empty_document_changes_nothing(a in documents()) {
        let alone = lay(vec![tree(&a.to_string())]).unwrap().tree.to_json();
        let below = lay(vec![tree("{}"), tree(&a.to_string())]).unwrap().tree.to_json();
        let above = lay(vec![tree(&a.to_string()), tree("{}"), tree("")]).unwrap().tree.to_json();
        prop_assert_eq!(&alone, &below);
        prop_assert_eq!(&alone, &above);
    }

    #[test]
    fn directives_never_survive_and_the_order_of_keys_does_not_matter(a in documents(), b in documents()) {
        let merged = lay(vec![tree(&a.to_string()), tree(&b.to_string())]).map(|l| l.tree.to_json());
        let turned = lay(vec![tree(&reversed(&a).to_string()), tree(&reversed(&b).to_string())]).map(|l| l.tree.to_json());
        prop_assert_eq!(merged.is_ok(), turned.is_ok());
        if let (Ok(merged), Ok(turned)) = (merged, turned) {
            prop_assert!(!holds_directive(&merged), "{}", merged);
            prop_assert_eq!(merged, turned);
        }
    }

    #[test]
    fn a_document_laid_over_itself_is_itself(a in documents()) {
        let plain = lay(vec![tree(&a.to_string())]).unwrap().tree;
        let twice = lay(vec![plain.clone(), plain.clone()]).unwrap().tree.to_json();
        prop_assert_eq!(plain.to_json(), twice);
    }
}

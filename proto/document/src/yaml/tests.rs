use super::*;
use serde_json::json;

fn json_of(text: &str) -> serde_json::Value {
    read(text, "t.yaml", 10_000).unwrap().to_json()
}

#[test]
fn plain_scalars_follow_the_core_schema_and_quoted_ones_are_text() {
    assert_eq!(
        json_of("a: 1\nb: -2\nc: 1.5\nd: true\ne: ~\nf: yes\ng: '1'\nh: 0640\ni: 1.2.3\nj: 18446744073709551615"),
        json!({"a": 1, "b": -2, "c": 1.5, "d": true, "e": null, "f": "yes", "g": "1", "h": "0640", "i": "1.2.3",
               "j": 18_446_744_073_709_551_615_u64})
    );
    assert_eq!(json_of(""), json!({}));
}

#[test]
fn every_value_knows_its_line_and_column() {
    let tree = read("a:\n  b: x\n  c: |\n    first\n    second\n", "t.yaml", 1000).unwrap();
    assert_eq!(tree.at(["a", "b"]).unwrap().place.to_string(), "t.yaml:2:6");
    // A block begins on the line after its `|`.
    assert_eq!(tree.at(["a", "c"]).unwrap().place.line, 4);
    assert_eq!(tree.place_of(["a", "nothing"]).line, tree.at(["a"]).unwrap().place.line);
}

#[test]
fn all_duplicate_keys_are_told_with_where_the_first_was() {
    let problems = read("a: 1\na: 2\nb:\n  c: 1\n  c: 2\n", "t.yaml", 1000).unwrap_err();
    let told: Vec<_> = problems.0.iter().map(|p| (p.code, p.at.as_str())).collect();
    assert_eq!(told, [(codes::DUPLICATE_KEY, "t.yaml:2:1"), (codes::DUPLICATE_KEY, "t.yaml:5:3")]);
    assert!(problems.0[0].why.contains("t.yaml:1:1"));
}

#[test]
fn hostile_yaml_is_refused_and_never_a_panic() {
    let deep = "[".repeat(5000);
    let deep_block: String = (0..200).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    for wrong in [
        "a: &x 1\nb: *x",
        "a: !!binary aGk=",
        "a: [1",
        "a: *nothing",
        "a: 1\n---\nb: 2",
        "? [a]\n: b",
        "\t- x: y\n\t bad",
        "a: \"\\q\"",
        "{a: 1}}",
        deep.as_str(),
        deep_block.as_str(),
    ] {
        let problems = read(wrong, "t.yaml", 100_000).unwrap_err();
        assert!(matches!(problems.0[0].code, codes::BAD_SYNTAX | codes::TOO_LARGE), "{wrong}: {problems}");
        assert!(problems.0[0].at.starts_with("t.yaml"), "{problems}");
    }
    assert_eq!(read(&"x".repeat(2000), "t.yaml", 1000).unwrap_err().0[0].code, codes::TOO_LARGE);
}

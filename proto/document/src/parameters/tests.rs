use super::*;

fn release(schema: &str) -> Release {
    let text = format!("version: 1\nname: a\nfiles: {{x: {{template: a}}}}\n{schema}");
    Release::parse_yaml(&text, "a.yaml").unwrap_or_else(|p| panic!("{p}"))
}

const SCHEMA: &str = r#"
parameters:
  type: object
  required: [owner]
  properties:
    owner: {type: string, pattern: "^[a-z]+$"}
    port: {type: integer, minimum: 1024, default: 5432}
    server:
      type: object
      default: {}
      additionalProperties: false
      properties: {threads: {type: integer, default: 4}}
    mode: {enum: [fast, safe]}
"#;

fn parse(json: &str) -> Parameters {
    Parameters::parse_json(json).unwrap()
}

#[test]
fn defaults_are_filled_in_also_within_maps() {
    let filled = check(&release(SCHEMA), &parse(r#"{"owner": "ann"}"#)).unwrap();
    let expected = serde_json::json!({"owner": "ann", "port": 5432, "server": {"threads": 4}});
    assert_eq!(serde_json::to_value(&filled).unwrap(), expected);
}

#[test]
fn every_violation_is_told_with_its_path_and_never_the_value() {
    let said = r#"{"owner": "HUNTER2", "port": 80, "server": {"thread": 1}, "mode": "hunter2", "prot": 1}"#;
    let problems = check(&release(SCHEMA), &parse(said)).unwrap_err();
    let mut at: Vec<_> = problems.0.iter().map(|p| p.at.as_str()).collect();
    at.sort_unstable();
    assert_eq!(at, ["mode", "owner", "port", "prot", "server.thread"], "{problems}");
    assert!(!problems.to_string().to_lowercase().contains("hunter2"), "{problems}");
    assert!(problems.to_string().contains("did you mean `port`?"), "{problems}");
    assert!(problems.to_string().contains("at least 1024"), "{problems}");
    assert!(problems.0.iter().all(|p| p.code == codes::BAD_PARAMETERS));
}

#[test]
fn what_is_required_and_what_does_not_exist_is_told() {
    let problems = check(&release(SCHEMA), &parse("{}")).unwrap_err();
    assert!(problems.to_string().contains("must have the key `owner`"), "{problems}");
    let problems = check(&release(""), &parse(r#"{"port": 1}"#)).unwrap_err();
    assert_eq!(problems.0[0].at, "port");
    assert!(check(&release(""), &parse("{}")).is_ok());
}

#[test]
fn a_pattern_made_to_be_slow_is_not_slow() {
    let release = release("parameters: {properties: {a: {type: string, pattern: \"^(a+)+$\"}}}");
    let text = format!(r#"{{"a": "{}!"}}"#, "a".repeat(50_000));
    assert!(check(&release, &parse(&text)).is_err());
}

#[test]
fn a_schema_that_refers_to_itself_ends() {
    let release = release("parameters: {properties: {a: {$ref: \"#\", default: {}}}}");
    assert!(check(&release, &parse("{}")).is_ok());
}

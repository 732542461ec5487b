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

fn problems_of(schema: &str) -> Problems {
    let text = format!("version: 1\nname: a\nfiles: {{x: {{template: a}}}}\n{schema}");
    Release::parse_yaml(&text, "a.yaml").unwrap_err()
}

#[test]
fn a_schema_may_refer_to_itself_where_the_request_says_how_deep() {
    let release = release("parameters: {properties: {a: {$ref: \"#\"}, port: {default: 1}}}");
    let filled = check(&release, &parse(r#"{"a": {"a": {}}}"#)).unwrap();
    let expected = serde_json::json!({"port": 1, "a": {"port": 1, "a": {"port": 1}}});
    assert_eq!(serde_json::to_value(&filled).unwrap(), expected);
}

#[test]
fn defaults_that_lead_back_to_themselves_are_refused_and_not_written_out() {
    let eight: Vec<_> = ["a", "b", "c", "d", "e", "f", "g", "h"]
        .iter()
        .map(|key| format!("{key}: {{default: {{}}, $ref: \"#\"}}"))
        .collect();
    let problems = problems_of(&format!("parameters: {{properties: {{{}}}}}", eight.join(", ")));
    assert_eq!(problems.0[0].code, codes::BAD_SCHEMA, "{problems}");
    assert!(problems.to_string().contains("leads back to itself"), "{problems}");
}

#[test]
fn defaults_that_are_too_many_are_refused_although_they_end() {
    let level = |n: usize| {
        let eight: Vec<_> = (0..8).map(|i| format!("k{i}: {{default: {{}}, $ref: \"#/$defs/d{}\"}}", n + 1)).collect();
        format!("d{n}: {{properties: {{{}}}}}", eight.join(", "))
    };
    let levels: Vec<_> = (0..16).map(level).chain(["d16: {}".into()]).collect();
    let problems = problems_of(&format!(
        "parameters: {{properties: {{a: {{default: {{}}, $ref: \"#/$defs/d0\"}}}}, $defs: {{{}}}}}",
        levels.join(", ")
    ));
    assert!(problems.to_string().contains("too many defaults"), "{problems}");
}

#[test]
fn a_reference_to_itself_alone_is_refused() {
    assert_eq!(problems_of("parameters: {$ref: \"#\"}").0[0].code, codes::BAD_SCHEMA);
}

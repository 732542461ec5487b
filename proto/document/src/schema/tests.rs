use super::*;
use crate::Release;
use plat_model::parameters::Parameters;

const EXAMPLES: [(&str, &str); 3] = [
    ("postgresql", include_str!("../../../../examples/releases/postgresql.yaml")),
    ("redis", include_str!("../../../../examples/releases/redis.yaml")),
    ("nginx", include_str!("../../../../examples/releases/nginx.yaml")),
];

fn accepts(schema: &Value, text: &str) -> bool {
    let tree = crate::yaml::read(text, "t.yaml", 1 << 20).unwrap();
    options().build(schema).unwrap().is_valid(&tree.to_json())
}

#[test]
fn every_example_is_a_release_and_fits_the_schema_for_editors() {
    for (name, text) in EXAMPLES {
        let release = Release::parse_yaml(text, name).unwrap_or_else(|p| panic!("{p}"));
        assert_eq!(release.name.as_str(), name);
        assert!(!release.title.is_empty() && !release.promises.is_empty() && !release.publish.is_empty());
        assert!(accepts(&schema(), text), "{name}");
        assert_eq!(Release::from_canonical_json(&release.to_canonical_json()).unwrap(), release);
        let filled = crate::parameters::check(&release, &Parameters::default()).unwrap_or_else(|p| panic!("{p}"));
        assert!(filled.as_map().contains_key("port"));
        let schema = release.parameters.unwrap();
        for (key, property) in schema["properties"].as_object().unwrap() {
            assert!(property["description"].is_string() && property.get("default").is_some(), "{name}.{key}");
        }
    }
}

/// A release in which every field of every struct is said.
const WHOLE: &str = r#"
version: 1
name: whole
title: t
parameters: {type: object}
shared: {type: object}
sources:
  a: {archive: {url: "https://h/x.tar", sha256: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", strip: 1, into: a}}
  b: {directory: {path: /x, sha256: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", into: b}}
  c: {deb: {packages: ["x1"], locks: {x86_64-debian-13: {of: ["x1"], packages: [{name: x1, version: "1:2", url: "http://h/x1", sha256: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}]}}, into: c}}
  d: {git: {url: "https://h/x.git", commit: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", into: d}}
  e: {crate: {name: x, version: 1.2.3-a+b, sha256: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", registry: "https://h", into: e}}
  f: {oci: {layout: "https://h/i.tar", sha256: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", manifest: "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", into: f}}
  g: {npm: {packages: [{name: "@x/y", version: 1.2.3, integrity: "sha512-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa==", path: node_modules/z}], registry: "https://h", into: g}}
  h: {pypi: {packages: [{name: x, version: "1.2", sha256: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}], index: "https://h/simple", into: h}}
build: {commands: [[make]], timeout_seconds: 5, network: true}
secrets: {s: {length: 9, file: s}}
files: {f: {template: x, mode: "0600"}}
volumes: {v: {kind: kept}, w: {kind: scratch}}
hooks:
  init: {command: [/bin/true], environment: {A: b}, directory: d, timeout_seconds: 5}
  configure: {command: [/bin/true], environment: {A: b}}
  start: {command: [/bin/true], environment: {A: b}}
  stop: {command: [/bin/true], environment: {A: b}}
  clean: {command: [/bin/true], environment: {A: b}}
services:
  s: {command: [/bin/true], environment: {A: b}, directory: d, stop_signal: INT, stop_timeout_seconds: 5, files: [f], reload: {signal: HUP}, kind: service, restart: never, watchdog_seconds: 5}
  t: {command: [/bin/true], reload: {command: [/bin/true]}}
  u: {command: [/bin/true], kind: oneshot, schedule: "@daily"}
promises:
  a: {role: alive, exec: [/bin/true], period_seconds: 5, timeout_seconds: 5, delay_seconds: 1, threshold: 2}
  b: {http: {url: "http://x/", status: 204}}
  c: {tcp: {address: x, port: "1"}}
publish: {k: v}
resources: {cpu_millis: 1, memory_mib: 1, disk_mib: 1, processes: 1}
"#;

#[test]
fn every_field_of_a_release_is_in_the_schema_and_the_other_way_round() {
    let release = Release::parse_yaml(WHOLE, "whole.yaml").unwrap_or_else(|p| panic!("{p}"));
    // What the struct writes, the schema knows: it allows no key that it does not name.
    let written: Value = serde_json::from_str(&release.to_canonical_json()).unwrap();
    assert!(accepts(&schema(), &written.to_string()));
    // What the schema names, the struct wrote: each name occurs in the document as a key.
    fn names(schema: &Value, found: &mut Vec<String>) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            found.extend(properties.keys().cloned());
        }
        match schema {
            Value::Object(map) => map.values().for_each(|value| names(value, found)),
            Value::Array(items) => items.iter().for_each(|value| names(value, found)),
            _ => {}
        }
    }
    let (mut named, text) = (Vec::new(), written.to_string());
    names(&serde_json::from_str(RESOLVED).unwrap(), &mut named);
    assert!(named.len() > 40);
    for name in named {
        assert!(text.contains(&format!("\"{name}\":")), "{name}");
    }
}

#[test]
fn the_schema_and_the_structs_refuse_the_same() {
    let mutations: [(&str, Value); 27] = [
        ("/version", json!("1")),
        ("/name", json!("../x")),
        ("/nmae", json!(1)),
        ("/sources/a/archive/strp", json!(1)),
        ("/sources/a/archive/url", json!(5)),
        ("/sources/c/deb/locks/x86_64-debian-13/from", json!("x")),
        ("/sources/c/deb/locks/x86_64-debian-13/packages/0/size", json!(1)),
        ("/sources/d/git/branch", json!("main")),
        ("/sources/e/crate/features", json!([])),
        ("/sources/f/oci/tag", json!("latest")),
        ("/sources/g/npm/packages/0/resolved", json!("https://h")),
        ("/sources/h/pypi/requirements", json!("x")),
        ("/sources/a/deb", json!({"packages": ["x1"]})),
        ("/build/commands", json!("make")),
        ("/secrets/s/length", json!("9")),
        ("/files/f/tmplate", json!("x")),
        ("/volumes/v/kind", json!("keep")),
        ("/volumes/w/size", json!(1)),
        ("/hooks/boot", json!({"command": ["/bin/true"]})),
        ("/services/s/stop_signal", json!("KILL")),
        ("/services/s/command", json!(null)),
        ("/services/s/reload/signal", json!("KILL")),
        ("/services/t/reload/signal", json!("HUP")),
        ("/promises/a/tcp", json!({"address": "x", "port": "1"})),
        ("/promises/b/http/state", json!(1)),
        ("/promises/a/role", json!("tests")),
        ("/resources/cpu", json!(1)),
    ];
    let whole = crate::yaml::read(WHOLE, "w", 1 << 20).unwrap().to_json();
    assert!(serde_json::from_value::<Release>(whole.clone()).is_ok());
    for (pointer, value) in mutations {
        let mut wrong = whole.clone();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        wrong.pointer_mut(parent).unwrap().as_object_mut().unwrap().insert(key.into(), value);
        assert!(!accepts(&schema(), &wrong.to_string()), "the schema takes {pointer}");
        if pointer != "/version" {
            assert!(serde_json::from_value::<Release>(wrong.clone()).is_err(), "the structs take {pointer}");
        }
        assert!(Release::from_canonical_json(&wrong.to_string()).is_err(), "{pointer}");
    }
}

#[test]
fn editors_accept_a_document_that_leaves_the_rest_to_what_it_extends() {
    assert!(accepts(&schema(), "extends: base\nservices: {}"));
    assert!(!accepts(&schema(), "services: {}"));
}

#[test]
fn documents_are_checked_as_before_when_the_memory_for_it_was_given_back() {
    let problems = || Release::parse_yaml("version: 1\nname: UPPER\nservices: {}\n", "t").unwrap_err().to_string();
    let before = problems();
    assert!(crate::schema::forget_schema(), "it was kept for the next document");
    assert_eq!(problems(), before);
    assert!(Release::parse_yaml(EXAMPLES[0].1, "t").is_ok());
}

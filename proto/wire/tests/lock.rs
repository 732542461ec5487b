//! Field numbers, types and calls never change: `proto/plat/v1.lock` lists all of them. With `PLAT_LOCK=add` new lines
//! are added to it; an old line that no longer holds fails in any case.

use prost::Message;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};
use std::collections::BTreeMap;
use std::path::Path;

/// What is locked by what it is locked to, e.g. `field Problem 1` by `code string`.
type Lines = BTreeMap<String, String>;

fn of_message(prefix: &str, message: &DescriptorProto, lines: &mut Lines) {
    let name = format!("{prefix}{}", message.name());
    for field in &message.field {
        let kind = format!("{:?}", field.r#type()).to_lowercase();
        let label = format!("{:?}", field.label()).to_lowercase();
        let presence = if field.proto3_optional() { "explicit" } else { "implicit" };
        let oneof = field.oneof_index.filter(|_| !field.proto3_optional());
        let within = oneof.map(|n| message.oneof_decl[n as usize].name()).unwrap_or("-");
        let typed = field.type_name().trim_start_matches(".plat.v1.");
        let line = format!("{} {label} {kind} {presence} {within} {typed}", field.name());
        lines.insert(format!("field {name} {}", field.number()), line.trim_end().to_string());
    }
    message.nested_type.iter().for_each(|nested| of_message(&format!("{name}."), nested, lines));
    message.enum_type.iter().for_each(|nested| of_enum(&format!("{name}."), nested, lines));
}

fn of_enum(prefix: &str, found: &EnumDescriptorProto, lines: &mut Lines) {
    for value in &found.value {
        lines.insert(format!("value {prefix}{} {}", found.name(), value.number()), value.name().to_string());
    }
}

fn present() -> Lines {
    let set = FileDescriptorSet::decode(plat_wire::FILE_DESCRIPTOR_SET).unwrap();
    let mut lines = Lines::new();
    for file in &set.file {
        file.message_type.iter().for_each(|message| of_message("", message, &mut lines));
        file.enum_type.iter().for_each(|found| of_enum("", found, &mut lines));
        for service in &file.service {
            for method in &service.method {
                let side = |stream, name: &str| format!("{}{name}", if stream { "stream " } else { "" });
                let asks = side(method.client_streaming(), method.input_type());
                let answers = side(method.server_streaming(), method.output_type());
                lines.insert(format!("rpc {}.{}", service.name(), method.name()), format!("{asks} -> {answers}"));
            }
        }
    }
    lines
}

fn parse(text: &str) -> Lines {
    text.lines().filter_map(|line| line.split_once(" = ")).map(|(what, is)| (what.into(), is.into())).collect()
}

/// What is locked and no longer holds.
fn broken(locked: &Lines, present: &Lines) -> Vec<String> {
    let gone = |what: &str| present.get(what).cloned().unwrap_or_else(|| "gone".into());
    locked
        .iter()
        .filter(|(what, is)| present.get(*what) != Some(is))
        .map(|(what, is)| format!("{what} was `{is}` and is `{}`", gone(what)))
        .collect()
}

#[test]
fn no_field_value_or_call_is_reused_retyped_or_missing() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../plat/v1.lock");
    let (locked, present) = (parse(&std::fs::read_to_string(&path).unwrap_or_default()), present());
    let broken = broken(&locked, &present);
    assert!(broken.is_empty(), "these may never change; add a new one instead:\n{}", broken.join("\n"));
    if std::env::var("PLAT_LOCK").is_ok_and(|mode| mode == "add") {
        let text: String = present.iter().map(|(what, is)| format!("{what} = {is}\n")).collect();
        std::fs::write(&path, text).unwrap();
        return;
    }
    let unlocked: Vec<_> = present.keys().filter(|what| !locked.contains_key(*what)).collect();
    assert!(unlocked.is_empty(), "run this test with PLAT_LOCK=add to lock {unlocked:#?}");
}

#[test]
fn a_reused_number_a_new_type_and_a_missing_call_are_noticed() {
    let locked = present();
    let key = "field Problem 1".to_string();
    for change in ["why optional string implicit -", "code optional bytes implicit -"] {
        let mut changed = locked.clone();
        changed.insert(key.clone(), change.into());
        assert_eq!(broken(&locked, &changed).len(), 1, "{change}");
    }
    let mut missing = locked.clone();
    missing.remove("rpc NodeService.Sync").unwrap();
    assert_eq!(broken(&locked, &missing).len(), 1);
}

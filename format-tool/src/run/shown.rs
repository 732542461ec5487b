//! The record, for people and programs.

use super::{Form, json};
use node_format::Record;
use node_format_plan::Thing;
use std::path::Path;

pub(super) fn record(record: &Record, form: Form) -> String {
    let things: Vec<&Thing> = record.claims().iter().collect();
    match form {
        Form::Json => json(&serde_json::json!({ "version": 1, "made": things })),
        Form::Text if things.is_empty() => "nothing was made\n".into(),
        Form::Text => things.iter().fold(String::new(), |text, thing| text + &line(thing)),
    }
}

fn line(thing: &Thing) -> String {
    let place = |path: &Path| path.display().to_string();
    let (noun, name) = match thing {
        Thing::Group { name, gid } => ("group", format!("{name} gid {gid}")),
        Thing::User { name, uid } => ("user", format!("{name} uid {uid}")),
        Thing::Directory { path } | Thing::PartitionDirectory { path } => ("directory", place(path)),
        Thing::DiskLimit { path, .. } => ("disk limit", place(path)),
        Thing::Bridge { name } => ("bridge", name.clone()),
        Thing::Tap { name } => ("tap", name.clone()),
        Thing::Tun { name } => ("tun", name.clone()),
        Thing::Namespace { name, veth } => ("namespace", format!("{name} by {veth}")),
        Thing::Address { link, address } => ("address", format!("{address} on {link}")),
        Thing::LocalRoute { range } => ("local route", range.to_string()),
        Thing::Route(route) => ("route", format!("{} on {}", route.destination, route.link)),
        Thing::Sysctl { key, was, along, .. } => {
            let along: String = along.0.iter().map(|(key, was)| format!(", {key} {was}")).collect();
            ("kernel setting", format!("{key}, before {was}{along}"))
        }
        Thing::Guard { .. } => ("packet filter table", "plat".into()),
        Thing::Uplink(uplink) => ("uplink", format!("{} on {}", uplink.link, uplink.bridge)),
        Thing::UplinkConfirmed { link } => ("confirmed uplink", link.clone()),
        Thing::File { path } => ("file", place(path)),
        Thing::BegunDirectory { path } => ("begun directory", place(path)),
    };
    format!("{noun} {name}\n")
}

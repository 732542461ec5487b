//! What templates can use, by name.

use super::text;
use minijinja::Value;
use plat_model::id::{Digest, InstanceId, InstanceName, NodeId, PartitionName, ProjectName};
use plat_model::parameters::{Parameters, Secret};
use plat_model::tree::SharedDesired;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

/// All that the templates of one instance can use. `Debug` shows no secret and no parameter.
#[derive(Debug, Clone)]
pub struct Context {
    /// With the schema's defaults filled in: see [`crate::parameters::check`].
    pub parameters: Parameters,
    /// The shared instances in it.
    pub shared: Vec<SharedDesired>,
    pub secrets: BTreeMap<String, Secret>,
    /// Absolute paths.
    pub volumes: BTreeMap<String, String>,
    pub instance: InstanceFacts,
    pub partition: PartitionFacts,
    pub release: ReleaseFacts,
    pub node: NodeFacts,
}

#[derive(Debug, Clone)]
pub struct InstanceFacts {
    pub id: InstanceId,
    pub name: InstanceName,
    pub project: ProjectName,
}

#[derive(Debug, Clone)]
pub struct PartitionFacts {
    pub name: PartitionName,
    /// Name of the user that the instance runs as.
    pub user: String,
    /// Where services listen.
    pub address: IpAddr,
    /// Undefined in templates if there is none: ask `{% if partition.ipv4 is defined %}`.
    pub ipv4: Option<Ipv4Addr>,
    /// Absolute.
    pub directory: String,
    /// Further directories of its own, on other storage; absolute. An empty list if there are none.
    pub storage: Vec<String>,
    /// What it may know of its partition; absolute. Undefined in templates if there is none.
    pub resource_file: Option<String>,
}

#[derive(Debug, Clone)]
pub struct ReleaseFacts {
    /// Absolute.
    pub directory: String,
    pub digest: Digest,
}

#[derive(Debug, Clone)]
pub struct NodeFacts {
    pub name: NodeId,
}

impl Context {
    pub(super) fn to_value(&self) -> Value {
        let map = |entries: Vec<(&str, Value)>| -> Value { Value::from_pairs(entries) };
        let partition = &self.partition;
        let url_host = match partition.address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let mut partition_entries = vec![
            ("name", text(partition.name.as_str())),
            ("user", text(&partition.user)),
            ("address", text(&partition.address.to_string())),
            ("url_host", text(&url_host)),
            ("directory", text(&partition.directory)),
            ("storage", partition.storage.iter().map(|directory| text(directory)).collect::<Vec<_>>().into()),
        ];
        if let Some(ipv4) = partition.ipv4 {
            partition_entries.push(("ipv4", text(&ipv4.to_string())));
        }
        if let Some(file) = &partition.resource_file {
            partition_entries.push(("resource_file", text(file)));
        }
        map(vec![
            ("parameters", of_map(self.parameters.as_map())),
            ("shared", self.shared.iter().map(of_shared).collect::<Vec<_>>().into()),
            (
                "secrets",
                Value::from_pairs(self.secrets.iter().map(|(name, secret)| (name.clone(), text(secret.reveal())))),
            ),
            ("volumes", Value::from_pairs(self.volumes.iter().map(|(name, path)| (name.clone(), text(path))))),
            (
                "instance",
                map(vec![
                    ("id", text(self.instance.id.as_str())),
                    ("name", text(self.instance.name.as_str())),
                    ("project", text(self.instance.project.as_str())),
                ]),
            ),
            ("partition", map(partition_entries)),
            (
                "release",
                map(vec![("directory", text(&self.release.directory)), ("digest", text(self.release.digest.as_str()))]),
            ),
            ("node", map(vec![("name", text(self.node.name.as_str()))])),
        ])
    }
}

/// The names that a release's templates may use, known before any instance exists.
pub struct Names {
    /// The schema of parameters, if there is one.
    pub parameters: Option<Json>,
    pub secrets: BTreeSet<String>,
    pub volumes: BTreeSet<String>,
    /// Dotted.
    pub others: &'static [&'static str],
}

impl Names {
    /// Whether a dotted name exists, as far as can be known without an instance.
    pub fn defines(&self, variable: &str) -> bool {
        let mut steps = variable.split('.');
        match (steps.next(), steps.next()) {
            (Some("parameters"), None) => true,
            (Some("parameters"), Some(first)) => match &self.parameters {
                None => false,
                Some(schema) => match schema.get("properties") {
                    // A schema made of other means (`allOf`, `$ref`) says too little: left to rendering.
                    None => true,
                    Some(properties) => properties.get(first).is_some_and(|schema| nested(schema, &mut steps)),
                },
            },
            (Some("secrets"), Some(name)) => self.secrets.contains(name) && steps.next().is_none(),
            (Some("volumes"), Some(name)) => self.volumes.contains(name) && steps.next().is_none(),
            _ => self.others.contains(&variable),
        }
    }

    /// All names, for suggestions.
    pub fn all(&self) -> Vec<String> {
        let properties = self.parameters.as_ref().and_then(|schema| schema.get("properties")?.as_object());
        let parameters = properties.into_iter().flatten().map(|(key, _)| format!("parameters.{key}"));
        let secrets = self.secrets.iter().map(|name| format!("secrets.{name}"));
        let volumes = self.volumes.iter().map(|name| format!("volumes.{name}"));
        parameters.chain(secrets).chain(volumes).chain(self.others.iter().map(ToString::to_string)).collect()
    }
}

/// Whether the rest of a name leads into a parameter that is a map; where the schema does not say, yes.
fn nested<'a>(schema: &Json, steps: &mut impl Iterator<Item = &'a str>) -> bool {
    match (steps.next(), schema.get("properties")) {
        (Some(step), Some(properties)) => properties.get(step).is_some_and(|schema| nested(schema, steps)),
        _ => true,
    }
}

pub(super) fn of_json(value: &Json) -> Value {
    match value {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::from(n),
            (_, Some(n)) => Value::from(n),
            _ => Value::from(n.as_f64()),
        },
        Json::String(s) => text(s),
        Json::Array(items) => items.iter().map(of_json).collect::<Vec<_>>().into(),
        Json::Object(map) => of_map(map),
    }
}

fn of_shared(one: &SharedDesired) -> Value {
    Value::from_pairs([
        ("id", text(one.id.as_str())),
        ("name", text(one.name.as_str())),
        ("parameters", of_map(one.parameters.as_map())),
    ])
}

fn of_map(map: &serde_json::Map<String, Json>) -> Value {
    Value::from_pairs(map.iter().map(|(key, value)| (key.clone(), of_json(value))))
}

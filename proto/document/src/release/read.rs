//! The ways in and out: YAML, layered YAML, canonical JSON, digest. Every way in passes the same checks.

use super::{Release, check};
use crate::layer::{self, Layered};
use crate::schema;
use crate::tree::Node;
use crate::yaml;
use plat_model::id::Digest;
use plat_model::problem::codes;
use plat_model::release::RELEASE_MAX;
use plat_model::{Problem, Problems};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

impl Release {
    /// Whether nothing is run to make it: see [`super::Source::is_only_unpacked`].
    pub fn is_only_unpacked(&self) -> bool {
        self.build.is_none() && self.sources.values().all(super::Source::is_only_unpacked)
    }

    /// Reads a document that stands alone. `file` is the name that places are told with.
    ///
    /// # Errors
    /// All problems at once, each with `file:line:column`; EXTENDS_UNKNOWN if it extends others.
    pub fn parse_yaml(text: &str, file: &str) -> Result<Self, Problems> {
        Self::resolve(text, file, &mut |_| Ok(None)).map(|(release, _)| release)
    }

    /// Reads a document and those that it extends, which `load` brings by name, and lays them over each other.
    /// The second value says who set what ([`Layered::explain`]).
    ///
    /// # Errors
    /// As [`Release::parse_yaml`], those of the merge, and those of `load`.
    pub fn resolve(text: &str, file: &str, load: &mut layer::Loader<'_>) -> Result<(Self, Layered), Problems> {
        let layered = layer::resolve(text, file, load)?;
        let release = Self::from_tree(&layered.tree)?;
        Ok((release, layered))
    }

    /// Reads what [`Release::to_canonical_json`] wrote.
    ///
    /// # Errors
    /// As [`Release::parse_yaml`], without lines.
    pub fn from_canonical_json(text: &str) -> Result<Self, Problems> {
        too_large(text.len(), "release")?;
        let value: Value = serde_json::from_str(text)
            .map_err(|e| Problem::new(codes::BAD_SYNTAX, "the release cannot be read as JSON").because(e))?;
        Self::from_tree(&Node::from_json(&value, "release"))
    }

    /// Checks a tree and makes a release of it.
    fn from_tree(tree: &Node) -> Result<Self, Problems> {
        let schema::Form { mut problems, unknown } = schema::check_form(tree);
        let mut value = tree.to_json();
        match unknown {
            // What else is wrong is told too, as if these keys were not there.
            Some(unknown) => unknown.iter().for_each(|path| remove(&mut value, path)),
            None => return Err(problems),
        }
        let release: Self = serde_json::from_value(value).map_err(|e| {
            Problem::new(codes::BAD_VALUE, "the document is not a release").because(e).at(tree.place.to_string())
        })?;
        problems.extend(check::check(&release, tree));
        if let Err(problem) = too_large(release.to_canonical_json().len(), &tree.place.file) {
            problems.push(problem);
        }
        problems.0.truncate(yaml::PROBLEMS_MAX);
        problems.none_or(release)
    }

    /// The one spelling of this release: JSON without spaces, keys in order, defaults written out.
    pub fn to_canonical_json(&self) -> String {
        // Maps of strings, numbers and lists always serialize; an empty text would fail every reader.
        serde_json::to_value(self).map(|value| sorted(value).to_string()).unwrap_or_default()
    }

    /// SHA-256 of [`Release::to_canonical_json`].
    pub fn digest(&self) -> Digest {
        digest_of(&self.to_canonical_json())
    }
}

/// The digest of a release by its canonical JSON, as it was stored or received.
pub fn digest_of(canonical_json: &str) -> Digest {
    let hex: String = Sha256::digest(canonical_json.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    match Digest::parse(&hex) {
        Ok(digest) => digest,
        Err(_) => unreachable!("32 bytes are 64 hexadecimal digits"),
    }
}

/// Removes the key at a path.
fn remove(value: &mut Value, path: &[String]) {
    let Some((key, above)) = path.split_last() else { return };
    let map = above.iter().try_fold(value, |value, step| match value {
        Value::Array(items) => items.get_mut(step.parse::<usize>().ok()?),
        other => other.get_mut(step),
    });
    if let Some(map) = map.and_then(Value::as_object_mut) {
        map.remove(key);
    }
}

fn too_large(bytes: usize, file: &str) -> Result<(), Problem> {
    if bytes <= RELEASE_MAX {
        return Ok(());
    }
    Err(Problem::new(codes::TOO_LARGE, "the release is too large")
        .because(format!("{bytes} bytes, {RELEASE_MAX} are allowed"))
        .fix("move large files into a source")
        .at(file))
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().map(|(key, value)| (key, sorted(value))).collect())
        }
        other => other,
    }
}

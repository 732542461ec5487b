//! Templates that are filled in somewhere else: where the secrets are.

use super::context::of_json;
use super::render::with;
use super::{Context, text, variables};
use minijinja::Value;
use minijinja::value::ValueKind;
use plat_model::Problem;
use plat_model::parameters::Secret;
use plat_model::problem::codes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What stands for a secret while it is seen whether a template can be filled in at all.
const STAND_IN: &str = "0aA1bB2cC3dD4eE5";

/// A template with the public values that it uses, and the names of the secrets that it lacks: whoever has those needs
/// nothing else. Two that are equal become the same text. `Debug` shows no value.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prepared {
    text: String,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    values: Map<String, Json>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    secrets: BTreeSet<String>,
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prepared({} bytes, secrets {:?})", self.text.len(), self.secrets)
    }
}

/// The template that its one value goes through as it is.
const VERBATIM: &str = "{{ text }}";

impl Prepared {
    /// Takes what the template uses out of `context`, whose own secrets do not count; `known` are the names of all that
    /// there will be.
    ///
    /// # Errors
    /// As [`super::render`]: what cannot be filled in with any secrets is told here already.
    pub fn new(template: &str, context: &Context, known: &BTreeSet<String>) -> Result<Self, Problem> {
        let used = variables(template).map_err(|(line, problem)| problem.at(format!("line {line}")))?;
        let all = context.to_value();
        let (mut values, mut secrets) = (Map::new(), BTreeSet::new());
        for variable in used {
            let mut path = variable.split('.');
            match (path.next(), path.next()) {
                (Some("secrets"), None) => secrets.extend(known.iter().cloned()),
                (Some("secrets"), Some(name)) => drop(secrets.insert(name.to_owned())),
                _ => copy(&all, &variable.split('.').collect::<Vec<_>>(), &mut values)?,
            }
        }
        secrets.retain(|name| known.contains(name));
        let prepared = Self { text: template.to_owned(), values, secrets };
        let stand_in = |name: &String| (name.clone(), Secret::new(STAND_IN));
        prepared.fill(&prepared.secrets.iter().map(stand_in).collect())?;
        Ok(prepared)
    }

    /// One that becomes `text`, whatever is in it.
    pub fn verbatim(text: impl Into<String>) -> Self {
        let values = Map::from_iter([("text".to_owned(), Json::String(text.into()))]);
        Self { text: VERBATIM.into(), values, secrets: BTreeSet::new() }
    }

    /// What one of [`Self::verbatim`] becomes, without a template being looked at.
    pub fn constant(&self) -> Option<&str> {
        let text = self.values.get("text").filter(|_| self.values.len() == 1 && self.secrets.is_empty());
        text.filter(|_| self.text == VERBATIM)?.as_str()
    }

    /// One that becomes a secret.
    pub fn secret(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { text: format!("{{{{ secrets.{name} }}}}"), values: Map::new(), secrets: [name].into() }
    }

    /// Names of the secrets that it takes.
    pub fn secrets(&self) -> &BTreeSet<String> {
        &self.secrets
    }

    /// The template's size, in bytes.
    pub fn size(&self) -> usize {
        self.text.len()
    }

    /// The text, with those of `secrets` that it uses and no others.
    ///
    /// # Errors
    /// As [`super::render`]; BAD_VALUE if a secret that it takes is missing.
    pub fn fill(&self, secrets: &BTreeMap<String, Secret>) -> Result<String, Problem> {
        let own = self.secrets.iter().map(|name| {
            let secret = secrets.get(name).map(|secret| (name.clone(), text(secret.reveal())));
            secret.ok_or_else(|| Problem::new(codes::BAD_VALUE, format!("there is no secret `{name}`")))
        });
        let own = own.collect::<Result<Vec<_>, _>>()?;
        let public = self.values.iter().map(|(key, value)| (key.clone(), of_json(value)));
        with(&self.text, &Value::from_pairs(public.chain([("secrets".to_owned(), Value::from_pairs(own))])))
    }
}

/// Copies what is at `path`, or as much of the way there as exists, to the same place.
fn copy(from: &Value, path: &[&str], to: &mut Map<String, Json>) -> Result<(), Problem> {
    let Some((first, rest)) = path.split_first() else { return Ok(()) };
    let found = from.get_attr(first).ok().filter(|value| !value.is_undefined());
    let Some(found) = found else { return Ok(()) };
    if rest.is_empty() || found.kind() != ValueKind::Map {
        let wrong = |why| Problem::new(codes::INTERNAL, "a value of a template cannot be written").because(why);
        to.insert((*first).to_owned(), serde_json::to_value(&found).map_err(wrong)?);
        return Ok(());
    }
    match to.entry(*first).or_insert_with(|| Json::Object(Map::new())) {
        Json::Object(next) => copy(&found, rest, next),
        _ => Ok(()),
    }
}

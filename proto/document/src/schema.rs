//! The JSON Schema of a release document. One file is both what editors are given and what documents are checked
//! against, so the two cannot differ.

use crate::tree::{Content, Node, nearest};
use crate::violation::{self, Violation};
use crate::yaml::PROBLEMS_MAX;
use jsonschema::Validator;
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, PoisonError};

/// The schema of a whole document, all extends laid over each other.
const RESOLVED: &str = include_str!("release.schema.json");

/// The schema, and what it was compiled to: milliseconds of work, and more than a MiB.
struct Compiled {
    schema: Value,
    validator: Validator,
}

static COMPILED: Mutex<Option<Arc<Compiled>>> = Mutex::new(None);

fn compiled() -> Result<Arc<Compiled>, String> {
    let mut kept = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(compiled) = &*kept {
        return Ok(compiled.clone());
    }
    let schema: Value = serde_json::from_str(RESOLVED).map_err(|e| e.to_string())?;
    let validator = options().build(&schema).map_err(|e| e.to_string())?;
    Ok(kept.insert(Arc::new(Compiled { schema, validator })).clone())
}

/// Gives back the memory that documents are checked with; the next one takes it again. For who will hardly see another
/// document for months. Says whether there was any.
pub fn forget_schema() -> bool {
    COMPILED.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
}

/// How every schema is compiled: nothing is fetched, and patterns run in linear time and bounded memory.
pub(crate) fn options() -> jsonschema::ValidationOptions<'static> {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .with_pattern_options(jsonschema::PatternOptions::regex().size_limit(1 << 20).dfa_size_limit(1 << 20))
}

/// The JSON Schema for editors: the form of a release, and besides it `extends`, with which nothing else is required.
/// Directives (`$append` and the like) are what editors will mark, for they stand where something else is expected.
pub fn schema() -> Value {
    let mut schema = compiled().map(|compiled| compiled.schema.clone()).unwrap_or_default();
    if let Some(required) = schema.as_object_mut().and_then(|map| map.remove("required")) {
        schema["if"] = json!({ "not": { "required": ["extends"] } });
        schema["then"] = json!({ "required": required });
        schema["properties"]["extends"] = json!({
            "description": "Documents that this one is laid over, the first undermost.",
            "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "maxItems": 16 }]
        });
    }
    schema
}

/// What is wrong with the form of a tree.
pub(crate) struct Form {
    pub problems: Problems,
    /// The unknown keys, by their paths, if there is nothing else: without them the tree is of the form of a release. Not
    /// those that are near a key of the whole document, for what they hold may be what the rest refers to.
    pub unknown: Option<Vec<Vec<String>>>,
}

/// Every way in which a tree is not of the form of a release.
pub(crate) fn check_form(tree: &Node) -> Form {
    let mut problems = Problems::default();
    let mut unknown = Some(Vec::new());
    let compiled = match compiled() {
        Ok(compiled) => compiled,
        Err(error) => {
            let broken = Problem::new(codes::INTERNAL, "the schema of releases is broken").because(error);
            return Form { problems: broken.into(), unknown: None };
        }
    };
    let Compiled { schema, validator } = &*compiled;
    let value = tree.to_json();
    let violations = validator.iter_errors(&value).take(PROBLEMS_MAX).flat_map(|e| violation::explain(&e, schema));
    for Violation { path, code, mut expected, todo } in violations.take(PROBLEMS_MAX) {
        if expected.contains("must match the pattern") {
            expected = named_pattern(&expected).map(str::to_owned).unwrap_or(expected);
        }
        unknown = unknown.filter(|_| code == codes::UNKNOWN_KEY && !is_near_the_top(schema, &path));
        unknown.iter_mut().for_each(|paths| paths.push(path.clone()));
        let found = tree.at(path.iter().map(String::as_str));
        let place = place_of(tree, &path);
        let what = match (code, path.as_slice()) {
            (codes::UNKNOWN_KEY, _) | (codes::BAD_NAME, _) => expected.clone(),
            (_, []) => format!("the document {expected}"),
            (_, path) => format!("`{}` {expected}", plat_model::id::shorten(&path.join("."))),
        };
        let mut problem = Problem::new(code, what).fix(todo).at(place);
        if let (codes::BAD_VALUE, Some(node)) = (code, found) {
            problem = problem.because(match &node.content {
                Content::Map(_) | Content::List(_) | Content::Null => format!("it is {}", node.content.kind()),
                _ => format!("it is {}: {}", node.content.kind(), node.shown()),
            });
        }
        problems.push(problem);
    }
    Form { problems, unknown }
}

/// Whether a key is one of the whole document, misspelt.
fn is_near_the_top(schema: &Value, path: &[String]) -> bool {
    let known = schema.get("properties").and_then(Value::as_object).into_iter().flat_map(|map| map.keys());
    matches!(path, [key] if nearest(key, known.map(String::as_str)).is_some())
}

/// Where the value is; for an unknown or ill-named key, where the key is.
fn place_of(tree: &Node, path: &[String]) -> String {
    let steps = || path.iter().map(String::as_str);
    let parent = path
        .split_last()
        .and_then(|(last, rest)| Some(&tree.at(rest.iter().map(String::as_str))?.as_map()?.get(last)?.key));
    parent.map_or_else(|| tree.place_of(steps()).to_string(), ToString::to_string)
}

/// The patterns of the schema, in words.
fn named_pattern(expected: &str) -> Option<&'static str> {
    Some(match expected.split_once("the pattern ")?.1 {
        "^[0-9a-f]{64}$" => "must be a SHA-256: 64 lower-case hexadecimal digits",
        "^[0-9A-Za-z][0-9A-Za-z.+!_-]{0,127}$" => "must be one whole version, such as 1.2.3",
        "^[A-Za-z][A-Za-z0-9_-]{0,63}$" => "must be the name of a crate",
        "^[a-z0-9_]{1,32}-[A-Za-z0-9._]{1,32}-[A-Za-z0-9._]{1,32}$" => {
            "must be a kind of machine, such as `x86_64-debian-13`"
        }
        "^[a-z0-9][a-z0-9+.-]{1,127}$" => "must be the name of a Debian package, without a version",
        "^[A-Za-z0-9.+~:-]{1,128}$" => "must be the version of a Debian package",
        "^sha256:[0-9a-f]{64}$" => "must be a digest: `sha256:` and 64 lower-case hexadecimal digits",
        "^sha512-[A-Za-z0-9+/]{86}==$" => {
            "must be an integrity as package-lock.json has it: `sha512-` and 88 characters"
        }
        pattern if pattern.starts_with("^(@[A-Za-z0-9_~-]") => "must be the name of an npm package",
        "^[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?$" => "must be the name of a Python package",
        "^[0-9a-f]{40}$" => "must be a commit: 40 lower-case hexadecimal digits",
        "^0?[0-7][0-5]0$" => "must be an octal mode of at most 0750, such as 0640",
        "^[^\\n\\r]*$" => "must be one line",
        pattern if pattern.starts_with("^[a-z0-9]([") => {
            "must be 1 to 63 lower-case letters, digits and `-`, starting and ending with a letter or digit"
        }
        pattern if pattern.starts_with("^[a-z0-9][a-z0-9+") => {
            "must be the name of a Debian package, such as `nginx` or `nginx=1.22.1-9`"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;

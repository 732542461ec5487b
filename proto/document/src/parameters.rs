//! What a request says, checked against the release's schema. Values are never told: they may be secrets.

mod fill;

use crate::release::Release;
use crate::schema;
use crate::violation::{self, Violation};
use crate::yaml::PROBLEMS_MAX;
use jsonschema::Validator;
use plat_model::parameters::Parameters;
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use serde_json::{Map, Value};

/// Deepest schema.
const DEPTH_MAX: usize = 32;

/// Checks parameters, and fills in the schema's defaults.
///
/// A key that the schema's `properties` do not name is refused, unless the schema says what else may be said
/// (`additionalProperties`, `patternProperties`, `unevaluatedProperties`, `allOf`, `anyOf`, `oneOf`, `$ref`).
///
/// # Errors
/// One BAD_PARAMETERS for each violation, with where it is (`server.port`) and what was expected; BAD_SCHEMA if the
/// schema's defaults do not end.
pub fn check(release: &Release, parameters: &Parameters) -> Result<Parameters, Problems> {
    fitting(release.parameters.as_ref(), parameters)
}

/// The same, of a shared instance in one of this release.
///
/// # Errors
/// As [`check`].
pub fn check_shared(release: &Release, parameters: &Parameters) -> Result<Parameters, Problems> {
    fitting(release.shared.as_ref(), parameters)
}

fn fitting(schema: Option<&Value>, parameters: &Parameters) -> Result<Parameters, Problems> {
    let Some(schema) = schema else {
        let unknown = parameters.as_map().keys().take(PROBLEMS_MAX);
        let problems = Problems(unknown.map(|key| problem(violation::unknown_key(&[], key, &[]))).collect());
        return problems.none_or(parameters.clone());
    };
    let validator = compile(schema)?;
    let mut value = Value::Object(parameters.as_map().clone());
    fill::fill(&mut value, schema)?;
    let violations = violations(&validator, schema, &value);
    let problems = Problems(violations.into_iter().take(PROBLEMS_MAX).map(problem).collect());
    match value {
        Value::Object(map) if problems.is_empty() => Ok(Parameters::new(map)?),
        _ => Err(problems),
    }
}

/// What is wrong with a schema itself.
pub(crate) fn check_schema(schema: &Value) -> Problems {
    let mut problems = Problems::default();
    remote_references(schema, 0, &mut problems);
    if !matches!(schema.get("type"), None | Some(Value::String(_))) || schema.get("type").is_some_and(|t| t != "object")
    {
        problems.push(
            bad_schema("the schema is not one of a map")
                .because("parameters are a map of names and values")
                .fix("say `type: object`"),
        );
    }
    if !problems.is_empty() {
        return problems;
    }
    match compile(schema) {
        Err(found) => problems.extend(found),
        Ok(validator) => {
            // What is wrong with the defaults alone is the schema's fault; what is missing at the top is the request's.
            let mut defaults = Value::Object(Map::new());
            if let Err(endless) = fill::fill(&mut defaults, schema) {
                problems.push(endless);
                return problems;
            }
            for violation in violations(&validator, schema, &defaults) {
                if !violation.path.is_empty() {
                    let at = violation.path.join(".");
                    problems.push(
                        bad_schema(&format!("the default of `{at}` does not fit the schema"))
                            .because(violation.expected)
                            .fix("change the default, or what the schema allows"),
                    );
                }
            }
        }
    }
    problems
}

fn bad_schema(what: &str) -> Problem {
    Problem::new(codes::BAD_SCHEMA, what)
}

fn compile(schema: &Value) -> Result<Validator, Problems> {
    let result = jsonschema::draft202012::meta::validate(schema).map_err(|e| e.to_string());
    result.and_then(|()| schema::options().build(schema).map_err(|e| e.to_string())).map_err(|why| {
        bad_schema("`parameters` is not a JSON Schema")
            .because(plat_model::id::shorten(&why))
            .fix("write it in the words of JSON Schema 2020-12")
            .into()
    })
}

fn remote_references(schema: &Value, depth: usize, problems: &mut Problems) {
    if depth > DEPTH_MAX {
        return problems.push(bad_schema("the schema is nested too deeply"));
    }
    match schema {
        Value::Object(map) => {
            for (key, value) in map {
                let text = value.as_str().unwrap_or_default();
                if matches!(key.as_str(), "$ref" | "$dynamicRef") && value.is_string() && !text.starts_with('#') {
                    problems.push(
                        bad_schema("the schema refers to another document")
                            .because(format!(
                                "`{key}` is `{}`; nothing is fetched to check parameters",
                                plat_model::id::shorten(text)
                            ))
                            .fix("copy what it refers to under `$defs`, and refer to `#/$defs/…`"),
                    );
                }
                remote_references(value, depth + 1, problems);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| remote_references(item, depth + 1, problems)),
        _ => {}
    }
}

fn violations(validator: &Validator, schema: &Value, value: &Value) -> Vec<Violation> {
    let mut found: Vec<Violation> =
        validator.iter_errors(value).take(PROBLEMS_MAX).flat_map(|e| violation::explain(&e, schema)).collect();
    const OPEN: [&str; 8] =
        ["additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf", "$ref", "if"];
    if !OPEN.iter().any(|word| schema.get(word).is_some()) {
        let known: Vec<String> = schema
            .get("properties")
            .and_then(Value::as_object)
            .map(|properties| properties.keys().cloned().collect())
            .unwrap_or_default();
        let said = value.as_object().into_iter().flat_map(Map::keys);
        found.extend(said.filter(|key| !known.contains(key)).map(|key| violation::unknown_key(&[], key, &known)));
    }
    found
}

fn problem(violation: Violation) -> Problem {
    let at = violation.path.join(".");
    let what = match (violation.code, at.as_str()) {
        (codes::UNKNOWN_KEY, _) | (codes::BAD_NAME, _) => violation.expected,
        (_, "") => format!("the parameters {}", violation.expected),
        _ => format!("parameter `{}` {}", plat_model::id::shorten(&at), violation.expected),
    };
    Problem::new(codes::BAD_PARAMETERS, what).fix(violation.todo).at(plat_model::id::shorten(&at))
}

#[cfg(test)]
mod tests;

//! What a JSON Schema violation says to a person. Never the value itself: it may be a secret.

use crate::tree::nearest;
use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};
use plat_model::id::shorten;
use plat_model::problem::{Code, codes};
use serde_json::Value;

/// One violation: which rule was broken, where, and what was expected.
pub(crate) struct Violation {
    /// Keys and positions that lead to the value.
    pub path: Vec<String>,
    pub code: Code,
    /// e.g. `must be a number`.
    pub expected: String,
    /// What to do; may be empty.
    pub todo: String,
}

/// Words of one error. `schema` is the whole schema; the keys that exist are looked up in it.
pub(crate) fn explain(error: &ValidationError<'_>, schema: &Value) -> Vec<Violation> {
    let path: Vec<String> = error
        .instance_path()
        .as_str()
        .split('/')
        .skip(1)
        .map(|step| step.replace("~1", "/").replace("~0", "~"))
        .collect();
    let one = |code, expected: String| vec![Violation { path: path.clone(), code, expected, todo: String::new() }];
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let known = known_keys(schema, error.schema_path().as_str());
            unexpected.iter().map(|key| unknown_key(&path, key, &known)).collect()
        }
        Kind::Required { property } => {
            let key = property.as_str().unwrap_or_default();
            let mut violations = one(codes::MISSING_KEY, format!("must have the key `{key}`"));
            violations[0].todo = format!("add `{key}`");
            violations
        }
        Kind::PropertyNames { error: inner } => {
            let key = inner.instance().as_str().unwrap_or_default().to_owned();
            let mut at = path.clone();
            at.push(key.clone());
            let expected = format!("the key `{}` {}", shorten(&key), rule(inner.kind()));
            vec![Violation { path: at, code: codes::BAD_NAME, expected, todo: String::new() }]
        }
        Kind::OneOfNotValid { .. } | Kind::OneOfMultipleValid { .. } | Kind::AnyOf { .. } => {
            one(codes::BAD_VALUE, alternatives(schema, error.schema_path().as_str()))
        }
        Kind::Type { .. } if error.instance().is_number() || error.instance().is_boolean() => {
            let mut violations = one(codes::BAD_VALUE, rule(error.kind()));
            if violations[0].expected == "must be text" {
                violations[0].todo = "write it in quotes".into();
            }
            violations
        }
        kind => one(codes::BAD_VALUE, rule(kind)),
    }
}

/// The violation of saying `key` where only `known` ones exist.
pub(crate) fn unknown_key(path: &[String], key: &str, known: &[String]) -> Violation {
    let todo = match nearest(key, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "remove it".into(),
        None => format!("known are {}", known.join(", ")),
    };
    let mut path = path.to_vec();
    path.push(key.to_owned());
    Violation {
        path,
        code: codes::UNKNOWN_KEY,
        expected: format!("`{}` is not a key that exists here", shorten(key)),
        todo,
    }
}

/// The properties beside the keyword at `keyword_path`.
fn known_keys(schema: &Value, keyword_path: &str) -> Vec<String> {
    let parent = keyword_path.rsplit_once('/').map_or("", |(parent, _)| parent);
    schema
        .pointer(parent)
        .and_then(|schema| schema.get("properties"))
        .and_then(Value::as_object)
        .map(|properties| properties.keys().cloned().collect())
        .unwrap_or_default()
}

fn alternatives(schema: &Value, keyword_path: &str) -> String {
    let keys: Option<Vec<&str>> = schema
        .pointer(keyword_path)
        .and_then(Value::as_array)
        .and_then(|options| options.iter().map(|option| option.get("required")?.get(0)?.as_str()).collect());
    match keys {
        Some(keys) => format!("must have exactly one of {}", keys.join(", ")),
        None => "fits none, or more than one, of the forms it may have".into(),
    }
}

fn rule(kind: &Kind) -> String {
    match kind {
        Kind::Type { kind: TypeKind::Single(kind) } => format!("must be {}", type_words(&kind.to_string())),
        Kind::Type { kind: TypeKind::Multiple(set) } => {
            let words: Vec<_> = set.iter().map(|kind| type_words(&kind.to_string()).to_owned()).collect();
            format!("must be {}", words.join(" or "))
        }
        Kind::Constant { expected_value } => format!("must be {expected_value}"),
        Kind::Enum { options } => match options.as_array() {
            Some(options) => {
                format!("must be one of {}", options.iter().map(Value::to_string).collect::<Vec<_>>().join(", "))
            }
            None => "must be one of those that are listed".into(),
        },
        Kind::Minimum { limit } => format!("must be at least {limit}"),
        Kind::Maximum { limit } => format!("must be at most {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}"),
        Kind::MinLength { limit } => format!("must have at least {limit} characters"),
        Kind::MaxLength { limit } => format!("must have at most {limit} characters"),
        Kind::MinItems { limit } => format!("must have at least {limit} items"),
        Kind::MaxItems { limit } => format!("must have at most {limit} items"),
        Kind::MinProperties { limit } => format!("must have at least {limit} keys"),
        Kind::MaxProperties { limit } => format!("must have at most {limit} keys"),
        Kind::AdditionalItems { limit } => format!("must have at most {limit} items"),
        Kind::Pattern { pattern } => format!("must match the pattern {pattern}"),
        Kind::Format { format } => format!("must be of the format {format}"),
        Kind::UniqueItems => "must not hold the same item twice".into(),
        Kind::Contains => "lacks an item that it must hold".into(),
        Kind::FalseSchema => "may not be said".into(),
        Kind::Not { .. } => "is one of those that are excluded".into(),
        other => format!("breaks the rule `{}` of the schema", other.keyword()),
    }
}

fn type_words(name: &str) -> &str {
    match name {
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a map",
        other => other,
    }
}

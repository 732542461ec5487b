//! What a request says to its instance, and what an instance publishes to whoever requested it.

use crate::problem::{Problem, codes};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

/// Largest set of parameters, as JSON, in bytes.
pub const PARAMETERS_MAX: usize = 256 * 1024;
/// Deepest nesting of parameters.
pub const PARAMETERS_DEPTH: usize = 32;

/// A JSON object: request parameters, or connection parameters. Its values may be secrets, so its `Debug` shows none.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parameters(Map<String, Value>);

impl Parameters {
    /// # Errors
    /// [`codes::TOO_LARGE`] past [`PARAMETERS_MAX`] bytes or [`PARAMETERS_DEPTH`] levels.
    pub fn new(map: Map<String, Value>) -> Result<Self, Problem> {
        fn depth(value: &Value) -> usize {
            match value {
                Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
                Value::Object(items) => 1 + items.values().map(depth).max().unwrap_or(0),
                _ => 0,
            }
        }
        let value = Value::Object(map);
        let (bytes, levels) = (value.to_string().len(), depth(&value));
        if bytes > PARAMETERS_MAX || levels > PARAMETERS_DEPTH {
            return Err(Problem::new(codes::TOO_LARGE, "the parameters are too large")
                .because(format!(
                    "{bytes} bytes in {levels} levels; {PARAMETERS_MAX} bytes and {PARAMETERS_DEPTH} levels are allowed"
                ))
                .fix("pass large data by other means, for example a URL the instance fetches"));
        }
        match value {
            Value::Object(map) => Ok(Self(map)),
            _ => Err(Problem::new(codes::INTERNAL, "an object stopped being one")),
        }
    }

    /// Reads a JSON object.
    ///
    /// # Errors
    /// [`codes::BAD_VALUE`] if it is not one, [`codes::TOO_LARGE`] as for [`Parameters::new`].
    pub fn parse_json(text: &str) -> Result<Self, Problem> {
        if text.len() > 2 * PARAMETERS_MAX {
            return Err(
                Problem::new(codes::TOO_LARGE, "the parameters are too large").because(format!("{} bytes", text.len()))
            );
        }
        if text.is_empty() {
            return Ok(Self::default());
        }
        let map = serde_json::from_str(text).map_err(|e| {
            Problem::new(codes::BAD_VALUE, "the parameters are not a JSON object")
                .because(e)
                .fix("write them as {\"key\": value, …}")
        })?;
        Self::new(map)
    }

    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    pub fn to_json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// These, with those of `over` in place of what has the same name.
    ///
    /// # Errors
    /// [`codes::TOO_LARGE`] as for [`Parameters::new`].
    pub fn with(&self, over: &Self) -> Result<Self, Problem> {
        let mut map = self.0.clone();
        map.extend(over.0.clone());
        Self::new(map)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parameters({} keys)", self.0.len())
    }
}

/// A text that no log, error or debug print shows. It can be written only on purpose, through [`Secret::reveal`].
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_bounded_and_do_not_show_in_debug() {
        let parameters = Parameters::parse_json(r#"{"password": "hunter2"}"#).unwrap();
        assert!(!format!("{parameters:?}").contains("hunter2"));
        assert!(!format!("{:?}", Secret::new("hunter2")).contains("hunter2"));
        let big = format!(r#"{{"a": "{}"}}"#, "x".repeat(PARAMETERS_MAX));
        assert_eq!(Parameters::parse_json(&big).unwrap_err().code, codes::TOO_LARGE);
        let deep = format!(r#"{{"a": {}{}}}"#, "[".repeat(40), "]".repeat(40));
        assert_eq!(Parameters::parse_json(&deep).unwrap_err().code, codes::TOO_LARGE);
        assert_eq!(Parameters::parse_json("[1]").unwrap_err().code, codes::BAD_VALUE);
    }
}

//! `--param KEY=VALUE` and `--params FILE`, as the JSON object that a request carries.

use plat_model::parameters::Parameters;
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use serde_json::{Map, Value};

/// Reads `KEY=VALUE` pairs. A value that is JSON is that; anything else is text. `a.b=1` sets `b` within `a`.
///
/// # Errors
/// Every pair that cannot be understood, and keys that are set twice.
pub fn from_pairs(pairs: &[String]) -> Result<Parameters, Problems> {
    let mut problems = Problems::default();
    let mut map = Map::new();
    for pair in pairs {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            // The text is not repeated: it may hold a secret.
            problems.push(
                Problem::new(codes::USAGE, "a --param is not of the form KEY=VALUE").fix("write --param port=5432"),
            );
            continue;
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        if let Err(problem) = set(&mut map, key, value) {
            problems.push(problem);
        }
    }
    let parameters = problems.keep(Parameters::new(map));
    problems.none_or(parameters.unwrap_or_default())
}

fn set(map: &mut Map<String, Value>, key: &str, value: Value) -> Result<(), Problem> {
    let twice = || Problem::new(codes::USAGE, format!("--param sets `{key}` twice")).fix("say each parameter once");
    match key.split_once('.') {
        Some((outer, inner)) => match map.entry(outer).or_insert_with(|| Value::Object(Map::new())) {
            Value::Object(nested) => set(nested, inner, value),
            _ => Err(twice()),
        },
        None if map.contains_key(key) => Err(twice()),
        None => {
            map.insert(key.to_owned(), value);
            Ok(())
        }
    }
}

/// Reads a whole file of parameters, YAML or JSON.
///
/// # Errors
/// [`codes::BAD_SYNTAX`] if it is neither or not a map.
pub fn from_text(text: &str, file: &str) -> Result<Parameters, Problem> {
    let wrong = |e: &dyn std::fmt::Display| {
        Problem::new(codes::BAD_SYNTAX, "the parameters cannot be read")
            .because(e)
            .at(file)
            .fix("write a YAML or JSON map")
    };
    if text.len() > 2 * plat_model::parameters::PARAMETERS_MAX {
        return Err(Problem::new(codes::TOO_LARGE, "the parameter file is too large")
            .because(format!("{} bytes", text.len()))
            .at(file));
    }
    match serde_saphyr::from_str::<Value>(text).map_err(|e| wrong(&e))? {
        Value::Object(map) => Parameters::new(map),
        Value::Null => Ok(Parameters::default()),
        _ => Err(wrong(&"it is not a map")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_json_where_they_can_be() {
        let pairs = ["port=5432", "name=shop", "on=true", "tls.port=1", "tls.name=x", "text=\"5\""].map(String::from);
        let got = from_pairs(&pairs).unwrap();
        assert_eq!(
            got.to_json(),
            json!({"port": 5432, "name": "shop", "on": true, "tls": {"port": 1, "name": "x"}, "text": "5"}).to_string()
        );
    }

    #[test]
    fn every_wrong_pair_is_told() {
        let problems = from_pairs(&["novalue", "a=1", "a=2", "=x"].map(String::from)).unwrap_err();
        assert_eq!(problems.0.len(), 3);
        assert!(!problems.to_string().contains("novalue"), "what was typed may be a secret");
    }

    #[test]
    fn a_file_is_yaml_or_json() {
        assert_eq!(from_text("port: 1\n", "p").unwrap(), from_text("{\"port\": 1}", "p").unwrap());
        assert_eq!(from_text("- 1\n", "p").unwrap_err().code, codes::BAD_SYNTAX);
    }
}

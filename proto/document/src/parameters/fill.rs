//! The defaults of a schema, written into what a request says.
//!
//! Who publishes a release writes its schema, and eight defaults that each refer to the whole of it are 8¹⁶ maps after
//! sixteen levels. So the work is counted, and what leads back to itself without the request's doing is refused.

use super::bad_schema;
use plat_model::parameters::PARAMETERS_MAX;
use plat_model::{Problem, Result};
use serde_json::Value;

/// Longest way down through properties and `$ref`s; parameters themselves are at most 32 levels deep.
const DEPTH_MAX: usize = 64;
/// Most properties that are looked at. Parameters of [`PARAMETERS_MAX`] bytes have fewer.
const STEPS_MAX: usize = 100_000;
/// Most defaults that are written.
const DEFAULTS_MAX: usize = 10_000;

/// Writes the default of each property that is not said, within maps that are there.
///
/// # Errors
/// BAD_SCHEMA if that leads back to itself or takes too much.
pub(super) fn fill(value: &mut Value, schema: &Value) -> Result<()> {
    Filling { root: schema, steps: STEPS_MAX, defaults: DEFAULTS_MAX, bytes: PARAMETERS_MAX }.fill(
        value,
        schema,
        &mut Vec::new(),
        0,
    )
}

/// What is left of each budget.
struct Filling<'a> {
    root: &'a Value,
    steps: usize,
    defaults: usize,
    bytes: usize,
}

impl<'a> Filling<'a> {
    /// `entered`: the `$ref`s followed since the last value that was there already.
    fn fill(&mut self, value: &mut Value, schema: &'a Value, entered: &mut Vec<&'a str>, depth: usize) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(endless("they are nested too deeply"));
        }
        spend(&mut self.steps, 1, "there are too many properties")?;
        let target = schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
        if let Some((target, schema)) = target.and_then(|target| Some((target, self.root.pointer(target)?))) {
            if entered.contains(&target) {
                return Err(endless(format!("`#{}` leads back to itself", plat_model::id::shorten(target))));
            }
            entered.push(target);
            self.fill(value, schema, entered, depth + 1)?;
            entered.pop();
        }
        let (Some(map), Some(properties)) =
            (value.as_object_mut(), schema.get("properties").and_then(Value::as_object))
        else {
            return Ok(());
        };
        for (key, schema) in properties {
            if let Some(said) = map.get_mut(key) {
                self.fill(said, schema, &mut Vec::new(), depth + 1)?;
            } else if let Some(default) = schema.get("default") {
                spend(&mut self.defaults, 1, "there are too many defaults")?;
                spend(&mut self.bytes, key.len() + default.to_string().len(), "the defaults are too large")?;
                self.fill(map.entry(key.as_str()).or_insert(default.clone()), schema, entered, depth + 1)?;
            }
        }
        Ok(())
    }
}

fn spend(budget: &mut usize, amount: usize, why: &str) -> Result<()> {
    *budget = budget.checked_sub(amount).ok_or_else(|| endless(why))?;
    Ok(())
}

fn endless(why: impl std::fmt::Display) -> Problem {
    bad_schema("the schema's defaults cannot be written out")
        .because(why)
        .fix("leave out the `default` of what refers to a schema that it is part of")
}

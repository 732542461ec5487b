//! Whether parameters fit a release.

use plat_document::Release;
use plat_model::parameters::Parameters;
use plat_model::problem::{Problem, Problems, codes};
use serde_json::Value;

/// Refuses what the release's schema does not name, and what it requires and is not there.
pub(super) fn check(release: &Release, parameters: &Parameters) -> Result<Parameters, Problems> {
    let bad = |what: String| Problem::new(codes::BAD_PARAMETERS, what);
    let properties = release.parameters.as_ref().and_then(|schema| schema.get("properties")).and_then(Value::as_object);
    let required = release.parameters.as_ref().and_then(|schema| schema.get("required")).and_then(Value::as_array);
    let mut problems = Problems::default();
    for key in parameters.as_map().keys().filter(|key| properties.is_none_or(|known| !known.contains_key(*key))) {
        problems.push(bad(format!("parameter `{}` is not known", plat_model::id::shorten(key))));
    }
    for key in required.into_iter().flatten().filter_map(Value::as_str) {
        if !parameters.as_map().contains_key(key) {
            problems.push(bad(format!("parameter `{key}` is missing")));
        }
    }
    problems.none_or(parameters.clone())
}

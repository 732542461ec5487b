//! Templates: minijinja, strict about undefined variables, bounded in time and memory whoever wrote them.
//!
//! What could make a short template large is left out of the language: `set`, `with`, `macro`, `include`, `filter`
//! blocks and `*` (numbers are multiplied by the filter `times`). What is left is bounded by fuel and by the size of
//! what is written. No message holds a value: it may be a secret.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, UndefinedBehavior, Value};
use plat_model::Problem;
use plat_model::problem::codes;
use std::collections::BTreeSet;

mod context;
mod filters;
mod language;
mod prepared;
mod render;

pub use context::{Context, InstanceFacts, Names, NodeFacts, PartitionFacts, ReleaseFacts};
pub use prepared::Prepared;
pub use render::{render, render_build, render_list, render_map};

/// Largest template, in bytes.
pub const TEMPLATE_MAX: usize = 256 * 1024;
/// Largest text that a template may become, in bytes.
pub const OUTPUT_MAX: usize = 1024 * 1024;
/// Instructions that one rendering may take.
const FUEL: u64 = 50_000;

/// An environment that knows nothing but what is harmless.
fn environment() -> Environment<'static> {
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(64);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    if let Ok(syntax) =
        SyntaxConfig::builder().keep_trailing_newline(true).trim_blocks(true).lstrip_blocks(true).build()
    {
        environment.set_syntax(syntax);
    }
    filters::add(&mut environment);
    environment
}

/// The variables a template uses, dotted: `parameters.port`.
///
/// # Errors
/// BAD_TEMPLATE with the line within the template, counting from 1.
pub fn variables(text: &str) -> Result<BTreeSet<String>, (usize, Problem)> {
    if text.len() > TEMPLATE_MAX {
        let problem = Problem::new(codes::TOO_LARGE, "a template is too large")
            .because(format!("{} bytes, {TEMPLATE_MAX} are allowed", text.len()));
        return Err((1, problem));
    }
    language::check(text)?;
    let environment = environment();
    let template = environment.template_from_str(text).map_err(|error| {
        (error.line().unwrap_or(1), bad(&error).fix("see docs/releases.md for what templates may hold"))
    })?;
    let known = filters::FUNCTIONS;
    Ok(template.undeclared_variables(true).into_iter().filter(|name| !known.contains(&name.as_str())).collect())
}

/// The line, counting from 1, on which a variable is first used.
pub fn line_of(text: &str, variable: &str) -> usize {
    let used = text.match_indices(variable).map(|(start, _)| start).find(|start| {
        let before = &text[..*start];
        let opened = before.rfind("{{").max(before.rfind("{%"));
        opened > before.rfind("}}").max(before.rfind("%}"))
    });
    used.map_or(1, |start| text[..start].matches('\n').count() + 1)
}

/// An error of minijinja without its details, except where those come from the template alone.
fn bad(error: &minijinja::Error) -> Problem {
    let code = match error.kind() {
        ErrorKind::UndefinedError => codes::UNDEFINED_VARIABLE,
        _ => codes::BAD_TEMPLATE,
    };
    let why = match error.kind() {
        ErrorKind::SyntaxError | ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction => {
            format!("{}: {}", error.kind(), error.detail().unwrap_or_default())
        }
        ErrorKind::OutOfFuel => format!("it takes more than {FUEL} steps"),
        ErrorKind::WriteFailure => format!("it becomes larger than {OUTPUT_MAX} bytes"),
        kind => kind.to_string(),
    };
    let what = match error.line() {
        Some(line) => format!("a template fails in its line {line}"),
        None => "a template fails".to_owned(),
    };
    Problem::new(code, what).because(why)
}

/// A text that minijinja may keep.
fn text(value: &str) -> Value {
    Value::from(value.to_owned())
}

#[cfg(test)]
mod tests;

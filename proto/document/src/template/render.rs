//! Templates to text.

use super::{Context, OUTPUT_MAX, bad, environment, language, text};
use minijinja::Value;
use plat_model::Problem;
use plat_model::problem::codes;
use std::collections::BTreeMap;
use std::io;

/// Renders one template.
///
/// # Errors
/// UNDEFINED_VARIABLE or BAD_TEMPLATE, with the line within the template. No value is in the message.
pub fn render(template: &str, context: &Context) -> Result<String, Problem> {
    with(template, &context.to_value())
}

/// Renders each of a list, such as the arguments of a command. None becomes two, and none disappears.
///
/// # Errors
/// As [`render`], and which one it was; BAD_VALUE for a NUL, which no argument can hold.
pub fn render_list(templates: &[String], context: &Context) -> Result<Vec<String>, Problem> {
    let value = context.to_value();
    templates
        .iter()
        .enumerate()
        .map(|(n, template)| no_nul(with(template, &value)).map_err(|p| p.at(format!("[{n}]"))))
        .collect()
}

/// Renders each value of a map, such as an environment.
///
/// # Errors
/// As [`render_list`].
pub fn render_map(
    templates: &BTreeMap<String, String>,
    context: &Context,
) -> Result<BTreeMap<String, String>, Problem> {
    let value = context.to_value();
    templates
        .iter()
        .map(|(key, template)| {
            no_nul(with(template, &value)).map(|text| (key.clone(), text)).map_err(|p| p.at(key.clone()))
        })
        .collect()
}

/// Renders the arguments of a build command, for which only `release.directory` exists.
///
/// # Errors
/// As [`render_list`].
pub fn render_build(templates: &[String], release_directory: &str) -> Result<Vec<String>, Problem> {
    let release = Value::from_pairs([("directory", text(release_directory))]);
    let value = Value::from_pairs([("release", release)]);
    templates
        .iter()
        .enumerate()
        .map(|(n, template)| no_nul(with(template, &value)).map_err(|p| p.at(format!("[{n}]"))))
        .collect()
}

fn no_nul(rendered: Result<String, Problem>) -> Result<String, Problem> {
    let rendered = rendered?;
    if rendered.contains('\0') {
        return Err(Problem::new(codes::BAD_VALUE, "an argument or variable holds a NUL character"));
    }
    Ok(rendered)
}

pub(super) fn with(template: &str, value: &Value) -> Result<String, Problem> {
    if !template.contains("{{") && !template.contains("{%") && !template.contains("{#") {
        return Ok(template.to_owned());
    }
    if template.len() > super::TEMPLATE_MAX {
        return Err(Problem::new(codes::TOO_LARGE, "a template is too large"));
    }
    language::check(template).map_err(|(line, problem)| problem.at(format!("line {line}")))?;
    let environment = environment();
    let template = environment.template_from_str(template).map_err(|e| bad(&e))?;
    let mut out = Bounded(Vec::new());
    template.render_captured_to(value.clone(), &mut out).map_err(|e| bad(&e))?;
    String::from_utf8(out.0).map_err(|_| Problem::new(codes::BAD_TEMPLATE, "a template made what is not text"))
}

/// Refuses to grow past the limit.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

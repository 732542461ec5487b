//! The filters, tests and functions that templates have: those of minijinja that cannot make something large, and
//! bounded versions of `join` and `replace`.

use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, Value, filters, functions, tests};

/// Largest text that a filter may make, in bytes.
const TEXT_MAX: usize = 256 * 1024;

/// Names of the functions.
pub(super) const FUNCTIONS: &[&str] = &["range"];

pub(super) fn add(environment: &mut Environment<'_>) {
    environment.add_function("range", functions::range);
    environment.add_filter("abs", filters::abs);
    environment.add_filter("bool", filters::bool);
    environment.add_filter("default", filters::default);
    environment.add_filter("dictsort", filters::dictsort);
    environment.add_filter("escape", filters::escape);
    environment.add_filter("first", filters::first);
    environment.add_filter("float", filters::float);
    environment.add_filter("int", filters::int);
    environment.add_filter("items", filters::items);
    environment.add_filter("join", join);
    environment.add_filter("last", filters::last);
    environment.add_filter("length", filters::length);
    environment.add_filter("lower", filters::lower);
    environment.add_filter("replace", replace);
    environment.add_filter("round", filters::round);
    environment.add_filter("sort", filters::sort);
    environment.add_filter("string", filters::string);
    environment.add_filter("times", times);
    environment.add_filter("tojson", filters::tojson);
    environment.add_filter("trim", filters::trim);
    environment.add_filter("unique", filters::unique);
    environment.add_filter("upper", filters::upper);
    environment.add_test("defined", tests::is_defined);
    environment.add_test("undefined", tests::is_undefined);
    environment.add_test("none", tests::is_none);
    environment.add_test("number", tests::is_number);
    environment.add_test("string", tests::is_string);
    environment.add_test("mapping", tests::is_mapping);
    environment.add_test("sequence", tests::is_sequence);
}

fn too_large() -> Error {
    Error::new(ErrorKind::InvalidOperation, "the text would be too large")
}

fn join(items: &Value, separator: Option<&str>) -> Result<String, Error> {
    let separator = separator.unwrap_or_default();
    let mut out = String::new();
    for (n, item) in items.try_iter()?.enumerate() {
        if n > 0 {
            out.push_str(separator);
        }
        match item.as_str() {
            Some(text) => out.push_str(text),
            None => out.push_str(&item.to_string()),
        }
        if out.len() > TEXT_MAX {
            return Err(too_large());
        }
    }
    Ok(out)
}

fn replace(text: &str, from: &str, to: &str) -> Result<String, Error> {
    let grown = text.matches(from).count().saturating_mul(to.len()).saturating_add(text.len());
    if grown > TEXT_MAX { Err(too_large()) } else { Ok(text.replace(from, to)) }
}

/// Multiplies numbers, and nothing else.
fn times(a: &Value, b: &Value) -> Result<Value, Error> {
    let wrong = || Error::new(ErrorKind::InvalidOperation, "`times` multiplies numbers that fit 64 bits");
    if a.kind() != ValueKind::Number || b.kind() != ValueKind::Number {
        return Err(wrong());
    }
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.checked_mul(b).map(Value::from).ok_or_else(wrong),
        _ => {
            let (a, b) = (f64::try_from(a.clone())?, f64::try_from(b.clone())?);
            Ok(Value::from(a * b))
        }
    }
}

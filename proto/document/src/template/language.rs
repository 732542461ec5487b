//! Which part of minijinja's language a template may use.

use plat_model::Problem;
use plat_model::problem::codes;

/// Statements whose results can be used more than once, so that a text could double itself with every line.
const LEFT_OUT: &[&str] =
    &["set", "with", "macro", "call", "filter", "include", "import", "from", "extends", "block", "do"];

/// # Errors
/// BAD_TEMPLATE with the line of the first use of what is left out.
pub(super) fn check(text: &str) -> Result<(), (usize, Problem)> {
    let mut rest = text;
    while let Some(start) = rest.find("{{").into_iter().chain(rest.find("{%")).chain(rest.find("{#")).min() {
        let kind = rest.as_bytes()[start + 1];
        let body = &rest[start + 2..];
        let line = || text[..text.len() - body.len()].matches('\n').count() + 1;
        let length = match kind {
            b'#' => body.find("#}").map_or(body.len(), |end| end + 2),
            _ => tag(body, kind == b'%').map_err(|why| {
                let problem = Problem::new(codes::BAD_TEMPLATE, "a template uses what templates leave out")
                    .because(why)
                    .fix("multiply by the filter `times`; repeat with `for`; see docs/releases.md");
                (line(), problem)
            })?,
        };
        if kind == b'%' && matches!(body[..length].trim_matches(['-', '+', '%', '}', ' ']), "raw") {
            // What is inside is text, up to its end.
            let inside = &body[length..];
            rest = inside.find("endraw").map_or("", |end| &inside[end + "endraw".len()..]);
            continue;
        }
        rest = &body[length..];
    }
    Ok(())
}

/// How long one tag is with its end. Quoted texts in it are skipped.
fn tag(body: &str, is_statement: bool) -> Result<usize, String> {
    if is_statement {
        let word: String =
            body.trim_start_matches(['-', '+']).trim_start().chars().take_while(|c| c.is_alphabetic()).collect();
        if LEFT_OUT.contains(&word.as_str()) {
            return Err(format!("`{word}` could make a short template large"));
        }
    }
    let end: &[u8] = if is_statement { b"%}" } else { b"}}" };
    let bytes = body.as_bytes();
    let (mut n, mut braces) = (0, 0_usize);
    while n < bytes.len() {
        match bytes[n] {
            quote @ (b'"' | b'\'') => {
                n += 1;
                while n < bytes.len() && bytes[n] != quote {
                    n += if bytes[n] == b'\\' { 2 } else { 1 };
                }
            }
            b'*' => return Err("`*` could make a short template large".into()),
            // `{{ {"a": {}}}}`: the braces of a map are closed before the tag is.
            b'{' => braces += 1,
            b'}' if braces > 0 => braces -= 1,
            _ if bytes[n..].starts_with(end) => return Ok(n + 2),
            _ => {}
        }
        n += 1;
    }
    Ok(body.len())
}

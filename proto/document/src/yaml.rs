//! YAML text to a [`Node`] tree. Anchors, aliases and tags are refused: they make a small text large, or a value of
//! one type another, and `extends` does their work in the open.

use crate::tree::{Content, Entry, Node, Place};
use granit_parser::{Event, Parser, ScalarStyle, Span};
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use serde_json::Number;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Deepest nesting of maps and lists.
pub const DEPTH_MAX: usize = 32;
/// Most problems told of one document.
pub const PROBLEMS_MAX: usize = 100;

struct Reader<'a> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    file: Arc<str>,
    problems: Problems,
}

/// Reads one document. An empty text is an empty map.
///
/// # Errors
/// BAD_SYNTAX for what is not YAML, DUPLICATE_KEY for each key said twice in one map, TOO_LARGE past `max` bytes or
/// [`DEPTH_MAX`] levels.
pub fn read(text: &str, file: &str, max: usize) -> Result<Node, Problems> {
    if text.len() > max {
        return Err(Problem::new(codes::TOO_LARGE, format!("`{file}` is too large"))
            .because(format!("{} bytes, {max} are allowed", text.len()))
            .at(file)
            .into());
    }
    let mut reader =
        Reader { parser: Parser::new_from_str(text), file: Arc::from(file), problems: Problems::default() };
    match reader.document() {
        Ok(node) => reader.problems.none_or(node),
        Err(problem) => {
            reader.problems.push(problem);
            Err(reader.problems)
        }
    }
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        loop {
            match self.parser.next() {
                Some(Ok((
                    Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd | Event::Comment(..),
                    _,
                ))) => {}
                Some(Ok(next)) => return Ok(next),
                Some(Err(error)) => {
                    let place = self.place(error.marker());
                    return Err(syntax(error.info(), &place).fix("check indentation, quotes and `:` there"));
                }
                None => return Ok((Event::StreamEnd, Span::default())),
            }
        }
    }

    fn place(&self, marker: &granit_parser::Marker) -> Place {
        Place { file: self.file.clone(), line: marker.line(), column: marker.col() + 1 }
    }

    fn document(&mut self) -> Result<Node, Problem> {
        let (event, span) = self.next()?;
        if matches!(event, Event::StreamEnd) {
            let place = Place { file: self.file.clone(), line: 1, column: 1 };
            return Ok(Node::new(Content::Map(BTreeMap::new()), place));
        }
        let node = self.node(event, span, 0)?;
        match self.next()? {
            (Event::StreamEnd, _) => Ok(node),
            (_, span) => Err(syntax("a second document begins here", &self.place(&span.start))
                .fix("keep one document in a file: remove the `---` between them")),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Problem> {
        let place = self.place(&span.start);
        if depth > DEPTH_MAX {
            return Err(Problem::new(codes::TOO_LARGE, "the document is nested too deeply")
                .because(format!("{DEPTH_MAX} levels of maps and lists are allowed"))
                .at(place.to_string()));
        }
        match event {
            Event::Scalar(_, _, anchor, ref tag)
            | Event::SequenceStart(_, anchor, ref tag)
            | Event::MappingStart(_, anchor, ref tag)
                if anchor != 0 || tag.is_some() =>
            {
                Err(syntax("anchors (`&name`) and tags (`!name`) are not used in these documents", &place)
                    .fix("write the value out, or move what is shared into a document and extend that"))
            }
            Event::Scalar(text, style, ..) => Ok(Node::new(scalar(&text, style), place)),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => return Ok(Node::new(Content::List(items), place)),
                        (event, span) => items.push(self.node(event, span, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => self.map(place, depth),
            Event::Alias(_) => Err(syntax("aliases (`*name`) are not used in these documents", &place)
                .fix("write the value out, or move what is shared into a document and extend that")),
            _ => Err(syntax("the document ends too early", &place)),
        }
    }

    fn map(&mut self, place: Place, depth: usize) -> Result<Node, Problem> {
        let mut map: BTreeMap<String, Entry> = BTreeMap::new();
        loop {
            let (event, span) = self.next()?;
            let key_place = self.place(&span.start);
            let key = match event {
                Event::MappingEnd => return Ok(Node::new(Content::Map(map), place)),
                Event::Scalar(text, _, 0, None) => text.into_owned(),
                _ => return Err(syntax("a key is plain text", &key_place)),
            };
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            match map.get(&key) {
                Some(first) => {
                    if self.problems.0.len() < PROBLEMS_MAX {
                        self.problems.push(
                            Problem::new(
                                codes::DUPLICATE_KEY,
                                format!("`{}` is said twice", plat_model::id::shorten(&key)),
                            )
                            .because(format!("it was said first at {}", first.key))
                            .fix("keep one of the two")
                            .at(key_place.to_string()),
                        );
                    }
                }
                None => {
                    map.insert(key, Entry { key: key_place, node });
                }
            }
        }
    }
}

fn syntax(why: impl std::fmt::Display, place: &Place) -> Problem {
    Problem::new(codes::BAD_SYNTAX, "the document cannot be read as YAML").because(why).at(place.to_string())
}

/// YAML 1.2 core schema: only a plain scalar can be anything but text.
fn scalar(text: &str, style: ScalarStyle) -> Content {
    if style != ScalarStyle::Plain {
        return Content::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Content::Null,
        "true" | "True" | "TRUE" => Content::Bool(true),
        "false" | "False" | "FALSE" => Content::Bool(false),
        _ => number(text).map_or_else(|| Content::Text(text.to_owned()), Content::Number),
    }
}

fn number(text: &str) -> Option<Number> {
    // A number with a leading zero is text: `0640` and `007` mean something else to a person than to a parser.
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit() {
        return None;
    }
    let plain = text.strip_prefix('+').unwrap_or(text);
    if let Ok(unsigned) = plain.parse::<u64>() {
        return Some(unsigned.into());
    }
    if let Ok(signed) = plain.parse::<i64>() {
        return Some(signed.into());
    }
    let float_like = digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if float_like { plain.parse::<f64>().ok().and_then(Number::from_f64) } else { None }
}

#[cfg(test)]
mod tests;

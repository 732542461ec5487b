//! A document as a tree in which every value knows where it was written, and which values it overruled.

use serde_json::{Map, Number, Value};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A place in a file: line and column count from 1. Line 0 stands for a document that has no lines (made by a program).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<str>,
    pub line: usize,
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

/// A value, where it was written, and what it replaced.
#[derive(Debug, Clone)]
pub struct Node {
    pub content: Content,
    /// Where it begins; the text of a block (`|`, `>`) on the line after its sign.
    pub place: Place,
    /// What stood here before, the most recent first.
    pub overruled: Vec<Overruled>,
}

/// A value that a later document replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overruled {
    pub place: Place,
    /// The value as JSON, shortened.
    pub value: String,
}

#[derive(Debug, Clone)]
pub enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(BTreeMap<String, Entry>),
}

/// One key of a map: where the key was written, and its value.
#[derive(Debug, Clone)]
pub struct Entry {
    pub key: Place,
    pub node: Node,
}

impl Content {
    /// The kind in words, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing (null)",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl Node {
    pub fn new(content: Content, place: Place) -> Self {
        Self { content, place, overruled: Vec::new() }
    }

    /// A tree of a JSON value that has no lines; every place is the name alone.
    pub fn from_json(value: &Value, name: &str) -> Self {
        let place = Place { file: name.into(), line: 0, column: 0 };
        Self::of(value, &place)
    }

    fn of(value: &Value, place: &Place) -> Self {
        let content = match value {
            Value::Null => Content::Null,
            Value::Bool(b) => Content::Bool(*b),
            Value::Number(n) => Content::Number(n.clone()),
            Value::String(s) => Content::Text(s.clone()),
            Value::Array(items) => Content::List(items.iter().map(|item| Self::of(item, place)).collect()),
            Value::Object(map) => Content::Map(
                map.iter()
                    .map(|(key, value)| (key.clone(), Entry { key: place.clone(), node: Self::of(value, place) }))
                    .collect(),
            ),
        };
        Self::new(content, place.clone())
    }

    /// The bare value, maps in the order of their keys.
    pub fn to_json(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(b) => Value::Bool(*b),
            Content::Number(n) => Value::Number(n.clone()),
            Content::Text(s) => Value::String(s.clone()),
            Content::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Content::Map(map) => {
                Value::Object(map.iter().map(|(key, entry)| (key.clone(), entry.node.to_json())).collect::<Map<_, _>>())
            }
        }
    }

    pub fn as_map(&self) -> Option<&BTreeMap<String, Entry>> {
        match &self.content {
            Content::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The value at the end of `steps` (keys of maps, positions in lists).
    pub fn at<'a>(&self, steps: impl IntoIterator<Item = &'a str>) -> Option<&Self> {
        steps.into_iter().try_fold(self, |node, step| match &node.content {
            Content::Map(map) => map.get(step).map(|entry| &entry.node),
            Content::List(items) => items.get(step.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// Where what `steps` leads to was written; if it is not there, where the nearest thing around it was.
    pub fn place_of<'a>(&self, steps: impl IntoIterator<Item = &'a str>) -> Place {
        let mut node = self;
        for step in steps {
            match node.at([step]) {
                Some(next) => node = next,
                None => break,
            }
        }
        node.place.clone()
    }

    /// The value as JSON in at most 60 characters.
    pub fn shown(&self) -> String {
        let json = self.to_json().to_string();
        let mut shown: String = json.chars().take(60).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        if json.chars().nth(60).is_some() {
            shown.push('…');
        }
        shown
    }
}

/// The one of `known` that `wrong` was most likely meant to be: at most a third of its letters differ.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong: Vec<char> = wrong.chars().take(64).collect();
    known
        .into_iter()
        .map(|candidate| (distance(&wrong, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.chars().count().max(wrong.len()).div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Edit distance (Levenshtein).
fn distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

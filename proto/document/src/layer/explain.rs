//! Who set a value, and who was overruled.

use super::Layered;
use crate::tree::{Content, Node, Overruled, Place, nearest};
use plat_model::Problem;
use plat_model::id::shorten;
use plat_model::problem::codes;
use std::fmt;

/// The story of one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    pub path: String,
    /// As JSON, shortened; `None` if it was removed.
    pub value: Option<String>,
    /// Where it was set, or removed.
    pub set_by: Place,
    /// The most recent first.
    pub overruled: Vec<Overruled>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{} = {value}\n  set at {}", self.path, self.set_by)?,
            None => write!(f, "{} is not there\n  removed at {}", self.path, self.set_by)?,
        }
        for Overruled { place, value } in &self.overruled {
            write!(f, "\n  overruled {place}: {value}")?;
        }
        Ok(())
    }
}

pub(super) fn explain(layered: &Layered, path: &str) -> Result<Explanation, Problem> {
    let (mut node, mut rest) = (&layered.tree, path);
    let mut walked: Vec<String> = Vec::new();
    while !rest.is_empty() {
        let Some((step, next, after)) = step(node, rest) else {
            return removed(layered, path, &walked, rest).ok_or_else(|| unknown(node, path, rest));
        };
        walked.push(step);
        (node, rest) = (next, after);
    }
    Ok(Explanation {
        path: path.to_owned(),
        value: Some(node.shown()),
        set_by: node.place.clone(),
        overruled: node.overruled.clone(),
    })
}

/// The longest key of `node` that `rest` begins with (a key may hold dots: `etc/app.conf`), what it leads to, and
/// what is left.
fn step<'a, 'b>(node: &'a Node, rest: &'b str) -> Option<(String, &'a Node, &'b str)> {
    let keys: Vec<String> = match &node.content {
        Content::Map(map) => map.keys().cloned().collect(),
        Content::List(items) => (0..items.len()).map(|n| n.to_string()).collect(),
        _ => Vec::new(),
    };
    keys.into_iter()
        .filter_map(|key| {
            let after = rest.strip_prefix(key.as_str())?;
            let after = if after.is_empty() { after } else { after.strip_prefix('.')? };
            Some((key, after))
        })
        .min_by_key(|(_, after)| after.len())
        .and_then(|(key, after)| {
            let next = node.at([key.as_str()])?;
            Some((key, next, after))
        })
}

fn removed(layered: &Layered, path: &str, walked: &[String], rest: &str) -> Option<Explanation> {
    let (_, place, node) = layered.removed.iter().rev().find(|(gone, ..)| {
        gone.len() > walked.len() && gone.starts_with(walked) && gone[walked.len()..].join(".") == rest
    })?;
    let mut overruled = vec![Overruled { place: node.place.clone(), value: node.shown() }];
    overruled.extend(node.overruled.clone());
    Some(Explanation { path: path.to_owned(), value: None, set_by: place.clone(), overruled })
}

fn unknown(node: &Node, path: &str, rest: &str) -> Problem {
    let problem = Problem::new(codes::NOT_FOUND, format!("the document has no `{}`", shorten(path)));
    let keys = || node.as_map().into_iter().flat_map(|map| map.keys().map(String::as_str));
    let wrong = rest.split('.').next().unwrap_or(rest);
    match nearest(wrong, keys()) {
        Some(near) => problem.fix(format!("did you mean `{near}`?")),
        None => problem.fix(format!("known here are {}", keys().take(20).collect::<Vec<_>>().join(", "))),
    }
}

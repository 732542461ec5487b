//! Documents laid over each other, and who said what.
//!
//! `extends: [a, b]` puts `a` undermost, then `b`, then the document itself; what `a` extends comes before `a`. A
//! document that is reached twice is laid down once, where it was reached first. Map over map is recursive; anything
//! else replaces what was there, lists included; `null` is a value; an empty document changes nothing. Directives:
//!
//! | written | does |
//! |---|---|
//! | `key: {$replace: value}` | puts `value` there without merging |
//! | `key: {$delete: true}` | removes the key |
//! | `$delete: [a, b]` | removes these keys of the map it stands in; the other keys beside it are merged |
//! | `key: {$append: [..]}` | adds to the end of the list that is there |
//! | `key: {$prepend: [..]}` | adds to its beginning |
//! | `key: {$union: [..]}` | adds to its end what it does not hold yet |

use crate::tree::{Content, Node, Place};
use crate::yaml;
use plat_model::id::shorten;
use plat_model::problem::codes;
use plat_model::release::RELEASE_MAX;
use plat_model::{Problem, Problems};

mod explain;
mod merge;

pub use explain::Explanation;
pub use merge::DIRECTIVES;

/// Most documents that one may extend, directly or not.
pub const DOCUMENTS_MAX: usize = 64;
/// Longest chain of extends.
pub const CHAIN_MAX: usize = 16;

/// Brings the text of a document by the name under which it is extended; `None` if there is none of that name.
pub type Loader<'a> = dyn FnMut(&str) -> Result<Option<Text>, Problem> + 'a;

/// The text of a document that a loader found.
pub struct Text {
    /// The name that places are told with.
    pub file: String,
    pub text: String,
}

/// Documents laid over each other.
#[derive(Debug, Clone)]
pub struct Layered {
    pub tree: Node,
    /// Keys that were removed: the path, where by, and what stood there.
    removed: Vec<(Vec<String>, Place, Node)>,
}

impl Layered {
    /// Who set the value at `path` (`services.db.command`), and who was overruled.
    ///
    /// # Errors
    /// NOT_FOUND, naming the nearest key that is there.
    pub fn explain(&self, path: &str) -> Result<Explanation, Problem> {
        explain::explain(self, path)
    }
}

struct Walk<'a, 'b> {
    load: &'a mut Loader<'b>,
    /// Documents in the order in which they are laid down.
    laid: Vec<Node>,
    /// Names that were reached already.
    reached: Vec<String>,
    /// Names from the outermost document to the present one.
    chain: Vec<String>,
    problems: Problems,
}

/// Reads `text` and all that it extends, and lays them over each other.
///
/// # Errors
/// All problems of all documents at once: those of [`yaml::read`], EXTENDS_CYCLE, EXTENDS_UNKNOWN, BAD_DIRECTIVE,
/// TOO_LARGE, and what the loader says.
pub fn resolve(text: &str, file: &str, load: &mut Loader<'_>) -> Result<Layered, Problems> {
    let mut walk = Walk {
        load,
        laid: Vec::new(),
        reached: Vec::new(),
        chain: vec![file.to_owned()],
        problems: Problems::default(),
    };
    walk.document(text, file);
    let Walk { laid, problems, .. } = walk;
    if !problems.is_empty() {
        return Err(problems);
    }
    lay(laid)
}

/// Lays trees over each other, the first undermost. They may hold directives, and no `extends`.
///
/// # Errors
/// BAD_DIRECTIVE for each directive that is misused.
pub fn lay(documents: Vec<Node>) -> Result<Layered, Problems> {
    let mut merge = merge::Merge::default();
    let mut tree: Option<Node> = None;
    for document in documents {
        tree = merge.over(tree, document, &mut Vec::new());
    }
    let empty = Node::new(Content::Map(Default::default()), Place { file: "".into(), line: 0, column: 0 });
    let merge::Merge { problems, removed } = merge;
    problems.none_or(Layered { tree: tree.unwrap_or(empty), removed })
}

impl Walk<'_, '_> {
    fn document(&mut self, text: &str, file: &str) {
        let mut tree = match yaml::read(text, file, RELEASE_MAX) {
            Ok(tree) => tree,
            Err(problems) => return self.problems.extend(problems),
        };
        let Content::Map(map) = &mut tree.content else {
            let what = format!("`{}` is not a map of keys and values", shorten(file));
            let problem = Problem::new(codes::BAD_VALUE, what).because(format!("it is {}", tree.content.kind()));
            return self.problems.push(problem.at(tree.place.to_string()));
        };
        if let Some(entry) = map.remove("extends") {
            for (name, place) in self.names(&entry.node) {
                self.extend(&name, &place);
            }
        }
        self.laid.push(tree);
    }

    fn names(&mut self, node: &Node) -> Vec<(String, Place)> {
        let items = match &node.content {
            Content::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut names = Vec::new();
        for item in items {
            match &item.content {
                Content::Text(name) if !name.is_empty() => names.push((name.clone(), item.place.clone())),
                other => self.problems.push(
                    Problem::new(codes::BAD_VALUE, "`extends` is not a name or a list of names")
                        .because(format!("it holds {}", other.kind()))
                        .at(item.place.to_string()),
                ),
            }
        }
        names
    }

    fn extend(&mut self, name: &str, place: &Place) {
        let shown = shorten(name);
        if let Some(start) = self.chain.iter().position(|open| open == name) {
            let circle: Vec<_> = self.chain[start..].iter().map(|n| shorten(n)).chain([shown]).collect();
            return self.problems.push(
                Problem::new(codes::EXTENDS_CYCLE, "documents extend each other in a circle")
                    .because(circle.join(" extends "))
                    .fix("remove one of these extends")
                    .at(place.to_string()),
            );
        }
        if self.reached.iter().any(|reached| reached == name) {
            return;
        }
        if self.reached.len() >= DOCUMENTS_MAX || self.chain.len() > CHAIN_MAX {
            return self.problems.push(
                Problem::new(codes::TOO_LARGE, "a document extends too many")
                    .because(format!("{DOCUMENTS_MAX} documents and {CHAIN_MAX} levels are allowed"))
                    .at(place.to_string()),
            );
        }
        self.reached.push(name.to_owned());
        match (self.load)(name) {
            Ok(Some(found)) => {
                self.chain.push(name.to_owned());
                self.document(&found.text, &found.file);
                self.chain.pop();
            }
            Ok(None) => self.problems.push(
                Problem::new(codes::EXTENDS_UNKNOWN, format!("there is no document `{shown}` to extend"))
                    .fix("check its name; a file is named relative to the document that extends it")
                    .at(place.to_string()),
            ),
            Err(mut problem) => {
                if problem.at.is_empty() {
                    problem.at = place.to_string();
                }
                self.problems.push(problem);
            }
        }
    }
}

#[cfg(test)]
mod tests;

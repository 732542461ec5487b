//! The merge itself.

use crate::tree::{Content, Entry, Node, Overruled, Place, nearest};
use plat_model::problem::codes;
use plat_model::{Problem, Problems};
use std::collections::BTreeMap;

/// Keys that say how to merge and are never part of the result.
pub const DIRECTIVES: [&str; 5] = ["$append", "$delete", "$prepend", "$replace", "$union"];
/// The words of JSON Schema that begin with `$`, which are data like any other key.
const SCHEMA_WORDS: [&str; 9] =
    ["$schema", "$id", "$ref", "$defs", "$anchor", "$comment", "$dynamicRef", "$dynamicAnchor", "$vocabulary"];

#[derive(Default)]
pub(super) struct Merge {
    pub problems: Problems,
    pub removed: Vec<(Vec<String>, Place, Node)>,
}

impl Merge {
    /// What stands at `path` once `top` is laid over `base`; `None` if that removes it.
    pub fn over(&mut self, base: Option<Node>, top: Node, path: &mut Vec<String>) -> Option<Node> {
        match top.content {
            Content::Map(map) => match directive(&map) {
                Directive::None => Some(self.map(base, map, top.place, path)),
                Directive::Replace => self.replace(base, map, path),
                Directive::Delete => self.delete(base, map, path),
                Directive::List => self.list(base, map, &top.place, path),
                Directive::Mixed => {
                    self.wrong(&top.place, "a directive stands beside other keys", "give it a map of its own");
                    base
                }
            },
            content => {
                let mut node = Node::new(content, top.place);
                self.items(&mut node, path);
                Some(overruling(node, base))
            }
        }
    }

    fn wrong(&mut self, place: &Place, what: &str, todo: &str) {
        self.problems.push(Problem::new(codes::BAD_DIRECTIVE, what).fix(todo).at(place.to_string()));
    }

    /// Consumes the directives within the items of a list, beneath which nothing stands.
    fn items(&mut self, node: &mut Node, path: &mut Vec<String>) {
        if let Content::List(items) = &mut node.content {
            let whole = std::mem::take(items);
            *items = self.fresh(whole, path);
        }
    }

    fn fresh(&mut self, items: Vec<Node>, path: &mut Vec<String>) -> Vec<Node> {
        let mut kept = Vec::new();
        for (n, item) in items.into_iter().enumerate() {
            path.push(n.to_string());
            kept.extend(self.over(None, item, path));
            path.pop();
        }
        kept
    }

    fn map(&mut self, base: Option<Node>, top: BTreeMap<String, Entry>, place: Place, path: &mut Vec<String>) -> Node {
        let (mut node, mut merged) = match base {
            Some(Node { content: Content::Map(map), place, overruled }) => {
                (Node { content: Content::Null, place, overruled }, map)
            }
            other => (overruling(Node::new(Content::Null, place), other), BTreeMap::new()),
        };
        let mut top = top;
        if let Some(entry) = top.remove("$delete") {
            self.delete_keys(&mut merged, &entry.node, path);
        }
        for (key, entry) in top {
            if let Some(near) = misspelt(&key) {
                self.wrong(&entry.key, &format!("`{key}` is not a directive"), &format!("did you mean `{near}`?"));
                continue;
            }
            let under = merged.remove(&key).map(|entry| entry.node);
            path.push(key.clone());
            if let Some(node) = self.over(under, entry.node, path) {
                merged.insert(key, Entry { key: entry.key, node });
            }
            path.pop();
        }
        node.content = Content::Map(merged);
        node
    }

    fn delete_keys(&mut self, merged: &mut BTreeMap<String, Entry>, names: &Node, path: &[String]) {
        let Content::List(items) = &names.content else {
            let todo = "write `$delete: true` alone in a map, or `$delete: [key, key]`";
            return self.wrong(&names.place, "`$delete` says neither `true` nor a list of keys", todo);
        };
        for item in items {
            let Content::Text(key) = &item.content else {
                self.wrong(&item.place, "`$delete` lists something that is not a key", "list keys as text");
                continue;
            };
            match merged.remove(key) {
                Some(entry) => {
                    let path = path.iter().chain([key]).cloned().collect();
                    self.removed.push((path, item.place.clone(), entry.node));
                }
                None => {
                    let near = nearest(key, merged.keys().map(String::as_str));
                    let todo = near.map_or("remove it".into(), |near| format!("did you mean `{near}`?"));
                    let what = format!("`$delete` names `{}`, which is not there", plat_model::id::shorten(key));
                    self.wrong(&item.place, &what, &todo);
                }
            }
        }
    }

    fn replace(
        &mut self,
        base: Option<Node>,
        mut map: BTreeMap<String, Entry>,
        path: &mut Vec<String>,
    ) -> Option<Node> {
        let entry = map.remove("$replace")?;
        let node = self.over(None, entry.node, path)?;
        Some(overruling(node, base))
    }

    fn delete(&mut self, base: Option<Node>, mut map: BTreeMap<String, Entry>, path: &[String]) -> Option<Node> {
        let place = map.remove("$delete")?.node.place;
        match base {
            Some(node) => self.removed.push((path.to_vec(), place, node)),
            None => self.wrong(&place, "`$delete` removes what is not there", "remove it"),
        }
        None
    }

    fn list(
        &mut self,
        base: Option<Node>,
        map: BTreeMap<String, Entry>,
        place: &Place,
        path: &mut Vec<String>,
    ) -> Option<Node> {
        let mut items = match &base {
            None => Vec::new(),
            Some(Node { content: Content::List(items), .. }) => items.clone(),
            Some(other) => {
                let what = format!("a list is added to {}", other.content.kind());
                self.wrong(place, &what, &format!("it was written at {}; replace it by a list", other.place));
                return base;
            }
        };
        for (name, entry) in map {
            let Content::List(added) = entry.node.content else {
                self.wrong(&entry.node.place, &format!("`{name}` is not a list"), "write `[` and `]` round it");
                continue;
            };
            let added = self.fresh(added, path);
            match name.as_str() {
                "$prepend" => drop(items.splice(0..0, added)),
                "$append" => items.extend(added),
                _ => {
                    for item in added {
                        let value = item.to_json();
                        if !items.iter().any(|held| held.to_json() == value) {
                            items.push(item);
                        }
                    }
                }
            }
        }
        Some(overruling(Node::new(Content::List(items), place.clone()), base))
    }
}

enum Directive {
    None,
    Replace,
    Delete,
    List,
    /// Directives that do not go with what stands beside them.
    Mixed,
}

fn directive(map: &BTreeMap<String, Entry>) -> Directive {
    let held: Vec<&str> = DIRECTIVES.into_iter().filter(|directive| map.contains_key(*directive)).collect();
    let alone = held.len() == map.len();
    match held.as_slice() {
        [] => Directive::None,
        ["$replace"] if alone => Directive::Replace,
        ["$delete"] => match map.get("$delete").map(|entry| &entry.node.content) {
            Some(Content::Bool(true)) if alone => Directive::Delete,
            Some(Content::Bool(true)) => Directive::Mixed,
            _ => Directive::None,
        },
        several if alone && !several.contains(&"$replace") && !several.contains(&"$delete") => Directive::List,
        _ => Directive::Mixed,
    }
}

fn misspelt(key: &str) -> Option<&'static str> {
    let is_candidate = key.starts_with('$') && !SCHEMA_WORDS.contains(&key);
    if is_candidate { nearest(key, DIRECTIVES) } else { None }
}

/// `node`, knowing that it stands where `base` stood.
fn overruling(mut node: Node, base: Option<Node>) -> Node {
    if let Some(base) = base {
        node.overruled.push(Overruled { value: base.shown(), place: base.place });
        node.overruled.extend(base.overruled);
    }
    node
}

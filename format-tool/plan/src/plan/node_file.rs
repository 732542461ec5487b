//! `node.json` wanted × found.

use super::Planner;
use crate::action::Action;
use crate::thing::Thing;

impl Planner<'_> {
    /// The actions on node files: the wanted one, and those of ours at other places.
    pub(super) fn node_file(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        let wanted = self.layout.node_file_text(self.facts);
        for thing in self.claims.iter() {
            let Thing::NodeFile { path } = thing else { continue };
            match self.facts.node_files.get(path) {
                None => self.forget.push(thing.clone()),
                Some(_) if wanted.as_ref().is_some_and(|(at, _)| at == path) => {}
                Some(text) => {
                    let from = Some(text.clone());
                    actions.push(Action::WriteNodeFile { path: path.clone(), from, to: None });
                }
            }
        }
        let Some((path, text)) = wanted else { return actions };
        let found = self.facts.node_files.get(path);
        if found.is_some() && !self.claims.has(&Thing::NodeFile { path: path.to_path_buf() }) {
            let fix = "set another `node_file` in [paths], or remove it if nothing reads it";
            self.foreign(format!("{} exists already", path.display()), "node-format did not write it", fix);
        } else if found != Some(&text) {
            actions.push(Action::WriteNodeFile { path: path.to_path_buf(), from: found.cloned(), to: Some(text) });
        }
        actions
    }
}

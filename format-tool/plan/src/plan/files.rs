//! Files wanted × found.

use super::Planner;
use crate::action::{Action, Purpose};
use crate::facts::{FileFact, PathFact};
use crate::thing::Thing;
use plat_model::problem::{Problem, codes};
use std::path::Path;

impl Planner<'_> {
    pub(super) fn files(&mut self) {
        let wanted = self.layout.files(self.facts);
        for thing in self.claims.iter() {
            let Thing::File { path } = thing else { continue };
            if let Some(kind) = self.facts.not_files.get(path) {
                if !wanted.contains_key(path) {
                    self.notes
                        .push(format!("{} is left: it is {kind} by now, no file of node-format's", path.display()));
                    self.forget.push(thing.clone());
                    self.keep_above(path);
                }
                continue;
            }
            match self.facts.files.get(path) {
                None if wanted.contains_key(path) => self.forget.push(thing.clone()),
                Some(_) if wanted.contains_key(path) => {}
                // With what it lies in, or behind what stands there by now.
                None if let Some(lost) = self.lost_with(path) => match self.facts.paths.get(lost) {
                    Some(PathFact::Other { kind }) => self.problems.push(
                        Problem::new(codes::FOREIGN, format!("{} cannot be removed", path.display()))
                            .because(format!("{} is {kind} by now, no directory of node-format's", lost.display()))
                            .fix("put the directory back, or remove what is there"),
                    ),
                    _ => self.forget.push(thing.clone()),
                },
                // One that is not there may have been on its way when a run was killed.
                found => self.remove.push(Action::WriteFile {
                    path: path.clone(),
                    purpose: purpose(path),
                    from: found.cloned(),
                    to: None,
                }),
            }
        }
        for (path, file) in wanted {
            let found = self.facts.files.get(&path);
            let owner = file.owner.unwrap_or(self.facts.caller);
            let wanted = FileFact { owner, mode: file.mode, text: file.text };
            let ours = self.claims.has(&Thing::File { path: path.clone() });
            if let Some(kind) = self.facts.not_files.get(&path) {
                let by_now = if ours { " by now" } else { "" };
                let why = format!("it is {kind}{by_now}, no file of node-format's");
                let fix = "put the file back, or remove what is there; else set another place in [paths]";
                self.foreign(format!("{} is in the way", path.display()), why, fix);
            } else if found.is_some() && !ours {
                let fix = "set another place in [paths], or remove it if nothing reads it";
                self.foreign(format!("{} exists already", path.display()), "node-format did not write it", fix);
            } else if found != Some(&wanted) {
                let (purpose, from) = (file.purpose, found.cloned());
                self.add.push(Action::WriteFile { path, purpose, from, to: Some(wanted) });
            }
        }
    }
}

/// What a file of ours that is not wanted any more was for.
fn purpose(path: &Path) -> Purpose {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("slice") => Purpose::Unit,
        _ if path.file_name().is_some_and(|name| name == "resource.json") => Purpose::Resources,
        _ => Purpose::Node,
    }
}

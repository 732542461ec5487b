//! How what was asked for once is drawn.

use super::{ago, clean, now};
use crate::output::Draw;
use crate::view::{RebuildView, RunView};

impl Draw for RunView {
    fn titles(_: bool) -> Vec<&'static str> {
        vec!["RUN", "HOOK", "STATE", "ENDED", "HOW"]
    }

    fn cells(&self, _: bool) -> Vec<String> {
        let ended = ago(self.ended.as_deref(), now());
        vec![self.number.to_string(), self.hook.clone(), self.state.clone(), ended, self.how.clone()]
    }

    fn name(&self) -> String {
        self.number.to_string()
    }

    /// What it said last: how it ended goes to standard error.
    fn details(&self) -> String {
        self.tail.iter().map(|line| clean(line) + "\n").collect()
    }
}

/// A run in a line, below its instance.
pub(super) fn line(run: &RunView) -> (String, String) {
    let ended = ago(run.ended.as_deref(), now());
    (format!("{} {}", run.number, run.hook), format!("{} {ended} ago: {}", run.state, clean(&run.how)))
}

impl Draw for RebuildView {
    fn titles(_: bool) -> Vec<&'static str> {
        vec!["NODE", "ASKED", "WHY"]
    }

    fn cells(&self, _: bool) -> Vec<String> {
        vec![self.node.clone(), if self.asked { "yes" } else { "no" }.into(), self.why.clone()]
    }

    fn name(&self) -> String {
        self.node.clone()
    }
}

//! The machine, as two verbs.

use node_format_plan::{Action, HostFacts, Scope, Thing};
use plat_model::problem::{Problem, Result};
use std::fs::File;

#[cfg(feature = "fake")]
pub mod fake;
pub mod linux;

/// How far a batch of actions came.
#[derive(Debug)]
pub struct Outcome {
    /// For each action of the batch, whether it took effect. Of those that are left out at the end nobody knows.
    pub done: Vec<bool>,
    /// The first failure. An action that failed half-way may count as done, so that it is undone.
    pub problem: Option<Problem>,
}

impl Outcome {
    /// The first `done` of `all` actions took effect.
    pub fn first(done: usize, all: usize, problem: Option<Problem>) -> Self {
        Self { done: (0..all).map(|n| n < done).collect(), problem }
    }
}

/// What can be looked at and changed.
pub trait Host {
    /// Looks at what the scope names.
    ///
    /// # Errors
    /// If the machine cannot be looked at as a whole. A single path that cannot is a fact.
    fn observe(&mut self, scope: &Scope) -> Result<HostFacts>;

    /// Performs actions of one kind, in their order. It makes no choice: what cannot be done as said fails.
    fn perform(&mut self, batch: &[Action]) -> Outcome;

    /// What the last batch had to leave as it is because a partition's user can keep it so, though it took effect.
    fn excused(&mut self) -> Vec<Problem> {
        Vec::new()
    }

    /// Takes away what a run that was killed left half-made, and that no plan can name: files and directories on their way to
    /// their place, and what there is of accounts that are forgotten because there are none.
    ///
    /// # Errors
    /// If it cannot be taken away.
    fn clear(&mut self, _forgotten: &[Thing]) -> Result<()> {
        Ok(())
    }

    /// From now on every program that is started keeps this file open: whoever takes its lock next waits for it to end.
    ///
    /// # Errors
    /// If the file cannot be kept.
    fn hold(&mut self, _lock: &File) -> Result<()> {
        Ok(())
    }

    /// Ends what [`Host::hold`] began: the lock is the record's alone again.
    fn let_go(&mut self) {}

    /// Whether a person asked to stop; looked at between batches.
    fn interrupted(&mut self) -> bool {
        false
    }
}

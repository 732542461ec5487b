//! Before anything is done: whether it is an action that a plan could hold, whoever asks for it.

use super::LinuxHost;
use crate::pace::Sparing;
use plat_agent_plan::{Action, Ground, permit};
use plat_model::Problem;
use std::collections::BTreeSet;
use tokio::time::Instant;

/// Refusals are logged so many a second, and at once.
pub fn sparingly() -> Sparing {
    Sparing::new(10, 1000)
}

impl LinuxHost {
    /// # Errors
    /// As [`permit`], which is logged.
    pub(super) fn permit(&self, action: &Action) -> Result<(), Problem> {
        let memory = action.partition().map(|name| self.occupants.observe(name)).transpose()?;
        let occupant = memory.as_ref().and_then(|memory| memory.occupant.as_ref());
        let logged = match action {
            Action::StartService { partition, .. }
            | Action::Reload { partition, .. }
            | Action::CheckPromise { partition, .. } => self.records.logged(partition)?,
            _ => BTreeSet::new(),
        };
        let ground = Ground { node: &*self.node.read()?, occupant, logged: &logged };
        permit(action, ground).inspect_err(|problem| {
            let Some(left_out) = self.refusals.says(Instant::now()) else { return };
            if left_out > 0 {
                tracing::warn!(left_out, "more was refused than is told");
            }
            tracing::warn!(step = action.step(), problem = problem.one_line(), "refused");
        })
    }
}

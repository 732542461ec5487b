//! What nothing uses any more: looked at from time to time, and at once when there is less to be used or no room.

use super::Shared;
use crate::report::Trouble;
use plat_agent_plan::{GarbagePlan, InUse, Stored, plan_garbage, shortage};
use plat_model::Problem;
use plat_model::id::Digest;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};

/// How often it is looked when nothing gives reason to, and while there is too little room.
const PERIOD: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_secs(60);

/// Runs until it is dropped.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let again = match look(&shared).await {
            Ok(short) => {
                let again = if short.is_some() { SHORT } else { PERIOD };
                shared.board.trouble(Trouble::Room, short);
                again
            }
            // Whether there is room nobody knows: what was said of that stands.
            Err(problem) => {
                warn!(problem = problem.one_line(), "what nothing uses cannot be removed");
                SHORT
            }
        };
        let _woken = tokio::time::timeout(again, shared.tidy.notified()).await;
    }
}

/// Gives what is wrong where there is too little room.
async fn look(shared: &Shared) -> Result<Option<Problem>, Problem> {
    let facts = shared.host.observe_store().await?;
    let short = shortage(&facts.disks, &shared.policy);
    // Before the first word of the master nothing is known to be unwanted, and before all partitions were seen not what
    // is used.
    let Some(desired) = shared.current().filter(|_| shared.has_seen_all_partitions()) else { return Ok(short) };
    let releases = facts.entries.iter().filter_map(|entry| match &entry.what {
        Stored::Release(digest) => Some(digest),
        Stored::Content(_) => None,
    });
    let is_needed = |digest: &&Digest| desired.releases.contains_key(*digest) || shared.in_use(digest) != InUse::No;
    let needed: BTreeSet<Digest> = releases.filter(is_needed).cloned().collect();
    let GarbagePlan { actions, releases } = plan_garbage(&facts, &needed, &shared.policy, shared.clock.now());
    // Their own workers remove them: nobody else knows what they are about to do.
    shared.set_garbage(releases);
    for action in actions {
        let step = action.step();
        match shared.host.perform(&action).await {
            Ok(()) => info!(step, "performed"),
            Err(problem) => warn!(step, problem = problem.one_line(), "step failed"),
        }
    }
    Ok(short)
}

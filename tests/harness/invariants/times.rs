//! Invariant 5 for what runs at times of a schedule.

use super::{Held, Seen};
use plat_model::id::{InstanceId, PartitionRef, ServiceName};
use plat_model::time::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A clock that is set back by more was wrong before, says the agent's plan.
const CLOCK_BELIEVED: Duration = Duration::from_secs(24 * 3600);

/// What is known of the runs of everything with a schedule.
#[derive(Default)]
pub struct Times {
    of: BTreeMap<(PartitionRef, InstanceId, ServiceName), Used>,
}

#[derive(Default)]
struct Used {
    /// Minutes that were used, the one that counting began in included.
    minutes: BTreeSet<i64>,
    after: Timestamp,
    /// The last run that was seen, and how many.
    run: String,
    runs: usize,
}

impl Times {
    /// Invariant 5: The agent being killed, or its clock being set, runs nothing twice for one time.
    ///
    /// # Errors
    /// What ran more often than there were times for it.
    pub fn are_used_once(&mut self, now: &Seen) -> Held {
        for (node, partitions) in &now.machines {
            for (partition, fact) in partitions {
                let place = PartitionRef { node: node.clone(), partition: partition.clone() };
                let Some(occupant) = &fact.occupant else { continue };
                for (service, known) in &fact.services {
                    let key = (place.clone(), occupant.instance.clone(), service.clone());
                    let Some(timer) = occupant.timers.get(service) else {
                        // It was stopped: times are counted anew.
                        self.of.remove(&key);
                        continue;
                    };
                    let used = self.of.entry(key).or_default();
                    let back = used.after.since(timer.after);
                    if back > CLOCK_BELIEVED {
                        // The clock had been wrong: from here on it shows its times anew.
                        *used = Used { run: std::mem::take(&mut used.run), ..Used::default() };
                    } else if !back.is_zero() {
                        return Err(format!(
                            "{service} in {place} may run again for the {back:?} before {}",
                            used.after
                        ));
                    }
                    used.after = timer.after;
                    used.minutes.insert(timer.after.seconds() / 60);
                    if used.run != known.run {
                        (used.run, used.runs) = (known.run.clone(), used.runs + 1);
                    }
                    if used.runs > used.minutes.len() {
                        let (runs, minutes) = (used.runs, used.minutes.len());
                        return Err(format!("{service} in {place} ran {runs} times in {minutes} minutes"));
                    }
                }
            }
        }
        Ok(())
    }
}

//! What the agent remembers of all partitions, and each change of it.

use super::record::Record;
use crate::host::linux::journal::Kept;
use plat_agent_plan::action::Note;
use plat_agent_plan::facts::Occupant;
use plat_agent_plan::{Moment, PromiseFact, Steady};
use plat_model::id::{InstanceId, PartitionName, PromiseName};
use plat_model::parameters::{Parameters, Secret};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Promises of one partition that are remembered: as many as a release may have.
const PROMISES_MAX: usize = 64;

/// What is remembered of one partition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    pub occupant: Option<Occupant>,
    /// What the names in `occupant` stand for.
    pub secrets: BTreeMap<String, Secret>,
    pub promises: BTreeMap<PromiseName, PromiseFact>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    pub partitions: BTreeMap<PartitionName, Arc<Memory>>,
}

/// One change, as it is written down. What is here outlives the agent: a variant means what it meant.
#[derive(Serialize, Deserialize)]
pub struct Entry {
    pub partition: PartitionName,
    pub change: Change,
}

#[derive(Serialize, Deserialize)]
pub enum Change {
    /// All that is remembered of it.
    Whole {
        occupant: Option<Box<Record>>,
        promises: BTreeMap<PromiseName, PromiseFact>,
    },
    /// It is this instance's, who has these secrets from now on too. Nothing, while it is another's.
    Occupied {
        instance: InstanceId,
        secrets: BTreeMap<String, String>,
    },
    Noted(Note),
    /// What it publishes from now on.
    Published {
        connection: Parameters,
        fingerprint: String,
    },
    /// What a promise has said.
    Checked {
        promise: PromiseName,
        of: String,
        holds: bool,
        message: String,
        at: Moment,
    },
    /// Nothing of the instance is left but who it was; its secrets go too.
    Erased,
    Freed,
}

impl Memory {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Whole { occupant, promises } => {
                let (occupant, secrets) = occupant.clone().map(|record| record.take()).unzip();
                (self.occupant, self.secrets) = (occupant, secrets.unwrap_or_default());
                self.promises.clone_from(promises);
            }
            Change::Occupied { instance, secrets } => {
                let occupant = self.occupant.get_or_insert_with(|| Occupant::new(instance.clone()));
                if &occupant.instance == instance {
                    occupant.secrets.extend(secrets.keys().cloned());
                    let secrets = secrets.iter().map(|(name, secret)| (name.clone(), Secret::new(secret.clone())));
                    self.secrets.extend(secrets);
                }
            }
            Change::Noted(note) => {
                if let Some(occupant) = &mut self.occupant {
                    occupant.note(note);
                }
            }
            Change::Published { connection, fingerprint } => {
                if let Some(occupant) = &mut self.occupant {
                    occupant.published(connection.clone(), fingerprint.clone());
                }
            }
            Change::Checked { promise, of, holds, message, at } => {
                let fact = PromiseFact::after(self.promises.get(promise), of, *holds, message.clone(), *at);
                self.promises.insert(promise.clone(), fact);
                while self.promises.len() > PROMISES_MAX {
                    let oldest = self.promises.iter().min_by_key(|(_, fact)| fact.checked.steady);
                    oldest.map(|(name, _)| name.clone()).map(|name| self.promises.remove(&name));
                }
            }
            Change::Erased => {
                self.promises.clear();
                if let Some(occupant) = &mut self.occupant {
                    occupant.erased = true;
                    occupant.secrets.clear();
                    // What was published was filled in with them.
                    (occupant.upkeep, occupant.connection) = (None, Default::default());
                    occupant.published.clear();
                    // And this it may have made from them.
                    (occupant.spoken, occupant.said) = (Default::default(), None);
                }
                self.secrets.clear();
            }
            Change::Freed => *self = Self::default(),
        }
    }
}

impl State {
    /// The machine was started again: what was before it is older than anything of this boot.
    pub fn passes_boot(&mut self) {
        for memory in self.partitions.values_mut() {
            Arc::make_mut(memory).promises.values_mut().for_each(|fact| fact.checked.steady = Steady::ZERO);
        }
    }
}

impl Kept for State {
    type Entry = Entry;

    fn apply(&mut self, entry: &Entry) {
        if let Change::Freed = entry.change {
            self.partitions.remove(&entry.partition);
        } else {
            Arc::make_mut(self.partitions.entry(entry.partition.clone()).or_default()).apply(&entry.change);
        }
    }

    fn entries(&self) -> Vec<Entry> {
        let whole = |(partition, memory): (&PartitionName, &Arc<Memory>)| Entry {
            partition: partition.clone(),
            change: Change::Whole {
                occupant: memory.occupant.as_ref().map(|occupant| Box::new(Record::of(occupant, &memory.secrets))),
                promises: memory.promises.clone(),
            },
        };
        self.partitions.iter().map(whole).collect()
    }

    /// The secrets of who is gone.
    fn sheds(entry: &Entry) -> bool {
        matches!(entry.change, Change::Erased | Change::Freed)
    }
}

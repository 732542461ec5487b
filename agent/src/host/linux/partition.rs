//! Who holds a partition, how far they have come, and what their promises have said: the agent's own memory, durable
//! before anything depends on it. See [`super::journal`] for how it is kept.

mod before;
pub mod empty;
pub mod erase;
pub mod files;
mod leftovers;
mod record;
mod state;
pub mod volumes;

use super::disk::Durability;
use super::journal::{Journal, Opened, View};
use super::process::boot_id;
use super::runtime::Records;
use plat_agent_plan::Moment;
use plat_agent_plan::action::Note;
use plat_agent_plan::facts::Occupant;
use plat_model::Problem;
use plat_model::id::{InstanceId, PartitionName, PromiseName};
use plat_model::parameters::Parameters;
use plat_model::problem::codes;
use state::{Change, Entry, Memory, State};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Who holds each partition now, for whoever outlives the host.
#[derive(Clone)]
pub struct Holders(View<State>);

impl Holders {
    pub fn of(&self, partition: &PartitionName) -> Option<InstanceId> {
        self.0.read(|state| Some(state.partitions.get(partition)?.occupant.as_ref()?.instance.clone()))
    }

    pub fn all(&self) -> BTreeMap<PartitionName, InstanceId> {
        let held = |(partition, memory): (&PartitionName, &Arc<Memory>)| {
            Some((partition.clone(), memory.occupant.as_ref()?.instance.clone()))
        };
        self.0.read(|state| state.partitions.iter().filter_map(held).collect())
    }
}

/// The memory of all partitions.
pub struct Occupants {
    journal: Journal<State>,
    /// Partitions of which an older agent's record cannot be used, until it is mended.
    unusable: BTreeMap<PartitionName, Problem>,
    /// What a check said could not be written last.
    unwritten: AtomicBool,
}

impl Occupants {
    /// Reads what is kept in the host's folder, and takes over what older agents wrote in other files.
    ///
    /// # Errors
    /// BAD_STATE_FILE if it is damaged, or a newer agent's.
    pub fn open(state: &Path, records: &Records) -> Result<Self, Problem> {
        let boot = boot_id();
        let path = state.join("occupants");
        let written = before::modified(&path);
        let mut opened = Opened::<State>::read(path, &boot)?;
        if opened.boot.as_ref() != Some(&boot) {
            opened.state.passes_boot();
        }
        let (mut unusable, mut taken_over) = (BTreeMap::new(), Vec::new());
        for partition in records.partitions()? {
            // Of one that the journal does not have, the files are all that is known.
            let found = match opened.state.partitions.get(&partition) {
                Some(known) => before::newer(records, &partition, &boot, known, written),
                None => before::read(records, &partition, &boot),
            };
            match found {
                Ok(None) => {}
                Ok(Some(memory)) => {
                    tracing::info!(%partition, "what an older agent wrote down of it is taken over");
                    opened.state.partitions.insert(partition.clone(), Arc::new(memory));
                    taken_over.push(partition);
                }
                Err(problem) => drop(unusable.insert(partition, problem)),
            }
        }
        let written = if taken_over.is_empty() { Ok(()) } else { opened.write() };
        match written {
            Ok(()) => taken_over.iter().for_each(|partition| before::remove(records, partition)),
            // All of it is in memory, and written with the first change.
            Err(problem) => tracing::warn!(problem = problem.one_line(), "occupants cannot be kept in one file yet"),
        }
        Ok(Self { journal: Journal::start(opened)?, unusable, unwritten: AtomicBool::new(false) })
    }

    pub fn holders(&self) -> Holders {
        Holders(self.journal.view().clone())
    }

    fn usable(&self, partition: &PartitionName) -> Result<(), Problem> {
        self.unusable.get(partition).cloned().map_or(Ok(()), Err)
    }

    /// From memory.
    ///
    /// # Errors
    /// BAD_STATE_FILE if nobody can tell who holds it.
    pub fn observe(&self, partition: &PartitionName) -> Result<Arc<Memory>, Problem> {
        self.usable(partition)?;
        Ok(self.journal.view().read(|state| state.partitions.get(partition).cloned()).unwrap_or_default())
    }

    async fn change(&self, partition: &PartitionName, change: Change, durability: Durability) -> Result<(), Problem> {
        self.usable(partition)?;
        self.journal.append(vec![Entry { partition: partition.clone(), change }], durability).await
    }

    /// Makes the partition the instance's, with the secrets that it lacks, in one change.
    pub async fn occupy(
        &self,
        partition: &PartitionName,
        instance: &InstanceId,
        secrets: &BTreeMap<String, u32>,
    ) -> Result<(), Problem> {
        let held = self.holds(partition, instance)?;
        let has = |name: &String| held.as_ref().is_some_and(|occupant| occupant.secrets.contains(name));
        let missing: Vec<_> = secrets.iter().filter(|(name, _)| !has(name)).collect();
        if held.is_some() && missing.is_empty() {
            return Ok(());
        }
        let made = missing.into_iter().map(|(name, length)| Ok((name.clone(), generate(*length)?)));
        let secrets = made.collect::<Result<_, Problem>>()?;
        let change = Change::Occupied { instance: instance.clone(), secrets };
        self.change(partition, change, Durability::Power).await?;
        // Another may have been first.
        self.holds(partition, instance).map(drop)
    }

    /// What is known of the instance in this partition, if any is in it.
    ///
    /// # Errors
    /// CONFLICT if another is.
    fn holds(&self, partition: &PartitionName, instance: &InstanceId) -> Result<Option<Occupant>, Problem> {
        let held = self.observe(partition)?.occupant.clone();
        match held.as_ref().filter(|other| &other.instance != instance) {
            Some(other) => {
                Err(Problem::new(codes::CONFLICT, format!("partition {partition} is held by another instance"))
                    .because(format!("instance {} is in it", other.instance))
                    .fix("wait until it has been destroyed"))
            }
            None => Ok(held),
        }
    }

    pub async fn note(&self, partition: &PartitionName, note: &Note) -> Result<(), Problem> {
        if self.observe(partition)?.occupant.is_none() {
            return Err(Problem::new(codes::BAD_STATE_FILE, format!("nobody holds partition {partition}")));
        }
        self.change(partition, Change::Noted(note.clone()), needs(note)).await
    }

    /// What the instance publishes from now on, and of which publication that is.
    pub async fn published(
        &self,
        partition: &PartitionName,
        connection: Parameters,
        fingerprint: &str,
    ) -> Result<(), Problem> {
        let change = Change::Published { connection, fingerprint: fingerprint.to_owned() };
        self.change(partition, change, Durability::Process).await
    }

    /// Keeps what a promise has said, after what it said before. After a loss of power every service is another run, of
    /// which nothing has been asked yet. Where it cannot be written it is known all the same, and written with what comes
    /// after it: that is no failure of a check, nor of what is checked.
    pub async fn checked(
        &self,
        partition: &PartitionName,
        promise: &PromiseName,
        of: &str,
        (holds, message): (bool, String),
        at: Moment,
    ) -> Result<(), Problem> {
        let change = Change::Checked { promise: promise.clone(), of: of.to_owned(), holds, message, at };
        self.usable(partition)?;
        match self.change(partition, change, Durability::Process).await {
            Err(problem) if matches!(problem.code, codes::DISK_FULL | codes::BAD_STATE_FILE) => {
                // Said once: others' checks fail to be written with it.
                if !self.unwritten.swap(true, Ordering::Relaxed) {
                    tracing::warn!(problem = problem.one_line(), "what checks say cannot be written");
                }
                Ok(())
            }
            kept => {
                if self.unwritten.swap(false, Ordering::Relaxed) {
                    tracing::info!("what checks say is written again");
                }
                kept
            }
        }
    }

    /// Nothing of the instance is left; its secrets go too.
    pub async fn erased(&self, partition: &PartitionName) -> Result<(), Problem> {
        match self.observe(partition)?.as_ref() == &Memory::default() {
            true => Ok(()),
            false => self.change(partition, Change::Erased, Durability::Power).await,
        }
    }

    /// Nobody holds it.
    pub async fn freed(&self, partition: &PartitionName) -> Result<(), Problem> {
        self.change(partition, Change::Freed, Durability::Power).await
    }
}

/// Whether something depends on a note. What a loss of power may take back is what it takes with it: services that were
/// started, and what they had read and said. Hooks and one-shots that have run are not run again.
fn needs(note: &Note) -> Durability {
    match note {
        Note::Initialised | Note::Configured { .. } | Note::Stopped | Note::Cleaned => Durability::Power,
        Note::Prepared { .. } => Durability::Power,
        Note::Done { .. } | Note::Timed { .. } | Note::Told { .. } => Durability::Power,
        Note::RunBegun(_) | Note::RunOver(_) => Durability::Power,
        Note::Untimed
        | Note::KeptUp(_)
        | Note::Started
        | Note::Published(_)
        | Note::Revived { .. }
        | Note::Reloaded { .. } => Durability::Process,
    }
}

/// Random letters and digits, each equally likely.
fn generate(length: u32) -> Result<String, Problem> {
    const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let length = length.clamp(8, 128) as usize;
    let mut secret = String::new();
    while secret.len() < length {
        let mut raw = [0; 64];
        getrandom::fill(&mut raw)
            .map_err(|e| Problem::new(codes::INTERNAL, "the kernel gives no random numbers").because(e))?;
        // 248 is the largest multiple of 62 that a byte can hold; what is above would favour the first letters.
        let kept = raw.iter().filter(|b| **b < 248).map(|b| char::from(LETTERS[usize::from(*b) % 62]));
        secret.extend(kept.take(length - secret.len()));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests;

//! Which wishes to build a release again are settled: on disk before anything follows from one, so that each is acted on
//! once.

use crate::durable;
use plat_model::Problem;
use plat_model::id::Digest;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

const FORM: &str = "plat-rebuilds";
const VERSION: u32 = 1;

pub(crate) struct Again {
    path: PathBuf,
    /// The number that was settled last, of each release.
    settled: Mutex<BTreeMap<Digest, u64>>,
}

impl Again {
    /// Reads what is settled. What cannot be read is told, and counts as nothing: then releases are built once more.
    pub fn open(path: PathBuf) -> (Self, Option<Problem>) {
        let (settled, problem) = match durable::read(&path, FORM, VERSION) {
            Ok(settled) => (settled.unwrap_or_default(), None),
            Err(problem) => (BTreeMap::new(), Some(problem)),
        };
        (Self { path, settled: Mutex::new(settled) }, problem)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, u64>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a number is one that is not settled; 0 is a release that nobody wished to be built again. A smaller one is
    /// new too: it comes from a master that was restored from a copy, and has forgotten those in between.
    pub fn is_new(&self, release: &Digest, number: u64) -> bool {
        number > 0 && self.lock().get(release) != Some(&number)
    }

    /// The last number that was settled, where `number` is the last that the master gave. One that is larger than that was
    /// given by a master that has forgotten it.
    pub fn acted_on(&self, release: &Digest, number: u64) -> u64 {
        self.lock().get(release).copied().filter(|settled| *settled <= number).unwrap_or(0)
    }

    /// From now on the number is not new.
    ///
    /// # Errors
    /// If that cannot be written down: then nothing may follow from it.
    pub fn settle(&self, release: &Digest, number: u64) -> Result<(), Problem> {
        let mut settled = self.lock();
        let mut next = settled.clone();
        next.insert(release.clone(), number);
        durable::write(&self.path, FORM, VERSION, &next)?;
        *settled = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn open(path: &Path) -> Again {
        let (again, problem) = Again::open(path.to_owned());
        assert!(problem.is_none());
        again
    }

    fn digest(n: u8) -> Digest {
        Digest::parse(&format!("{n:064x}")).unwrap()
    }

    #[test]
    fn a_number_is_new_until_it_is_settled_and_then_never_also_for_the_next_agent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rebuilds");
        let again = open(&path);
        assert_eq!([0, 2, 2].map(|number| again.is_new(&digest(1), number)), [false, true, true]);
        again.settle(&digest(1), 2).unwrap();
        assert!(!again.is_new(&digest(1), 2));
        assert!(again.is_new(&digest(2), 2), "each release has numbers of its own");
        assert_eq!([2, 3].map(|number| open(&path).is_new(&digest(1), number)), [false, true]);
        std::fs::write(&path, "nonsense").unwrap();
        let (lost, problem) = Again::open(path);
        assert!(problem.is_some() && lost.is_new(&digest(1), 2));
    }

    #[test]
    fn what_a_master_asks_for_that_was_restored_is_new_also_if_it_counts_from_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rebuilds");
        let again = open(&path);
        again.settle(&digest(1), 5).unwrap();
        assert_eq!([0, 3].map(|number| again.is_new(&digest(1), number)), [false, true]);
        assert_eq!([3, 5, 6].map(|number| again.acted_on(&digest(1), number)), [0, 5, 5]);
        again.settle(&digest(1), 3).unwrap();
        assert_eq!([3, 4].map(|number| again.acted_on(&digest(1), number)), [3, 3]);
        assert_eq!([3, 4].map(|number| open(&path).is_new(&digest(1), number)), [false, true]);
    }
}

//! Which wishes to build a release again have been looked at: on disk before anything follows from one, so that each is
//! looked at once.

use crate::durable;
use plat_model::Problem;
use plat_model::id::Digest;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

const FORM: &str = "plat-rebuilds";
const VERSION: u32 = 1;

pub(crate) struct Again {
    path: PathBuf,
    /// The number that was seen last, of each release.
    seen: Mutex<BTreeMap<Digest, u64>>,
}

impl Again {
    /// Reads what was seen. What cannot be read is told, and counts as nothing: then releases are built once more.
    pub fn open(path: PathBuf) -> (Self, Option<Problem>) {
        let (seen, problem) = match durable::read(&path, FORM, VERSION) {
            Ok(seen) => (seen.unwrap_or_default(), None),
            Err(problem) => (BTreeMap::new(), Some(problem)),
        };
        (Self { path, seen: Mutex::new(seen) }, problem)
    }

    /// Whether a number is new; from now on it is not.
    ///
    /// # Errors
    /// If that cannot be written down: then it is not looked at.
    pub fn look(&self, release: &Digest, number: u64) -> Result<bool, Problem> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if number <= seen.get(release).copied().unwrap_or(0) {
            return Ok(false);
        }
        let mut next = seen.clone();
        next.insert(release.clone(), number);
        durable::write(&self.path, FORM, VERSION, &next)?;
        *seen = next;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_new_once_also_for_the_next_agent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rebuilds");
        let digest = |n: u8| Digest::parse(&format!("{n:064x}")).unwrap();
        let (again, problem) = Again::open(path.clone());
        assert!(problem.is_none());
        let looks = |again: &Again, n, number| again.look(&digest(n), number).unwrap();
        assert_eq!([looks(&again, 1, 0), looks(&again, 1, 2), looks(&again, 1, 2)], [false, true, false]);
        assert!(looks(&again, 2, 1), "each release has numbers of its own");
        let (next, problem) = Again::open(path.clone());
        assert!(problem.is_none());
        assert_eq!([looks(&next, 1, 2), looks(&next, 1, 3)], [false, true]);
        std::fs::write(&path, "nonsense").unwrap();
        let (lost, problem) = Again::open(path);
        assert!(problem.is_some() && looks(&lost, 1, 3));
    }
}

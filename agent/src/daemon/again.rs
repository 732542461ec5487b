//! Which wishes to build a release again are settled: on disk before anything follows from one, so that each is acted on
//! once.

use crate::durable;
use plat_agent_plan::{Settled, Settling};
use plat_model::Problem;
use plat_model::id::Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

const FORM: &str = "plat-rebuilds";
const VERSION: u32 = 1;

pub(crate) struct Again {
    path: PathBuf,
    /// What was settled last, of each release.
    settled: Mutex<BTreeMap<Digest, Kept>>,
}

/// As it is in the file.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(untagged)]
enum Kept {
    Begun(u64),
    Declined { declined: u64 },
}

impl From<Settled> for Kept {
    fn from(settled: Settled) -> Self {
        match settled.how {
            Settling::Begun => Self::Begun(settled.number),
            Settling::Declined => Self::Declined { declined: settled.number },
        }
    }
}

impl From<Kept> for Settled {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::Begun(number) => Self::begun(number),
            Kept::Declined { declined: number } => Self { number, how: Settling::Declined },
        }
    }
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

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Digest, Kept>> {
        self.settled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was settled last.
    pub fn settled(&self, release: &Digest) -> Settled {
        self.lock().get(release).copied().map(Settled::from).unwrap_or_default()
    }

    /// From now on this is the last.
    ///
    /// # Errors
    /// If that cannot be written down: then nothing may follow from it.
    pub fn settle(&self, release: &Digest, what: Settled) -> Result<(), Problem> {
        let mut settled = self.lock();
        let mut next = settled.clone();
        next.insert(release.clone(), what.into());
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
    fn what_was_settled_is_known_to_the_next_agent_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rebuilds");
        let again = open(&path);
        assert_eq!(again.settled(&digest(1)), Settled::default());
        again.settle(&digest(1), Settled::begun(5)).unwrap();
        again.settle(&digest(1), Settled::begun(2)).unwrap();
        assert_eq!([1, 2].map(|n| again.settled(&digest(n)).number), [2, 0], "each release has numbers of its own");
        assert_eq!(open(&path).settled(&digest(1)), Settled::begun(2));
        let declined = Settled { number: 3, how: Settling::Declined };
        again.settle(&digest(1), declined).unwrap();
        assert_eq!(open(&path).settled(&digest(1)), declined);
        std::fs::write(&path, "nonsense").unwrap();
        let (lost, problem) = Again::open(path);
        assert!(problem.is_some());
        assert_eq!(lost.settled(&digest(1)), Settled::default());
    }
}

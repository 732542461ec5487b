//! The part of a store that is the same for all: the state, its revision, and the check of what a decision relied on.

use super::{CommitError, Snapshot};
use plat_master_plan::{Change, Expected, Key, Record, State};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// How many changed keys are remembered. A snapshot from before the oldest of them conflicts with everything, so this
/// bounds memory (some 30 MiB at the worst) and gives a decision time: at 20,000 changes a second, 6 s.
const REMEMBERED: usize = 1 << 17;

/// State with its revision. Whoever holds it exclusively makes one commit at a time.
pub(super) struct Core {
    state: Arc<State>,
    revision: u64,
    /// Number of the newest audit entry.
    audit: u64,
    changed: Changed,
}

impl Core {
    pub fn new(state: State, revision: u64, audit: u64) -> Self {
        Self { state: Arc::new(state), revision, audit, changed: Changed::since(revision, REMEMBERED) }
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot { revision: self.revision, state: self.state.clone() }
    }

    /// Whether what a decision relied on still holds.
    pub fn check(&self, expected: &Expected, changes: &[Change]) -> Result<(), CommitError> {
        let read = expected.read.iter().find(|key| self.changed.after(key, expected.at)).cloned();
        let written = || changes.iter().map(Change::key).find(|key| self.changed.after(key, expected.at));
        match read.or_else(written) {
            Some(key) => Err(CommitError::Conflict(key)),
            None => Ok(()),
        }
    }

    /// Gives audit entries their numbers, those after the newest one's. Must be followed by [`Core::apply`].
    pub fn number(&self, changes: &mut [Change]) {
        let mut next = self.audit;
        for change in changes {
            if let Change::Put(record) = change
                && let Record::Audit(entry) = &mut **record
            {
                next += 1;
                entry.number = next;
            }
        }
    }

    /// Makes the changes the next revision, and returns it.
    pub fn apply(&mut self, changes: &[Change]) -> u64 {
        self.revision += 1;
        // Copies the roots of the maps when a snapshot is out, and nothing otherwise.
        let state = Arc::make_mut(&mut self.state);
        for change in changes {
            state.apply(change, self.revision);
            match change.key() {
                Key::Audit(number) => self.audit = self.audit.max(number),
                key => self.changed.note(key, self.revision),
            }
        }
        self.revision
    }
}

/// At which revision each key changed last, for the newest changes.
struct Changed {
    last: HashMap<Key, u64>,
    order: VecDeque<(u64, Key)>,
    /// What changed up to this revision is forgotten.
    forgotten: u64,
    remembered: usize,
}

impl Changed {
    fn since(revision: u64, remembered: usize) -> Self {
        Self { last: HashMap::new(), order: VecDeque::new(), forgotten: revision, remembered }
    }

    /// Whether `key` changed, or may have changed, after `revision`. Audit entries never conflict: each gets a number
    /// of its own.
    fn after(&self, key: &Key, revision: u64) -> bool {
        if matches!(key, Key::Audit(_)) {
            return false;
        }
        revision < self.forgotten || self.last.get(key).is_some_and(|last| *last > revision)
    }

    fn note(&mut self, key: Key, revision: u64) {
        self.order.push_back((revision, key.clone()));
        self.last.insert(key, revision);
        while self.order.len() > self.remembered {
            let Some((old, key)) = self.order.pop_front() else { break };
            self.forgotten = self.forgotten.max(old);
            if self.last.get(&key) == Some(&old) {
                self.last.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plat_model::id::UserName;

    fn user(name: &str) -> Key {
        Key::User(UserName::parse(name).unwrap())
    }

    #[test]
    fn a_change_after_the_snapshot_is_seen_and_one_before_is_not() {
        let mut changed = Changed::since(10, 100);
        changed.note(user("a"), 11);
        changed.note(user("b"), 12);
        assert!(changed.after(&user("a"), 10));
        assert!(!changed.after(&user("a"), 11));
        assert!(changed.after(&user("b"), 11));
        assert!(!changed.after(&user("c"), 10));
    }

    #[test]
    fn memory_is_bounded_and_a_snapshot_older_than_it_conflicts() {
        let mut changed = Changed::since(0, 3);
        for revision in 1..=1000 {
            changed.note(user(&format!("u{}", revision % 7)), revision);
            assert!(changed.last.len() <= 3 && changed.order.len() <= 3);
        }
        assert_eq!(changed.forgotten, 997);
        assert!(changed.after(&user("never-touched"), 996));
        assert!(!changed.after(&user("never-touched"), 997));
        assert!(changed.after(&user("u6"), 999), "1000 % 7 is 6");
    }

    #[test]
    fn audit_entries_never_conflict() {
        let changed = Changed::since(100, 3);
        assert!(!changed.after(&Key::Audit(1), 0));
        assert!(changed.after(&Key::Grid, 0));
    }
}

//! Random commits, compared with a model that is simple enough to believe: all states that ever were, in a list.

use super::sample::{audit, entry, token, token_id, user, user_key};
use crate::store::{CommitError, Store};
use plat_master_plan::{Change, Expected, Key, Record, State};
use plat_model::id::NodeId;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const COMMITS: usize = 1000;
const KEYS: u64 = 40;

/// What the store must show after each commit.
#[derive(Default)]
struct Model {
    state: State,
    /// Keys of each revision: revision `n` at `n - 1`.
    changed: Vec<BTreeSet<String>>,
    ledger: BTreeMap<(NodeId, u64), Record>,
    audit: Vec<String>,
}

impl Model {
    fn conflicts(&self, expected: &Expected, changes: &[Change]) -> bool {
        let keys = expected.read.iter().cloned().chain(changes.iter().map(Change::key));
        let relied: BTreeSet<String> =
            keys.filter(|key| !matches!(key, Key::Audit(_))).map(|key| format!("{key:?}")).collect();
        self.changed[expected.at as usize..].iter().any(|changed| !changed.is_disjoint(&relied))
    }

    fn apply(&mut self, changes: &[Change]) {
        let revision = self.changed.len() as u64 + 1;
        for change in changes {
            self.state.apply(change, revision);
            if let Change::Put(record) = change {
                match &**record {
                    Record::Audit(entry) => self.audit.push(entry.subject.clone()),
                    Record::Ledger(entry) => {
                        self.ledger.insert((entry.node.clone(), entry.sequence), (**record).clone());
                    }
                    _ => {}
                }
            }
        }
        self.changed.push(changes.iter().map(|change| format!("{:?}", change.key())).collect());
    }

    async fn compare(&self, store: &dyn Store, loaded: bool) {
        let snapshot = store.snapshot();
        assert_eq!(snapshot.revision, self.changed.len() as u64);
        let (mut seen, mut wanted) = ((*snapshot.state).clone(), self.state.clone());
        if loaded {
            // A store that was loaded does not know when each record changed.
            assert!(seen.desired_revision.values().all(|revision| *revision == snapshot.revision));
            seen.desired_revision.clear();
            wanted.desired_revision.clear();
        }
        assert!(seen == wanted, "the state is not the model's at revision {}", snapshot.revision);
        let ledger: Vec<_> = store.ledger(None, 0, usize::MAX).await.unwrap().into_iter().map(Record::Ledger).collect();
        assert!(ledger.iter().eq(self.ledger.values()), "the ledger is not the model's");
        let entries = store.audit(0, usize::MAX).await.unwrap();
        assert!(entries.iter().map(|entry| entry.number).eq(1..=self.audit.len() as u64));
        assert!(entries.iter().map(|entry| &entry.subject).eq(&self.audit));
    }
}

fn change(random: &mut StdRng, n: usize) -> Change {
    let key = random.random_range(0..KEYS);
    match random.random_range(0..6) {
        0 => token(key, n as u64),
        1 => Change::Delete(Key::Token(token_id(key))),
        2 => user(&format!("u{key}"), &n.to_string()),
        3 => Change::Delete(user_key(&format!("u{key}"))),
        4 => entry(&format!("n{}", key % 4), n as u64 + 1),
        _ => audit(&n.to_string()),
    }
}

/// 1,000 commits of `seed`, some decided on old snapshots. A store that outlives its process is dropped and opened again
/// with `reopen` after each hundred.
pub async fn random_commits_agree_with_a_model(
    seed: u64,
    mut store: Arc<dyn Store>,
    reopen: Option<&dyn Fn() -> Arc<dyn Store>>,
) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut model = Model::default();
    let mut oldest = 0;
    let mut conflicts = 0;
    for n in 0..COMMITS {
        let newest = store.snapshot().revision;
        let back = random.random_range(0..8).min(newest - oldest);
        let changes: Vec<_> = (0..random.random_range(1..6)).map(|_| change(&mut random, n)).collect();
        let read = (0..random.random_range(0..3)).map(|_| Key::Token(token_id(random.random_range(0..KEYS)))).collect();
        let expected = Expected { at: newest - back, read };
        let wanted = model.conflicts(&expected, &changes);
        match store.commit(expected, changes.clone()).await {
            Ok(revision) => {
                assert!(!wanted, "seed {seed}, commit {n} was made over a conflict");
                model.apply(&changes);
                assert_eq!(revision, model.changed.len() as u64, "seed {seed}, commit {n}");
            }
            Err(CommitError::Conflict(_)) => {
                assert!(wanted, "seed {seed}, commit {n} was refused without a conflict");
                conflicts += 1;
            }
            Err(CommitError::Failed(problem)) => panic!("seed {seed}, commit {n}: {problem}"),
        }
        if n % 100 == 99 {
            model.compare(&*store, false).await;
            if let Some(reopen) = reopen {
                drop(store);
                store = reopen();
                oldest = store.snapshot().revision;
                // From here on nodes' revisions are those of the load.
                model.state.desired_revision = store.snapshot().state.desired_revision.clone();
                model.compare(&*store, true).await;
            }
        }
    }
    assert!(conflicts > 50, "seed {seed}: only {conflicts} conflicts");
}

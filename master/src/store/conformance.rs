//! What every store promises, as checks that any of them is run through. `open` gives the same store again when it is
//! called again, where the store outlives its process; each check says what is wrong by panicking.

mod random;
pub mod sample;

pub use random::random_commits_agree_with_a_model;

use self::sample::{audit, entry, token, user};
use super::{CommitError, Store};
use plat_master_plan::{Change, Expected, Key};
use plat_model::id::NodeId;
use std::sync::Arc;
use std::time::Duration;

/// Runs all checks, each on a store of its own that `open` makes from the check's name.
pub async fn all(open: impl Fn(&str) -> Arc<dyn Store>) {
    an_empty_store_is_at_revision_zero(&*open("empty")).await;
    a_commit_is_seen_whole_and_later_ones_have_greater_revisions(&*open("whole")).await;
    a_decision_on_what_changed_meanwhile_conflicts_and_changes_nothing(&*open("conflict")).await;
    a_commit_without_changes_only_checks(&*open("nothing")).await;
    of_many_that_write_one_record_at_once_each_commits_once(open("race")).await;
    watchers_see_revisions_grow_up_to_the_newest(open("watch")).await;
    ledger_and_audit_are_read_in_ranges(&*open("ranges")).await;
    audit_numbers_are_given_in_the_order_of_commits(open("numbers")).await;
}

pub(super) fn at(revision: u64) -> Expected {
    Expected { at: revision, read: Vec::new() }
}

/// Commits on the newest snapshot.
pub(super) async fn put(store: &dyn Store, changes: Vec<Change>) -> u64 {
    let revision = store.snapshot().revision;
    store.commit(at(revision), changes).await.expect("nobody else writes")
}

async fn an_empty_store_is_at_revision_zero(store: &dyn Store) {
    assert_eq!(store.snapshot().revision, 0);
    assert_eq!(*store.watch().borrow(), 0);
    assert_eq!(store.snapshot().state.users.len(), 0);
    assert!(store.ledger(None, 0, 10).await.unwrap().is_empty());
    assert!(store.audit(0, 10).await.unwrap().is_empty());
    store.settled(0).await.unwrap();
}

async fn a_commit_is_seen_whole_and_later_ones_have_greater_revisions(store: &dyn Store) {
    let before = store.snapshot();
    let first = put(store, vec![user("a", "1"), user("b", "1"), audit("x")]).await;
    assert!(first > before.revision);
    assert_eq!(before.state.users.len(), 0, "a snapshot does not change");
    let after = store.snapshot();
    assert_eq!((after.revision, after.state.users.len()), (first, 2));
    let second = put(store, vec![Change::Delete(sample::user_key("a")), user("b", "2")]).await;
    assert!(second > first);
    let users = &store.snapshot().state.users;
    assert_eq!(users.values().map(|user| user.serial.as_str()).collect::<Vec<_>>(), ["2"]);
    store.settled(second).await.unwrap();
    assert_eq!(*store.watch().borrow(), second);
}

async fn a_decision_on_what_changed_meanwhile_conflicts_and_changes_nothing(store: &dyn Store) {
    let old = put(store, vec![user("a", "1"), user("b", "1")]).await;
    put(store, vec![user("a", "2")]).await;
    let now = store.snapshot();
    // Written meanwhile.
    let result = store.commit(at(old), vec![user("a", "3"), user("c", "3"), audit("x")]).await;
    assert!(matches!(result, Err(CommitError::Conflict(key)) if key == sample::user_key("a")));
    // Read only.
    let reading = Expected { at: old, read: vec![sample::user_key("a")] };
    let result = store.commit(reading, vec![user("c", "3")]).await;
    assert!(matches!(result, Err(CommitError::Conflict(key)) if key == sample::user_key("a")));
    assert_eq!(store.snapshot().revision, now.revision);
    assert_eq!(store.snapshot().state, now.state);
    assert!(store.audit(0, 10).await.unwrap().is_empty());
    // What did not change since does not conflict.
    let reading = Expected { at: old, read: vec![sample::user_key("b"), sample::user_key("never-was")] };
    store.commit(reading, vec![user("c", "3")]).await.unwrap();
    // A removed record counts as changed.
    let old = store.snapshot().revision;
    put(store, vec![Change::Delete(sample::user_key("b"))]).await;
    let result = store.commit(at(old), vec![user("b", "4")]).await;
    assert!(matches!(result, Err(CommitError::Conflict(_))));
}

async fn a_commit_without_changes_only_checks(store: &dyn Store) {
    let old = put(store, vec![user("a", "1")]).await;
    assert_eq!(store.commit(at(old), Vec::new()).await.unwrap(), old);
    assert_eq!(store.snapshot().revision, old);
    put(store, vec![user("a", "2")]).await;
    let reading = Expected { at: old, read: vec![sample::user_key("a")] };
    assert!(matches!(store.commit(reading, Vec::new()).await, Err(CommitError::Conflict(_))));
}

async fn of_many_that_write_one_record_at_once_each_commits_once(store: Arc<dyn Store>) {
    const WRITERS: u64 = 32;
    let tasks: Vec<_> = (0..WRITERS)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    let snapshot = store.snapshot();
                    let key = sample::user_key("counter");
                    let count = snapshot
                        .state
                        .users
                        .values()
                        .find(|user| Key::User(user.name.clone()) == key)
                        .map_or(0, |user| user.serial.parse::<u64>().unwrap());
                    match store.commit(at(snapshot.revision), vec![user("counter", &(count + 1).to_string())]).await {
                        Ok(_) => return,
                        Err(CommitError::Conflict(_)) => tokio::task::yield_now().await,
                        Err(CommitError::Failed(problem)) => panic!("{problem}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let snapshot = store.snapshot();
    assert_eq!(snapshot.state.users.values().next().unwrap().serial, WRITERS.to_string());
    assert_eq!(snapshot.revision, WRITERS);
}

async fn watchers_see_revisions_grow_up_to_the_newest(store: Arc<dyn Store>) {
    let mut watched = store.watch();
    let watcher = tokio::spawn(async move {
        let mut seen = 0;
        while seen < 100 {
            watched.changed().await.expect("the store lives");
            let now = *watched.borrow_and_update();
            assert!(now >= seen, "{now} after {seen}");
            seen = now;
        }
    });
    let waiter = {
        let store = store.clone();
        tokio::spawn(async move { store.settled(100).await })
    };
    for n in 0..100 {
        let revision = put(&*store, vec![token(n, n)]).await;
        assert!(*store.watch().borrow() >= revision, "a commit that returned is durable");
    }
    tokio::time::timeout(Duration::from_secs(30), watcher).await.expect("the watcher sees 100").unwrap();
    tokio::time::timeout(Duration::from_secs(30), waiter).await.expect("100 settles").unwrap().unwrap();
}

async fn ledger_and_audit_are_read_in_ranges(store: &dyn Store) {
    for sequence in 1..=5 {
        put(store, vec![entry("n2", sequence), audit("n2")]).await;
        put(store, vec![entry("n1", sequence)]).await;
    }
    put(store, vec![entry("n", 7), entry("n10", 8)]).await;
    let list = async |node: Option<&str>, after, limit| {
        let node = node.map(|node| NodeId::parse(node).unwrap());
        let entries = store.ledger(node, after, limit).await.unwrap();
        entries.into_iter().map(|entry| format!("{}/{}", entry.node, entry.sequence)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(list(Some("n1"), 0, 100).await, "n1/1 n1/2 n1/3 n1/4 n1/5");
    assert_eq!(list(Some("n1"), 2, 2).await, "n1/3 n1/4");
    assert_eq!(list(Some("n2"), 5, 10).await, "");
    assert_eq!(list(Some("n2"), u64::MAX, 10).await, "");
    assert_eq!(list(Some("n3"), 0, 10).await, "");
    assert_eq!(list(Some("n1"), 0, 0).await, "");
    assert_eq!(list(None, 3, 100).await, "n/7 n1/4 n1/5 n10/8 n2/4 n2/5");
    assert_eq!(list(None, 0, 3).await, "n/7 n1/1 n1/2");
    let numbers = async |after, limit| {
        store.audit(after, limit).await.unwrap().into_iter().map(|entry| entry.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(0, 100).await, [1, 2, 3, 4, 5]);
    assert_eq!(numbers(2, 2).await, [3, 4]);
    assert_eq!(numbers(u64::MAX, 2).await, [0u64; 0]);
}

async fn audit_numbers_are_given_in_the_order_of_commits(store: Arc<dyn Store>) {
    let tasks: Vec<_> = (0..20)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                // Snapshots as old as the store: audit entries never conflict.
                let subject = format!("{n}");
                store.commit(at(0), vec![audit(&subject), audit(&subject)]).await.map(|revision| (revision, subject))
            })
        })
        .collect();
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.unwrap().unwrap());
    }
    done.sort();
    let wanted: Vec<_> = done.iter().flat_map(|(_, subject)| [subject.clone(), subject.clone()]).collect();
    let entries = store.audit(0, 100).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), (1..=40).collect::<Vec<_>>());
    assert_eq!(entries.into_iter().map(|entry| entry.subject).collect::<Vec<_>>(), wanted);
}

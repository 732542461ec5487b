use super::conformance::sample::{audit, entry, token, user};
use super::conformance::{self, at, put, random_commits_agree_with_a_model};
use super::{CommitError, EngineKind, MemoryStore, Store, open};
use plat_master_plan::record::{Name, Record};
use plat_master_plan::{Change, Key};
use plat_model::Problem;
use plat_model::id::{InstanceId, InstanceName, ProjectName};
use plat_model::problem::codes;
use std::path::Path;
use std::sync::Arc;

fn opened(folder: &Path, kind: EngineKind) -> Arc<dyn Store> {
    open(folder, Some(kind)).unwrap_or_else(|problem| panic!("{problem}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_memory_store_conforms() {
    conformance::all(|_| Arc::new(MemoryStore::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_redb_store_conforms() {
    let home = tempfile::tempdir().unwrap();
    conformance::all(|name| opened(&home.path().join(name), EngineKind::Redb)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sled_store_conforms() {
    let home = tempfile::tempdir().unwrap();
    conformance::all(|name| opened(&home.path().join(name), EngineKind::Sled)).await;
}

#[tokio::test]
async fn random_commits_to_the_memory_store_agree_with_a_model() {
    for seed in 0..5 {
        random_commits_agree_with_a_model(seed, Arc::new(MemoryStore::new()), None).await;
    }
}

async fn random_commits(kind: EngineKind) {
    for seed in 0..2 {
        let home = tempfile::tempdir().unwrap();
        let reopen = || opened(home.path(), kind);
        random_commits_agree_with_a_model(seed, reopen(), Some(&reopen)).await;
    }
}

#[tokio::test]
async fn random_commits_to_the_redb_store_agree_with_a_model_and_are_there_after_each_start() {
    random_commits(EngineKind::Redb).await;
}

#[tokio::test]
async fn random_commits_to_the_sled_store_agree_with_a_model_and_are_there_after_each_start() {
    random_commits(EngineKind::Sled).await;
}

#[tokio::test]
async fn two_commits_of_one_name_conflict_and_no_row_is_written_of_it() {
    let name = |instance: &str| {
        let (project, name) = (ProjectName::parse("p").unwrap(), InstanceName::parse("db").unwrap());
        let instance = InstanceId::parse(&instance.repeat(32)).unwrap();
        Change::put(Record::Name(Name { project, name, instance }))
    };
    for kind in EngineKind::ALL {
        let home = tempfile::tempdir().unwrap();
        let store = opened(home.path(), kind);
        let before = store.snapshot().revision;
        store.commit(at(before), vec![name("a"), user("u", "1")]).await.unwrap();
        let second = store.commit(at(before), vec![name("b"), user("v", "1")]).await;
        assert!(matches!(second, Err(CommitError::Conflict(Key::Name(..)))), "{kind}");
        drop(store);
        let written = listing(home.path()).into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>().concat();
        let holds = |what: &str| written.windows(what.len()).any(|part| part == what.as_bytes());
        assert!(holds("plat-store") && !holds(&"a".repeat(32)), "{kind}");
    }
}

#[tokio::test]
async fn revisions_and_audit_numbers_go_on_after_a_start() {
    for kind in EngineKind::ALL {
        let home = tempfile::tempdir().unwrap();
        let store = opened(home.path(), kind);
        let before = put(&*store, vec![audit("a"), audit("b"), user("u", "1")]).await;
        drop(store);
        let store = opened(home.path(), kind);
        assert_eq!(store.snapshot().revision, before);
        assert_eq!(*store.watch().borrow(), before);
        assert_eq!(put(&*store, vec![audit("c")]).await, before + 1);
        let entries = store.audit(0, 10).await.unwrap();
        assert_eq!(entries.iter().map(|entry| entry.number).collect::<Vec<_>>(), [1, 2, 3]);
        // A snapshot from before the start may not be committed on: nobody knows what changed after it.
        let result = store.commit(at(before - 1), vec![user("v", "1")]).await;
        assert!(matches!(result, Err(CommitError::Conflict(_))), "{kind}");
    }
}

#[tokio::test]
async fn the_folder_says_its_engine_and_another_is_refused() {
    for kind in EngineKind::ALL {
        let home = tempfile::tempdir().unwrap();
        put(&*opened(home.path(), kind), vec![user("u", "1")]).await;
        let other = EngineKind::ALL.into_iter().find(|other| *other != kind).unwrap();
        let problem = open(home.path(), Some(other)).err().expect("another engine is refused");
        assert_eq!(problem.code, codes::STORE_FAILED);
        assert!(problem.why.contains(kind.name()) && problem.why.contains(other.name()), "{problem}");
        let store = open(home.path(), None).unwrap_or_else(|problem| panic!("{problem}"));
        assert_eq!(store.snapshot().state.users.len(), 1);
    }
}

fn listing(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push((path.display().to_string(), std::fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}

#[tokio::test]
async fn a_folder_of_a_newer_version_is_refused_and_left_untouched() {
    for kind in EngineKind::ALL {
        let home = tempfile::tempdir().unwrap();
        put(&*opened(home.path(), kind), vec![user("u", "1")]).await;
        std::fs::write(home.path().join("FORMAT"), "plat-store 2 sqlite wal\n").unwrap();
        let before = listing(home.path());
        for wanted in [None, Some(kind)] {
            assert_eq!(open(home.path(), wanted).err().expect("it is refused").code, codes::STORE_VERSION);
        }
        assert!(before == listing(home.path()), "{kind}: something was written");
    }
}

#[test]
fn a_folder_that_is_not_a_store_is_refused() {
    for text in
        ["", "hello", "plat-store", "plat-store 1", "plat-store 0 redb", "plat-store 1 csv", "plat-store x redb"]
    {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("FORMAT"), text).unwrap();
        let problem = open(home.path(), None).err().expect("it is refused");
        assert_eq!(problem.code, codes::STORE_FAILED, "{text}: {problem}");
        assert!(!problem.todo.is_empty());
    }
}

#[test]
fn a_folder_that_is_open_is_refused_until_it_is_closed() {
    for kind in EngineKind::ALL {
        let home = tempfile::tempdir().unwrap();
        let store = opened(home.path(), kind);
        let problem = open(home.path(), Some(kind)).err().expect("it is refused");
        assert_eq!(problem.code, codes::STORE_FAILED);
        assert!(problem.why.contains("another process"), "{problem}");
        drop(store);
        opened(home.path(), kind);
    }
}

#[tokio::test]
async fn a_record_that_is_too_large_is_refused_and_the_store_goes_on() {
    for kind in EngineKind::ALL {
        let home = tempfile::tempdir().unwrap();
        let store = opened(home.path(), kind);
        let huge = "x".repeat(super::record::VALUE_MAX);
        let result = store.commit(at(0), vec![token(1, 1), user("u", &huge)]).await;
        assert!(matches!(result, Err(CommitError::Failed(problem)) if problem.code == codes::TOO_LARGE));
        assert_eq!(store.snapshot().revision, 0);
        put(&*store, vec![token(1, 1), user("u", &"x".repeat(2 << 20))]).await;
        drop(store);
        assert_eq!(opened(home.path(), kind).snapshot().state.users.len(), 1, "{kind}");
    }
}

#[tokio::test]
async fn a_store_that_failed_refuses_everything() {
    let store = MemoryStore::new();
    put(&store, vec![user("u", "1"), entry("n1", 1)]).await;
    store.settled(1).await.unwrap();
    store.fail(Problem::new(codes::STORE_FAILED, "cannot write to the store").because("no space left"));
    let broke = store.snapshot().revision;
    let result = store.commit(at(1), vec![user("u", "2")]).await;
    assert!(matches!(result, Err(CommitError::Failed(problem)) if problem.code == codes::STORE_FAILED));
    assert_eq!(store.settled(2).await.unwrap_err().code, codes::STORE_FAILED);
    assert_eq!(store.ledger(None, 0, 1).await.unwrap_err().code, codes::STORE_FAILED);
    assert_eq!(store.snapshot().revision, broke);
}

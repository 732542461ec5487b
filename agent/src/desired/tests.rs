use super::*;
use plat_model::Generation;
use plat_model::id::Digest;
use plat_model::problem::codes;
use std::fs;

fn answer(generation: u64, documents: &[&str]) -> DesiredIndex {
    let documents: Vec<(Digest, String)> =
        documents.iter().map(|text| (plat_document::release::digest_of(text), (*text).to_owned())).collect();
    DesiredIndex {
        generation: Generation(generation),
        releases: documents.iter().map(|(digest, _)| digest.clone()).collect(),
        rebuilds: documents.iter().map(|(digest, _)| (digest.clone(), 3)).collect(),
        documents,
        ..DesiredIndex::default()
    }
}

fn open(folder: &tempfile::TempDir) -> (Keeper, Option<Problem>) {
    Keeper::open(folder.path().join("desired"))
}

#[test]
fn what_was_accepted_is_there_after_a_restart_and_an_older_word_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(&folder);
    assert_eq!(keeper.accept(answer(7, &["a"])).unwrap(), Accepted::New);
    assert_eq!(keeper.behind(Generation(7)), None);
    assert_eq!(keeper.accept(answer(6, &[])).unwrap(), Accepted::Old);
    assert_eq!(keeper.behind(Generation(6)).unwrap().code, codes::STORE_FAILED);
    assert_eq!(keeper.accept(answer(7, &[])).unwrap(), Accepted::Old);
    let (again, problem) = open(&folder);
    assert_eq!(problem, None);
    assert_eq!(again.current().unwrap().generation, Generation(7));
    assert_eq!(again.held().releases.len(), 1);
    assert_eq!(again.current().unwrap().rebuilds.values().collect::<Vec<_>>(), [&3]);
    assert_eq!(again.accept(answer(6, &[])).unwrap(), Accepted::Old);
}

#[test]
fn a_damaged_file_is_told_and_counts_as_none_wherever_it_is_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("desired");
    open(&folder).0.accept(answer(7, &["a"])).unwrap();
    let good = fs::read(&path).unwrap();
    for n in 0..good.len() {
        let mut bad = good.clone();
        bad[n] ^= 1;
        fs::write(&path, &bad).unwrap();
        let (keeper, problem) = open(&folder);
        assert!(keeper.current().is_none(), "byte {n}");
        assert_eq!(problem.unwrap().code, codes::BAD_STATE_FILE);
        fs::write(&path, &good[..n]).unwrap();
        assert!(open(&folder).0.current().is_none(), "cut at {n}");
    }
}

#[test]
fn an_answer_that_cannot_be_put_together_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(&folder);
    keeper.accept(answer(1, &["a"])).unwrap();
    let missing = DesiredIndex { documents: Vec::new(), ..answer(2, &["b"]) };
    assert_eq!(keeper.accept(missing).unwrap_err().code, codes::BAD_MESSAGE);
    let mut forged = answer(2, &["b"]);
    forged.documents[0].1 = "c".into();
    assert_eq!(keeper.accept(forged).unwrap_err().code, codes::BAD_MESSAGE);
    assert_eq!(keeper.current().unwrap().generation, Generation(1));
    assert_eq!(keeper.accept(DesiredIndex { documents: Vec::new(), ..answer(2, &["a"]) }).unwrap(), Accepted::New);
}

#[test]
fn an_answer_without_room_for_all_is_put_together_with_those_that_follow() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(&folder);
    let part = |n: usize| {
        let mut answer = answer(3, &["a", "b", "c"]);
        answer.documents = vec![answer.documents.swap_remove(n)];
        answer
    };
    assert_eq!(keeper.accept(part(0)).unwrap(), Accepted::Part);
    assert_eq!(keeper.accept(part(2)).unwrap(), Accepted::Part);
    assert!(keeper.current().is_none());
    assert_eq!(keeper.held().releases.len(), 2);
    assert_eq!(keeper.accept(part(1)).unwrap(), Accepted::New);
    assert_eq!(keeper.current().unwrap().releases.len(), 3);
    assert_eq!(keeper.came(), Held::default());
}

#[test]
fn an_answer_that_brings_nothing_new_is_refused_and_what_came_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(&folder);
    let part = || {
        let mut answer = answer(3, &["a", "b"]);
        answer.documents.truncate(1);
        answer
    };
    assert_eq!(keeper.accept(part()).unwrap(), Accepted::Part);
    assert_eq!(keeper.accept(part()).unwrap_err().code, codes::BAD_MESSAGE);
    assert_eq!(keeper.came(), Held::default());
}

#[test]
fn what_the_disk_had_no_room_for_need_not_be_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let (keeper, _) = open(&folder);
    let in_the_way = folder.path().join("desired.new");
    fs::create_dir(&in_the_way).unwrap();
    assert_ne!(keeper.accept(answer(1, &["a"])).unwrap_err().code, codes::BAD_MESSAGE);
    assert!(keeper.current().is_none(), "what is not on the disk is not acted on");
    assert_eq!(keeper.held().releases.len(), 1);
    fs::remove_dir(&in_the_way).unwrap();
    let index = DesiredIndex { documents: Vec::new(), ..answer(1, &["a"]) };
    assert_eq!(keeper.accept(index).unwrap(), Accepted::New);
}

use super::*;
use crate::durable::hash;
use std::collections::BTreeMap;
use std::fs;

/// A few numbers by name, each added to.
#[derive(Debug, Clone, Default, PartialEq)]
struct Sums(BTreeMap<String, u64>);

impl Kept for Sums {
    type Entry = (String, u64);

    fn apply(&mut self, (name, by): &Self::Entry) {
        *self.0.entry(name.clone()).or_default() += by;
    }

    fn entries(&self) -> Vec<Self::Entry> {
        self.0.clone().into_iter().collect()
    }

    fn sheds((name, _): &Self::Entry) -> bool {
        name == "shed"
    }
}

fn opened(path: PathBuf) -> Result<Opened<Sums>, Problem> {
    Opened::read(path, "this boot")
}

fn start(path: &std::path::Path) -> Journal<Sums> {
    Journal::start(opened(path.into()).unwrap()).unwrap()
}

fn sums(journal: &Journal<Sums>) -> Sums {
    journal.view().read(Sums::clone)
}

fn read(bytes: &[u8]) -> Result<Sums, Problem> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    fs::write(&path, bytes).unwrap();
    let read = opened(path.clone());
    assert_eq!(fs::read(path).unwrap(), bytes, "reading changes nothing");
    Ok(read?.state)
}

async fn add(journal: &Journal<Sums>, name: &str, durability: Durability) -> Result<(), Problem> {
    journal.append(vec![(name.into(), 1), ("all".into(), 1)], durability).await
}

/// What was written in two lives: the file, how much of it was durable, and the state after each change since then.
async fn written() -> (Vec<u8>, usize, Vec<Sums>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    for name in ["a", "b", "c"] {
        add(&start(&path), name, Durability::Power).await.unwrap();
    }
    let journal = start(&path);
    add(&journal, "d", Durability::Process).await.unwrap();
    add(&journal, "e", Durability::Power).await.unwrap();
    let durable = fs::read(&path).unwrap().len();
    let mut states = vec![sums(&journal)];
    for name in ["f", "g", "h"] {
        add(&journal, name, Durability::Process).await.unwrap();
        states.push(sums(&journal));
    }
    (fs::read(&path).unwrap(), durable, states)
}

#[tokio::test]
async fn whatever_a_cut_of_power_leaves_of_the_file_is_a_state_that_was_and_holds_all_that_was_durable() {
    let (bytes, durable, states) = written().await;
    assert!(durable < bytes.len() && states.len() == 4);
    let mut seen = Vec::new();
    for cut in durable..=bytes.len() {
        let left = read(&bytes[..cut]).unwrap();
        let at = states.iter().position(|state| *state == left);
        seen.push(at.unwrap_or_else(|| panic!("cut at {cut}: {left:?} never was")));
        // Blocks reach the disk in any order: here nothing was written, and behind it all was.
        let hole = (cut + 100).min(bytes.len());
        let holed = [&bytes[..cut], &vec![0; hole - cut], &bytes[hole..]].concat();
        assert!(states.contains(&read(&holed).unwrap()), "a hole at {cut}");
    }
    assert!(seen.is_sorted() && seen.last() == Some(&3), "more is never less");
}

#[tokio::test]
async fn damage_to_what_was_durable_is_refused_and_said_and_nothing_is_touched() {
    let (bytes, _, _) = written().await;
    let starts: Vec<usize> = (0..bytes.len()).filter(|at| *at == 0 || bytes[at - 1] == b'\n').collect();
    // Lines behind the durable ones say that those were.
    let known =
        bytes.len() - bytes[..].rsplit(|byte| *byte == b'\n').skip(1).take(3).map(|l| l.len() + 1).sum::<usize>();
    for at in 0..known {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        let problem = read(&damaged).unwrap_err();
        let line = starts.iter().filter(|start| **start <= at).count();
        assert_eq!(problem.code, codes::BAD_STATE_FILE);
        assert!(problem.why.contains(&format!("line {line}:")), "byte {at} in line {line}: {}", problem.why);
    }
    assert!(read(&bytes[..known - 300]).is_err() && read(b"").is_err(), "it cannot have become shorter");
}

#[tokio::test]
async fn a_person_can_give_one_damaged_line_up() {
    let (bytes, _, _) = written().await;
    let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines[2] = b"1 not to be read\n".to_vec();
    assert!(read(&lines.concat()).is_err());
    lines[2] = b"\n".to_vec();
    let left = read(&lines.concat()).unwrap();
    assert_eq!(left.0["all"], 4, "what the first lines had added to it is lost: {left:?}");
}

#[test]
fn a_file_of_a_newer_agent_is_refused() {
    let said = r#"1 {"boot":"this boot"}"#;
    let problem = read(format!("2 {} {said}\n", hash(said.as_bytes())).as_bytes()).unwrap_err();
    assert!(problem.why.contains("version"), "{problem}");
    assert!(read(format!("1 {} {said}\n", hash(said.as_bytes())).as_bytes()).is_ok());
}

#[tokio::test]
async fn what_cannot_be_written_is_not_remembered_unless_nothing_depends_on_it_and_is_made_up_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent/journal");
    let journal = start(&path);
    assert_eq!(add(&journal, "a", Durability::Power).await.unwrap_err().code, codes::BAD_STATE_FILE);
    assert_eq!(sums(&journal), Sums::default());
    add(&journal, "b", Durability::Process).await.unwrap_err();
    assert_eq!(sums(&journal).0, [("all".into(), 1), ("b".into(), 1)].into());
    fs::create_dir(folder.path().join("absent")).unwrap();
    add(&journal, "c", Durability::Power).await.unwrap();
    let remembered = sums(&journal);
    assert_eq!(remembered.0, [("all".into(), 2), ("b".into(), 1), ("c".into(), 1)].into());
    drop(journal);
    assert_eq!(opened(path).unwrap().state, remembered);
}

#[tokio::test]
async fn while_nothing_can_be_written_nobody_tries_without_end_for_what_nothing_depends_on() {
    let folder = tempfile::tempdir().unwrap();
    let (path, aside) = (folder.path().join("there/journal"), folder.path().join("aside"));
    fs::create_dir(folder.path().join("there")).unwrap();
    let journal = start(&path);
    fs::rename(folder.path().join("there"), &aside).unwrap();
    add(&journal, "a", Durability::Process).await.unwrap_err();
    fs::rename(&aside, folder.path().join("there")).unwrap();
    // It could be written by now.
    let begun = Instant::now();
    let soon = add(&journal, "b", Durability::Process).await;
    assert!(soon.is_err() && !path.exists() || begun.elapsed() >= AGAIN_AFTER);
    assert_eq!(sums(&journal).0["all"], 2, "it is known all the same");
    add(&journal, "c", Durability::Power).await.unwrap();
    assert_eq!(opened(path).unwrap().state, sums(&journal));
    add(&journal, "d", Durability::Process).await.unwrap();
}

#[tokio::test]
async fn what_is_changed_right_after_the_file_was_mended_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let (there, aside) = (folder.path().join("there"), folder.path().join("aside"));
    fs::create_dir(&there).unwrap();
    // It gets rid of what was before, which mends it, well before a second is over.
    let journal = Journal::shedding(opened(there.join("journal")).unwrap(), Duration::from_millis(100)).unwrap();
    fs::rename(&there, &aside).unwrap();
    add(&journal, "shed", Durability::Process).await.unwrap_err();
    fs::rename(&aside, &there).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !there.join("journal").exists() {
        assert!(Instant::now() < deadline);
        tokio::task::yield_now().await;
    }
    add(&journal, "a", Durability::Process).await.unwrap();
    assert_eq!(opened(there.join("journal")).unwrap().state, sums(&journal));
}

#[test]
fn where_there_is_no_room_for_another_file_the_one_there_is_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut writer = Writer::new(path.clone(), "this boot".into());
    writer.rewrite(&["a"]).unwrap();
    let new = folder.path().join("journal.new");
    fs::create_dir(&new).unwrap();
    writer.rewrite(&["a"]).unwrap_err();
    assert!(!writer.is_in_doubt());
    writer.append([vec!["b"]].iter()).and_then(|()| writer.sync()).unwrap();
    fs::remove_dir(&new).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"a\"") && text.contains("\"b\""), "{text}");
    writer.rewrite(&["c"]).unwrap();
    assert!(!fs::read_to_string(&path).unwrap().contains("\"b\"") && !new.exists());
}

#[test]
fn a_file_that_could_not_be_replaced_is_in_doubt_until_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let mut writer = Writer::new(path.clone(), "this boot".into());
    writer.rewrite(&["a"]).unwrap();
    fs::remove_file(&path).unwrap();
    fs::create_dir_all(path.join("in the way")).unwrap();
    writer.rewrite(&["b"]).unwrap_err();
    assert!(writer.is_in_doubt() && writer.append([vec!["c"]].iter()).is_err(), "it is another file's place");
    fs::remove_dir_all(&path).unwrap();
    writer.rewrite(&["d"]).and_then(|()| writer.append([vec!["e"]].iter())).unwrap();
    let found = form::read::<String>(&path).unwrap();
    assert_eq!(found.entries, ["d", "e"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_anew_goes_on_and_becomes_short_when_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let long = "n".repeat(64 << 10);
    let journal = start(&path);
    add(&journal, "first", Durability::Power).await.unwrap();
    fs::create_dir(folder.path().join("journal.new")).unwrap();
    for _ in 0..20 {
        add(&journal, &long, Durability::Power).await.unwrap();
    }
    let is = sums(&journal);
    assert_eq!((is.0["first"], is.0[&long]), (1, 20));
    assert!(fs::metadata(&path).unwrap().len() > 1 << 20);
    assert_eq!(opened(path.clone()).unwrap().state, is);
    fs::remove_dir(folder.path().join("journal.new")).unwrap();
    for _ in 0..30 {
        add(&journal, &long, Durability::Power).await.unwrap();
    }
    assert_eq!(opened(path.clone()).unwrap().state, sums(&journal));
    assert!(fs::metadata(&path).unwrap().len() < 2 << 20, "51 lines would be 3 MB");
}

#[tokio::test]
async fn who_changes_nothing_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    drop(start(&path));
    assert!(!path.exists());
    add(&start(&path), "a", Durability::Process).await.unwrap();
    let bytes = fs::read(&path).unwrap();
    // An earlier one that ends late.
    let idle = start(&path);
    add(&start(&path), "b", Durability::Power).await.unwrap();
    drop(idle);
    assert_ne!(fs::read(&path).unwrap(), bytes);
    assert_eq!(sums(&start(&path)).0.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_are_all_there_and_a_file_that_grows_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let journal = Arc::new(start(&path));
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let journal = journal.clone();
            tokio::spawn(async move {
                for _ in 0..2000 {
                    add(&journal, &format!("name{n}"), if n == 0 { Durability::Power } else { Durability::Process })
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let remembered = sums(&journal);
    assert_eq!(remembered.0["all"], 16_000);
    assert!(fs::metadata(&path).unwrap().len() < 2 << 20, "32,000 lines would be 3 MB");
    assert_eq!(opened(path.clone()).unwrap().state, remembered, "also before its end");
    drop(Arc::into_inner(journal).unwrap());
    assert_eq!(opened(path).unwrap().state, remembered);
}

#[tokio::test]
async fn what_must_not_stay_on_the_disk_leaves_it_while_the_journal_is_open_and_nothing_else_happens() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal");
    let until_short = |lines: usize| {
        let end = Instant::now() + Duration::from_secs(20);
        while fs::read_to_string(&path).unwrap().lines().count() > lines {
            assert!(Instant::now() < end, "{}", fs::read_to_string(&path).unwrap());
            std::thread::yield_now();
        }
    };
    let journal = Journal::shedding(opened(path.clone()).unwrap(), Duration::ZERO).unwrap();
    for _ in 0..3 {
        add(&journal, "shed", Durability::Process).await.unwrap();
    }
    // The head, and a line for each of the two sums.
    until_short(3);
    drop(journal);

    // Found, where another agent was killed before it was time.
    let journal = start(&path);
    for _ in 0..2 {
        add(&journal, "shed", Durability::Power).await.unwrap();
    }
    let found = fs::read(&path).unwrap();
    drop(journal);
    fs::write(&path, found).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 4);
    let _journal = Journal::shedding(opened(path.clone()).unwrap(), Duration::ZERO).unwrap();
    until_short(3);
}

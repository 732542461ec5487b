use super::*;
use plat_agent_plan::action::{Loaded, ServiceSpec};
use plat_agent_plan::{Action, Begun, Outcomes, PartitionFact, PromiseFact, Steady, Upkeep};
use plat_document::release::Check;
use plat_model::Timestamp;
use plat_model::id::ServiceName;
use plat_model::parameters::Parameters;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn records(&self) -> Records {
        Records::new(self.0.path())
    }

    fn open(&self) -> Result<Occupants, Problem> {
        Occupants::open(self.0.path(), &self.records())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("occupants")
    }

    /// As an agent of before would have left it.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let folder = self.records().partition(&part(0));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), text).unwrap();
        folder.join(name)
    }
}

fn part(n: u32) -> PartitionName {
    PartitionName::parse(&format!("part{n}")).unwrap()
}

fn instance(n: u32) -> InstanceId {
    InstanceId::parse(&format!("{n:032x}")).unwrap()
}

fn moment(millis: u64) -> Moment {
    Moment { wall: Timestamp(millis as i64), steady: Steady(millis) }
}

const OCCUPANT: &str = r#"{"version": 1, "instance": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "secrets": {"key": "s3cret"},
    "initialised": true, "configured": "", "started": true, "ready": true, "connection": {}, "cleaned": false,
    "erased": false}"#;

fn promises(boot: &str) -> String {
    let fact = PromiseFact::after(None, "these runs", false, "gone".into(), moment(7));
    let fact = serde_json::to_string(&fact).unwrap();
    format!(r#"{{"version": 1, "boot": "{boot}", "results": {{"answers": {fact}}}}}"#)
}

#[tokio::test]
async fn what_agents_of_before_wrote_down_is_taken_over_once() {
    let folder = Folder::new();
    let old = [folder.write("occupant.json", OCCUPANT), folder.write("promises.json", &promises(&boot_id()))];
    let occupants = folder.open().unwrap();
    assert!(old.iter().all(|path| !path.exists()));
    let memory = occupants.observe(&part(0)).unwrap();
    let occupant = memory.occupant.clone().unwrap();
    assert!(occupant.ready && occupant.revivals == 0 && occupant.reloaded.is_empty());
    assert_eq!(memory.secrets["key"].reveal(), "s3cret");
    assert_eq!(occupant.secrets, ["key".to_owned()].into());
    let fact = memory.promises.values().next().unwrap().clone();
    assert_eq!((fact.failures, fact.checked), (1, moment(7)));
    // Killed before it could remove them.
    drop(occupants);
    folder.write("occupant.json", OCCUPANT);
    assert_eq!(folder.open().unwrap().observe(&part(0)).unwrap(), memory);
    assert!(old.iter().all(|path| !path.exists()));
}

#[tokio::test]
async fn what_an_older_agent_wrote_after_this_one_is_gone_on_with_and_what_it_wrote_before_is_set_aside() {
    let folder = Folder::new();
    let occupants = folder.open().unwrap();
    occupants.occupy(&part(0), &instance(1), &BTreeMap::new()).await.unwrap();
    drop(occupants);
    let journal = fs::metadata(folder.file()).unwrap().modified().unwrap();
    let write = |text: &str, at| {
        let path = folder.write("occupant.json", text);
        fs::File::options().write(true).open(&path).unwrap().set_modified(at).unwrap();
        path
    };
    let earlier = write(&OCCUPANT.replace("s3cret", "earlier"), journal - Duration::from_secs(1));
    assert_eq!(folder.open().unwrap().holders().of(&part(0)), Some(instance(1)));
    let aside = earlier.with_extension("json.older");
    assert!(!earlier.exists() && fs::read_to_string(&aside).unwrap().contains("earlier"));

    // What makes no sense is nobody's to remove either.
    let later = write("{", journal + Duration::from_secs(1));
    assert_eq!(folder.open().unwrap().observe(&part(0)).unwrap_err().code, codes::BAD_STATE_FILE);
    assert!(later.exists());
    write(OCCUPANT, journal + Duration::from_secs(1));
    let occupants = folder.open().unwrap();
    let occupant = occupants.observe(&part(0)).unwrap().occupant.clone().unwrap();
    assert_eq!(occupants.observe(&part(0)).unwrap().secrets["key"].reveal(), "s3cret");
    drop(occupants);
    assert!(!later.exists());
    assert_eq!(folder.open().unwrap().observe(&part(0)).unwrap().occupant, Some(occupant));
}

#[tokio::test]
async fn an_occupant_of_before_that_makes_no_sense_stays_to_be_mended_and_results_are_asked_anew() {
    let folder = Folder::new();
    let old = folder.write("occupant.json", "{");
    let occupants = folder.open().unwrap();
    assert_eq!(occupants.observe(&part(0)).unwrap_err().code, codes::BAD_STATE_FILE);
    let occupied = occupants.occupy(&part(0), &instance(1), &BTreeMap::new()).await;
    assert_eq!(occupied.unwrap_err().code, codes::BAD_STATE_FILE);
    assert!(old.exists());
    drop(occupants);
    fs::write(old, OCCUPANT).unwrap();
    folder.write("promises.json", "{");
    let memory = folder.open().unwrap().observe(&part(0)).unwrap();
    assert!(memory.occupant.is_some() && memory.promises.is_empty());
}

#[tokio::test]
async fn results_of_another_boot_are_older_than_all_of_this_one() {
    let folder = Folder::new();
    folder.write("occupant.json", OCCUPANT);
    folder.write("promises.json", &promises("another boot"));
    let occupants = folder.open().unwrap();
    let checked =
        |occupants: &Occupants| occupants.observe(&part(0)).unwrap().promises.values().next().unwrap().checked;
    assert_eq!(checked(&occupants), Moment { steady: Steady::ZERO, ..moment(7) });
    let promise = PromiseName::parse("answers").unwrap();
    occupants.checked(&part(0), &promise, "these runs", (true, "ok".into()), moment(9)).await.unwrap();
    drop(occupants);
    assert_eq!(checked(&folder.open().unwrap()), moment(9));
}

#[tokio::test]
async fn what_is_remembered_is_what_an_agent_that_is_started_again_reads() {
    let folder = Folder::new();
    let mut occupants = folder.open().unwrap();
    occupants.occupy(&part(0), &instance(1), &[("key".into(), 12)].into()).await.unwrap();
    let mut expected = occupants.observe(&part(0)).unwrap().occupant.clone().unwrap();
    assert_eq!(occupants.observe(&part(0)).unwrap().secrets["key"].reveal().len(), 12);
    let upkeep = Box::new(Upkeep { environment: [("KEY".into(), "value".into())].into(), ..Upkeep::default() });
    let loaded = Loaded { run: "run1".into(), files: "files".into() };
    let promise = PromiseName::parse("answers").unwrap();
    for note in [
        Note::Initialised,
        Note::Configured { fingerprint: "release/files".into(), upkeep },
        Note::Started,
        Note::Published(Parameters::parse_json(r#"{"url": "here", "port": 80.5}"#).unwrap()),
        Note::Revived { times: 2 },
        Note::Reloaded { service: ServiceName::parse("web").unwrap(), loaded },
        Note::Stopped,
        Note::Cleaned,
    ] {
        occupants.note(&part(0), &note).await.unwrap();
        expected.note(&note);
        occupants.checked(&part(0), &promise, "of", (note == Note::Started, "said".into()), moment(7)).await.unwrap();
        let seen = occupants.observe(&part(0)).unwrap();
        assert_eq!(seen.occupant.as_ref(), Some(&expected));
        drop(occupants);
        occupants = folder.open().unwrap();
        assert_eq!(occupants.observe(&part(0)).unwrap(), seen);
    }
    assert_eq!(occupants.observe(&part(0)).unwrap().promises[&promise].history.len(), 3);
}

#[tokio::test]
async fn a_secret_of_who_is_gone_does_not_stay_on_the_disk() {
    let folder = Folder::new();
    let occupants = folder.open().unwrap();
    occupants.occupy(&part(0), &instance(1), &[("key".into(), 12)].into()).await.unwrap();
    let secret = occupants.observe(&part(0)).unwrap().secrets["key"].reveal().to_owned();
    assert!(fs::read_to_string(folder.file()).unwrap().contains(&secret));
    // What it publishes is rendered with it.
    let published = Parameters::parse_json(&format!(r#"{{"url": "db://{secret}@here"}}"#)).unwrap();
    occupants.published(&part(0), published, "of").await.unwrap();
    occupants.erased(&part(0)).await.unwrap();
    drop(occupants);
    assert!(!fs::read_to_string(folder.file()).unwrap().contains(&secret));
    let occupants = folder.open().unwrap();
    assert!(occupants.observe(&part(0)).unwrap().occupant.as_ref().is_some_and(|occupant| occupant.erased));
    occupants.freed(&part(0)).await.unwrap();
    assert_eq!(*occupants.observe(&part(0)).unwrap(), Memory::default());
    assert!(occupants.holders().all().is_empty());
}

#[tokio::test]
async fn a_partition_is_not_given_twice() {
    let folder = Folder::new();
    let occupants = folder.open().unwrap();
    let secrets = BTreeMap::new();
    let (place, one, other) = (part(0), instance(1), instance(2));
    let (one, other) =
        tokio::join!(occupants.occupy(&place, &one, &secrets), occupants.occupy(&place, &other, &secrets));
    one.unwrap();
    assert_eq!(other.unwrap_err().code, codes::CONFLICT);
    assert_eq!(occupants.holders().of(&part(0)), Some(instance(1)));
}

/// The machine of the plan's model, whose checks say what they are told to.
struct Said(bool);

impl Outcomes for Said {
    fn start(&mut self, _: &ServiceSpec) -> Begun {
        unreachable!("nothing is started")
    }

    fn check(&mut self, _: &PromiseName) -> (bool, String) {
        (self.0, "said".into())
    }
}

/// What may be done to a partition that somebody holds, or to a free one.
fn any_action(random: &mut StdRng, is_held: bool) -> Action {
    let partition = part(0);
    let note = match random.random_range(0..9) {
        0 => Note::Initialised,
        1 => Note::Configured { fingerprint: random.random_range(0..9).to_string(), upkeep: Box::default() },
        2 => Note::KeptUp(Box::default()),
        3 => Note::Started,
        4 => Note::Published(Parameters::parse_json(r#"{"url": "here"}"#).unwrap()),
        5 => Note::Stopped,
        6 => Note::Revived { times: random.random_range(0..4) },
        7 => Note::Reloaded {
            service: ServiceName::parse("web").unwrap(),
            loaded: Loaded { run: "run1".into(), files: random.random_range(0..9).to_string() },
        },
        _ => Note::Cleaned,
    };
    match random.random_range(0..12) {
        0..=2 => Action::Occupy {
            partition,
            instance: instance(random.random_range(0..2)),
            secrets: [(format!("key{}", random.random_range(0..3)), 12)].into(),
        },
        3 => Action::Erase { partition },
        4 if random.random() => Action::Free { partition },
        5..=8 if is_held => Action::Note { partition, note },
        _ => Action::CheckPromise {
            partition,
            promise: PromiseName::parse(&format!("promise{}", random.random_range(0..4))).unwrap(),
            of: random.random_range(0..2).to_string(),
            check: Check::Exec(Vec::new()),
            timeout_seconds: 1,
            environment: BTreeMap::new(),
        },
    }
}

/// As the host does it.
async fn perform(occupants: &Occupants, action: &Action, holds: bool, now: Moment) -> Result<(), Problem> {
    match action {
        Action::Occupy { partition, instance, secrets } => occupants.occupy(partition, instance, secrets).await,
        Action::Note { partition, note } => occupants.note(partition, note).await,
        Action::CheckPromise { partition, promise, of, .. } => {
            occupants.checked(partition, promise, of, (holds, "said".into()), now).await
        }
        Action::Erase { partition } => occupants.erased(partition).await,
        Action::Free { partition } => occupants.freed(partition).await,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_remembered_after_an_action_is_what_the_plan_expects_of_it() {
    let mut random = StdRng::seed_from_u64(7);
    let folder = Folder::new();
    let (occupants, mut expected) = (folder.open().unwrap(), PartitionFact::default());
    for step in 0..2000 {
        let action = any_action(&mut random, expected.occupant.is_some());
        let (now, holds) = (moment(step), random.random());
        let expects = expected.effect(&action, now, &mut Said(holds)).map_err(|problem| problem.code);
        let went = perform(&occupants, &action, holds, now).await.map_err(|problem| problem.code);
        assert_eq!(went, expects, "step {step}: {action:?}");
        let seen = occupants.observe(&part(0)).unwrap();
        assert_eq!(seen.occupant, expected.occupant, "step {step}: {action:?}");
        assert_eq!(seen.promises, expected.promises, "step {step}: {action:?}");
    }
}

fn any_change(random: &mut StdRng) -> Entry {
    let change = match random.random_range(0..10) {
        0 | 1 => Change::Occupied {
            instance: instance(random.random_range(0..3)),
            secrets: [(format!("key{}", random.random_range(0..3)), "s3cret".to_owned())].into(),
        },
        2 => Change::Noted(Note::Configured {
            fingerprint: random.random_range(0..9).to_string(),
            upkeep: Box::default(),
        }),
        3 => Change::Noted(Note::Started),
        4 => Change::Noted(Note::Stopped),
        5 => Change::Erased,
        6 => Change::Freed,
        _ => Change::Checked {
            promise: PromiseName::parse(&format!("promise{}", random.random_range(0..80))).unwrap(),
            of: random.random_range(0..2).to_string(),
            holds: random.random(),
            message: "said".into(),
            at: moment(random.random_range(0..1000)),
        },
    };
    Entry { partition: part(random.random_range(0..3)), change }
}

#[tokio::test]
async fn whatever_changes_memory_is_what_the_file_says() {
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let folder = Folder::new();
        for _ in 0..4 {
            let occupants = folder.open().unwrap();
            for _ in 0..random.random_range(0..40) {
                let durability = if random.random() { Durability::Power } else { Durability::Process };
                occupants.journal.append(vec![any_change(&mut random)], durability).await.unwrap();
                if random.random_range(0..8) == 0 {
                    let read = Opened::<State>::read(folder.file(), &boot_id()).unwrap().state;
                    assert_eq!(occupants.journal.view().read(State::clone), read, "seed {seed}");
                }
            }
            let remembered = occupants.journal.view().read(State::clone);
            drop(occupants);
            assert_eq!(Opened::<State>::read(folder.file(), &boot_id()).unwrap().state, remembered, "seed {seed}");
        }
    }
}

/// What an agent noted that filled in by itself what is published.
const NOTED: &str = r#"{"Configured": {"fingerprint": "release/files", "upkeep": {"services": [], "promises": {},
    "publish": {"url": "db://{{ s3cret }}@here"}, "environment": {}}}}"#;

#[tokio::test]
async fn what_agents_published_that_filled_it_in_by_themselves_is_what_is_published() {
    let folder = Folder::new();
    let occupants = folder.open().unwrap();
    occupants.occupy(&part(0), &instance(1), &[].into()).await.unwrap();
    let connection = Parameters::parse_json(r#"{"url": "db://{{ s3cret }}@here"}"#).unwrap();
    occupants.note(&part(0), &serde_json::from_str(NOTED).unwrap()).await.unwrap();
    occupants.note(&part(0), &Note::Published(connection.clone())).await.unwrap();
    drop(occupants);
    let occupant = folder.open().unwrap().observe(&part(0)).unwrap().occupant.clone().unwrap();
    let publication = occupant.upkeep.unwrap().publish;
    assert_eq!(publication.fill(&BTreeMap::new()).unwrap(), connection);
    assert!(occupant.ready);
    assert_eq!(occupant.published, publication.fingerprint, "nothing is published anew");
}

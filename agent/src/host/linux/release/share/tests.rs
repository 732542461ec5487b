//! What is believed, and what is not and why.

use super::key::{PublicKey, SecretKey};
use super::*;

const PLATFORM: &str = "x86_64-debian-13";

struct World {
    key: SecretKey,
    keys: Vec<PublicKey>,
    release: Digest,
    offer: Offer,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = SecretKey::generate(&folder.path().join("key")).unwrap();
        let release = Digest::parse(&"a".repeat(64)).unwrap();
        let offer = Offer {
            version: 1,
            release: release.clone(),
            platform: PLATFORM.into(),
            directory: "/srv/r".into(),
            sha256: "b".repeat(64),
            signed: Timestamp::from_seconds(1000),
            sources: BTreeMap::new(),
        };
        Self { keys: vec![key.public()], key, release, offer }
    }

    fn envelope(&self, key: &SecretKey) -> Envelope {
        let offer = serde_json::to_string(&self.offer).unwrap();
        let signature = key.sign(&signed_text(&offer));
        Envelope { offer, key: key.public().to_string(), signature }
    }

    fn answer(&self, envelope: &Envelope, newest: Option<i64>) -> Result<Offer, String> {
        let newest = newest.map(|seconds| (self.key.public().to_string(), Timestamp::from_seconds(seconds)));
        let newest: BTreeMap<_, _> = newest.into_iter().collect();
        self.after(envelope, &newest)
    }

    /// Where these were taken before.
    fn after(&self, envelope: &Envelope, newest: &BTreeMap<String, Timestamp>) -> Result<Offer, String> {
        let wanted = Wanted {
            release: &self.release,
            platform: PLATFORM,
            directory: Path::new("/srv/r"),
            keys: &self.keys,
            newest,
            now: Timestamp::from_seconds(2000),
        };
        let accepted = accept(&serde_json::to_vec(envelope).unwrap(), &wanted).map(|accepted| accepted.offer);
        accepted.map_err(|problem| {
            assert_eq!(problem.code, codes::SHARE_REFUSED);
            problem.why
        })
    }

    /// Why it is refused although it is signed with a key that is trusted.
    fn refusal(&self) -> String {
        self.answer(&self.envelope(&self.key), None).unwrap_err()
    }
}

#[test]
fn what_a_trusted_key_signed_for_this_node_is_believed() {
    let world = World::new();
    let envelope = world.envelope(&world.key);
    assert_eq!(world.answer(&envelope, None).unwrap(), world.offer);
    assert_eq!(world.answer(&envelope, Some(1000)).unwrap(), world.offer);
}

#[test]
fn another_key_and_a_changed_text_are_not() {
    let world = World::new();
    let other = World::new();
    assert!(world.answer(&world.envelope(&other.key), None).unwrap_err().contains("does not trust"));
    // With the name of the trusted key on it.
    let forged = Envelope { key: world.key.public().to_string(), ..world.envelope(&other.key) };
    assert!(world.answer(&forged, None).unwrap_err().contains("signature does not fit"));
    let mut changed = world.envelope(&world.key);
    changed.offer = changed.offer.replace(&"b".repeat(64), &"c".repeat(64));
    assert!(world.answer(&changed, None).unwrap_err().contains("signature does not fit"));
    // A signature of the same key that is about something else.
    let mut elsewhere = world.envelope(&world.key);
    elsewhere.signature = world.key.sign(elsewhere.offer.as_bytes());
    assert!(world.answer(&elsewhere, None).unwrap_err().contains("signature does not fit"));
}

#[test]
fn what_is_about_something_else_is_not_however_well_it_is_signed() {
    let mut world = World::new();
    world.offer.platform = "aarch64-debian-13".into();
    assert!(world.refusal().contains("it is for aarch64-debian-13"));
    world = World::new();
    world.offer.directory = "/elsewhere".into();
    assert!(world.refusal().contains("made to be at /elsewhere"));
    world = World::new();
    world.offer.release = Digest::parse(&"d".repeat(64)).unwrap();
    assert!(world.refusal().contains("it is of release dddd"));
    world = World::new();
    world.offer.version = 2;
    assert!(world.refusal().contains("version 2"));
}

#[test]
fn an_older_offer_than_one_that_was_believed_is_not() {
    let world = World::new();
    let why = world.answer(&world.envelope(&world.key), Some(1001)).unwrap_err();
    assert!(why.contains("has been seen"), "{why}");
}

#[test]
fn an_offer_of_the_future_is_not_as_it_would_outlast_all_others() {
    let mut world = World::new();
    world.offer.signed = Timestamp::from_seconds(2600);
    assert!(world.answer(&world.envelope(&world.key), None).is_ok(), "clocks differ");
    world.offer.signed = Timestamp::from_seconds(2601);
    assert!(world.refusal().contains("and here it is"));
}

#[test]
fn what_one_key_signed_makes_nothing_old_that_another_did() {
    let world = World::new();
    let other = World::new().key.public().to_string();
    let newest = BTreeMap::from([(other, Timestamp::from_seconds(1500))]);
    assert!(world.after(&world.envelope(&world.key), &newest).is_ok());
}

#[test]
fn a_secret_key_is_its_owners_and_is_not_written_over() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let key = SecretKey::generate(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(SecretKey::generate(&path).err().unwrap().code, codes::KEY_FILE);
    assert_eq!(SecretKey::read(&path).unwrap().public(), key.public());
    assert_eq!(PublicKey::parse(&key.public().to_string()).unwrap(), key.public());
    std::fs::write(&path, "no key").unwrap();
    let problem = SecretKey::read(&path).err().unwrap();
    assert!(problem.code == codes::KEY_FILE && !problem.to_string().contains("no key"), "{problem}");
}

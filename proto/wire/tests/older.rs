//! What others say who are of another version: `tests/older` has bytes that versions of before wrote, and what was meant by
//! them. Of newer ones nobody has bytes yet: they are these with more in them.

use plat_model::Generation;
use plat_model::id::{Digest, InstanceId};
use plat_model::instance::ServiceKind;
use plat_model::node::{NodeDesired, NodeReport};
use plat_model::resources::Enforced;
use plat_model::usage::UsageReport;
use plat_wire::convert::{Held, ReadSync, sync_request};
use plat_wire::{IntoModel, v1};
use prost::Message;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What an agent asks with, what it reports of use, and what a master answers.
const NAMES: [&str; 3] = ["sync", "usage", "desired"];

/// What was meant, as the model has it.
#[derive(Deserialize)]
struct Meant {
    report: NodeReport,
    held: BTreeMap<InstanceId, Generation>,
    usage: UsageReport,
    desired: NodeDesired,
}

impl Meant {
    fn read(folder: &Path) -> Self {
        serde_json::from_slice(&fs::read(folder.join("said.json")).unwrap()).unwrap()
    }

    fn held(&self) -> Held {
        Held { instances: self.held.clone(), releases: self.desired.releases.keys().cloned().collect() }
    }
}

fn answer(desired: &NodeDesired) -> v1::SyncResponse {
    let index = |(id, one): (&InstanceId, &plat_model::instance::InstanceDesired)| v1::InstanceIndex {
        id: id.to_string(),
        generation: one.generation.0,
    };
    let body = |(digest, document): (&Digest, &String)| v1::ReleaseBody {
        digest: digest.to_string(),
        document: document.clone(),
    };
    v1::SyncResponse {
        generation: desired.generation.0,
        instances: desired.instances.iter().map(index).collect(),
        releases: desired.releases.keys().map(ToString::to_string).collect(),
        bodies: desired.instances.values().map(Into::into).collect(),
        documents: desired.releases.iter().map(body).collect(),
        rebuilds: desired
            .rebuilds
            .iter()
            .map(|(digest, number)| v1::Rebuild { digest: digest.to_string(), number: *number })
            .collect(),
        ..v1::SyncResponse::default()
    }
}

fn all() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/older");
    let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    all.retain(|path| path.is_dir());
    all.sort();
    assert!(all.len() >= 2, "{all:?}");
    all
}

fn bytes(folder: &Path, name: &str) -> Vec<u8> {
    fs::read(folder.join(name)).unwrap()
}

/// Writes the bytes of `PLAT_OLDER_INTO`/said.json: of this version, or copied to another, of that one.
#[test]
#[ignore = "it makes files of tests/older"]
fn write_what_is_said() {
    let folder = PathBuf::from(std::env::var_os("PLAT_OLDER_INTO").expect("PLAT_OLDER_INTO names a folder"));
    let meant = Meant::read(&folder);
    let usage = v1::PushUsageRequest { reports: vec![(&meant.usage).into()] };
    fs::write(folder.join("sync"), sync_request(&meant.report, &meant.held()).encode_to_vec()).unwrap();
    fs::write(folder.join("usage"), usage.encode_to_vec()).unwrap();
    fs::write(folder.join("desired"), answer(&meant.desired).encode_to_vec()).unwrap();
}

fn means_the_same(folder: &Path, change: impl Fn(&str, &[u8]) -> Vec<u8>) {
    let (meant, what) = (Meant::read(folder), folder.display());
    let read = |name: &str| change(name, &bytes(folder, name));
    let sync = ReadSync::from_wire(v1::SyncRequest::decode(read("sync").as_slice()).unwrap());
    assert!(sync.refused.0.is_empty(), "{what}: {}", sync.refused);
    assert_eq!((sync.report, sync.held), (meant.report.clone(), meant.held()), "{what}");
    let usage = v1::PushUsageRequest::decode(read("usage").as_slice()).unwrap().into_model().unwrap();
    assert_eq!(usage, std::slice::from_ref(&meant.usage), "{what}");
    let told = v1::SyncResponse::decode(read("desired").as_slice()).unwrap().into_model().unwrap();
    assert_eq!(told.generation, meant.desired.generation, "{what}");
    assert_eq!(told.rebuilds, meant.desired.rebuilds, "{what}");
    assert_eq!(told.bodies, meant.desired.instances.values().cloned().collect::<Vec<_>>(), "{what}");
    assert_eq!(told.documents, meant.desired.releases.clone().into_iter().collect::<Vec<_>>(), "{what}");
    assert_eq!(told.now, None, "{what}");
}

#[test]
fn what_versions_of_before_said_means_what_it_meant() {
    all().iter().for_each(|folder| means_the_same(folder, |_, bytes| bytes.to_vec()));
}

#[test]
fn what_an_agent_of_before_did_not_tell_is_not_known_and_not_made_up() {
    let folder = &all()[0];
    let sync = ReadSync::from_wire(v1::SyncRequest::decode(bytes(folder, "sync").as_slice()).unwrap());
    let inventory = sync.report.inventory.unwrap();
    assert_eq!((inventory.enforced, inventory.runtime.as_str()), (Enforced::default(), ""));
    assert!(!inventory.does_once, "it is asked for no runs of hooks");
    assert!(inventory.troubles.is_empty());
    let [status] = &sync.report.instances[..] else { panic!("{:?}", sync.report.instances) };
    assert_eq!((status.services[0].kind, status.services[0].next), (ServiceKind::Service, None));
    assert_eq!((status.promises[0].since, status.found, status.ran.len()), (None, false, 0));
    assert_eq!((&status.said, sync.report.installations[0].rebuild), (&None, 0));
}

#[test]
fn what_a_master_of_before_did_not_ask_for_is_not_done() {
    let told = v1::SyncResponse::decode(bytes(&all()[0], "desired").as_slice()).unwrap().into_model().unwrap();
    assert_eq!((told.rebuilds.len(), told.now), (0, None), "nothing is built again, and no clock is judged");
    let [body] = &told.bodies[..] else { panic!("{:?}", told.bodies) };
    assert_eq!((body.bang, body.shared.len(), body.runs.len()), (0, 0, 0));
}

/// With fields that nobody knows here: a number, a text and a message.
fn newer(mut bytes: Vec<u8>) -> Vec<u8> {
    for (field, wire, value) in [(1000, 0, &[7][..]), (1001, 2, b"\x03new"), (1002, 2, b"\x02\x08\x01")] {
        prost::encoding::encode_varint(field << 3 | wire, &mut bytes);
        bytes.extend(value);
    }
    bytes
}

/// Also in the messages in it that these fields hold.
fn newer_within(bytes: &[u8], of: &[u64]) -> Vec<u8> {
    let (mut rest, mut out) = (bytes, Vec::new());
    while !rest.is_empty() {
        let key = prost::encoding::decode_varint(&mut rest).unwrap();
        let number = prost::encoding::decode_varint(&mut rest).unwrap();
        prost::encoding::encode_varint(key, &mut out);
        if key & 7 == 0 {
            prost::encoding::encode_varint(number, &mut out);
            continue;
        }
        assert_eq!(key & 7, 2);
        let (inner, after) = rest.split_at(usize::try_from(number).unwrap());
        let inner = if of.contains(&(key >> 3)) { newer(inner.to_vec()) } else { inner.to_vec() };
        prost::encoding::encode_varint(inner.len() as u64, &mut out);
        out.extend(inner);
        rest = after;
    }
    newer(out)
}

#[test]
fn what_a_newer_one_says_besides_changes_nothing_of_the_rest() {
    let within = |name: &str, bytes: &[u8]| match name {
        "sync" => newer_within(bytes, &[2, 3, 4, 5]),
        "usage" => newer_within(bytes, &[1]),
        _ => newer_within(bytes, &[2, 4, 5, 70]),
    };
    for folder in all() {
        for name in NAMES {
            let more = within(name, &bytes(&folder, name));
            assert!(more.len() > bytes(&folder, name).len() + 10);
        }
        means_the_same(&folder, within);
    }
}

#[test]
fn a_state_that_only_a_newer_agent_knows_keeps_that_instance_out_and_is_told_back() {
    let changes: [fn(&mut v1::InstanceStatus); 3] =
        [|status| status.state = 99, |status| status.services[0].state = 99, |status| status.services[0].kind = 99];
    for change in changes {
        let mut sync = v1::SyncRequest::decode(bytes(&all()[0], "sync").as_slice()).unwrap();
        let other = v1::InstanceStatus { id: "2".repeat(32), state: 4, ..Default::default() };
        sync.instances.push(other);
        change(&mut sync.instances[0]);
        let read = ReadSync::from_wire(sync);
        let ids: Vec<_> = read.report.instances.iter().map(|status| status.id.to_string()).collect();
        assert_eq!(ids, ["2".repeat(32)]);
        assert!(read.report.inventory.is_some() && read.report.installations.len() == 1);
        assert!(read.refused.0.len() == 1 && read.refused.0[0].at.starts_with("instances[0]."), "{}", read.refused);
    }
}

#[test]
fn a_wish_that_only_a_newer_master_knows_is_guessed_by_nobody() {
    let mut told = v1::SyncResponse::decode(bytes(&all()[0], "desired").as_slice()).unwrap();
    told.bodies[0].wish = 99;
    let problems = told.into_model().unwrap_err();
    assert_eq!(problems.0.iter().map(|problem| problem.at.as_str()).collect::<Vec<_>>(), ["bodies[0].wish"]);
}

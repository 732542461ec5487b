//! How records lie on disk: a key whose bytes sort as it should, and a value of one form byte followed by JSON. JSON,
//! because records gain fields with every version and skip empty ones, which formats without names cannot read; it is
//! not what limits a commit.
//!
//! A form, once released, is never changed: a change of a record that an older value cannot be read as makes a new
//! form and a step from the one before. `tests/store_forms` holds a sample of every record of every form.

use plat_master_plan::{Key, Record};
use plat_model::Problem;
use plat_model::problem::codes;
use serde_json::Value;

/// The form that is written.
pub const FORM: u8 = 1;
/// Step `n` makes form `n + 2` of form `n + 1`.
const STEPS: &[fn(&mut Value)] = &[];
/// Longest value in bytes: above any record that the limits of inputs allow, and far below what an engine takes.
pub const VALUE_MAX: usize = 16 << 20;

/// First byte of the keys of what is not kept in memory; all other keys sort below.
const LEDGER: u8 = 0xe0;
const AUDIT: u8 = 0xf0;
/// The store's own row, with the revision. Sorts before all records.
pub(super) const META: &[u8] = &[0];
/// All records that are kept in memory: from the first key to, and without, the second.
pub(super) const STATE: (&[u8], &[u8]) = (&[1], &[LEDGER]);
pub(super) const AUDITS: (&[u8], &[u8]) = (&[AUDIT], &[AUDIT + 1]);

/// A key as bytes. Texts end in a zero byte, which no name holds, so no key is the beginning of another; numbers are
/// big-endian, so that they sort.
pub fn encode_key(key: &Key) -> Vec<u8> {
    let texts = |tag: u8, parts: &[&str]| {
        let mut bytes = vec![tag];
        for part in parts {
            bytes.extend_from_slice(part.as_bytes());
            bytes.push(0);
        }
        bytes
    };
    match key {
        Key::Grid => vec![1],
        Key::Token(id) => texts(2, &[id.as_str()]),
        Key::User(name) => texts(3, &[name.as_str()]),
        Key::Node(node) => texts(4, &[node.as_str()]),
        Key::Release(digest) => texts(5, &[digest.as_str()]),
        Key::Supply(digest, node) => texts(6, &[digest.as_str(), node.as_ref().map_or("", |node| node.as_str())]),
        Key::Installation(node, digest) => texts(7, &[node.as_str(), digest.as_str()]),
        Key::Instance(id) => texts(8, &[id.as_str()]),
        Key::Status(id) => texts(9, &[id.as_str()]),
        Key::Seat(partition) => texts(10, &[partition.node.as_str(), partition.partition.as_str()]),
        Key::Tail(node) => texts(11, &[node.as_str()]),
        // The sign bit is turned, so that times before 1970 sort before the others.
        Key::RateCard(from) => [vec![12], (from.0 ^ i64::MIN).to_be_bytes().to_vec()].concat(),
        Key::Statement(project, period) => texts(13, &[project.as_str(), &period.to_string()]),
        Key::Sum(project, period, id) => texts(14, &[project.as_str(), &period.to_string(), id.as_str()]),
        Key::Name(project, name) => texts(15, &[project.as_str(), name.as_str()]),
        Key::Load(node) => texts(16, &[node.as_str()]),
        Key::Ledger(node, sequence) => [texts(LEDGER, &[node.as_str()]), sequence.to_be_bytes().to_vec()].concat(),
        Key::Audit(number) => [vec![AUDIT], number.to_be_bytes().to_vec()].concat(),
    }
}

/// The keys of a node's ledger, or of all ledgers, as a half-open range.
pub(super) fn ledger_range(node: Option<&plat_model::id::NodeId>, after: u64) -> (Vec<u8>, Vec<u8>) {
    match node {
        None => (vec![LEDGER], vec![LEDGER + 1]),
        Some(node) => {
            let mut end = encode_key(&Key::Ledger(node.clone(), u64::MAX));
            // Past the last number there can be.
            end.push(0);
            (encode_key(&Key::Ledger(node.clone(), after.saturating_add(1))), end)
        }
    }
}

pub(super) fn audit_range(after: u64) -> (Vec<u8>, Vec<u8>) {
    (encode_key(&Key::Audit(after.saturating_add(1))), AUDITS.1.to_vec())
}

/// A record as bytes.
///
/// # Errors
/// [`codes::TOO_LARGE`] above [`VALUE_MAX`]; [`codes::INTERNAL`] if it cannot be written as JSON.
pub fn encode(record: &Record) -> Result<Vec<u8>, Problem> {
    let mut bytes = vec![FORM];
    serde_json::to_writer(&mut bytes, record)
        .map_err(|cause| Problem::new(codes::INTERNAL, "a record cannot be written as JSON").because(cause))?;
    if bytes.len() > VALUE_MAX {
        return Err(Problem::new(codes::TOO_LARGE, format!("a record of {} bytes cannot be stored", bytes.len()))
            .because(format!("{VALUE_MAX} are allowed"))
            .fix("make the parameters, the release document or the report smaller"));
    }
    Ok(bytes)
}

/// Reads a value of this form or an older one, and checks that it belongs under its key.
///
/// # Errors
/// [`codes::STORE_VERSION`] for a newer form; [`codes::STORE_FAILED`] for what is not a record.
pub fn decode(key: &[u8], bytes: &[u8]) -> Result<Record, Problem> {
    let damaged = |why: String| {
        Problem::new(codes::STORE_FAILED, "the store holds something that is not a record")
            .because(format!("key {}: {why}", shown(key)))
            .fix("restore the store's folder from a backup, or ask for help with a copy of it at hand")
    };
    let (&form, json) = bytes.split_first().ok_or_else(|| damaged("it is empty".into()))?;
    if form > FORM {
        return Err(newer(format!("a record has form {form}, this version knows forms up to {FORM}")));
    }
    let Some(steps) = usize::from(form).checked_sub(1).and_then(|done| STEPS.get(done..)) else {
        return Err(damaged(format!("there is no form {form}")));
    };
    let wrong = |cause: serde_json::Error| damaged(cause.to_string());
    let record: Record = if steps.is_empty() {
        serde_json::from_slice(json).map_err(wrong)?
    } else {
        let mut value = serde_json::from_slice(json).map_err(wrong)?;
        steps.iter().for_each(|step| step(&mut value));
        serde_json::from_value(value).map_err(wrong)?
    };
    if encode_key(&record.key()) != key {
        return Err(damaged("it holds the record of another key".into()));
    }
    Ok(record)
}

/// The refusal of what a newer version wrote.
pub(super) fn newer(why: String) -> Problem {
    Problem::new(codes::STORE_VERSION, "the store was written by a newer version")
        .because(why)
        .fix("start the version that wrote it, or a newer one; nothing in the store has been changed")
}

fn shown(key: &[u8]) -> String {
    key.iter().take(120).flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect()
}

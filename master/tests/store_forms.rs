//! Every record that a released form of the store can hold is still read. `store_forms/vN.txt` holds samples of form N,
//! a line each: the key in hexadecimal, a space, the value without its form byte. Lines are added when a record or a
//! field is; a line that is there is never changed.

use plat_master::store::record::{FORM, decode, encode, encode_key};
use plat_master_plan::statement::statement;
use plat_master_plan::{Change, Record, State};
use plat_model::id::ProjectName;
use plat_model::problem::codes;
use plat_model::time::Period;
use std::collections::BTreeSet;

const FORMS: &[&str] = &[include_str!("store_forms/v1.txt")];

/// A new kind of record does not compile here until it has a name, and fails until it has a sample.
fn kind(record: &Record) -> &'static str {
    match record {
        Record::Grid(_) => "grid",
        Record::Token(_) => "token",
        Record::User(_) => "user",
        Record::Node(_) => "node",
        Record::Release(_) => "release",
        Record::Supply(_) => "supply",
        Record::Installation { .. } => "installation",
        Record::Instance(_) => "instance",
        Record::Status(_) => "status",
        Record::Seat(_) => "seat",
        Record::Name(_) => "name",
        Record::Load(_) => "load",
        Record::Tail(_) => "tail",
        Record::RateCard(_) => "rate-card",
        Record::Statement(_) => "statement",
        Record::Sum(_) => "sum",
        Record::Ledger(_) => "ledger",
        Record::Audit(_) => "audit",
    }
}
const KINDS: usize = 18;

fn samples(form: u8) -> Vec<(Vec<u8>, Vec<u8>)> {
    let bytes = |hex: &str| {
        (0..hex.len()).step_by(2).map(|n| u8::from_str_radix(&hex[n..n + 2], 16).unwrap()).collect::<Vec<_>>()
    };
    let lines = FORMS[usize::from(form) - 1].lines();
    lines
        .map(|line| {
            let (key, value) = line.split_once(' ').unwrap();
            (bytes(key), [&[form], value.as_bytes()].concat())
        })
        .collect()
}

#[test]
fn every_record_of_every_form_is_read_and_keeps_its_key() {
    assert_eq!(FORMS.len(), usize::from(FORM), "each form has its samples");
    for form in 1..=FORM {
        let mut kinds = BTreeSet::new();
        for (key, value) in samples(form) {
            let record = decode(&key, &value).unwrap_or_else(|problem| panic!("form {form}: {problem}"));
            assert_eq!(encode_key(&record.key()), key);
            kinds.insert(kind(&record));
            // Written again it is the same record.
            assert_eq!(decode(&key, &encode(&record).unwrap()).unwrap(), record);
        }
        assert_eq!(kinds.len(), KINDS, "form {form} lacks samples: {kinds:?}");
    }
}

#[test]
fn the_newest_form_writes_its_samples_as_they_are() {
    for (key, value) in samples(FORM) {
        let record = decode(&key, &value).unwrap();
        assert_eq!(String::from_utf8(encode(&record).unwrap()), String::from_utf8(value));
    }
}

#[test]
fn a_closed_statement_is_read_as_it_was_closed_or_not_at_all() {
    let records = samples(1).into_iter().map(|(key, value)| decode(&key, &value).unwrap());
    let mut state = State::default();
    records.filter(|record| kind(record) == "statement").for_each(|record| state.apply(&Change::put(record), 1));
    let project = ProjectName::parse("shop").unwrap();
    let read = |state: &State, period| statement(state, &project, Period::parse(period).unwrap());
    let closed = read(&state, "2026-10").unwrap();
    assert!(closed.closed && closed.total == "0.075" && closed.lines[0].cost == "0.075", "{closed:?}");
    // A sample of what is no whole statement: it is not computed anew.
    assert_eq!(read(&state, "2026-11").unwrap_err().code, codes::STORE_FAILED);
    let mut newer = state.statements.values().next().unwrap().clone();
    newer.document = newer.document.replace("\"version\":1", "\"version\":2");
    state.apply(&Change::put(Record::Statement(newer)), 2);
    assert_eq!(read(&state, "2026-10").unwrap_err().code, codes::STORE_VERSION);
}

#[test]
fn a_record_of_a_newer_form_is_refused_as_newer() {
    let (key, mut value) = samples(1).swap_remove(0);
    value[0] = FORM + 1;
    assert_eq!(decode(&key, &value).unwrap_err().code, codes::STORE_VERSION);
}

#[test]
fn damaged_records_are_refused_and_never_panic() {
    for (key, value) in samples(1) {
        for length in 0..value.len() {
            assert_eq!(decode(&key, &value[..length]).unwrap_err().code, codes::STORE_FAILED);
        }
        let mut zero = value.clone();
        zero[0] = 0;
        assert_eq!(decode(&key, &zero).unwrap_err().code, codes::STORE_FAILED);
        let mut other = key.clone();
        other.push(0);
        let problem = decode(&other, &value).unwrap_err();
        assert_eq!(problem.code, codes::STORE_FAILED);
        assert!(problem.why.contains("another key"), "{problem}");
    }
}

#[test]
fn keys_sort_by_node_then_number_and_none_begins_another() {
    let mut keys: Vec<_> = samples(1).into_iter().map(|(key, _)| key).collect();
    keys.sort();
    for pair in keys.windows(2) {
        assert!(pair[0] != pair[1] && !pair[1].starts_with(&pair[0]), "{pair:?}");
    }
}

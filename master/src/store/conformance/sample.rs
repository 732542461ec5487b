//! Small records for checks of stores.

use plat_master_plan::record::{AuditEntry, Purpose, Token, User};
use plat_master_plan::{Change, Key, Record};
use plat_model::id::{Digest, InstanceId, NodeId, PartitionName, ProjectName, TokenId, UserName};
use plat_model::principal::Role;
use plat_model::time::{Timestamp, Window};
use plat_model::usage::{Amount, LedgerEntry, LedgerLine, Meter, UsageRecord};

pub fn user_name(name: &str) -> UserName {
    UserName::parse(name).expect("a sample's name is legal")
}

pub fn user_key(name: &str) -> Key {
    Key::User(user_name(name))
}

/// A user with this certificate.
pub fn user(name: &str, serial: &str) -> Change {
    let role = Role::Operator;
    Change::put(Record::User(User {
        name: user_name(name),
        role,
        serial: serial.into(),
        renewed: None,
        revoked: false,
    }))
}

pub fn token_id(n: u64) -> TokenId {
    TokenId::parse(&format!("{n:016x}")).expect("16 digits")
}

/// Token number `n`; `value` goes into a field that reading gives back.
pub fn token(n: u64, value: u64) -> Change {
    Change::put(Record::Token(Token {
        id: token_id(n),
        secret_hash: digest(value),
        purpose: Purpose::Node(None),
        created: Timestamp(i64::try_from(value).unwrap_or(i64::MAX)),
        expires: Timestamp(0),
        used: None,
        given: None,
        revoked: false,
    }))
}

pub fn digest(n: u64) -> Digest {
    Digest::parse(&format!("{n:064x}")).expect("64 digits")
}

/// An audit entry; the store gives it its number.
pub fn audit(subject: &str) -> Change {
    Change::put(Record::Audit(AuditEntry {
        number: 0,
        at: Timestamp(0),
        who: "user/ada".into(),
        from: "[fd00::1]:4000".into(),
        verb: "request".into(),
        subject: subject.into(),
        outcome: "ok".into(),
    }))
}

/// A ledger entry of `node`.
pub fn entry(node: &str, sequence: u64) -> Change {
    let record = UsageRecord {
        instance: InstanceId::parse(&format!("{sequence:032x}")).expect("32 digits"),
        partition: PartitionName::parse("part0").expect("legal"),
        window: Window { start: Timestamp(0), end: Timestamp(60_000) },
        amounts: [(Meter::CpuMicros, Amount::Known(sequence)), (Meter::IoBytes, Amount::Unknown("no file".into()))]
            .into(),
        others: [("gpu-micros".to_owned(), Amount::Known(sequence))].into(),
    };
    Change::put(Record::Ledger(LedgerEntry {
        node: NodeId::parse(node).expect("legal"),
        sequence,
        booked: Timestamp(0),
        hash: digest(sequence),
        lines: vec![LedgerLine { project: ProjectName::parse("shop").expect("legal"), record }],
    }))
}

//! What the audit log says of a change: who, what, and about which thing. Read from what was decided, so that a thing
//! whose name only the decision knows, such as the user that a token was for, is told too.

use super::Caller;
use plat_master_plan::access::Subject;
use plat_master_plan::record::{AuditEntry, Record};
use plat_master_plan::{Change, Key, State};
use plat_model::Timestamp;
use plat_model::id::Digest;
use plat_model::instance::Wish;

/// The entry of a change whose call and subject say all.
pub(super) fn plain(caller: &Caller, subject: &Subject, now: Timestamp) -> AuditEntry {
    AuditEntry {
        number: 0,
        at: now,
        who: caller.principal.to_string(),
        from: caller.from(),
        verb: verb(caller.rpc).to_owned(),
        subject: named(caller, subject),
        outcome: "ok".into(),
    }
}

/// The entry of a change that was decided on `state`.
pub(super) fn entry(
    state: &State,
    caller: &Caller,
    subject: &Subject,
    changes: &[Change],
    now: Timestamp,
) -> AuditEntry {
    let plain = plain(caller, subject, now);
    let thing = if *subject == Subject::Grid { thing(state, changes) } else { None };
    AuditEntry { verb: did(caller.rpc, changes), subject: thing.unwrap_or(plain.subject), ..plain }
}

/// The last part of a call's name: `Request`.
pub(super) fn verb(rpc: &str) -> &str {
    rpc.rsplit('/').next().unwrap_or(rpc)
}

/// The call; of a wish, which one.
fn did(rpc: &str, changes: &[Change]) -> String {
    let verb = verb(rpc);
    if verb != "SetWish" {
        return verb.to_owned();
    }
    let wished = changes.iter().find_map(|change| match change {
        Change::Put(record) => match &**record {
            Record::Instance(instance) if instance.leaving.is_some() => Some(Wish::Destroyed),
            Record::Instance(instance) => Some(instance.wish),
            _ => None,
        },
        Change::Delete(Key::Instance(_)) => Some(Wish::Destroyed),
        Change::Delete(_) => None,
    });
    match wished {
        Some(Wish::Started) => "Start".into(),
        Some(Wish::Stopped) => "Stop".into(),
        Some(Wish::Destroyed) => "Destroy".into(),
        None => verb.to_owned(),
    }
}

fn named(caller: &Caller, subject: &Subject) -> String {
    match subject {
        Subject::Grid => "grid".into(),
        Subject::Project(project) | Subject::Instance(project) => match &caller.about {
            Some(name) => format!("instance/{project}/{name}"),
            None => format!("project/{project}"),
        },
        Subject::Node(node) => match &caller.about {
            // What an instance on it asked for.
            Some(name) => format!("node/{node}/instance/{name}"),
            None => format!("node/{node}"),
        },
        Subject::User(user) => format!("user/{user}"),
    }
}

/// The thing in the grid that was changed.
fn thing(state: &State, changes: &[Change]) -> Option<String> {
    let release = |digest: &Digest| match state.releases.get(digest) {
        Some(release) => format!("release/{}", release.name),
        None => format!("release/{}", digest.short()),
    };
    let told = |change: &Change| match change {
        Change::Put(record) => match &**record {
            Record::User(user) => Some(format!("user/{}", user.name)),
            Record::Node(node) => Some(format!("node/{}", node.id)),
            Record::Release(release) => Some(format!("release/{}", release.name)),
            Record::Supply(supply) => Some(release(&supply.release)),
            Record::RateCard(card) => Some(format!("rates/{}", card.from)),
            _ => None,
        },
        Change::Delete(Key::Supply(digest, _)) => Some(release(digest)),
        Change::Delete(_) => None,
    };
    let token = |change: &Change| match change.key() {
        Key::Token(id) => Some(format!("token/{id}")),
        _ => None,
    };
    // A token that is spent is written beside the user or node that it made.
    changes.iter().find_map(told).or_else(|| changes.iter().find_map(token))
}

//! A node's way in, and which of its certificates count.

use super::token::{Claim, spendable, spent, used_up, wrong_purpose};
use super::{LABEL_BYTES_MAX, LABELS_MAX, no_node};
use crate::change::Change;
use crate::decision::Decision;
use crate::leave;
use crate::record::{Purpose, Record};
use crate::state::State;
use plat_model::Generation;
use plat_model::id::{NodeId, shorten};
use plat_model::instance::Wish;
use plat_model::node::{Inventory, Node, NodeCertificates};
use plat_model::problem::{Problem, codes};
use plat_model::time::Timestamp;
use std::collections::BTreeMap;

/// Serial numbers (lower-case hex) of the certificates that are to be issued to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSerials {
    pub node: String,
    pub rejoin: String,
}

/// Lets a node in, once for each token. A revoked node's name can be taken again, but only with a token that was made
/// for this name: its labels and what was placed on it are the newcomer's then, and that is an operator's choice.
/// Answers the serial numbers to use, too: when the same keys come again, the answer to the first time got lost, and those
/// of the first time are said again, as long as the node has not used or renewed them otherwise.
///
/// # Errors
/// [`codes::UNKNOWN_TOKEN`], [`codes::EXPIRED_TOKEN`], [`codes::USED_TOKEN`]; [`codes::DENIED`] if the token is for
/// another name; [`codes::BAD_VALUE`] if neither says a name; [`codes::EXISTS`] if a node of the name is enrolled.
pub fn enroll(
    state: &State,
    claim: &Claim<'_>,
    asked_name: Option<&NodeId>,
    serials: NewSerials,
    now: Timestamp,
) -> Result<Decision<(NodeId, NewSerials)>, Problem> {
    let token = spendable(state, claim, now)?;
    let Purpose::Node(granted) = &token.purpose else { return Err(wrong_purpose("a node")) };
    let name = match (granted, asked_name) {
        (Some(granted), Some(asked)) if granted != asked => {
            return Err(Problem::new(codes::DENIED, format!("the token is not for a node named `{asked}`"))
                .because(format!("it was made for `{granted}`"))
                .fix(format!("enrol as `{granted}`, or ask for another token")));
        }
        (Some(name), _) | (None, Some(name)) => name.clone(),
        (None, None) => {
            return Err(Problem::new(codes::BAD_VALUE, "the node has no name")
                .because("neither the token nor the node says one")
                .fix("give the node a name in its configuration"));
        }
    };
    let before = state.nodes.get(&name);
    if let Some(given) = &token.given {
        let [node, rejoin] = given.serials.as_slice() else { return Err(used_up(token)) };
        let stands = before.is_some_and(|row| {
            !row.revoked && row.certificates.rejoin == *rejoin && row.certificates.accepted == [node.clone()]
        });
        let serials = NewSerials { node: node.clone(), rejoin: rejoin.clone() };
        return if stands { Ok(Decision::nothing((name, serials))) } else { Err(used_up(token)) };
    }
    if before.is_some_and(|node| !node.revoked || granted.is_none()) {
        return Err(Problem::new(codes::EXISTS, format!("there is a node `{name}` already"))
            .because("a name is given again only after a revocation, by a token made for that name")
            .fix(format!("choose another name, or have an operator revoke `{name}` and make a token for it")));
    }
    let generation = before.map_or(Generation::ZERO, |node| node.certificates.generation).next();
    let node = Node {
        id: name.clone(),
        labels: before.map_or_else(BTreeMap::new, |node| node.labels.clone()),
        certificates: NodeCertificates {
            generation,
            accepted: vec![serials.node.clone()],
            rejoin: serials.rejoin.clone(),
        },
        revoked: false,
        inventory: Inventory::default(),
        enrolled: now,
        // Its numbers grow: whoever holds the name may remember some.
        rebuilds: before.map_or_else(BTreeMap::new, |node| node.rebuilds.clone()),
    };
    let given = vec![serials.node.clone(), serials.rejoin.clone()];
    let changes = vec![spent(token, format!("node/{name}"), claim, given, now), Change::put(Record::Node(node))];
    Ok(Decision::new(changes, Vec::new(), (name, serials)))
}

fn standing<'s>(state: &'s State, id: &NodeId) -> Result<&'s Node, Problem> {
    let node = state.nodes.get(id).ok_or_else(|| no_node(id))?;
    if node.revoked {
        return Err(Problem::new(codes::REVOKED, format!("node `{id}` is not accepted any more"))
            .because("an operator revoked it")
            .fix("ask an operator for a new token"));
    }
    Ok(node)
}

fn stale(id: &NodeId) -> Problem {
    Problem::new(codes::STALE_CERTIFICATE, format!("this certificate of node `{id}` is not accepted any more"))
        .because("a newer one has been issued to it and used")
        .fix("use the newer one")
}

fn with_certificates(node: &Node, accepted: Vec<String>) -> Change {
    let generation = node.certificates.generation.next();
    let certificates = NodeCertificates { generation, accepted, rejoin: node.certificates.rejoin.clone() };
    Change::put(Record::Node(Node { certificates, ..node.clone() }))
}

/// Issues a new certificate to a node that shows its present one. The present one stays good until the new one is
/// first used, so that a lost answer locks nobody out; a new one that was never used gives way to the next. Answers the
/// serial number of the rejoin certificate: it names the enrolment, and stays when that certificate is made anew with a
/// later end, so that here as well a lost answer locks nobody out.
///
/// # Errors
/// [`codes::NOT_FOUND`], [`codes::REVOKED`]; [`codes::STALE_CERTIFICATE`] if the present one does not count.
pub fn renew(
    state: &State,
    node: &NodeId,
    present_serial: &str,
    new_serial: &str,
) -> Result<Decision<String>, Problem> {
    let row = standing(state, node)?;
    if !row.certificates.accepted.iter().any(|serial| serial == present_serial) {
        return Err(stale(node));
    }
    let accepted = vec![present_serial.to_string(), new_serial.to_string()];
    Ok(Decision::new(vec![with_certificates(row, accepted)], Vec::new(), row.certificates.rejoin.clone()))
}

/// To be asked at each call of a node: the first use of its newest certificate ends the one before. `None` if there is
/// nothing to change.
pub fn used(state: &State, node: &NodeId, serial: &str) -> Option<Decision<()>> {
    let row = state.nodes.get(node).filter(|row| !row.revoked)?;
    let accepted = &row.certificates.accepted;
    let is_first_use = accepted.len() > 1 && accepted.last().is_some_and(|newest| newest == serial);
    is_first_use.then(|| Decision::new(vec![with_certificates(row, vec![serial.to_string()])], Vec::new(), ()))
}

/// Issues a new certificate to a node that shows its rejoin certificate. Those it had before do not count any more.
/// Answers as [`renew`] does.
///
/// # Errors
/// [`codes::NOT_FOUND`], [`codes::REVOKED`]; [`codes::STALE_CERTIFICATE`] if the rejoin certificate does not count.
pub fn rejoin(
    state: &State,
    node: &NodeId,
    rejoin_serial: &str,
    new_serial: &str,
) -> Result<Decision<String>, Problem> {
    let row = standing(state, node)?;
    if row.certificates.rejoin != rejoin_serial {
        return Err(stale(node));
    }
    let changes = vec![with_certificates(row, vec![new_serial.to_string()])];
    Ok(Decision::new(changes, Vec::new(), rejoin_serial.to_string()))
}

/// Refuses a node from now on. What was being destroyed on it is given up, since nobody will report its end; the
/// other instances stay placed, for the operator to destroy or for the node to come back.
///
/// # Errors
/// [`codes::NOT_FOUND`].
pub fn revoke_node(state: &State, node: &NodeId, now: Timestamp) -> Result<Decision<Node>, Problem> {
    let row = state.nodes.get(node).ok_or_else(|| no_node(node))?;
    if row.revoked {
        return Ok(Decision::nothing(row.clone()));
    }
    let generation = row.certificates.generation.next();
    let certificates = NodeCertificates { generation, accepted: Vec::new(), rejoin: String::new() };
    let revoked = Node { revoked: true, certificates, ..row.clone() };
    let mut changes = vec![Change::put(Record::Node(revoked.clone()))];
    for instance in state.instances_on(node).filter(|instance| instance.wish == Wish::Destroyed) {
        changes.extend(leave::leave(state, instance, now));
    }
    Ok(Decision::new(changes, Vec::new(), revoked))
}

/// Sets and removes labels of a node. What is placed on it stays, whether or not its rules still hold.
///
/// # Errors
/// [`codes::NOT_FOUND`]; [`codes::BAD_VALUE`] for a key or value that is empty, longer than [`LABEL_BYTES_MAX`] or not
/// of letters, digits, `-`, `_`, `.` and `/`; [`codes::TOO_MANY`] past [`LABELS_MAX`].
pub fn label_node(
    state: &State,
    node: &NodeId,
    set: &BTreeMap<String, String>,
    remove: &[String],
) -> Result<Decision<Node>, Problem> {
    let row = state.nodes.get(node).ok_or_else(|| no_node(node))?;
    let legal = |text: &str| {
        let of_set = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
        !text.is_empty() && text.len() <= LABEL_BYTES_MAX && of_set
    };
    if let Some(wrong) = set.iter().flat_map(|(key, value)| [key, value]).find(|text| !legal(text)) {
        return Err(Problem::new(codes::BAD_VALUE, format!("`{}` cannot be in a label", shorten(wrong)))
            .fix(format!("use 1 to {LABEL_BYTES_MAX} letters, digits, `-`, `_`, `.` and `/`")));
    }
    let mut labels = row.labels.clone();
    for key in remove {
        labels.remove(key);
    }
    labels.extend(set.iter().map(|(key, value)| (key.clone(), value.clone())));
    if labels.len() > LABELS_MAX {
        return Err(Problem::new(codes::TOO_MANY, format!("node `{node}` would have too many labels"))
            .because(format!("{}; {LABELS_MAX} are allowed", labels.len()))
            .fix("remove some"));
    }
    let labelled = Node { labels, ..row.clone() };
    if &labelled == row {
        return Ok(Decision::nothing(labelled));
    }
    Ok(Decision::new(vec![Change::put(Record::Node(labelled.clone()))], Vec::new(), labelled))
}

//! Releases: added, named, made available on nodes.

use crate::change::Change;
use crate::decision::Decision;
use crate::record::{Key, Record, Supply};
use crate::state::State;
use plat_model::id::{Digest, NodeId, ReleaseName, shorten};
use plat_model::problem::{Problem, Problems, codes};
use plat_model::release::{RELEASE_MAX, Release, SupplyState};
use plat_model::time::Timestamp;
use std::collections::BTreeSet;

/// Fewest digits of a digest that name a release.
pub const PREFIX_MIN: usize = 12;

/// Adds a release. The same document again is the same release; it becomes the newest of its name.
///
/// # Errors
/// [`codes::TOO_LARGE`] past [`RELEASE_MAX`] bytes of canonical JSON.
pub fn add(state: &State, document: &plat_document::Release, now: Timestamp) -> Result<Decision<Digest>, Problem> {
    let canonical = document.to_canonical_json();
    if canonical.len() > RELEASE_MAX {
        return Err(Problem::new(codes::TOO_LARGE, format!("release `{}` is too large", document.name))
            .because(format!("{} bytes; {RELEASE_MAX} are allowed", canonical.len()))
            .fix("move large files from the document into its sources"));
    }
    let digest = plat_document::release::digest_of(&canonical);
    if state.newest.get(&document.name) == Some(&digest) {
        return Ok(Decision::nothing(digest));
    }
    let release = Release { digest: digest.clone(), name: document.name.clone(), document: canonical, added: now };
    Ok(Decision::new(vec![Change::put(Record::Release(release))], Vec::new(), digest))
}

/// Finds a release by its name (its newest), its digest, or at least [`PREFIX_MIN`] digits of that which no other has.
///
/// # Errors
/// [`codes::NOT_FOUND`]; [`codes::BAD_VALUE`] if several digests begin so.
pub fn resolve(state: &State, text: &str) -> Result<Digest, Problem> {
    let not_found = || {
        Problem::new(codes::NOT_FOUND, format!("there is no release `{}`", shorten(text)))
            .fix("see `plat release list`, or add it with `plat release add`")
    };
    if let Some(digest) = ReleaseName::parse(text).ok().and_then(|name| state.newest.get(&name)) {
        return Ok(digest.clone());
    }
    let hex = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !hex || text.len() < PREFIX_MIN || text.len() > 64 {
        return Err(not_found());
    }
    let first = Digest::parse(&format!("{text:0<64}"))?;
    let mut found =
        state.releases.range(first..).map(|(digest, _)| digest).take_while(|d| d.as_str().starts_with(text));
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only.clone()),
        (Some(_), Some(_)) => {
            Err(Problem::new(codes::BAD_VALUE, format!("`{text}` begins several digests"))
                .fix("write more of its digits"))
        }
        (None, _) => Err(not_found()),
    }
}

/// Where a release is to be available.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Targets {
    /// On all nodes, present and future ones.
    All,
    Nodes(BTreeSet<NodeId>),
}

/// Makes a release available on nodes, or removes it from them. Answers with the nodes that it is about.
///
/// # Errors
/// [`codes::NOT_FOUND`] for each unknown name; on removal [`codes::IN_USE`] for each node where an instance uses it.
pub fn supply(
    state: &State,
    digest: &Digest,
    targets: &Targets,
    wanted: SupplyState,
) -> Result<Decision<Vec<NodeId>>, Problems> {
    let mut problems = Problems::default();
    if !state.releases.contains_key(digest) {
        problems.push(Problem::new(codes::NOT_FOUND, format!("there is no release `{}`", digest.short())));
    }
    let nodes: Vec<NodeId> = match targets {
        Targets::All => state.nodes.values().filter(|node| !node.revoked).map(|node| node.id.clone()).collect(),
        Targets::Nodes(nodes) => nodes.iter().cloned().collect(),
    };
    for node in nodes.iter().filter(|node| !state.nodes.contains_key(*node)) {
        problems.push(Problem::new(codes::NOT_FOUND, format!("there is no node `{node}`")).fix("see `plat node list`"));
    }
    let mut read = vec![Key::Release(digest.clone()), Key::Supply(digest.clone(), None)];
    if wanted == SupplyState::Removed {
        for node in &nodes {
            problems.extend(in_use(state, digest, node));
        }
        // A placement that comes in between makes this conflict.
        read.extend(nodes.iter().cloned().map(Key::Load));
    }
    let changes = match targets {
        Targets::All => to_all(state, digest, wanted),
        Targets::Nodes(nodes) => nodes.iter().filter_map(|node| to_one(state, digest, node, wanted)).collect(),
    };
    problems.none_or(Decision::new(changes, read, nodes))
}

fn in_use(state: &State, digest: &Digest, node: &NodeId) -> Option<Problem> {
    state.uses.get(digest)?;
    let mut users = state.instances_on(node).filter(|instance| &instance.release == digest);
    let named: Vec<String> = users.by_ref().take(10).map(|i| format!("{}/{}", i.project, i.name)).collect();
    let more = users.count();
    if named.is_empty() {
        return None;
    }
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(
        Problem::new(codes::IN_USE, format!("release `{}` cannot be removed from `{node}`", digest.short()))
            .because(format!("it is used there by {}{more}", named.join(", ")))
            .fix("destroy these first, or request another release for them"),
    )
}

fn to_all(state: &State, digest: &Digest, wanted: SupplyState) -> Vec<Change> {
    // What was said of single nodes before is overruled.
    let first = (digest.clone(), None);
    let of_release = state.supplies.range(first..).map(|(key, _)| key).take_while(|(release, _)| release == digest);
    let mut changes: Vec<Change> = of_release
        .filter(|(_, node)| node.is_some() || wanted == SupplyState::Removed)
        .map(|(release, node)| Change::Delete(Key::Supply(release.clone(), node.clone())))
        .collect();
    let supply = Supply { release: digest.clone(), node: None, state: SupplyState::Available };
    if wanted == SupplyState::Available && state.supplies.get(&(digest.clone(), None)) != Some(&supply) {
        changes.push(Change::put(Record::Supply(supply)));
    }
    changes
}

fn to_one(state: &State, digest: &Digest, node: &NodeId, wanted: SupplyState) -> Option<Change> {
    let is_supplied = state.is_supplied(node, digest);
    let to_all = state.supplies.get(&(digest.clone(), None)).is_some_and(|all| all.state == SupplyState::Available);
    let own = Supply { release: digest.clone(), node: Some(node.clone()), state: wanted };
    match wanted {
        SupplyState::Available if is_supplied => None,
        SupplyState::Available => Some(Change::put(Record::Supply(own))),
        SupplyState::Removed if !is_supplied => None,
        // Of the others only this node is to be without.
        SupplyState::Removed if to_all => Some(Change::put(Record::Supply(own))),
        SupplyState::Removed => Some(Change::Delete(Key::Supply(digest.clone(), Some(node.clone())))),
    }
}

//! Building releases again. What is asked for once is a number that grows, of each release on each node.

use crate::change::Change;
use crate::decision::Decision;
use crate::record::{Key, Record};
use crate::run::knows;
use crate::state::State;
use plat_model::Timestamp;
use plat_model::id::{Digest, NodeId};
use plat_model::node::Node;
use plat_model::problem::{Problem, Problems, codes};
use plat_model::release::InstallState;
use std::collections::BTreeSet;

/// What is asked of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuild {
    pub node: NodeId,
    /// It is told to.
    pub asked: bool,
    /// What it does, or why it is not told.
    pub why: String,
    /// Of the wish, as the node tells when it has acted on it ([`plat_model::release::Installation::rebuild`]).
    pub number: u64,
}

/// Has these nodes, or with none all that a release is to be on, build it again: at once where that failed, anew where it is
/// there and nothing consists of it.
///
/// # Errors
/// [`codes::NOT_FOUND`] for each unknown name, and for a node that the release is not to be on; [`codes::IN_USE`] if there is
/// no node that could.
pub fn rebuild(
    state: &State,
    digest: &Digest,
    nodes: &BTreeSet<NodeId>,
    now: Timestamp,
) -> Result<Decision<Vec<Rebuild>>, Problems> {
    let mut problems = Problems::default();
    let (mut changes, mut answer) = (Vec::new(), Vec::new());
    let all: Vec<&NodeId> = match nodes.is_empty() {
        true => {
            let stands = state.nodes.values().filter(|row| !row.revoked && state.holds(&row.id, digest));
            stands.map(|row| &row.id).collect()
        }
        false => nodes.iter().collect(),
    };
    for id in &all {
        let row = match on(state, digest, id) {
            Ok(row) => row,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        let verdict = verdict(state, digest, row);
        let mut number = row.rebuilds.get(digest).copied().unwrap_or(0);
        if verdict.is_ok() {
            // A master that was restored from a copy has forgotten the last ones, and gives none of them again.
            number = (number + 1).max(u64::try_from(now.0).unwrap_or(0));
            let mut rebuilds = row.rebuilds.clone();
            rebuilds.insert(digest.clone(), number);
            changes.push(Change::put(Record::Node(Node { rebuilds, ..row.clone() })));
        }
        let asked = verdict.is_ok();
        let (Ok(why) | Err(why)) = verdict;
        answer.push(Rebuild { node: (*id).clone(), asked, why, number });
    }
    if problems.is_empty() && changes.is_empty() {
        let whys = answer.iter().map(|one| format!("{}: {}", one.node, one.why)).collect::<Vec<_>>();
        let nowhere = "it is on no node, and is to be on none".to_owned();
        let what = format!("release `{}` is built again nowhere", digest.short());
        problems.push(
            Problem::new(codes::IN_USE, what)
                .because(if whys.is_empty() { nowhere } else { whys.join("; ") })
                .fix("see `plat release show`"),
        );
    }
    let read =
        all.iter().flat_map(|node| [Key::Load((*node).clone()), Key::Installation((*node).clone(), digest.clone())]);
    let read = read.chain([Key::Release(digest.clone())]).collect();
    problems.none_or(Decision::new(changes, read, answer))
}

/// The row of a node that a release is to be on.
fn on<'s>(state: &'s State, digest: &Digest, node: &NodeId) -> Result<&'s Node, Problem> {
    let row = state.nodes.get(node).filter(|row| !row.revoked).ok_or_else(|| {
        Problem::new(codes::NOT_FOUND, format!("there is no node `{node}`")).fix("see `plat node list`")
    })?;
    if state.holds(node, digest) {
        return Ok(row);
    }
    Err(Problem::new(codes::NOT_FOUND, format!("release `{}` is not to be on `{node}`", digest.short()))
        .because("it is not supplied to it")
        .fix("supply it (`plat supply`): then it is built at once"))
}

/// What the node does, or why it is not told.
fn verdict(state: &State, digest: &Digest, row: &Node) -> Result<String, String> {
    knows(state, &row.id).map_err(|problem| problem.one_line())?;
    let mut users = state.instances_on(&row.id).filter(|instance| &instance.release == digest);
    let installed = state.installations.get(&(row.id.clone(), digest.clone())).map(|installation| installation.state);
    match (installed, users.next()) {
        (Some(InstallState::Failed), _) => Ok("it failed, and is tried again at once".into()),
        (Some(InstallState::Installed), None) => Ok("it is removed and built again".into()),
        (Some(InstallState::Installed), Some(user)) => {
            Err(format!("it is installed, and `{}/{}` uses it", user.project, user.name))
        }
        (Some(InstallState::Installing), _) => Err("it is being installed".into()),
        (Some(InstallState::Absent | InstallState::Removing) | None, _) => {
            Err("it is installed as soon as it can be".into())
        }
    }
}

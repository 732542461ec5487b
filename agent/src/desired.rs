//! What the master last said this node is to hold: kept on disk, loaded at the start, so that a node works while its
//! master is away. An older word is refused; a damaged file is asked for anew and never acted on.

use crate::durable;
use plat_model::node::NodeDesired;
use plat_model::problem::codes;
use plat_model::{Generation, Problem};
use plat_wire::convert::{DesiredIndex, Held};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

const FORM: &str = "plat-desired";
const VERSION: u32 = 1;

/// The last accepted desired state. `None`: nothing was ever accepted, so nothing is to be done.
pub(crate) type Desired = Option<Arc<NodeDesired>>;

/// Keeps the desired state on disk and shows it to the daemon.
pub(crate) struct Keeper {
    path: PathBuf,
    current: watch::Sender<Desired>,
}

impl Keeper {
    /// Loads what was accepted last. A file that cannot be used is told, and counts as none.
    pub fn open(path: PathBuf) -> (Self, Option<Problem>) {
        let (found, problem) = match durable::read::<NodeDesired>(&path, FORM, VERSION) {
            Ok(found) => (found, None),
            Err(problem) => (None, Some(problem)),
        };
        let current = watch::Sender::new(found.map(Arc::new));
        (Self { path, current }, problem)
    }

    pub fn subscribe(&self) -> watch::Receiver<Desired> {
        self.current.subscribe()
    }

    pub fn current(&self) -> Desired {
        self.current.borrow().clone()
    }

    /// What the master need not send again.
    pub fn held(&self) -> Held {
        let current = self.current.borrow();
        let Some(desired) = current.as_ref() else { return Held::default() };
        Held {
            instances: desired.instances.iter().map(|(id, one)| (id.clone(), one.generation)).collect(),
            releases: desired.releases.keys().cloned().collect(),
        }
    }

    /// Why nothing that the master says is taken, if it speaks of an older state than the one held. It never goes back by
    /// itself: its store must have been replaced by an older one.
    pub fn behind(&self, told: Generation) -> Option<Problem> {
        let held = self.current.borrow().as_ref().map(|desired| desired.generation)?;
        (held > told).then(|| {
            Problem::new(codes::STORE_FAILED, "the master speaks of an older state than this node holds")
                .because(format!(
                    "it is at generation {told}, this node at {held}; its store was restored from a backup"
                ))
                .fix("what runs goes on; P0310 says how the node takes the master's word again")
        })
    }

    /// Accepts an answer of the master: on disk first, then for the daemon to see. `Ok(false)` if it is not newer than
    /// what is held.
    ///
    /// # Errors
    /// BAD_MESSAGE if it names what it did not send and the agent does not hold; what `durable` says of the disk.
    pub fn accept(&self, answer: DesiredIndex) -> Result<bool, Problem> {
        let held = self.current();
        if held.as_ref().is_some_and(|held| !answer.generation.supersedes(held.generation)) {
            return Ok(false);
        }
        let next = assemble(held.as_deref(), answer)?;
        durable::write(&self.path, FORM, VERSION, &next)?;
        self.current.send_replace(Some(Arc::new(next)));
        Ok(true)
    }
}

/// The whole desired state, from the index of all, the bodies that were sent and those that are held.
fn assemble(held: Option<&NodeDesired>, answer: DesiredIndex) -> Result<NodeDesired, Problem> {
    let missing = |what: String| {
        Problem::new(codes::BAD_MESSAGE, "the master's answer is incomplete")
            .because(format!("{what} is desired, was not sent, and is not held in that generation"))
            .fix("it is asked for again; if this stays, compare the versions of master and agent")
    };
    let mut bodies: BTreeMap<_, _> = answer.bodies.into_iter().map(|body| (body.id.clone(), body)).collect();
    let mut documents: BTreeMap<_, _> = answer.documents.into_iter().collect();
    let mut next = NodeDesired { generation: answer.generation, ..NodeDesired::default() };
    for (id, generation) in answer.instances {
        let kept = || held?.instances.get(&id).cloned();
        let body = bodies.remove(&id).or_else(kept).filter(|body| body.generation == generation);
        let body = body.ok_or_else(|| missing(format!("instance {id}")))?;
        next.instances.insert(id, body);
    }
    for digest in answer.releases {
        let kept = || held?.releases.get(&digest).cloned();
        let sent = documents.remove(&digest);
        if sent.as_ref().is_some_and(|text| plat_document::release::digest_of(text) != digest) {
            return Err(missing(format!("release {}, whose document is not what its digest says,", digest.short())));
        }
        let document = sent.or_else(kept).ok_or_else(|| missing(format!("release {}", digest.short())))?;
        next.releases.insert(digest, document);
    }
    Ok(next)
}

#[cfg(test)]
mod tests;

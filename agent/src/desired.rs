//! What the master last said this node is to hold: kept on disk, loaded at the start, so that a node works while its
//! master is away. An older word is refused; a damaged file is asked for anew and never acted on.

use crate::durable;
use plat_model::id::{Digest, InstanceId};
use plat_model::instance::InstanceDesired;
use plat_model::node::NodeDesired;
use plat_model::problem::codes;
use plat_model::{Generation, Problem};
use plat_wire::convert::{DesiredIndex, Held};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

const FORM: &str = "plat-desired";
const VERSION: u32 = 1;

/// The last accepted desired state. `None`: nothing was ever accepted, so nothing is to be done.
pub(crate) type Desired = Option<Arc<NodeDesired>>;

/// Keeps the desired state on disk and shows it to the daemon.
pub(crate) struct Keeper {
    path: PathBuf,
    current: watch::Sender<Desired>,
    /// What has come of a desired state whose rest has not.
    parts: Mutex<NodeDesired>,
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// It is what is held from now on.
    New,
    /// It is not newer than what is held.
    Old,
    /// It had no room for all that is missing: the rest is to be asked for at once.
    Part,
}

impl Keeper {
    /// Loads what was accepted last. A file that cannot be used is told, and counts as none.
    pub fn open(path: PathBuf) -> (Self, Option<Problem>) {
        let (found, problem) = match durable::read::<NodeDesired>(&path, FORM, VERSION) {
            Ok(found) => (found, None),
            Err(problem) => (None, Some(problem)),
        };
        let current = watch::Sender::new(found.map(Arc::new));
        (Self { path, current, parts: Mutex::default() }, problem)
    }

    pub fn subscribe(&self) -> watch::Receiver<Desired> {
        self.current.subscribe()
    }

    pub fn current(&self) -> Desired {
        self.current.borrow().clone()
    }

    /// What the master need not send again.
    pub fn held(&self) -> Held {
        let mut all = self.current.borrow().as_deref().map_or_else(Held::default, held);
        let came = self.came();
        all.instances.extend(came.instances);
        all.releases.extend(came.releases);
        all
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

    /// What came of an answer that was not whole, when all is asked for anew.
    pub fn came(&self) -> Held {
        held(&self.parts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Accepts an answer of the master: on disk first, then for the daemon to see. What came of one that is not whole, or
    /// that the disk had no room for, is kept until the rest is there, or until an answer cannot be used.
    ///
    /// # Errors
    /// BAD_MESSAGE if it names what the agent does not hold and brings nothing that was missing; what `durable` says of
    /// the disk.
    pub fn accept(&self, answer: DesiredIndex) -> Result<Accepted, Problem> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut came = std::mem::take(&mut *parts);
        let current = self.current();
        if current.as_ref().is_some_and(|current| !answer.generation.supersedes(current.generation)) {
            return Ok(Accepted::Old);
        }
        let DesiredIndex { generation, instances, releases, rebuilds, .. } = answer;
        let index = Index { generation, instances, releases, rebuilds };
        let brought = index.add(&mut came, answer.bodies, answer.documents)?;
        match index.assemble(current.as_deref(), &came) {
            Ok(next) => {
                if let Err(problem) = durable::write(&self.path, FORM, VERSION, &next) {
                    *parts = came;
                    return Err(problem);
                }
                self.current.send_replace(Some(Arc::new(next)));
                Ok(Accepted::New)
            }
            Err(_) if brought => {
                *parts = came;
                Ok(Accepted::Part)
            }
            Err(problem) => Err(problem),
        }
    }
}

fn held(desired: &NodeDesired) -> Held {
    Held {
        instances: desired.instances.iter().map(|(id, one)| (id.clone(), one.generation)).collect(),
        releases: desired.releases.keys().cloned().collect(),
    }
}

/// All that is desired, without its bodies and documents.
struct Index {
    generation: Generation,
    instances: BTreeMap<InstanceId, Generation>,
    releases: BTreeSet<Digest>,
    rebuilds: BTreeMap<Digest, u64>,
}

impl Index {
    /// Adds what was sent to what had come before, as far as it is still desired. Whether it was missing until now.
    fn add(
        &self,
        came: &mut NodeDesired,
        bodies: Vec<InstanceDesired>,
        documents: Vec<(Digest, String)>,
    ) -> Result<bool, Problem> {
        let wanted = |body: &InstanceDesired| self.instances.get(&body.id) == Some(&body.generation);
        came.instances.retain(|_, body| wanted(body));
        came.releases.retain(|digest, _| self.releases.contains(digest));
        let mut brought = false;
        for body in bodies.into_iter().filter(wanted) {
            brought |= came.instances.insert(body.id.clone(), body).is_none();
        }
        for (digest, document) in documents {
            if plat_document::release::digest_of(&document) != digest {
                return Err(incomplete(format!(
                    "the document of release {} is not what its digest says",
                    digest.short()
                )));
            }
            if self.releases.contains(&digest) {
                brought |= came.releases.insert(digest, document).is_none();
            }
        }
        Ok(brought)
    }

    /// The whole desired state, from what came and what is held.
    fn assemble(&self, current: Option<&NodeDesired>, came: &NodeDesired) -> Result<NodeDesired, Problem> {
        let missing =
            |what: String| incomplete(format!("{what} is desired, was not sent, and is not held in that generation"));
        let rebuilds = self.rebuilds.clone();
        let mut next = NodeDesired { generation: self.generation, rebuilds, ..NodeDesired::default() };
        for (id, generation) in &self.instances {
            let kept = || current?.instances.get(id);
            let body = came.instances.get(id).or_else(kept).filter(|body| body.generation == *generation);
            next.instances.insert(id.clone(), body.cloned().ok_or_else(|| missing(format!("instance {id}")))?);
        }
        for digest in &self.releases {
            let kept = || current?.releases.get(digest);
            let document = came.releases.get(digest).or_else(kept).cloned();
            next.releases
                .insert(digest.clone(), document.ok_or_else(|| missing(format!("release {}", digest.short())))?);
        }
        Ok(next)
    }
}

fn incomplete(why: String) -> Problem {
    Problem::new(codes::BAD_MESSAGE, "the master's answer is incomplete")
        .because(why)
        .fix("it is asked for again; if this stays, compare the versions of master and agent")
}

#[cfg(test)]
mod tests;

//! What instances say and ask: each over a socket in its own partition, which only its user can open, and who speaks is
//! asked of the kernel as well. What one instance does at its socket costs it, and no other.
//!
//! [`Inside`] keeps the sockets and answers; [`serve`] holds those who speak to their limits; what an ask means is
//! decided by [`plat_agent_plan::inside`].

pub mod client;
mod serve;
mod spoken;

use crate::host::Host;
use plat_agent_plan::Action;
use plat_agent_plan::inside::{Answer, answer, parse};
use plat_model::Problem;
use plat_model::id::{InstanceId, PartitionName};
use plat_model::instance::InstanceDesired;
use plat_model::node::NodePartition;
use plat_model::problem::codes;
use plat_model::tree::{Child, TreeAsk};
use serde_json::{Value, json};
use spoken::Spoken;
use std::collections::BTreeMap;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::warn;

/// How soon a socket that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// What is desired of an instance on this node.
pub type Known = Arc<dyn Fn(&InstanceId) -> Option<InstanceDesired> + Send + Sync>;
/// The master's answer, on its way.
pub type Asked = Pin<Box<dyn Future<Output = Result<Vec<Child>, Problem>> + Send>>;
/// Asks the master for an instance.
pub type AskMaster = Arc<dyn Fn(InstanceId, TreeAsk) -> Asked + Send + Sync>;

/// The sockets of all partitions, and who answers there.
pub struct Inside {
    host: Arc<dyn Host>,
    known: Known,
    ask: AskMaster,
    doors: Mutex<BTreeMap<PartitionName, Door>>,
    spoken: Spoken,
}

struct Door {
    instance: InstanceId,
    /// `None` while it cannot be made; it was tried then.
    open: Result<AbortHandle, Instant>,
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Ok(task) = &self.open {
            task.abort();
        }
    }
}

impl Inside {
    pub fn new(host: Arc<dyn Host>, known: Known, ask: AskMaster) -> Self {
        Self { host, known, ask, doors: Mutex::default(), spoken: Spoken::default() }
    }

    /// The next partition whose instance has said something new of itself. For the daemon alone.
    pub async fn spoken(&self) -> PartitionName {
        self.spoken.next().await
    }

    fn doors(&self) -> MutexGuard<'_, BTreeMap<PartitionName, Door>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that this instance, and no other, is listened to in a partition.
    pub async fn keep(self: &Arc<Self>, partition: &NodePartition, instance: Option<&InstanceId>) {
        let name = &partition.name;
        let Some(instance) = instance else {
            self.doors().remove(name);
            return;
        };
        let is_kept = self.doors().get(name).is_some_and(|door| {
            &door.instance == instance && door.open.as_ref().map_or_else(|tried| tried.elapsed() < AGAIN, |_| true)
        });
        if is_kept {
            return;
        }
        self.doors().remove(name);
        let open = match self.host.door(name).await.and_then(|fd| fd.map(listener).transpose()) {
            Ok(Some(listener)) => {
                let speaker = serve::Speaker {
                    uid: partition.account.as_ref().map(|account| account.uid),
                    partition: name.clone(),
                    instance: instance.clone(),
                };
                Ok(tokio::spawn(serve::serve(self.clone(), speaker, listener)).abort_handle())
            }
            // Nobody could speak there.
            Ok(None) => return,
            Err(problem) => {
                warn!(partition = %name, problem = problem.one_line(), "the instance cannot speak with its agent");
                Err(Instant::now())
            }
        };
        self.doors().insert(name.clone(), Door { instance: instance.clone(), open });
    }

    /// The socket is made anew when it is kept next.
    pub fn renew(&self, partition: &PartitionName) {
        self.doors().remove(partition);
    }

    /// Answers one line. Asks of one instance are answered one after the other, but for what the master is asked.
    async fn reply(&self, speaker: &serve::Speaker, line: &[u8], bounds: &serve::Bounds) -> Result<Value, Problem> {
        let ask = parse(line)?;
        let desired = (self.known)(&speaker.instance).ok_or_else(away)?;
        let mine = bounds.turn.lock().await;
        let fact = self.host.observe_partition(&speaker.partition).await?;
        let occupant = fact.occupant.filter(|occupant| occupant.instance == speaker.instance && !occupant.erased);
        match answer(ask, &desired, &occupant.ok_or_else(away)?)? {
            Answer::Now(value) => Ok(value),
            Answer::Note(note) => {
                bounds.may_write(&note)?;
                self.host.perform(&Action::Note { partition: speaker.partition.clone(), note }).await?;
                self.spoken.say(&speaker.partition);
                Ok(json!({}))
            }
            Answer::Master(ask) => {
                drop(mine);
                let one = matches!(ask, TreeAsk::Request(_));
                let children = (self.ask)(speaker.instance.clone(), ask).await?;
                if one {
                    // Destroyed, and nowhere: nothing is left to tell.
                    return Ok(children.into_iter().next().map_or(Value::Null, |child| json!(child)));
                }
                Ok(json!(children))
            }
        }
    }
}

fn away() -> Problem {
    Problem::new(codes::NOT_FOUND, "the instance is not here any more")
        .because("its partition is being emptied, or was given to another")
}

fn listener(fd: OwnedFd) -> Result<UnixListener, Problem> {
    UnixListener::from_std(fd.into())
        .map_err(|why| Problem::new(codes::INTERNAL, "a socket cannot be listened at").because(why))
}

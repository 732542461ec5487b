//! What instances say and ask: each over a socket in its own partition, which only its user can open, and who speaks is
//! asked of the kernel as well. What one instance does at its socket costs it, and no other.
//!
//! [`Inside`] keeps the sockets and answers; [`serve`] holds those who speak to their limits; what an ask means is
//! decided by [`plat_agent_plan::inside`].

mod caller;
pub mod client;
#[cfg(test)]
mod lingers;
mod serve;
mod spoken;

use crate::aside::Reached;
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
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::Semaphore;
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
    /// Of each partition for its connections, whichever socket they came by.
    places: Mutex<BTreeMap<PartitionName, Weak<Semaphore>>>,
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
        Self { host, known, ask, doors: Mutex::default(), places: Mutex::default(), spoken: Spoken::default() }
    }

    /// The next partition whose instance has said something new of itself. For the daemon alone.
    pub async fn spoken(&self) -> PartitionName {
        self.spoken.next().await
    }

    fn doors(&self) -> MutexGuard<'_, BTreeMap<PartitionName, Door>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that the partition's threads still have are not free for its next socket either.
    fn places(&self, partition: &PartitionName) -> Arc<Semaphore> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = places.get(partition).and_then(Weak::upgrade) {
            return known;
        }
        places.retain(|_, used| used.strong_count() > 0);
        let new = Arc::new(Semaphore::new(serve::CONNECTIONS));
        places.insert(partition.clone(), Arc::downgrade(&new));
        new
    }

    /// Sees to it that this instance, and no other, is listened to in a partition. Where that cannot be, how soon it is to be
    /// tried again.
    pub async fn keep(self: &Arc<Self>, partition: &NodePartition, instance: Option<&InstanceId>) -> Option<Duration> {
        let name = &partition.name;
        let Some(instance) = instance else {
            self.doors().remove(name);
            return None;
        };
        match self.doors().get(name).filter(|door| &door.instance == instance).map(|door| &door.open) {
            Some(Ok(_)) => return None,
            Some(Err(tried)) if tried.elapsed() < AGAIN => return Some(AGAIN.saturating_sub(tried.elapsed())),
            _ => {}
        }
        self.doors().remove(name);
        let open = match self.host.door(name).await.and_then(|fd| fd.map(listener).transpose()) {
            Ok(Some(listener)) => {
                let speaker = serve::Speaker {
                    uid: partition.account.as_ref().map(|account| account.uid),
                    partition: name.clone(),
                    instance: instance.clone(),
                };
                let places = self.places(name);
                Ok(tokio::spawn(serve::serve(self.clone(), speaker, listener, places)).abort_handle())
            }
            // Nobody could speak there.
            Ok(None) => return None,
            Err(problem) => {
                warn!(partition = %name, problem = problem.one_line(), "the instance cannot speak with its agent");
                Err(Instant::now())
            }
        };
        let again = open.is_err().then_some(AGAIN);
        self.doors().insert(name.clone(), Door { instance: instance.clone(), open });
        again
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

fn listener(door: Reached) -> Result<AsyncFd<Reached>, Problem> {
    door.watched().map_err(|why| Problem::new(codes::INTERNAL, "a socket cannot be listened at").because(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::host::fake::FakeHost;
    use plat_model::node::NodeFile;
    use std::path::Path;

    #[tokio::test]
    async fn a_socket_that_cannot_be_made_is_tried_again_in_its_time() {
        let part = NodePartition::bare(PartitionName::parse("part0").unwrap());
        let node = NodeFile { partitions: vec![part.clone()], ..NodeFile::bare(Path::new("/srv/plat")) };
        let host = Arc::new(FakeHost::new(node, Arc::new(SystemClock)));
        let nobody: AskMaster = Arc::new(|_, _| Box::pin(async { Ok(Vec::new()) }));
        let inside = Arc::new(Inside::new(host.clone(), Arc::new(|_| None), nobody));
        let instance = InstanceId::parse(&"a".repeat(32)).unwrap();
        host.fail("open socket", 2);
        let later = || match &mut inside.doors().get_mut(&part.name).unwrap().open {
            Err(tried) => *tried -= AGAIN,
            Ok(_) => panic!("it could not be made"),
        };
        assert_eq!(inside.keep(&part, Some(&instance)).await, Some(AGAIN));
        assert!(inside.keep(&part, Some(&instance)).await.is_some_and(|soon| soon < AGAIN), "not yet");
        later();
        assert_eq!(inside.keep(&part, Some(&instance)).await, Some(AGAIN), "it failed again");
        later();
        assert_eq!(inside.keep(&part, Some(&instance)).await, None);
        assert!(host.speak(&part.name).is_ok());
    }
}

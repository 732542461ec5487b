//! Reading logs of services and hooks, and following them.

use super::partition::Holders;
use super::runtime::{LogLines, Records};
use super::shim::line_log::Follower;
use crate::host::{Follow, LogsAsked};
use plat_model::Problem;
use plat_model::id::{HookName, InstanceId, PartitionName, ServiceName};
use std::time::Duration;
use tokio::sync::mpsc;

/// Most lines at once.
const LINES_MAX: usize = 10_000;
/// How often followed logs are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// What is read of one partition, for as long as the same instance is in it.
struct Reader {
    source: Box<dyn LogLines>,
    holders: Holders,
    partition: PartitionName,
    /// Who was in it when the reading began.
    instance: Option<InstanceId>,
    /// How many of the kept lines are wanted; after the first look, all.
    most: usize,
}

/// The lines of the instance that is in the partition now.
pub fn read(
    source: Box<dyn LogLines>,
    holders: Holders,
    partition: PartitionName,
    asked: &LogsAsked,
) -> mpsc::Receiver<(ServiceName, String)> {
    let (send, receive) = mpsc::channel(256);
    let follow = asked.follow;
    let (instance, most) = (holders.of(&partition), asked.lines.min(LINES_MAX));
    let mut reader = Reader { source, holders, partition, instance, most };
    tokio::spawn(async move {
        loop {
            // Beside the agent's only thread, which waits for no disk.
            let looked = tokio::task::spawn_blocking(move || {
                let lines = reader.look();
                (reader, lines)
            });
            let Ok((back, Some(lines))) = looked.await else { return };
            reader = back;
            for line in lines {
                if send.send(line).await.is_err() {
                    return;
                }
            }
            if follow == Follow::No {
                return;
            }
            tokio::select! {
                () = send.closed() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    });
    receive
}

/// What all runs of one hook wrote, whoever had them run.
pub struct HookLog {
    hook: ServiceName,
    follower: Follower,
}

impl HookLog {
    pub fn open(records: &Records, partition: &PartitionName, hook: &HookName) -> Result<Box<dyn LogLines>, Problem> {
        let follower = Follower::new(records.run_log(partition, hook.as_str()));
        Ok(Box::new(Self { hook: ServiceName::parse(hook.as_str())?, follower }))
    }
}

impl LogLines for HookLog {
    fn fresh(&mut self) -> Vec<(i64, ServiceName, String)> {
        self.follower.fresh().into_iter().map(|(at, text)| (at, self.hook.clone(), text)).collect()
    }
}

impl Reader {
    /// The next lines; `None` when another instance, or none, is in the partition.
    fn look(&mut self) -> Option<Vec<(ServiceName, String)>> {
        let mut lines = self.source.fresh();
        lines.drain(..lines.len().saturating_sub(std::mem::replace(&mut self.most, usize::MAX)));
        // Afterwards: what was read may have been the next one's.
        (self.holders.of(&self.partition) == self.instance)
            .then(|| lines.into_iter().map(|(_, service, text)| (service, text)).collect())
    }
}

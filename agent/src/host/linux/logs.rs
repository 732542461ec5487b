//! Reading the services' logs, and following them.

use super::partition::Holders;
use super::runtime::Records;
use super::shim::line_log::Follower;
use crate::host::{Follow, LogsAsked};
use plat_model::id::{InstanceId, PartitionName, ServiceName};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;

/// Most lines at once.
const LINES_MAX: usize = 10_000;
/// How often followed logs are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// What is read of one partition, for as long as the same instance is in it.
struct Reader {
    records: Records,
    holders: Holders,
    partition: PartitionName,
    asked: LogsAsked,
    /// Who was in it when the reading began.
    instance: Option<InstanceId>,
    /// What has been looked at; before the first look: none.
    followers: Option<BTreeMap<ServiceName, Follower>>,
}

/// The lines of the instance that is in the partition now.
pub fn read(
    records: Records,
    holders: Holders,
    partition: PartitionName,
    asked: LogsAsked,
) -> mpsc::Receiver<(ServiceName, String)> {
    let (send, receive) = mpsc::channel(256);
    let follow = asked.follow;
    let mut reader = Reader { instance: None, followers: None, records, holders, partition, asked };
    reader.instance = reader.holders.of(&reader.partition);
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

impl Reader {
    /// The next lines; `None` when another instance, or none, is in the partition.
    fn look(&mut self) -> Option<Vec<(ServiceName, String)>> {
        let services = match &self.asked.service {
            Some(service) => vec![service.clone()],
            None => self.records.services(&self.partition),
        };
        let mut lines: Vec<(i64, ServiceName, String)> = Vec::new();
        let begins = self.followers.is_none();
        let followers = self.followers.get_or_insert_default();
        for service in services {
            let follower = followers
                .entry(service.clone())
                .or_insert_with(|| Follower::new(self.records.log(&self.partition, &service)));
            lines.extend(follower.fresh().into_iter().map(|(at, text)| (at, service.clone(), text)));
        }
        lines.sort_by_key(|line| line.0);
        if begins {
            lines.drain(..lines.len().saturating_sub(self.asked.lines.min(LINES_MAX)));
        }
        // Afterwards: what was read may have been the next one's.
        (self.holders.of(&self.partition) == self.instance)
            .then(|| lines.into_iter().map(|(_, service, text)| (service, text)).collect())
    }
}

//! Reading logs of services, hooks and builds, and following them.

use super::LinuxHost;
use super::partition::Holders;
use super::release::Doing;
use super::runtime::{LogLines, Records};
use super::shim::line_log::Follower;
use crate::host::{Follow, LogOf, LogsAsked};
use plat_model::Problem;
use plat_model::id::{Digest, InstanceId, PartitionName, ServiceName};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc;

/// Most lines at once.
const LINES_MAX: usize = 10_000;
/// How often followed logs are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// For how long lines are to be read.
enum Until {
    /// As long as the same instance is in the partition.
    HandedOn { holders: Holders, partition: PartitionName, instance: Option<InstanceId> },
    /// To the end of the build that is under way.
    Built { doing: Doing, digest: Digest },
}

struct Reader {
    source: Box<dyn LogLines>,
    until: Until,
    /// How many of the kept lines are wanted; after the first look, all.
    most: usize,
}

/// What is asked for. Of partitions: the lines of the instance that is in it now.
///
/// # Errors
/// There is no such partition, or NOT_FOUND where there is no log of a release.
pub fn open(host: &LinuxHost, asked: &LogsAsked) -> Result<mpsc::Receiver<(ServiceName, String)>, Problem> {
    let (source, until) = match &asked.of {
        LogOf::Services(partition, service) => {
            (host.runtime.logs(partition, service.as_ref()), of_partition(host, partition)?)
        }
        LogOf::Hook(partition, hook) => {
            let log = Records::new(&host.state).run_log(partition, hook.as_str());
            (OneLog::open(hook.as_str(), log)?, of_partition(host, partition)?)
        }
        LogOf::Release(digest) => {
            let (log, doing) = host.releases.log(digest)?;
            (OneLog::open(LogOf::BUILD, log)?, Until::Built { doing, digest: digest.clone() })
        }
    };
    Ok(read(Reader { source, until, most: asked.lines.min(LINES_MAX) }, asked.follow))
}

fn of_partition(host: &LinuxHost, partition: &PartitionName) -> Result<Until, Problem> {
    host.place(partition)?;
    let holders = host.occupants.holders();
    let instance = holders.of(partition);
    Ok(Until::HandedOn { holders, partition: partition.clone(), instance })
}

fn read(mut reader: Reader, follow: Follow) -> mpsc::Receiver<(ServiceName, String)> {
    let (send, receive) = mpsc::channel(256);
    tokio::spawn(async move {
        loop {
            // Beside the agent's only thread, which waits for no disk.
            let looked = tokio::task::spawn_blocking(move || {
                let (lines, goes_on) = reader.look();
                (reader, lines, goes_on)
            });
            let Ok((back, lines, goes_on)) = looked.await else { return };
            reader = back;
            for line in lines {
                if send.send(line).await.is_err() {
                    return;
                }
            }
            if follow == Follow::No || !goes_on {
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

/// One log, whoever had its lines written.
struct OneLog {
    name: ServiceName,
    follower: Follower,
}

impl OneLog {
    fn open(name: &str, path: PathBuf) -> Result<Box<dyn LogLines>, Problem> {
        Ok(Box::new(Self { name: ServiceName::parse(name)?, follower: Follower::new(path) }))
    }
}

impl LogLines for OneLog {
    fn fresh(&mut self) -> Vec<(i64, ServiceName, String)> {
        self.follower.fresh().into_iter().map(|(at, text)| (at, self.name.clone(), text)).collect()
    }
}

impl Reader {
    /// The next lines, and whether there may be more.
    fn look(&mut self) -> (Vec<(ServiceName, String)>, bool) {
        // Before: what is written until a build ends is read.
        let is_building = match &self.until {
            Until::Built { doing, digest } => doing.is_building(digest),
            Until::HandedOn { .. } => false,
        };
        let mut lines = self.source.fresh();
        lines.drain(..lines.len().saturating_sub(std::mem::replace(&mut self.most, usize::MAX)));
        let lines = lines.into_iter().map(|(_, service, text)| (service, text)).collect();
        match &self.until {
            Until::Built { .. } => (lines, is_building),
            // Afterwards: what was read may have been the next one's.
            Until::HandedOn { holders, partition, instance } if holders.of(partition) == *instance => (lines, true),
            Until::HandedOn { .. } => (Vec::new(), false),
        }
    }
}

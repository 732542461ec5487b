//! The boundary to Linux: observe, perform, and be told when to look again. Nothing else of the agent touches the host.

#[cfg(feature = "fake")]
pub mod fake;
pub mod linux;

use crate::aside::Reached;
use async_trait::async_trait;
use plat_agent_plan::{Action, Disk, Moment, PartitionFact, ReleaseFact, StoreFacts};
use plat_model::Problem;
use plat_model::id::{Digest, HookName, InstanceId, PartitionName, ServiceName};
use plat_model::node::NodeFile;
use plat_model::resources::Enforced;
use plat_model::usage::{Amount, Meter};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// Something on the host changed that a planner may care for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Event {
    /// A service of this partition started, ended, or was seen for the first time.
    Partition(PartitionName),
    /// A release's installation went on or ended.
    Release(Digest),
    /// node.json was written anew.
    NodeFile,
    /// Something waits for room on a disk: [`Disk::asked`] says how much.
    NoRoom,
}

/// The counters of one partition: totals that only grow while `epoch` stays the same. The executor adds final readings
/// of what has ended, so that a service that lived 50 ms is in them. They can be read from `Occupy` until `Free`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub instance: InstanceId,
    /// Any number that is another one when the totals had to start again from zero (lost, or never written down).
    pub epoch: u64,
    /// When they were read.
    pub taken: Moment,
    /// Totals since the instance came into the partition (CPU, I/O, network, wall), or the present level (memory and
    /// disk, in bytes: the taker integrates them over time).
    pub readings: BTreeMap<Meter, Amount>,
    /// Why it is not known what the instance had used of the totals when this epoch began; `None` if that was nothing,
    /// or what was counted before.
    pub lost: Option<String>,
}

/// What is to be read of partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// Only the present levels: often, so nothing is written for it.
    Levels,
    /// Levels and totals. Totals are durable when they are told, so that none is ever smaller afterwards.
    All,
}

/// Which log lines somebody wants to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsAsked {
    pub of: LogOf,
    /// How many of the last ones first; at most 10,000.
    pub lines: usize,
    pub follow: Follow,
}

/// Who wrote them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogOf {
    /// A service of a partition's instance; `None`: all of them.
    Services(PartitionName, Option<ServiceName>),
    /// The runs of this hook.
    Hook(PartitionName, HookName),
    /// The builds of this release. Those are followed to the end of the one that is under way.
    Release(Digest),
}

impl LogOf {
    /// What lines of builds are said to be of.
    pub const BUILD: &str = "build";
}

/// Whether lines that are written later are wanted too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Follow {
    No,
    /// Until the receiver is dropped, or nothing more can come.
    Yes,
}

/// A host. Linux, a fake with faults on demand, and one in another process ([`crate::privileged`]). Calls about different partitions may run at once.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// What node-format made of this machine, as it is now ([`Event::NodeFile`] tells of a change).
    async fn node(&self) -> Result<NodeFile, Problem>;
    /// What keeps the services running, in a word: `systemd`, `shim`.
    fn runtime_name(&self) -> String;
    /// What it can hold every partition to.
    fn enforces(&self) -> Enforced;
    /// `Absent`, `Building` (what it is doing) or `Installed`.
    async fn observe_release(&self, digest: &Digest) -> ReleaseFact;
    /// Digests of all releases that are on this host.
    async fn observe_releases(&self) -> Result<Vec<Digest>, Problem>;
    /// The disks that take what is fetched and built.
    async fn observe_disks(&self) -> Result<BTreeMap<u64, Disk>, Problem>;
    /// What releases and fetched files take of those disks.
    async fn observe_store(&self) -> Result<StoreFacts, Problem>;
    async fn observe_partition(&self, partition: &PartitionName) -> Result<PartitionFact, Problem>;
    /// Idempotent: doing what is done already succeeds. Dropping the future of `InstallRelease`, `RunHook`, `RunAsked` or
    /// `CheckPromise` ends what it started (the daemon does so when something more urgent comes up); the others go on
    /// to their end once begun, or leave the host so that the same action can be performed again.
    async fn perform(&self, action: &Action) -> Result<(), Problem>;
    /// Of those partitions that are held, in their order. What cannot be read, or not be made durable, is a problem and
    /// stays to be counted later.
    async fn counters(
        &self,
        partitions: &[PartitionName],
        wanted: Wanted,
    ) -> Vec<(PartitionName, Result<Counters, Problem>)>;
    /// The last lines of what is asked about, oldest first, then those that are still written if that was asked
    /// for; each with its service and at most 8 KiB long. The channel is bounded and ends after the last line. Of a release
    /// that was not begun to be built here: NOT_FOUND.
    async fn logs(&self, asked: &LogsAsked) -> Result<mpsc::Receiver<(ServiceName, String)>, Problem>;
    /// The listening socket at which the partition's instance speaks with its agent, made anew in place of an earlier one:
    /// [`plat_agent_plan::SOCKET`] beneath its directory, its user's and nobody else's. `None` where there is nobody who
    /// could speak.
    async fn door(&self, partition: &PartitionName) -> Result<Option<Reached>, Problem>;
    /// Events from now on. Taken once, by the daemon.
    fn events(&self) -> mpsc::Receiver<Event>;
}

/// What [`Host::counters`] gives where nothing could be read: nobody is taken for gone.
pub(crate) fn unread(
    partitions: &[PartitionName],
    problem: &Problem,
) -> Vec<(PartitionName, Result<Counters, Problem>)> {
    partitions.iter().map(|partition| (partition.clone(), Err(problem.clone()))).collect()
}

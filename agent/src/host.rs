//! The boundary to Linux: observe, perform, and be told when to look again. Nothing else of the agent touches the host.

use async_trait::async_trait;
use plat_agent_plan::{Action, PartitionFact, ReleaseFact};
use plat_model::id::{Digest, InstanceId, PartitionName, ServiceName};
use plat_model::usage::{Amount, Meter};
use plat_model::{Problem, Timestamp};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// Something on the host changed that a planner may care for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A service of this partition started, ended, or was seen for the first time.
    Partition(PartitionName),
    /// A release's installation went on or ended.
    Release(Digest),
    /// node.json was written anew.
    NodeFile,
}

/// The counters of one partition: totals that only grow while `epoch` stays the same. The executor adds final readings
/// of what has ended, so that a service that lived 50 ms is in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    pub instance: InstanceId,
    pub taken: Timestamp,
    /// Totals since the instance came into the partition (CPU, I/O, network, wall), or the present level (memory and
    /// disk, in bytes: the taker integrates them over time).
    pub readings: BTreeMap<Meter, Amount>,
}

/// A host. Two implementers: Linux, and a fake with faults on demand. Calls about different partitions may run at once.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    async fn observe_release(&self, digest: &Digest) -> ReleaseFact;
    /// Digests of all releases that are on this host.
    async fn observe_releases(&self) -> Result<Vec<Digest>, Problem>;
    async fn observe_partition(&self, partition: &PartitionName) -> Result<PartitionFact, Problem>;
    /// Idempotent: doing what is done already succeeds.
    async fn perform(&self, action: &Action) -> Result<(), Problem>;
    async fn counters(&self, partition: &PartitionName) -> Option<Counters>;
    /// The last `lines` lines of one service (or of all: `None`) of the partition, oldest first, each with its service.
    async fn logs(
        &self,
        partition: &PartitionName,
        service: Option<&ServiceName>,
        lines: usize,
    ) -> Result<Vec<(ServiceName, String)>, Problem>;
    /// Events from now on. Taken once, by the daemon.
    fn events(&self) -> mpsc::Receiver<Event>;
}

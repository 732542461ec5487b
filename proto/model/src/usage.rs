//! Metered use: what an agent measures, and how it reaches the master.

use crate::id::{Digest, InstanceId, NodeId, PartitionName, ProjectName};
use crate::time::{Timestamp, Window};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What is metered. Amounts are integers in the unit named here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Meter {
    /// CPU time of all processes, in microseconds.
    CpuMicros,
    /// Memory held over time, in byte-seconds.
    MemoryByteSeconds,
    /// Time a service of the instance was running, in milliseconds of wall-clock time.
    WallMillis,
    /// Disk held over time, in byte-seconds.
    DiskByteSeconds,
    /// Bytes read from and written to storage.
    IoBytes,
    /// Bytes received and sent: the sum of the two below.
    NetworkBytes,
    /// Bytes received from the network.
    NetworkReceivedBytes,
    /// Bytes sent to the network.
    NetworkSentBytes,
}

impl Meter {
    pub const ALL: [Self; 8] = [
        Self::CpuMicros,
        Self::MemoryByteSeconds,
        Self::WallMillis,
        Self::DiskByteSeconds,
        Self::IoBytes,
        Self::NetworkBytes,
        Self::NetworkReceivedBytes,
        Self::NetworkSentBytes,
    ];

    /// Its name in documents and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuMicros => "cpu-micros",
            Self::MemoryByteSeconds => "memory-byte-seconds",
            Self::WallMillis => "wall-millis",
            Self::DiskByteSeconds => "disk-byte-seconds",
            Self::IoBytes => "io-bytes",
            Self::NetworkBytes => "network-bytes",
            Self::NetworkReceivedBytes => "network-received-bytes",
            Self::NetworkSentBytes => "network-sent-bytes",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|meter| meter.name() == name)
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a meter showed. Unknown is never zero.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Amount {
    Known(u64),
    /// It could not be read; why.
    Unknown(String),
}

/// What one instance used in one window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    pub instance: InstanceId,
    pub partition: PartitionName,
    pub window: Window,
    pub amounts: BTreeMap<Meter, Amount>,
    /// Meters that this version does not know (a newer node's, for a GPU say), by name: kept as they were told, summed
    /// and priced by nobody.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, Amount>,
}

/// One numbered report of a node. Its number follows the one before it without a gap, so that each is counted once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageReport {
    /// 1 for the node's first; kept on the node's disk.
    pub sequence: u64,
    pub taken: Timestamp,
    pub records: Vec<UsageRecord>,
}

/// A report as the master booked it. The hash chain of each node makes a later change show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    pub node: NodeId,
    pub sequence: u64,
    pub booked: Timestamp,
    /// SHA-256 over the entry before (its `hash`), this entry's node, sequence and lines.
    pub hash: Digest,
    pub lines: Vec<LedgerLine>,
}

/// A record with whose it was: decided when it is booked, from the master's own rows, never from the node's word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerLine {
    pub project: ProjectName,
    pub record: UsageRecord,
}

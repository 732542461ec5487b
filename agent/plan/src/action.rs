//! What a host is told to do. Every choice is made: names, paths, arguments and users are in the action, and the
//! executor may do it or fail, never decide. All effects of the agent on its host are one of these.

use plat_document::release::{Check, StopSignal};
use plat_model::id::{Digest, InstanceId, PartitionName, PromiseName, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// One effect on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Fetches, builds and publishes a release.
    InstallRelease {
        digest: Digest,
        document: String,
    },
    RemoveRelease {
        digest: Digest,
    },
    /// Writes down who holds the partition, and makes its secrets (name → length), if that is not so already.
    Occupy {
        partition: PartitionName,
        instance: InstanceId,
        secrets: BTreeMap<String, u32>,
    },
    /// Writes files beneath the partition's directory, as its user.
    WriteFiles {
        partition: PartitionName,
        files: Vec<RenderedFile>,
    },
    /// Writes down how far the instance has come.
    Note {
        partition: PartitionName,
        note: Note,
    },
    RunHook {
        partition: PartitionName,
        run: Run,
    },
    /// Starts a service, or keeps it running; it outlives the agent.
    StartService {
        partition: PartitionName,
        spec: ServiceSpec,
    },
    /// Tells a service to stop, waits for it as long as its specification says, then kills what is left of it.
    StopService {
        partition: PartitionName,
        service: ServiceName,
    },
    CheckPromise {
        partition: PartitionName,
        promise: PromiseName,
        check: Check,
        timeout_seconds: u32,
        environment: BTreeMap<String, String>,
    },
    /// Ends every process of the partition, and removes everything in it.
    Erase {
        partition: PartitionName,
    },
    /// Forgets the occupant: the partition is free.
    Free {
        partition: PartitionName,
    },
}

impl Action {
    /// The partition that it is about; `None` for releases.
    pub fn partition(&self) -> Option<&PartitionName> {
        match self {
            Self::InstallRelease { .. } | Self::RemoveRelease { .. } => None,
            Self::Occupy { partition, .. }
            | Self::WriteFiles { partition, .. }
            | Self::Note { partition, .. }
            | Self::RunHook { partition, .. }
            | Self::StartService { partition, .. }
            | Self::StopService { partition, .. }
            | Self::CheckPromise { partition, .. }
            | Self::Erase { partition }
            | Self::Free { partition } => Some(partition),
        }
    }
}

/// How far an instance has come; kept on the agent's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    Initialised,
    /// With the fingerprint of what was applied.
    Configured(String),
    Started,
    /// The services were stopped: the start hook will run again after the next start.
    Stopped,
}

/// A file's path within the partition and its whole contents. May hold secrets, so its `Debug` shows no contents.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderedFile {
    /// Relative, without `..`.
    pub path: String,
    /// Permission bits, at most 0o750.
    pub mode: u32,
    pub contents: String,
}

impl fmt::Debug for RenderedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RenderedFile({} {:o}, {} bytes)", self.path, self.mode, self.contents.len())
    }
}

/// One program run to its end, as the partition's user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What it is, e.g. `init`; names its log.
    pub name: String,
    /// The first is an absolute path.
    pub command: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub environment: BTreeMap<String, String>,
    pub timeout_seconds: u32,
}

/// One service, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    pub name: ServiceName,
    pub instance: InstanceId,
    /// The first is an absolute path.
    pub command: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub environment: BTreeMap<String, String>,
    /// Relative to the partition's directory; empty: its top.
    pub directory: String,
    pub stop_signal: StopSignal,
    pub stop_timeout_seconds: u32,
    /// Changes when anything above does.
    pub fingerprint: String,
}

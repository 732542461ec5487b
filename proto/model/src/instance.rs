//! Instances: what a project wishes, and what has become of it.

use crate::Generation;
use crate::id::{
    Digest, InstanceId, InstanceName, NodeId, PartitionName, PartitionRef, ProjectName, PromiseName, ServiceName,
};
use crate::parameters::Parameters;
use crate::problem::Problem;
use crate::resources::{Enforced, Resources};
use crate::run::{RunResult, RunWanted};
use crate::time::Timestamp;
use crate::tree::{Parent, Said, SharedDesired};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What is wished of an instance. `Destroyed` is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wish {
    Started,
    Stopped,
    Destroyed,
}

impl Wish {
    /// Whether a wish may change so: nothing leaves `Destroyed`.
    pub fn may_become(self, next: Self) -> bool {
        self != Self::Destroyed || next == Self::Destroyed
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Destroyed => "destroyed",
        })
    }
}

/// What has become of an instance, as its node reports it; `Waiting` while no node holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// No node holds it yet.
    Waiting,
    /// Its release is being installed.
    Installing,
    /// Its services are being started, or its promises do not all hold yet.
    Starting,
    /// Its services run and its promises hold.
    Ready,
    /// It was ready, and some promise no longer holds.
    Degraded,
    /// It cannot be brought up; the agent tries again with backoff.
    Failed,
    Stopping,
    Stopped,
    Destroying,
    /// Nothing of it is left on the node.
    Destroyed,
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Waiting => "waiting",
            Self::Installing => "installing",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Degraded => "degraded",
            Self::Failed => "failed",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Destroying => "destroying",
            Self::Destroyed => "destroyed",
        })
    }
}

/// Which nodes may hold an instance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlacementRules {
    /// This node and no other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Only nodes with all of these labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Only nodes that hold their partitions to these amounts.
    #[serde(skip_serializing_if = "Enforced::is_none")]
    pub enforced: Enforced,
}

/// An instance as the master keeps it: the wish and its placement. What became of it is its [`InstanceStatus`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub id: InstanceId,
    pub project: ProjectName,
    pub name: InstanceName,
    pub release: Digest,
    pub parameters: Parameters,
    pub wish: Wish,
    pub rules: PlacementRules,
    pub resources: Resources,
    /// Where it is, once it has been placed.
    pub placement: Option<PartitionRef>,
    /// Set while it is kept, stopped, before it is destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<Leaving>,
    /// The instance that asked for it; `None`: people did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The instance that it is in, if it is a shared one: then it is never placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rides: Option<InstanceId>,
    /// How often its tree was to look at everything again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bang: u64,
    /// Runs of hooks that were asked for last, in the order of their numbers; the ones that are over stay until others are asked
    /// for. At most [`crate::run::RUNS_MAX`] are not over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunWanted>,
    /// Grows with every change of anything above.
    pub generation: Generation,
    pub created: Timestamp,
    pub changed: Timestamp,
}

fn is_zero<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// An instance that is to be destroyed, later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// Until then it is kept.
    pub at: Timestamp,
    /// What was wished of it before.
    pub before: Wish,
}

/// Longest time that an instance is kept before it is destroyed, in seconds: a year.
pub const KEPT_MAX: u64 = 366 * 24 * 3600;

/// What an agent is told of one instance: all it needs, and nothing of other instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceDesired {
    pub id: InstanceId,
    pub project: ProjectName,
    pub name: InstanceName,
    pub partition: PartitionName,
    pub generation: Generation,
    pub release: Digest,
    pub parameters: Parameters,
    pub wish: Wish,
    pub resources: Resources,
    /// Its configure hook runs again when this has grown.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bang: u64,
    /// The shared instances in it, in the order of their ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared: Vec<SharedDesired>,
    /// Runs of hooks that are asked for, in the order of their numbers; of those that are over it is not told any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunWanted>,
}

impl InstanceDesired {
    /// One that is to run, with nothing that it could be without.
    pub fn bare(id: InstanceId, partition: PartitionName, release: Digest) -> Self {
        Self {
            id,
            project: ProjectName::parse("bare").expect("it is a name"),
            name: InstanceName::parse("bare").expect("it is a name"),
            partition,
            generation: Generation::ZERO,
            release,
            parameters: Parameters::default(),
            wish: Wish::Started,
            resources: Resources::default(),
            bang: 0,
            shared: Vec::new(),
            runs: Vec::new(),
        }
    }
}

/// What a node reports of one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InstanceStatus {
    pub id: InstanceId,
    /// The generation of the wish that this is about. A status for an older one is refused.
    pub generation: Generation,
    pub state: InstanceState,
    /// Since when it has been in this state.
    pub since: Timestamp,
    /// What it waits on, or what it is doing, in a few words. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// What it publishes to whoever requested it. Kept from the last time that it published.
    #[serde(default)]
    pub connection: Parameters,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceStatus>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub promises: Vec<PromiseStatus>,
    /// What it says of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Said>,
    /// The last runs that were asked for and are over, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ran: Vec<RunResult>,
    /// It was in this state when its agent looked first, which is what `since` says: of what was before the agent knows nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
}

impl InstanceStatus {
    /// One with nothing but a state.
    pub fn bare(id: InstanceId, generation: Generation, state: InstanceState, since: Timestamp) -> Self {
        Self {
            id,
            generation,
            state,
            since,
            detail: String::new(),
            problem: None,
            connection: Parameters::default(),
            services: Vec::new(),
            promises: Vec::new(),
            said: None,
            ran: Vec::new(),
            found: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceState {
    Stopped,
    Running,
    /// It exited and will be started again after its backoff.
    Backoff,
    /// It ended with success, and stays so until there is a reason to run again.
    Done,
    /// It ended without success, and stays so likewise.
    Failed,
}

/// What a service is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServiceKind {
    /// Runs for as long as the instance does.
    #[default]
    Service,
    /// Does its work and ends: once for each configuration, or at the times of its schedule.
    Oneshot,
}

impl ServiceKind {
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: ServiceName,
    #[serde(default, skip_serializing_if = "ServiceKind::is_default")]
    pub kind: ServiceKind,
    pub state: ServiceState,
    /// Process id, on its node, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How often it has been started again since the instance was.
    pub restarts: u32,
    /// How the last run ended, e.g. `exit code 1`, `signal 9 (SIGKILL)`. Empty if it never ended.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_exit: String,
    pub since: Timestamp,
    /// When it runs, if it does at times, as in the document.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub schedule: String,
    /// When it runs next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// How many of its times have passed since its last run began, because that was still running.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PromiseStatus {
    pub name: PromiseName,
    pub holds: bool,
    /// What the check said; bounded to 500 characters.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// When the check was made that this was told after: of later ones that said the same nothing is told.
    pub checked: Timestamp,
    /// Since when it has held, or not held, without a break that was told of. `None`: its agent does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_destroyed_instance_stays_destroyed() {
        assert!(Wish::Started.may_become(Wish::Stopped));
        assert!(Wish::Stopped.may_become(Wish::Destroyed));
        assert!(!Wish::Destroyed.may_become(Wish::Started));
    }
}

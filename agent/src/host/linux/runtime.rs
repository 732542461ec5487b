//! What keeps services running while the agent is away. The shim is one implementer; another is the init system.

mod record;
pub mod shim;

pub use record::Records;
pub use shim::ShimRuntime;

use async_trait::async_trait;
use plat_agent_plan::action::ServiceSpec;
use plat_agent_plan::facts::ServiceFact;
use plat_document::release::ReloadSignal;
use plat_model::Problem;
use plat_model::id::{PartitionName, ServiceName};
use plat_model::node::NodePartition;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A partition with where it is.
#[derive(Debug, Clone)]
pub struct Place {
    pub partition: NodePartition,
    /// The partition's directory.
    pub directory: PathBuf,
}

/// Runs services that outlive the agent. There is at most one run of a service at any time.
#[async_trait]
pub trait Runtime: Send + Sync {
    /// Makes the service run as `spec` says; one that runs with the same fingerprint is left alone, one with another
    /// is stopped first.
    ///
    /// # Errors
    /// If the program could not be started. That it ends later is not an error of this.
    async fn start(&self, place: &Place, spec: &ServiceSpec) -> Result<(), Problem>;
    /// Returns when no process of the service is left. One that does not run is stopped already.
    async fn stop(&self, partition: &PartitionName, service: &ServiceName) -> Result<(), Problem>;
    /// Sends a signal to the first process of one run of a service; none if that run has ended.
    async fn signal(
        &self,
        partition: &PartitionName,
        service: &ServiceName,
        run: &str,
        signal: ReloadSignal,
    ) -> Result<(), Problem>;
    /// Kills all services of the partition at once, and forgets them.
    async fn clear(&self, place: &Place) -> Result<(), Problem>;
    async fn observe(&self, partition: &PartitionName) -> Result<BTreeMap<ServiceName, ServiceFact>, Problem>;
}

//! The systemd runtime: each service is a transient unit in the slice of its partition. No process of the agent's stands by
//! it. What systemd does not keep of a run is in the same records as the shim's.
//!
//! systemd starts a failed service again only while the agent is away: where the agent is there, it takes the unit away as
//! soon as it hears of the end, and the plan decides when the next one is made.

mod bus;
mod inner;
mod journal;
mod names;
mod program;
mod seen;
mod tmp;
mod unit;
mod usage;

pub use inner::lives_here;
pub use tmp::mount_all;

use super::{Adopted, LogLines, Memory, Place, Ran, Runtime, Setting, Usage, beside, joined, signal_main};
use crate::host::linux::cgroup;
use crate::host::linux::shim::tree::Phase;
use async_trait::async_trait;
use futures_util::future::join_all;
use inner::{Ending, Inner};
use journal::JournalLines;
use plat_agent_plan::action::{Run, ServiceSpec};
use plat_agent_plan::facts::ServiceFact;
use plat_document::release::ReloadSignal;
use plat_model::Problem;
use plat_model::id::{InstanceId, PartitionName, ServiceName};
use plat_model::resources::{Enforced, Resources};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A transient unit for each service.
pub struct SystemdRuntime {
    inner: Arc<Inner>,
}

impl SystemdRuntime {
    /// # Errors
    /// PREREQUISITE where systemd is not the machine's first process, or its bus does not answer.
    pub async fn new(setting: Setting) -> Result<Self, Problem> {
        Ok(Self { inner: Inner::connect(setting).await? })
    }

    async fn start_one(&self, place: &Place, spec: &ServiceSpec) -> Result<(), Problem> {
        let (inner, place, spec) = (self.inner.clone(), place.clone(), spec.clone());
        // A task of its own: whoever asked may stop waiting, and what was begun is written down all the same.
        let started = tokio::spawn(async move {
            let (partition, service) = (&place.partition.name, &spec.name);
            let lock = inner.held.lock(partition, service);
            let _turn = lock.lock().await;
            let mut before = inner.recover(partition, service).await?;
            match &before {
                Some(state) if state.phase == Phase::Running && state.fingerprint == spec.fingerprint => return Ok(()),
                Some(state) if state.phase != Phase::Ended => {
                    before = inner.end(partition, service, Ending::Stop).await?;
                }
                _ => {}
            }
            if before.is_some() {
                inner.held.setting.settle(partition).await;
            }
            inner.launch(&place, &spec, before).await
        });
        joined(started.await)
    }
}

#[async_trait]
impl Runtime for SystemdRuntime {
    fn kind(&self) -> &'static str {
        "systemd"
    }

    fn without_groups(&self) -> Option<&str> {
        self.inner.slices.missing()
    }

    async fn open(&self) -> Result<Vec<Adopted>, Problem> {
        // Its group is there before anything is in it, so that all of that is counted.
        let base = self.inner.names.base();
        let wrong = |why: bus::Wrong| why.problem(format!("{base} cannot be started"));
        self.inner.bus.begin(&base).await.map_err(wrong)?;
        self.inner.adopt().await
    }

    async fn start(&self, place: &Place, specs: &[ServiceSpec]) -> Vec<Result<(), Problem>> {
        join_all(specs.iter().map(|spec| self.start_one(place, spec))).await
    }

    async fn stop(&self, partition: &PartitionName, service: &ServiceName) -> Result<(), Problem> {
        let lock = self.inner.held.lock(partition, service);
        let _turn = lock.lock().await;
        if let Some(mut state) = self.inner.end(partition, service, Ending::Stop).await?
            && !state.told
        {
            (state.told, state.short_runs) = (true, 0);
            self.inner.held.write(partition, service, &state).await?;
        }
        self.inner.held.setting.settle(partition).await;
        Ok(())
    }

    async fn reload(
        &self,
        partition: &PartitionName,
        service: &ServiceName,
        run: &str,
        signal: ReloadSignal,
    ) -> Result<(), Problem> {
        let lock = self.inner.held.lock(partition, service);
        let _turn = lock.lock().await;
        let state = self.inner.recover(partition, service).await?.filter(|state| state.run == run);
        let main = state.filter(|state| state.phase == Phase::Running).and_then(|state| state.main);
        signal_main(main, service, signal)
    }

    async fn clear(&self, place: &Place) -> Result<(), Problem> {
        let partition = &place.partition.name;
        let (records, name) = (self.inner.held.records.clone(), partition.clone());
        let services = beside(move || records.services(&name)).await?;
        let ends = services.iter().map(|service| async move {
            let lock = self.inner.held.lock(partition, service);
            let _turn = lock.lock().await;
            self.inner.end(partition, service, Ending::Kill).await
        });
        for ended in join_all(ends).await {
            ended?;
        }
        self.inner.end_strays(partition).await?;
        self.inner.held.setting.settle(partition).await;
        if let Some(group) = self.inner.group(partition) {
            cgroup::kill(&group).await;
        }
        let (inner, partition) = (self.inner.clone(), partition.clone());
        let cleared = beside(move || {
            inner.tmp.leave(&partition)?;
            for service in &services {
                inner.held.records.forget(&inner.held.records.service(&partition, service))?;
            }
            inner.held.records.forget(&inner.held.records.runs_folder(&partition))
        });
        cleared.await
    }

    async fn forget(&self, partition: &PartitionName) -> Result<(), Problem> {
        // systemd remembers what a slice that it has stopped was held to: the next instance is held to nothing yet.
        self.inner.limit(partition, Resources::default()).await?;
        self.inner.held.forget_limits(partition);
        let slice = self.inner.names.slice(partition);
        let wrong = format!("the slice of partition {partition} cannot be stopped");
        self.inner.bus.stop(&slice).await.map_err(|why| why.problem(wrong))?;
        self.inner.slices.forget(partition.as_str());
        let (records, partition) = (self.inner.held.records.clone(), partition.clone());
        beside(move || records.forget(&records.partition(&partition))).await
    }

    /// What runs already too.
    async fn limit(&self, place: &Place, asked: Resources) -> Result<Resources, Problem> {
        self.inner.limit(&place.partition.name, asked).await?;
        let by_slice = self.inner.slices.enforces();
        let by_user = self.inner.confinement(place)?.processes;
        Ok(Resources {
            processes: asked.processes.filter(|_| by_slice.processes).or(by_user),
            memory_mib: asked.memory_mib.filter(|_| by_slice.memory),
            cpu_millis: asked.cpu_millis.filter(|_| by_slice.cpu),
            disk_mib: None,
        })
    }

    fn keeps_limits(&self, partition: &PartitionName) -> bool {
        self.inner.keeps_limits(partition)
    }

    async fn unconfined(&self) -> Result<Vec<String>, Problem> {
        Ok(unit::missing(self.inner.version))
    }

    fn enforces(&self) -> Enforced {
        self.inner.slices.enforces()
    }

    async fn run(&self, place: &Place, run: &Run) -> Result<Ran, Problem> {
        self.inner.run(place, run).await
    }

    async fn observe(&self, partition: &PartitionName) -> Result<BTreeMap<ServiceName, ServiceFact>, Problem> {
        self.inner.held.observe(partition).await
    }

    fn usage(&self, partition: &PartitionName, memory: Memory) -> Result<Usage, Problem> {
        self.inner.usage(partition, memory)
    }

    fn memory(&self, partition: &PartitionName, _: &InstanceId) -> Result<Option<u64>, Problem> {
        Ok(self.inner.memory(partition))
    }

    /// systemd makes it with the first that is in it.
    fn group(&self, partition: &PartitionName) -> Option<PathBuf> {
        self.group_folder(partition)
    }

    fn group_folder(&self, partition: &PartitionName) -> Option<PathBuf> {
        self.inner.group(partition)
    }

    fn logs(&self, partition: &PartitionName, service: Option<&ServiceName>) -> Box<dyn LogLines> {
        let (records, names) = (self.inner.held.records.clone(), self.inner.names.clone());
        Box::new(JournalLines::new(records, names, partition.clone(), service.cloned()))
    }
}

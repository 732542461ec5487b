//! The shim runtime, on the agent's side.

mod inner;
mod live;
mod logs;
mod open;
mod runs;
mod usage;

use super::{Adopted, LogLines, Memory, Place, Ran, Runtime, Setting, Usage, beside, joined, signal_main};
use crate::host::linux::confine::Bounds;
use crate::host::linux::disk::private_folder;
use crate::host::linux::process::boot_id;
use crate::host::linux::shim::RunTask;
use crate::host::linux::shim::launch::Program;
use crate::host::linux::shim::tree::{KILL, Phase, STOP, Used};
use crate::host::linux::task::{Answer, Task};
use async_trait::async_trait;
use futures_util::future::join_all;
use inner::Inner;
use logs::ShimLogs;
use plat_agent_plan::action::{Run, ServiceSpec};
use plat_agent_plan::facts::ServiceFact;
use plat_document::release::ReloadSignal;
use plat_model::Problem;
use plat_model::id::{InstanceId, PartitionName, ServiceName};
use plat_model::problem::codes;
use plat_model::resources::{Enforced, Resources};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A shim for each service.
pub struct ShimRuntime {
    inner: Arc<Inner>,
}

impl ShimRuntime {
    pub fn new(setting: Setting) -> Self {
        Self { inner: Arc::new(Inner::new(setting)) }
    }

    async fn start_one(&self, place: &Place, spec: &ServiceSpec) -> Result<(), Problem> {
        let (inner, place, spec) = (self.inner.clone(), place.clone(), spec.clone());
        // A task of its own: whoever asked may stop waiting, and the run must be watched all the same.
        let started = tokio::spawn(async move {
            let (partition, service) = (&place.partition.name, &spec.name);
            let lock = inner.held.lock(partition, service);
            let _turn = lock.lock().await;
            let mut before = inner.recover(partition, service).await?;
            match &before {
                Some(state) if state.phase == Phase::Running && state.fingerprint == spec.fingerprint => return Ok(()),
                Some(state) if state.phase != Phase::Ended => {
                    inner.end(partition, service, STOP).await?;
                    before = inner.held.last_run(partition, service).await?;
                }
                Some(_) => {}
                // Its state was lost, but something was begun once.
                None if inner.held.records.service(partition, service).exists() => {
                    let uid = place.partition.account.as_ref().map(|account| account.uid);
                    inner.end_leftovers(partition, service, uid, None, None).await?;
                }
                None => {}
            }
            if before.is_some() {
                inner.held.setting.settle(partition).await;
            }
            Inner::launch(&inner, &place, &spec, before).await
        });
        joined(started.await)
    }
}

#[async_trait]
impl Runtime for ShimRuntime {
    fn kind(&self) -> &'static str {
        "shim"
    }

    fn without_groups(&self) -> Option<&str> {
        self.inner.cgroups.missing()
    }

    async fn open(&self) -> Result<Vec<Adopted>, Problem> {
        let records = self.inner.held.records.clone();
        let found = beside(move || {
            let runs = |partition| Ok((records.runs(&partition)?, partition));
            records.partitions()?.into_iter().map(runs).collect::<Result<Vec<_>, Problem>>()
        });
        let mut adopted = Vec::new();
        for (runs, partition) in found.await? {
            for (service, state) in runs {
                if state.phase != Phase::Ended {
                    let (partition, service, run) = (partition.clone(), service.clone(), state.run.clone());
                    adopted.push(Adopted { partition, service, run });
                }
                Inner::watch(&self.inner, partition.clone(), service, state);
            }
        }
        Ok(adopted)
    }

    async fn start(&self, place: &Place, specs: &[ServiceSpec]) -> Vec<Result<(), Problem>> {
        join_all(specs.iter().map(|spec| self.start_one(place, spec))).await
    }

    async fn stop(&self, partition: &PartitionName, service: &ServiceName) -> Result<(), Problem> {
        let lock = self.inner.held.lock(partition, service);
        let _turn = lock.lock().await;
        self.inner.end(partition, service, STOP).await?;
        let (inner, of) = (self.inner.clone(), (partition.clone(), service.clone()));
        let told = beside(move || match inner.held.records.run(&of.0, &of.1)? {
            Some(mut state) if !state.told => {
                (state.told, state.short_runs) = (true, 0);
                inner.held.records.write(&of.0, &of.1, &state)?;
                inner.runs.changed(&of.0);
                Ok(())
            }
            _ => Ok(()),
        });
        told.await?;
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
        let state = self.inner.held.last_run(partition, service).await?.filter(|state| state.run == run);
        let main = state.filter(|state| state.is_attended(&boot_id())).and_then(|state| state.main);
        signal_main(main, service, signal)
    }

    async fn clear(&self, place: &Place) -> Result<(), Problem> {
        let partition = &place.partition.name;
        let (records, name) = (self.inner.held.records.clone(), partition.clone());
        let services = beside(move || records.services(&name)).await?;
        let ends = services.iter().map(|service| async move {
            let lock = self.inner.held.lock(partition, service);
            let _turn = lock.lock().await;
            self.inner.end(partition, service, KILL).await
        });
        for ended in join_all(ends).await {
            ended?;
        }
        self.inner.held.setting.settle(partition).await;
        self.inner.empty_group(partition).await;
        let (inner, partition) = (self.inner.clone(), partition.clone());
        let cleared = beside(move || {
            for service in &services {
                inner.held.records.forget(&inner.held.records.service(&partition, service))?;
            }
            inner.runs.changed(&partition);
            inner.held.records.forget(&inner.held.records.runs_folder(&partition))
        });
        cleared.await
    }

    async fn forget(&self, partition: &PartitionName) -> Result<(), Problem> {
        self.inner.held.forget_limits(partition);
        self.inner.empty_group(partition).await;
        let (inner, partition) = (self.inner.clone(), partition.clone());
        let gone = beside(move || {
            inner.cgroups.remove(partition.as_str());
            inner.runs.forget(&partition);
            inner.held.records.forget(&inner.held.records.partition(&partition))
        });
        gone.await
    }

    /// All at once by its groups. Where those do not limit processes, what starts from now on is held to them by its user.
    async fn limit(&self, place: &Place, asked: Resources) -> Result<Resources, Problem> {
        let (inner, partition) = (self.inner.clone(), place.partition.name.clone());
        let limited = tokio::task::spawn_blocking(move || {
            let limited = inner.cgroups.limit(partition.as_str(), asked).map_err(|(file, why)| {
                Problem::new(
                    codes::SERVICE_START,
                    format!("partition {partition} cannot be held to what is asked for it"),
                )
                .because(format!("{}: {why}", file.display()))
                .fix("if it holds more memory than that, it must give some back first: restart or stop the instance")
            })?;
            inner.held.set_limits(&partition, asked, inner.cgroups.holders(partition.as_str()));
            Ok(limited)
        });
        let by_groups = joined(limited.await)?;
        let by_user = Resources { processes: self.inner.confinement(place).processes, ..Resources::default() };
        Ok(by_groups.or(by_user))
    }

    fn keeps_limits(&self, partition: &PartitionName) -> bool {
        self.inner.held.keeps_limits(partition, &self.inner.cgroups.holders(partition.as_str()))
    }

    async fn unconfined(&self) -> Result<Vec<String>, Problem> {
        match self.inner.held.setting.spawner.perform(&Task::Confine(Bounds::empty())).await? {
            Answer::Unconfined(missing) => Ok(missing),
            other => Err(Problem::new(codes::INTERNAL, format!("a process that was shut in answered {other:?}"))),
        }
    }

    fn enforces(&self) -> Enforced {
        self.inner.cgroups.limits()
    }

    async fn run(&self, place: &Place, run: &Run) -> Result<Ran, Problem> {
        let name = &place.partition.name;
        let logs = self.inner.held.records.runs_folder(name);
        let (inner, folder, partition) = (self.inner.clone(), logs.clone(), name.clone());
        let made = beside(move || {
            private_folder(&folder)?;
            Ok(inner.cgroups.make(partition.as_str(), "run"))
        });
        let groups = made.await?;
        let counted = groups.counted;
        let task = Task::Run(Box::new(RunTask {
            program: Program {
                command: run.command.clone(),
                environment: run.environment.clone(),
                directory: place.directory.clone(),
                within: run.directory.clone(),
                confinement: self.inner.confinement(place),
                groups,
                group_is_own: false,
                mark: format!("{}.{name}..{}", self.inner.mark, run.name),
            },
            timeout_seconds: run.timeout_seconds,
            log: self.inner.held.records.run_log(name, &run.name),
        }));
        match self.inner.held.setting.spawner.perform(&task).await? {
            Answer::Ran(ran) => {
                let beside = |used, counted| if counted { 0 } else { used };
                let used = Used {
                    cpu_micros: beside(ran.used.cpu_micros, counted.cpu),
                    io_bytes: beside(ran.used.io_bytes, counted.io),
                };
                Ok(Ran { used, ..ran })
            }
            other => Err(Problem::new(codes::INTERNAL, format!("a program's run answered {other:?}"))),
        }
    }

    async fn observe(&self, partition: &PartitionName) -> Result<BTreeMap<ServiceName, ServiceFact>, Problem> {
        self.inner.held.observe(partition).await
    }

    fn usage(&self, partition: &PartitionName, memory: Memory) -> Result<Usage, Problem> {
        self.inner.usage(partition, memory)
    }

    fn memory(&self, partition: &PartitionName, instance: &InstanceId) -> Result<Option<u64>, Problem> {
        self.inner.memory(partition, instance)
    }

    fn group(&self, partition: &PartitionName) -> Option<PathBuf> {
        // With the one that programs run in, for which it is first needed.
        self.inner.cgroups.make(partition.as_str(), "run").unified?;
        self.group_folder(partition)
    }

    fn group_folder(&self, partition: &PartitionName) -> Option<PathBuf> {
        self.inner.cgroups.of_partition(partition.as_str())
    }

    fn logs(&self, partition: &PartitionName, service: Option<&ServiceName>) -> Box<dyn LogLines> {
        Box::new(ShimLogs {
            records: self.inner.held.records.clone(),
            partition: partition.clone(),
            service: service.cloned(),
            followers: BTreeMap::new(),
        })
    }
}

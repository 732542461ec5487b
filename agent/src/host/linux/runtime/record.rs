//! Where the shims write, as the agent reads it: one folder for each service of each partition.

use crate::host::linux::disk::{self, Durability, Stored};
use crate::host::linux::shim::RunState;
use plat_model::Problem;
use plat_model::id::{PartitionName, ServiceName};
use plat_model::problem::codes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The agent's folder of partitions.
#[derive(Debug, Clone)]
pub struct Records {
    root: PathBuf,
}

impl Records {
    pub fn new(state: &Path) -> Self {
        Self { root: state.join("partitions") }
    }

    pub fn partition(&self, partition: &PartitionName) -> PathBuf {
        self.root.join(partition.as_str())
    }

    pub fn service(&self, partition: &PartitionName, service: &ServiceName) -> PathBuf {
        self.partition(partition).join("services").join(service.as_str())
    }

    /// Logs of what was run to its end.
    pub fn runs_folder(&self, partition: &PartitionName) -> PathBuf {
        self.partition(partition).join("runs")
    }

    pub fn run_log(&self, partition: &PartitionName, name: &str) -> PathBuf {
        self.runs_folder(partition).join(format!("{name}.log"))
    }

    pub fn log(&self, partition: &PartitionName, service: &ServiceName) -> PathBuf {
        self.service(partition, service).join("log")
    }

    /// Partitions that anything is written down of.
    ///
    /// # Errors
    /// BAD_STATE_FILE if that cannot be read: it is not known then that there is nothing.
    pub fn partitions(&self) -> Result<Vec<PartitionName>, Problem> {
        Ok(names(&self.root)?.iter().filter_map(|name| PartitionName::parse(name).ok()).collect())
    }

    /// Where the shim of a service writes its state.
    pub fn state(&self, partition: &PartitionName, service: &ServiceName) -> PathBuf {
        self.service(partition, service).join("state.json")
    }

    /// # Errors
    /// As [`Records::partitions`].
    pub fn services(&self, partition: &PartitionName) -> Result<Vec<ServiceName>, Problem> {
        let names = names(&self.partition(partition).join("services"))?;
        Ok(names.iter().filter_map(|name| ServiceName::parse(name).ok()).collect())
    }

    /// What has a log of its own: services, and by its name what was run to its end.
    ///
    /// # Errors
    /// As [`Records::partitions`].
    pub fn logged(&self, partition: &PartitionName) -> Result<BTreeSet<String>, Problem> {
        let services = names(&self.partition(partition).join("services"))?;
        let runs = names(&self.runs_folder(partition))?.into_iter();
        let runs = runs.filter_map(|name| name.strip_suffix(".log").map(str::to_owned));
        Ok(services.into_iter().chain(runs).collect())
    }

    /// The last run of a service. One that cannot be understood counts as none: whoever starts the service again ends
    /// what may be left of it first.
    pub fn run(&self, partition: &PartitionName, service: &ServiceName) -> Result<Option<RunState>, Problem> {
        match disk::read_json(&self.state(partition, service))? {
            Stored::Value(state) => Ok(Some(state)),
            Stored::Absent => Ok(None),
            Stored::Corrupt(why) => {
                tracing::warn!(%partition, %service, why, "a service's state makes no sense and is passed over");
                Ok(None)
            }
        }
    }

    pub fn runs(&self, partition: &PartitionName) -> Result<BTreeMap<ServiceName, RunState>, Problem> {
        let mut runs = BTreeMap::new();
        for service in self.services(partition)? {
            if let Some(state) = self.run(partition, &service)? {
                runs.insert(service, state);
            }
        }
        Ok(runs)
    }

    pub fn write(&self, partition: &PartitionName, service: &ServiceName, state: &RunState) -> Result<(), Problem> {
        disk::replace_json(&self.state(partition, service), state, Durability::Process)
    }

    pub fn forget(&self, folder: &Path) -> Result<(), Problem> {
        match fs::remove_dir_all(folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(disk::io_problem(codes::BAD_STATE_FILE, format!("cannot remove {}", folder.display()), &e))
            }
            _ => Ok(()),
        }
    }
}

/// What is in a folder; nothing if it is not there.
fn names(folder: &Path) -> Result<Vec<String>, Problem> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>();
    match read() {
        Ok(names) => Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(disk::io_problem(codes::BAD_STATE_FILE, format!("cannot list {}", folder.display()), &e)),
    }
}

//! The logs that shims write: a file for each service.

use crate::host::linux::runtime::{LogLines, Records};
use crate::host::linux::shim::line_log::Follower;
use plat_model::id::{PartitionName, ServiceName};
use std::collections::BTreeMap;

pub struct ShimLogs {
    pub records: Records,
    pub partition: PartitionName,
    /// `None`: of all.
    pub service: Option<ServiceName>,
    pub followers: BTreeMap<ServiceName, Follower>,
}

impl LogLines for ShimLogs {
    fn fresh(&mut self) -> Vec<(i64, ServiceName, String)> {
        let services = match &self.service {
            Some(service) => vec![service.clone()],
            None => self.records.services(&self.partition).unwrap_or_default(),
        };
        let mut lines = Vec::new();
        for service in services {
            let log = || Follower::new(self.records.log(&self.partition, &service));
            let follower = self.followers.entry(service.clone()).or_insert_with(log);
            lines.extend(follower.fresh().into_iter().map(|(at, text)| (at, service.clone(), text)));
        }
        lines.sort_by_key(|line| line.0);
        lines
    }
}

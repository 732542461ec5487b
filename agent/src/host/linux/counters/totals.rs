//! What one instance has used in all: sums of differences between readings. Arithmetic only.

use super::network::{Links, Traffic};
use crate::host::linux::runtime::{Reading, RunUsage, Used};
use plat_model::Timestamp;
use plat_model::id::{InstanceId, ServiceName};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The totals, and up to where everything has been added to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Of this form.
    pub version: u32,
    pub epoch: u64,
    pub instance: InstanceId,
    /// Why nobody knows what the instance had used when this epoch began; `None` if it had used nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    pub cpu_micros: u64,
    pub io_bytes: u64,
    pub wall_millis: u64,
    /// Wall time before this has been counted.
    pub wall_until: Timestamp,
    /// The control group's last reading: which one, CPU, I/O.
    pub group: Option<(String, u64, u64)>,
    /// Each service's last run and what of it has been added.
    pub runs: BTreeMap<ServiceName, (String, Used)>,
    /// `None`: its links have not been read yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
}

impl Totals {
    /// Counts from here on: what the group has counted before is not this instance's, or cannot be told.
    pub fn new(epoch: u64, instance: InstanceId, now: Timestamp, group: Option<&Reading>) -> Self {
        Self {
            version: 1,
            epoch,
            instance,
            lost: None,
            cpu_micros: 0,
            io_bytes: 0,
            wall_millis: 0,
            wall_until: now,
            group: group.map(|r| (r.identity.clone(), r.cpu_micros, r.io_bytes.unwrap_or(0))),
            runs: BTreeMap::new(),
            traffic: None,
        }
    }

    /// What was received and sent; `None` if counting begins only with these links, and nobody knows what was before.
    pub fn add_traffic(&mut self, links: Links) -> Option<(u64, u64)> {
        match &mut self.traffic {
            Some(traffic) => {
                traffic.add(links);
                Some((traffic.received, traffic.sent))
            }
            None => {
                self.traffic = Some(Traffic::from_here(links));
                None
            }
        }
    }

    pub fn add_group(&mut self, now: &Reading) {
        let (cpu, io) = match &self.group {
            Some((identity, cpu, io)) if *identity == now.identity => (*cpu, *io),
            _ => (0, 0),
        };
        let io_now = now.io_bytes.unwrap_or(io);
        self.cpu_micros += now.cpu_micros.saturating_sub(cpu);
        self.io_bytes += io_now.saturating_sub(io);
        self.group = Some((now.identity.clone(), now.cpu_micros.max(cpu), io_now.max(io)));
    }

    pub fn add_run(&mut self, run: &RunUsage) {
        let seen = self.seen(run);
        if !run.counted.cpu {
            self.cpu_micros += run.used.cpu_micros.saturating_sub(seen.cpu_micros);
        }
        if !run.counted.io {
            self.io_bytes += run.used.io_bytes.saturating_sub(seen.io_bytes);
        }
        self.pass_run(run);
    }

    /// What a run has used up to now is not added: it was before this epoch.
    pub fn pass_run(&mut self, run: &RunUsage) {
        let (used, seen) = (run.used, self.seen(run));
        let seen =
            Used { cpu_micros: used.cpu_micros.max(seen.cpu_micros), io_bytes: used.io_bytes.max(seen.io_bytes) };
        self.runs.insert(run.service.clone(), (run.run.clone(), seen));
    }

    fn seen(&self, run: &RunUsage) -> Used {
        match self.runs.get(&run.service) {
            Some((known, seen)) if *known == run.run => *seen,
            _ => Used::default(),
        }
    }

    /// Adds what of the stretch has not been counted: two services at once are one instance's time.
    pub fn add_wall(&mut self, start: Timestamp, end: Timestamp) {
        self.wall_millis += end.since(start.max(self.wall_until)).as_millis() as u64;
        self.wall_until = self.wall_until.max(end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals() -> Totals {
        Totals::new(7, InstanceId::parse(&"a".repeat(32)).unwrap(), Timestamp(0), None)
    }

    fn reading(identity: &str, cpu_micros: u64) -> Reading {
        Reading { identity: identity.into(), cpu_micros, io_bytes: None, memory_bytes: None }
    }

    #[test]
    fn a_control_group_that_is_made_again_loses_nothing_and_counts_nothing_twice() {
        let mut totals = totals();
        totals.add_group(&reading("one", 100));
        totals.add_group(&reading("one", 150));
        totals.add_group(&reading("two", 30));
        totals.add_group(&reading("two", 30));
        assert_eq!(totals.cpu_micros, 180);
    }

    #[test]
    fn services_that_run_at_the_same_time_are_one_stretch_of_wall_time() {
        let mut totals = totals();
        totals.add_wall(Timestamp(100), Timestamp(200));
        totals.add_wall(Timestamp(150), Timestamp(250));
        totals.add_wall(Timestamp(120), Timestamp(180));
        totals.add_wall(Timestamp(400), Timestamp(410));
        assert_eq!(totals.wall_millis, 160);
    }
}

//! What one instance has used in all: sums of differences between readings. Arithmetic only.

use super::network::{Links, Traffic};
use crate::host::linux::process::boot_id;
use crate::host::linux::runtime::{Reading, RunUsage, Used};
use plat_agent_plan::{Moment, Steady};
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
    /// The same on the steady clock, and in which boot of the machine; an older agent does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steady_until: Option<(String, Steady)>,
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
    pub fn new(epoch: u64, instance: InstanceId, now: Moment, group: Option<&Reading>) -> Self {
        Self {
            version: 1,
            epoch,
            instance,
            lost: None,
            cpu_micros: 0,
            io_bytes: 0,
            wall_millis: 0,
            wall_until: now.wall,
            steady_until: Some((boot_id(), now.steady)),
            group: group.map(|r| (r.identity.clone(), r.cpu_micros, r.io_bytes.unwrap_or(0))),
            runs: BTreeMap::new(),
            traffic: None,
        }
    }

    /// Goes on in a new epoch, from zero: nobody knows all of what was used before it.
    pub fn anew(&self, epoch: u64, why: &str) -> Self {
        Self {
            epoch,
            lost: Some(why.into()),
            cpu_micros: 0,
            io_bytes: 0,
            wall_millis: 0,
            group: None,
            traffic: self.traffic.clone().map(Traffic::anew),
            ..self.clone()
        }
    }

    /// Whether the group that has been counted was taken away, and this is one that was made in its place: what that one had
    /// counted last nobody knows. In another boot all are others.
    pub fn is_another_group(&self, now: &Reading) -> bool {
        let boot = |identity: &str| identity.split_once(':').map(|(boot, _)| boot.to_owned());
        let before = self.group.as_ref().map(|(identity, ..)| identity);
        before.is_some_and(|before| *before != now.identity && boot(before) == boot(&now.identity))
    }

    /// What was received and sent; `None` if nobody knows what was before these links, or between the last and these.
    pub fn add_traffic(&mut self, links: Links) -> Option<(u64, u64)> {
        match &mut self.traffic {
            Some(traffic) => {
                let is_whole = traffic.add(links);
                is_whole.then_some((traffic.received, traffic.sent))
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

    /// Adds what of the stretch has not been counted: two services at once are one instance's time. Within one boot the
    /// time of day may be set as it pleases.
    pub fn add_wall(&mut self, start: Moment, end: Moment) {
        let boot = boot_id();
        let counted = self.steady_until.as_ref().map(|(of, until)| if *of == boot { *until } else { Steady::ZERO });
        let more = match counted {
            Some(until) if end.steady > Steady::ZERO => end.steady.since(start.steady.max(until)),
            _ => end.wall.since(start.wall.max(self.wall_until)),
        };
        self.wall_millis += more.as_millis() as u64;
        self.wall_until = self.wall_until.max(end.wall);
        let until = counted.unwrap_or(Steady::ZERO).max(end.steady);
        self.steady_until = Some((boot, until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals() -> Totals {
        Totals::new(7, InstanceId::parse(&"a".repeat(32)).unwrap(), Moment::default(), None)
    }

    fn reading(identity: &str, cpu_micros: u64) -> Reading {
        Reading { identity: identity.into(), cpu_micros, io_bytes: None, memory_bytes: None }
    }

    #[test]
    fn a_control_group_that_is_made_again_loses_nothing_and_counts_nothing_twice() {
        let mut totals = totals();
        totals.add_group(&reading("one:1", 100));
        totals.add_group(&reading("one:1", 150));
        assert!(!totals.is_another_group(&reading("two:1", 30)), "as after each boot");
        totals.add_group(&reading("two:1", 30));
        totals.add_group(&reading("two:1", 30));
        assert_eq!(totals.cpu_micros, 180);
    }

    #[test]
    fn after_a_control_group_that_was_taken_away_an_epoch_begins_that_says_so() {
        let mut totals = totals();
        totals.add_group(&reading("one:1", 100));
        totals.add_wall(at(100, 100), at(200, 200));
        assert!(!totals.is_another_group(&reading("one:1", 150)) && totals.is_another_group(&reading("one:2", 30)));
        let mut anew = totals.anew(8, "it was taken away");
        anew.add_group(&reading("one:2", 30));
        anew.add_wall(at(100, 100), at(250, 250));
        assert_eq!((anew.epoch, anew.cpu_micros, anew.wall_millis), (8, 30, 50));
        assert_eq!(anew.lost.as_deref(), Some("it was taken away"));
    }

    fn at(wall: i64, steady: u64) -> Moment {
        Moment { wall: Timestamp(wall), steady: Steady(steady) }
    }

    #[test]
    fn services_that_run_at_the_same_time_are_one_stretch_of_wall_time() {
        let mut totals = totals();
        for (start, end) in [(100, 200), (150, 250), (120, 180), (400, 410)] {
            totals.add_wall(at(start, start.unsigned_abs()), at(end, end.unsigned_abs()));
        }
        assert_eq!(totals.wall_millis, 160);
    }

    #[test]
    fn a_clock_that_is_set_loses_no_wall_time_and_makes_none() {
        let mut totals = totals();
        totals.add_wall(at(9_000, 100), at(9_100, 200));
        totals.add_wall(at(9_000, 100), at(2_000, 350));
        totals.add_wall(at(9_000, 100), at(50_000, 400));
        assert_eq!(totals.wall_millis, 300);
    }

    #[test]
    fn what_ran_in_another_boot_is_counted_by_the_time_of_day() {
        let mut totals = totals();
        totals.add_wall(at(9_000, 800), at(9_100, 900));
        totals.steady_until = totals.steady_until.map(|(_, until)| ("the boot before".into(), until));
        // It went on until the machine was restarted; then another began.
        totals.add_wall(at(9_000, 0), at(9_150, 0));
        totals.add_wall(at(9_500, 20), at(9_560, 80));
        assert_eq!(totals.wall_millis, 100 + 50 + 60);
    }
}

use super::*;
use crate::host::fake::FakeHost;
use plat_agent_plan::Action;
use plat_model::node::{NodeFile, NodePartition};
use plat_model::usage::Meter;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use tempfile::TempDir;

/// A clock that a test sets: steady time, and by how much the time of day differs.
#[derive(Default)]
struct Hand(AtomicI64, AtomicI64);

impl Hand {
    fn later(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1000, Ordering::Relaxed);
    }

    fn set_by(&self, seconds: i64) {
        self.1.fetch_add(seconds * 1000, Ordering::Relaxed);
    }
}

impl Clock for Hand {
    fn steady(&self) -> plat_agent_plan::Steady {
        plat_agent_plan::Steady(self.0.load(Ordering::Relaxed).unsigned_abs())
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed) + self.1.load(Ordering::Relaxed))
    }
}

/// A partition with an instance in it, and what meters it.
struct Rig {
    host: Arc<FakeHost>,
    clock: Arc<Hand>,
    folder: TempDir,
    metering: Metering,
}

fn part() -> PartitionName {
    PartitionName::parse("part0").unwrap()
}

fn instance() -> InstanceId {
    InstanceId::parse(&"a".repeat(32)).unwrap()
}

fn metering(host: &Arc<FakeHost>, clock: &Arc<Hand>, folder: &Path) -> Metering {
    let (outbox, _) = Outbox::open(&folder.join("outbox"), u64::MAX).unwrap();
    Metering::new(host.clone(), clock.clone(), Duration::from_secs(60), outbox)
}

impl Rig {
    async fn new() -> Self {
        let clock = Arc::new(Hand::default());
        let partition = NodePartition::bare(part());
        let file = NodeFile { partitions: vec![partition], ..NodeFile::bare(Path::new("/srv")) };
        let host = Arc::new(FakeHost::new(file, clock.clone()));
        let occupy = Action::Occupy { partition: part(), instance: instance(), secrets: BTreeMap::new() };
        host.perform(&occupy).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let metering = metering(&host, &clock, folder.path());
        host.hold_memory(&part(), 1000);
        Self { host, clock, folder, metering }
    }

    /// As if the agent was killed, and started again after some seconds.
    fn restart(&mut self, after: i64) {
        self.clock.later(after);
        self.metering = metering(&self.host, &self.clock, self.folder.path());
    }

    /// The end of a window.
    async fn take(&self) {
        self.metering.pass(Wanted::All, None).await;
    }

    /// What the ledger gets to know of memory.
    async fn memory(&self) -> Vec<Amount> {
        self.metering.booked(0).await.unwrap();
        let reports = self.metering.to_send(99).await.unwrap_or_default();
        let records = reports.into_iter().flat_map(|report| report.records);
        records.map(|record| record.amounts[&Meter::MemoryByteSeconds].clone()).collect()
    }
}

#[tokio::test]
async fn what_lived_for_less_than_a_sample_is_counted_once_and_not_as_nothing() {
    let mut rig = Rig::new().await;
    rig.metering.follow(&part(), &instance(), Arrival::New).await;
    rig.clock.later(2);
    rig.metering.settle(&part()).await.unwrap();
    rig.clock.later(100);
    rig.metering.settle(&part()).await.unwrap();
    rig.restart(100);
    rig.metering.settle(&part()).await.unwrap();
    assert_eq!(rig.memory().await, [Amount::Known(1000)]);
}

#[tokio::test]
async fn over_a_short_absence_levels_go_on_from_where_they_were() {
    let mut rig = Rig::new().await;
    rig.metering.follow(&part(), &instance(), Arrival::New).await;
    rig.clock.later(10);
    rig.take().await;
    rig.restart(20);
    rig.metering.follow(&part(), &instance(), Arrival::Found).await;
    rig.take().await;
    assert_eq!(rig.memory().await, [Amount::Known(5000), Amount::Known(20_000)]);
}

#[tokio::test]
async fn over_a_long_absence_levels_are_unknown() {
    let mut rig = Rig::new().await;
    rig.metering.follow(&part(), &instance(), Arrival::New).await;
    rig.clock.later(10);
    rig.take().await;
    rig.restart(40);
    rig.metering.follow(&part(), &instance(), Arrival::Found).await;
    rig.take().await;
    assert_eq!(
        rig.memory().await[1],
        Amount::Unknown("the agent was away from 1970-01-01T00:00:10Z to 1970-01-01T00:00:50Z".into())
    );
}

#[tokio::test]
async fn what_was_found_without_a_word_of_it_is_unknown_and_counted_from_there() {
    let mut rig = Rig::new().await;
    rig.restart(20);
    rig.metering.follow(&part(), &instance(), Arrival::Found).await;
    rig.take().await;
    rig.clock.later(10);
    rig.take().await;
    let memory = rig.memory().await;
    assert!(matches!(memory[..], [Amount::Unknown(_), Amount::Known(10_000)]), "{memory:?}");
}

#[tokio::test]
async fn after_a_gap_all_is_counted_at_once() {
    let mut rig = Rig::new().await;
    rig.metering.follow(&part(), &instance(), Arrival::New).await;
    rig.clock.later(10);
    rig.take().await;
    rig.restart(100);
    rig.metering.follow(&part(), &instance(), Arrival::Found).await;
    rig.metering.pass(Wanted::Levels, None).await;
    rig.clock.later(10);
    rig.metering.pass(Wanted::Levels, None).await;
    rig.clock.later(10);
    rig.take().await;
    let memory = rig.memory().await;
    assert!(matches!(memory[..], [Amount::Known(5000), Amount::Unknown(_), Amount::Known(20_000)]), "{memory:?}");
}

#[tokio::test]
async fn what_ends_while_the_clock_is_behind_is_counted() {
    let rig = Rig::new().await;
    rig.metering.follow(&part(), &instance(), Arrival::New).await;
    rig.clock.later(10);
    rig.take().await;
    rig.clock.set_by(-3000);
    rig.host.use_cpu(&part(), 77);
    rig.clock.later(10);
    rig.metering.settle(&part()).await.unwrap();
    rig.metering.booked(0).await.unwrap();
    let reports = rig.metering.to_send(99).await.unwrap();
    let last = reports.last().unwrap().records.last().unwrap();
    assert_eq!(last.amounts[&Meter::CpuMicros], Amount::Known(77));
    assert_eq!(last.amounts[&Meter::MemoryByteSeconds], Amount::Known(10_000));
    let before = &reports[0].records[0];
    assert!(last.window.start == before.window.end && last.window.end > last.window.start, "{reports:?}");
}

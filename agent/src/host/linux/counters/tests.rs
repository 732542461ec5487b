use super::*;
use crate::clock::SystemClock;
use crate::host::linux::runtime::{Adopted, LogLines, Place, Ran};
use async_trait::async_trait;
use plat_agent_plan::action::{Run, ServiceSpec};
use plat_agent_plan::facts::ServiceFact;
use plat_document::release::ReloadSignal;
use plat_model::id::ServiceName;
use plat_model::resources::{Enforced, Resources};
use std::fs;
use std::path::PathBuf;

/// Nothing runs, and nothing has used anything.
struct Idle;

#[async_trait]
impl Runtime for Idle {
    fn kind(&self) -> &'static str {
        "idle"
    }

    fn without_groups(&self) -> Option<&str> {
        Some("nothing runs")
    }

    fn enforces(&self) -> Enforced {
        Enforced { cpu: false, memory: false, disk: false, processes: false, confinement: false }
    }

    fn usage(&self, _: &PartitionName, _: Memory) -> Result<Usage, Problem> {
        Ok(Usage::default())
    }

    fn memory(&self, _: &PartitionName, _: &InstanceId) -> Result<Option<u64>, Problem> {
        Ok(Some(0))
    }

    fn group(&self, _: &PartitionName) -> Option<PathBuf> {
        None
    }

    fn group_folder(&self, _: &PartitionName) -> Option<PathBuf> {
        None
    }

    fn logs(&self, _: &PartitionName, _: Option<&ServiceName>) -> Box<dyn LogLines> {
        unreachable!("nobody counts lines")
    }

    async fn open(&self) -> Result<Vec<Adopted>, Problem> {
        Ok(Vec::new())
    }

    async fn start(&self, _: &Place, _: &[ServiceSpec]) -> Vec<Result<(), Problem>> {
        unreachable!("nothing runs")
    }

    async fn stop(&self, _: &PartitionName, _: &ServiceName) -> Result<(), Problem> {
        unreachable!("nothing runs")
    }

    async fn reload(&self, _: &PartitionName, _: &ServiceName, _: &str, _: ReloadSignal) -> Result<(), Problem> {
        unreachable!("nothing runs")
    }

    async fn clear(&self, _: &Place) -> Result<(), Problem> {
        unreachable!("nothing runs")
    }

    async fn forget(&self, _: &PartitionName) -> Result<(), Problem> {
        unreachable!("nothing runs")
    }

    async fn limit(&self, _: &Place, asked: Resources) -> Result<Resources, Problem> {
        Ok(asked)
    }

    fn keeps_limits(&self, _: &PartitionName) -> bool {
        true
    }

    async fn unconfined(&self) -> Result<Vec<String>, Problem> {
        Ok(Vec::new())
    }

    async fn run(&self, _: &Place, _: &Run) -> Result<Ran, Problem> {
        unreachable!("nothing runs")
    }

    async fn observe(&self, _: &PartitionName) -> Result<BTreeMap<ServiceName, ServiceFact>, Problem> {
        Ok(BTreeMap::new())
    }
}

fn part() -> PartitionName {
    PartitionName::parse("p0").unwrap()
}

fn instance() -> InstanceId {
    InstanceId::parse(&"a".repeat(32)).unwrap()
}

fn open(folder: &Path) -> Meters {
    Meters::open(folder, Arc::new(Idle), Arc::new(SystemClock), Network::default(), [(part(), instance())].into())
        .unwrap()
}

fn read(meters: &Meters) -> Result<Counters, Problem> {
    let disk = |_: &PartitionName| (Amount::Known(0), Way::Unknown("nobody asked".into()));
    meters.read(&[part()], Wanted::All, disk).pop().unwrap().1
}

fn used(meters: &Meters) -> [Amount; 2] {
    let counters = read(meters).unwrap();
    [Meter::CpuMicros, Meter::IoBytes].map(|meter| counters.readings[&meter].clone())
}

#[test]
fn what_a_program_used_and_could_not_be_written_down_is_counted_once_when_it_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let beside = folder.path().join("counters.new");
    let meters = open(folder.path());
    let program = Used { cpu_micros: 5, io_bytes: 7 };
    meters.add(&part(), program).unwrap();
    let epoch = read(&meters).unwrap().epoch;
    lock(&meters.journal).doubt();
    fs::create_dir(&beside).unwrap();
    meters.add(&part(), program).unwrap_err();
    meters.add(&part(), program).unwrap_err();
    read(&meters).unwrap_err();
    fs::remove_dir(&beside).unwrap();
    assert_eq!(used(&meters), [Amount::Known(15), Amount::Known(21)]);
    meters.add(&part(), program).unwrap();
    drop(meters);
    let meters = open(folder.path());
    assert_eq!(used(&meters), [Amount::Known(20), Amount::Known(28)]);
    assert_eq!(read(&meters).unwrap().epoch, epoch);
}

#[test]
fn what_was_told_is_what_the_next_agent_begins_with_whatever_could_not_be_written_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let meters = open(folder.path());
    meters.add(&part(), Used { cpu_micros: 5, io_bytes: 7 }).unwrap();
    let told = read(&meters).unwrap();
    lock(&meters.journal).doubt();
    fs::create_dir(folder.path().join("counters.new")).unwrap();
    meters.add(&part(), Used { cpu_micros: 1, io_bytes: 1 }).unwrap_err();
    drop(meters);
    fs::remove_dir(folder.path().join("counters.new")).unwrap();
    let meters = open(folder.path());
    assert_eq!(used(&meters), [Amount::Known(5), Amount::Known(7)], "killed before it could be written: that is lost");
    assert_eq!(read(&meters).unwrap().epoch, told.epoch);
}

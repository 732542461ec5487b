use super::*;
use plat_model::id::InstanceId;
use plat_model::time::Window;
use plat_model::usage::{Amount, Meter};

fn part() -> PartitionName {
    PartitionName::parse("part0").unwrap()
}

fn open(path: &Path, bytes_max: u64) -> Outbox {
    let (outbox, damaged) = Outbox::open(path, bytes_max).unwrap();
    assert!(damaged.is_none(), "{damaged:?}");
    outbox
}

/// Takes what a counter that stands at `total` has grown since the baseline.
fn take(outbox: &mut Outbox, total: u64) -> Result<(), Problem> {
    let before = outbox.baselines().get(&part()).map_or(0, |baseline| baseline.totals[&Meter::CpuMicros]);
    let instance = InstanceId::parse(&"a".repeat(32)).unwrap();
    let window = Window { start: Timestamp::ZERO, end: Timestamp(1) };
    let amounts = [(Meter::CpuMicros, Amount::Known(total - before))].into();
    let others = BTreeMap::new();
    let record = UsageRecord { instance: instance.clone(), partition: part(), window, amounts, others };
    let totals = [(Meter::CpuMicros, total)].into();
    let (levels, ended) = (BTreeMap::new(), false);
    let baseline = Baseline { instance, epoch: 1, taken: Timestamp(1), read: None, totals, levels, ended };
    outbox.take(Timestamp(1), vec![record], [(part(), Some(baseline))].into())
}

fn waiting(outbox: &Outbox) -> Vec<UsageReport> {
    outbox.state.waiting.iter().cloned().collect()
}

/// All that waits is sent, and booked unless the master has booked its number before. Gives what was booked.
fn push(outbox: &mut Outbox, tail: &mut u64) -> u64 {
    let mut total = 0;
    while let Some(reports) = outbox.to_send(2) {
        let new: Vec<_> = reports.into_iter().filter(|report| report.sequence > *tail).collect();
        assert!(new.iter().zip(*tail + 1..).all(|(report, number)| report.sequence == number), "a gap: {new:?}");
        (*tail, total) = (*tail + new.len() as u64, total + sum(&new));
        outbox.booked(*tail).unwrap();
    }
    total
}

fn sum(reports: &[UsageReport]) -> u64 {
    let amounts = reports.iter().flat_map(|report| &report.records).map(|record| &record.amounts[&Meter::CpuMicros]);
    amounts.map(|amount| if let Amount::Known(known) = amount { *known } else { 0 }).sum()
}

#[test]
fn wherever_the_log_is_cut_the_waiting_and_the_uncounted_make_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox");
    let mut outbox = open(&path, u64::MAX);
    let start = fs::read(&path).unwrap().len();
    for total in [10, 25, 70] {
        take(&mut outbox, total).unwrap();
    }
    let whole = fs::read(&path).unwrap();
    for end in start..=whole.len() {
        fs::write(&path, &whole[..end]).unwrap();
        let mut outbox = open(&path, u64::MAX);
        take(&mut outbox, 100).unwrap();
        let waiting = waiting(&outbox);
        assert_eq!(sum(&waiting), 100, "cut at {end}");
        let numbers: Vec<u64> = waiting.iter().map(|report| report.sequence).collect();
        assert_eq!(numbers, (1..=waiting.len() as u64).collect::<Vec<_>>(), "cut at {end}");
    }
}

#[test]
fn a_damaged_line_is_told_and_never_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox");
    take(&mut open(&path, u64::MAX), 10).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[40] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let (outbox, damaged) = Outbox::open(&path, u64::MAX).unwrap();
    let problem = damaged.unwrap();
    assert_eq!(problem.code, codes::BAD_STATE_FILE);
    assert!(problem.why.contains("line 1"), "{problem}");
    assert!(outbox.lost() && outbox.baselines().is_empty());
    // The damaged log is kept, and what was lost is known for as long as this one lasts.
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let aside: Vec<_> = names.filter(|name| name.to_string_lossy().contains(".damaged-")).collect();
    assert_eq!(fs::read(&aside[0]).unwrap(), bytes);
    let mut outbox = open(&path, u64::MAX);
    take(&mut outbox, 20).unwrap();
    assert!(outbox.lost() && open(&path, u64::MAX).lost());
}

#[test]
fn a_log_that_cannot_be_read_or_written_now_is_not_called_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let (path, in_the_way) = (folder.path().join("outbox"), folder.path().join("outbox.new"));
    fs::create_dir(&path).unwrap();
    assert_eq!(Outbox::open(&path, u64::MAX).map(|_| ()).unwrap_err().code, codes::BAD_STATE_FILE);
    assert!(path.is_dir(), "it was left where it is");
    fs::remove_dir(&path).unwrap();
    take(&mut open(&path, u64::MAX), 10).unwrap();
    let before = fs::read(&path).unwrap();
    fs::create_dir(&in_the_way).unwrap();
    let mut outbox = open(&path, u64::MAX);
    assert_eq!((sum(&waiting(&outbox)), outbox.lost()), (10, false));
    assert!(take(&mut outbox, 30).is_err() && fs::read(&path).unwrap() == before);
    fs::remove_dir(&in_the_way).unwrap();
    take(&mut outbox, 30).unwrap();
    assert_eq!(sum(&waiting(&open(&path, u64::MAX))), 30);
}

#[test]
fn what_is_booked_is_forgotten_and_numbers_go_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox");
    let mut outbox = open(&path, u64::MAX);
    for total in 1..=5 {
        take(&mut outbox, total).unwrap();
    }
    outbox.booked(0).unwrap();
    outbox.booked(3).unwrap();
    outbox.booked(2).unwrap();
    let mut outbox = open(&path, u64::MAX);
    assert_eq!(waiting(&outbox).iter().map(|report| report.sequence).collect::<Vec<_>>(), [4, 5]);
    assert!(outbox.booked(9).is_err(), "more than was ever made");
    outbox.booked(5).unwrap();
    let mut outbox = open(&path, u64::MAX);
    take(&mut outbox, 6).unwrap();
    assert_eq!(waiting(&outbox)[0].sequence, 6);
}

#[test]
fn a_new_disk_follows_the_numbers_that_the_master_has_of_the_old_one_and_loses_nothing() {
    for (mut tail, reports) in [(41, 2), (2, 5), (3, 3), (0, 3)] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox");
        let mut outbox = open(&path, u64::MAX);
        for n in 1..=reports {
            take(&mut outbox, 10 * n).unwrap();
        }
        assert_eq!(outbox.to_send(9).unwrap(), [], "it asks first");
        outbox.booked(tail).unwrap();
        // Answers that are lost from now on, and starts of the agent, change no number.
        let mut outbox = open(&path, u64::MAX);
        let first = outbox.to_send(9).unwrap()[0].sequence;
        assert_eq!((first, outbox.state.numbered), (tail + 1, true));
        assert_eq!(push(&mut outbox, &mut tail), 10 * reports);
        take(&mut outbox, 10 * reports + 7).unwrap();
        assert_eq!(push(&mut outbox, &mut tail), 7);
        assert!(open(&path, u64::MAX).to_send(9).is_none());
    }
}

#[test]
fn the_log_stays_small_when_the_master_keeps_up_and_is_full_when_it_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("outbox");
    let mut outbox = open(&path, 2000);
    for total in 1..=10 {
        take(&mut outbox, total).unwrap();
    }
    assert!(outbox.is_full());
    outbox.booked(0).unwrap();
    outbox.booked(10).unwrap();
    let outbox = open(&path, 2000);
    assert!(!outbox.is_full(), "{} bytes", outbox.size());
}

#[test]
fn a_log_that_cannot_be_written_anew_loses_nothing_and_counts_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (path, in_the_way) = (folder.path().join("outbox"), folder.path().join("outbox.new"));
    let mut outbox = open(&path, u64::MAX);
    take(&mut outbox, 10).unwrap();
    // Neither an append nor its taking back succeeds, and nothing can be written beside the log.
    outbox.file = Some(File::open(&path).unwrap());
    fs::create_dir(&in_the_way).unwrap();
    for _ in 0..2 {
        take(&mut outbox, 25).unwrap_err();
        assert_eq!((outbox.state.next, sum(&waiting(&outbox))), (2, 10));
        assert_eq!(outbox.baselines()[&part()].totals[&Meter::CpuMicros], 10);
    }
    fs::remove_dir(&in_the_way).unwrap();
    take(&mut outbox, 40).unwrap();
    let outbox = open(&path, u64::MAX);
    assert_eq!(sum(&waiting(&outbox)), 40);
}

#[test]
fn what_was_booked_stays_booked_when_the_log_cannot_be_made_smaller() {
    let folder = tempfile::tempdir().unwrap();
    let (path, in_the_way) = (folder.path().join("outbox"), folder.path().join("outbox.new"));
    let mut outbox = open(&path, u64::MAX);
    take(&mut outbox, 10).unwrap();
    outbox.booked(0).unwrap();
    outbox.bytes = REWRITE_AT;
    fs::create_dir(&in_the_way).unwrap();
    outbox.booked(1).unwrap_err();
    assert_eq!((outbox.state.booked, outbox.state.next), (1, 2));
    fs::remove_dir(&in_the_way).unwrap();
    take(&mut outbox, 30).unwrap();
    let outbox = open(&path, u64::MAX);
    assert_eq!(sum(&waiting(&outbox)), 20);
}

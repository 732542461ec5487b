//! What goes, what stays.

use plat_agent_plan::{Action, Disk, GarbagePlan, KeepPolicy, StoreFacts, Stored, StoredFact, plan_garbage};
use plat_model::Timestamp;
use plat_model::id::Digest;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const DAY: i64 = 24 * 3600;
const MIB: u64 = 1 << 20;

fn digest(n: u8) -> Digest {
    Digest::parse(&format!("{n:02x}").repeat(32)).unwrap()
}

fn release(n: u8, unused_since: Option<i64>) -> StoredFact {
    let unused_since = unused_since.map(Timestamp::from_seconds);
    StoredFact { what: Stored::Release(digest(n)), disk: 1, bytes: None, unused_since, busy: false }
}

fn content(name: &str, mib: u64, used: i64) -> StoredFact {
    let unused_since = Some(Timestamp::from_seconds(used));
    StoredFact { what: Stored::Content(name.into()), disk: 1, bytes: Some(mib * MIB), unused_since, busy: false }
}

/// At day 100, with so many MiB free of 256 that should be.
fn plan(entries: &[StoredFact], needed: &[u8], free_mib: u64) -> GarbagePlan {
    plan_with_asked(entries, needed, free_mib, &[])
}

/// The same, when room for so many MiB is waited for.
fn plan_with_asked(entries: &[StoredFact], needed: &[u8], free_mib: u64, asked: &[u64]) -> GarbagePlan {
    let asked = asked.iter().map(|mib| mib * MIB).collect();
    let disk = Disk { place: "/srv".into(), free: free_mib * MIB, asked };
    let facts = StoreFacts { entries: entries.to_vec(), disks: BTreeMap::from([(1, disk)]) };
    let needed: BTreeSet<Digest> = needed.iter().map(|n| digest(*n)).collect();
    plan_garbage(&facts, &needed, &KeepPolicy::default(), Timestamp::from_seconds(100 * DAY))
}

fn removed(plan: &GarbagePlan) -> Vec<String> {
    let contents = plan.actions.iter().filter_map(|action| match action {
        Action::RemoveContent { path } => Some(path.clone()),
        _ => None,
    });
    plan.releases.iter().map(|digest| digest.as_str()[..2].to_owned()).chain(contents).collect()
}

#[test]
fn what_was_not_used_for_long_goes_and_what_is_needed_never_does() {
    let entries = [
        release(1, Some(92 * DAY)),
        release(2, Some(94 * DAY)),
        release(3, Some(10 * DAY)),
        content("old", 1, 93 * DAY),
        content("young", 1, 93 * DAY + 1),
        StoredFact { busy: true, ..content("busy", 1, 0) },
    ];
    let plan = plan(&entries, &[3], 1000);
    assert_eq!(removed(&plan), ["01", "old"]);
    assert!(plan.actions.contains(&Action::NoteUsed { digest: digest(3) }));
}

#[test]
fn a_release_is_unused_from_when_that_is_seen_and_a_satisfied_store_is_left_alone() {
    let since = Timestamp::from_seconds(100 * DAY);
    let seen = plan(&[release(1, None), release(2, None)], &[2], 1000);
    assert_eq!(seen.actions, [Action::NoteUnused { digest: digest(1), since }]);
    assert_eq!(removed(&seen), [""; 0]);
    let after = plan(&[release(1, Some(100 * DAY)), release(2, None), content("a", 1, 99 * DAY)], &[2], 1000);
    assert_eq!(after, GarbagePlan::default());
}

#[test]
fn when_room_is_short_the_oldest_go_first_and_no_more_than_it_takes() {
    let entries = [content("c", 100, 98 * DAY), content("a", 100, 95 * DAY), content("b", 100, 96 * DAY)];
    assert_eq!(removed(&plan(&entries, &[], 256)), [""; 0]);
    assert_eq!(removed(&plan(&entries, &[], 255)), ["a"]);
    assert_eq!(removed(&plan(&entries, &[], 156)), ["a"]);
    assert_eq!(removed(&plan(&entries, &[], 100)), ["a", "b"]);
    assert_eq!(removed(&plan(&entries, &[], 0)), ["a", "b", "c"]);
}

#[test]
fn for_what_waits_for_room_as_much_goes_as_it_takes_and_nothing_if_that_would_not_do() {
    let entries = [content("c", 100, 98 * DAY), content("a", 100, 95 * DAY), content("b", 100, 96 * DAY)];
    let goes = |free, asked: &[u64]| removed(&plan_with_asked(&entries, &[], free, asked));
    assert_eq!(goes(300, &[44]), [""; 0]);
    assert_eq!(goes(300, &[45]), ["a"]);
    assert_eq!(goes(300, &[200]), ["a", "b"]);
    assert_eq!(goes(300, &[345]), [""; 0], "all three would not do");
    assert_eq!(goes(300, &[9000, 45]), ["a"], "what could be helped is");
    assert_eq!(goes(300, &[100, 45]), ["a", "b"]);
    let busy = StoredFact { busy: true, ..content("d", 5000, 0) };
    let used = [busy, release(1, Some(90 * DAY)), content("a", 100, 95 * DAY)];
    assert_eq!(removed(&plan_with_asked(&used, &[1], 300, &[144])), ["a"]);
    assert_eq!(removed(&plan_with_asked(&used, &[1], 300, &[145])), [""; 0], "nothing that is in use");
    assert_eq!(removed(&plan_with_asked(&used, &[], 300, &[9000])), ["01"], "who knows how large it is");
}

#[test]
fn how_much_a_release_frees_is_looked_at_before_more_goes() {
    let entries = [content("a", 1, 95 * DAY), release(1, Some(96 * DAY)), content("b", 1, 97 * DAY)];
    assert_eq!(removed(&plan(&entries, &[], 0)), ["01", "a"]);
    assert_eq!(removed(&plan(&entries, &[1], 0)), ["a", "b"], "one that is needed stays whatever the disk says");
}

#[test]
fn another_disk_is_not_helped_by_what_goes_on_this_one() {
    let mut facts = StoreFacts { entries: vec![content("a", 100, 99 * DAY)], ..StoreFacts::default() };
    facts.disks.insert(1, Disk { place: "/a".into(), free: 1000 * MIB, asked: Vec::new() });
    facts.disks.insert(2, Disk { place: "/b".into(), free: 0, asked: vec![MIB] });
    let now = Timestamp::from_seconds(100 * DAY);
    assert_eq!(plan_garbage(&facts, &BTreeSet::new(), &KeepPolicy::default(), now), GarbagePlan::default());
}

#[test]
fn nothing_is_kept_where_the_policy_is_to_keep_nothing() {
    let facts = StoreFacts { entries: vec![release(1, None), content("a", 1, 100 * DAY)], ..StoreFacts::default() };
    let policy = KeepPolicy { keep: Duration::ZERO, ..KeepPolicy::default() };
    let plan = plan_garbage(&facts, &BTreeSet::new(), &policy, Timestamp::from_seconds(100 * DAY));
    assert_eq!(removed(&plan), ["01", "a"]);
}

#[test]
fn a_clock_that_was_set_back_removes_nothing_and_order_does_not_matter() {
    let mut entries = vec![content("a", 1, 105 * DAY), release(1, Some(200 * DAY)), content("b", 1, 101 * DAY)];
    assert_eq!(removed(&plan(&entries, &[], 1000)), [""; 0]);
    let one = plan(&entries, &[], 0);
    entries.reverse();
    assert_eq!(plan(&entries, &[], 0), one);
}

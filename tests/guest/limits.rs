//! What the agent limits and counts where the kernel has every controller of cgroup v2 and limits of disks, and systemd is the
//! first process: the agent's own tests that find less elsewhere.

use super::{FORMAT, configure, guest};
use plat_tests::binaries::binary;
use plat_tests::guest::Guest;

/// Runs these of `agent/tests/linux_host`, each of which must be there and pass.
fn pass(guest: &mut Guest, tests: &[String]) {
    // Tests know the agent by the path that it was built at; and systemd starts nothing as a user that the guest does not know.
    let agent = binary("plat-agent").display().to_string();
    guest.sh(&format!(
        "[ -e {agent} ] || {{ install -D /host/plat-agent {agent}; mkdir /opt/suite
         for uid in $(seq 912345 912744); do echo u$uid:x:$uid:$uid::/:/bin/false >> /etc/passwd; echo u$uid:x:$uid: >> /etc/group
         done; }}"
    ));
    // Not in memory, where nothing is written to a disk.
    let environment = "CI=true RUST_BACKTRACE=0 TMPDIR=/opt/suite PLAT_NODE_FILE=/var/lib/plat/node.json";
    let said = guest.run(&format!(
        "{environment} /host/linux_host --include-ignored --show-output --test-threads=4 --exact {}",
        tests.join(" ")
    ));
    for test in tests {
        assert!(said.1.contains(&format!("test {test} ... ok\n")), "{test} did not pass:\n{}", said.1);
    }
    assert!(said.0 == 0 && !said.1.contains("SKIPPED"), "{}", said.1);
}

fn of(module: &str, tests: &[&str]) -> Vec<String> {
    tests.iter().map(|test| format!("{module}::{test}")).collect()
}

/// Of every runtime's promises those that are about groups.
const PROMISES: [&str; 5] = [
    "what_is_said_to_be_enforced_is",
    "the_next_instance_is_held_to_nothing_that_the_last_one_was",
    "groups_that_somebody_takes_away_are_made_again_with_their_limits_and_the_gap_is_told",
    "a_run_that_has_ended_is_on_the_bill_whole_until_the_next_one",
    "what_goes_through_sockets_is_counted_to_the_byte_also_while_no_agent_is_there",
];
/// A log that is flooded takes an emulated processor longer than its test waits.
const HOSTILE: [&str; 1] = ["a_fork_bomb_stays_within_its_partition"];

#[test]
fn under_shims_groups_of_version_2_limit_and_count_all() {
    let Some(mut guest) = guest("limits under shims") else { return };
    pass(&mut guest, &of("whole", &["under_shims_all_is_limited_and_counted_by_one_group"]));
    let limits = of(
        "limits",
        &["a_changed_limit_holds_for_what_runs_already_and_restarts_nothing", "cpu_time_is_given_out_as_asked"],
    );
    let metering = of(
        "metering",
        &[
            "what_was_told_is_never_more_than_what_is_told_after_the_agent_was_killed",
            "after_damage_counting_begins_anew_and_says_that_something_was_lost",
            "a_hook_has_run_also_where_what_it_used_cannot_be_written_down_yet",
            "a_sample_of_levels_writes_nothing",
        ],
    );
    let promises = [of("shim", &PROMISES), of("shim::with_a_user", &PROMISES), of("shim::hostile", &HOSTILE)];
    pass(&mut guest, &[limits, metering, promises.concat()].concat());
}

#[test]
fn under_systemd_groups_of_version_2_limit_and_count_all() {
    let Some(mut guest) = guest("limits under systemd") else { return };
    pass(&mut guest, &of("whole", &["under_systemd_all_is_limited_and_counted_by_one_group"]));
    pass(&mut guest, &[of("systemd::with_a_user", &PROMISES), of("systemd::hostile", &HOSTILE)].concat());
}

fn full_partitions(guest: &mut Guest, make: &str) {
    guest.sh(&format!("rm -f /var/tmp/disk && truncate -s 512M /var/tmp/disk && {make} /var/tmp/disk && mount -o loop,prjquota /var/tmp/disk /srv && chmod 755 /srv"));
    configure(guest, 16);
    guest.sh(&format!("{FORMAT} apply"));
    for runtime in ["shims", "systemd"] {
        let test = format!("under_{runtime}_a_full_partition_is_full_for_all_in_it_and_for_nobody_else");
        pass(guest, &of("whole", &[&test]));
    }
    guest.sh(&format!("{FORMAT} reset --erase && umount /srv && rm /var/tmp/disk"));
}

#[test]
fn instances_on_ext4_are_held_to_their_partitions_disk() {
    let Some(mut guest) = guest("full partitions of ext4") else { return };
    full_partitions(&mut guest, "mkfs.ext4 -q -O quota,project");
}

#[test]
fn instances_on_xfs_are_held_to_their_partitions_disk() {
    let Some(mut guest) = guest("full partitions of xfs") else { return };
    full_partitions(&mut guest, "mkfs.xfs -q");
}

#[test]
fn the_agent_reads_what_project_quota_counts() {
    let Some(mut guest) = guest("the agent's tests of project quota") else { return };
    let said = guest.sh("CI=true /host/plat-agent-unit-tests --ignored");
    let passed = said.split("test result: ok. ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
    assert!(passed.is_some_and(|passed| passed >= 2), "{said}");
}

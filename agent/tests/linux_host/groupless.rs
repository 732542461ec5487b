//! A machine without control groups: the checks of conformance and the hostile tenant, run once more where none are mounted.

use super::*;
use std::process::Command;

/// Takes the mounts of groups out of a view of its own, and is the program that it is given then.
const WITHOUT: &str =
    "umount --all --lazy --types cgroup,cgroup2; ! grep ' - cgroup' /proc/self/mountinfo; exec \"$@\"";

/// What goes through sockets nobody tells apart without groups.
const SOCKETS: &str = "what_goes_through_sockets";

#[test]
fn where_there_are_no_control_groups_services_are_stopped_erased_and_counted_all_the_same() {
    if !root_is_here() {
        return;
    }
    let mut tests = Command::new("unshare");
    tests.args(["--mount", "--propagation", "private", "sh", "-ec", WITHOUT, "sh"]);
    tests.arg(std::env::current_exe().unwrap()).args([
        "shim::with_a_user::",
        "shim::hostile::",
        "groupless::no_groups_are_found",
    ]);
    let ran = tests
        .args(["--include-ignored", "--test-threads=4", "--skip", SOCKETS])
        .envs([("RUST_BACKTRACE", "0"), (AGAIN, "1")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    let passed = said.lines().filter(|line| line.starts_with("test ") && line.ends_with("... ok")).count();
    assert!(ran.status.success() && passed >= 40, "{said}{}", String::from_utf8_lossy(&ran.stderr));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the test above runs it where there are none"]
async fn no_groups_are_found() {
    let node = Node::new(None);
    let host = node.occupied().await;
    assert!(host.without_cgroups().is_some_and(|why| !why.is_empty()));
    assert!(host.runtime().group(&part()).is_none());
    let traffic = &counters(&host).await.readings[&Meter::NetworkBytes];
    assert!(matches!(traffic, Amount::Unknown(why) if why.contains("no control group")), "{traffic:?}");
    node.done(host).await;
}

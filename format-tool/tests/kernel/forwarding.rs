//! What the kernel writes along with forwarding of the whole machine, and somebody has set since: a run leaves it so.

use super::links::failing_reset;
use super::machine::{Machine, ip, on_a_machine};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::path::{Path, PathBuf};

const GENERAL: [&str; 2] = ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"];
const OF_D0: [&str; 2] = ["net.ipv4.conf.d0.forwarding", "net.ipv6.conf.d0.forwarding"];
const REDIRECTS: &str = "net.ipv4.conf.all.accept_redirects";
/// Since Linux 6.17.
const FORCED: &str = "net.ipv6.conf.d0.force_forwarding";

fn place(key: &str) -> PathBuf {
    Path::new("/proc/sys").join(key.replace('.', "/"))
}

fn set(keys: &[&str], value: &str) {
    let there = keys.iter().filter(|key| **key != FORCED || place(FORCED).exists());
    there.for_each(|key| fs::write(place(key), value).unwrap());
}

fn read(key: &str) -> Option<String> {
    fs::read_to_string(place(key)).ok().map(|text| text.trim().to_owned())
}

fn all() -> Vec<Option<String>> {
    let others = ["net.ipv4.conf.default.forwarding", "net.ipv6.conf.default.forwarding", REDIRECTS, FORCED];
    let links = ["d1", "lo"].map(|link| ["ipv4", "ipv6"].map(|family| format!("net.{family}.conf.{link}.forwarding")));
    GENERAL
        .iter()
        .chain(&OF_D0)
        .chain(&others)
        .map(|key| read(key))
        .chain(links.iter().flatten().map(|key| read(key)))
        .collect()
}

/// With a link of somebody else's, not yet a node.
fn prepare(machine: &Machine) {
    ip("link set lo up");
    ip("link add d0 type veth peer name d1");
    machine.configure(1);
}

/// With one partition more, it fails at the last file.
fn failing_apply(machine: &Machine) {
    machine.configure(2);
    let in_the_way = machine.path("var/lib/plat/.node-format-node.json");
    fs::create_dir_all(in_the_way.join("here")).unwrap();
    let (code, why) = machine.run(&["apply"]);
    assert!(code == 1 && why.contains("cannot write") && why.contains("as it was before the run"), "{why}");
    fs::remove_dir_all(in_the_way).unwrap();
    machine.configure(1);
}

fn are(keys: &[&str], value: &str) -> bool {
    keys.iter().all(|key| read(key).is_none_or(|found| found == value))
}

#[test]
fn a_reset_leaves_what_somebody_set_of_single_links_since_whether_it_fails_or_not() {
    on_a_machine(|machine| {
        prepare(machine);
        set(&OF_D0, "1");
        set(&[REDIRECTS], "0");
        machine.must(&["apply"]);
        set(&OF_D0, "0");
        set(&[REDIRECTS, FORCED], "1");
        let before = all();
        let why = failing_reset(machine);
        assert!(why.contains("as it was before the run") && !why.contains("P0505"), "{why}");
        assert_eq!(all(), before);
        machine.must(&["verify"]);
        machine.must(&["reset"]);
        assert!(are(&GENERAL, "0") && are(&OF_D0, "0") && are(&[REDIRECTS, FORCED], "1"), "{:?}", all());
    });
}

#[test]
fn an_apply_that_fails_leaves_links_to_forward_as_somebody_has_it_by_now() {
    on_a_machine(|machine| {
        prepare(machine);
        machine.must(&["apply"]);
        set(&GENERAL, "0");
        set(&OF_D0, "1");
        let before = all();
        failing_apply(machine);
        assert_eq!(all(), before);
        machine.must(&["apply"]);
        machine.must(&["reset"]);
        assert_eq!(all(), before, "it was so when the machine last began to forward");
    });
}

#[test]
fn an_apply_that_fails_has_no_link_forward_that_somebody_stopped_from_it() {
    on_a_machine(|machine| {
        prepare(machine);
        set(&OF_D0, "1");
        machine.must(&["apply"]);
        set(&GENERAL, "0");
        let (before, record) = (all(), machine.must(&["show"]));
        failing_apply(machine);
        assert_eq!(all(), before);
        assert_eq!(machine.must(&["show"]), record);
        machine.must(&["reset"]);
        assert!(are(&GENERAL, "0") && are(&OF_D0, "1"), "{:?}", all());
    });
}

#[test]
fn a_setting_that_goes_back_in_part_is_taken_back_whole() {
    on_a_machine(|machine| {
        prepare(machine);
        set(&[REDIRECTS], "0");
        machine.must(&["apply"]);
        let before = all();
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let mounted =
            |from: Option<&Path>, at: &Path, flags| mount(from, at, None::<&str>, flags, None::<&str>).unwrap();
        mounted(None, Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE);
        let held = place(REDIRECTS);
        mounted(Some(&held), &held, MsFlags::MS_BIND);
        mounted(None, &held, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY);
        let (code, why) = machine.run(&["reset"]);
        assert!(code == 1 && why.contains(REDIRECTS) && why.contains("as it was before the run"), "{why}");
        assert_eq!(all(), before, "{why}");
        umount2(&held, MntFlags::MNT_DETACH).unwrap();
        machine.must(&["verify"]);
        machine.must(&["reset"]);
        assert!(are(&GENERAL, "0") && are(&[REDIRECTS], "0"), "{:?}", all());
    });
}

//! Files of node-format's that somebody else says more of: who may read them, and what he notes on them.

use super::effects::acting_before;
use super::machine::{Machine, ip, on_a_machine};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Output};

const FILES: [(&str, u32); 2] = [("srv/plat/resources/part0/resource.json", 0o640), ("var/lib/plat/node.json", 0o644)];
const NAMES: [&str; 2] = ["system.posix_acl_access", "user.backup"];

/// Lets uid 62345 read it.
fn note(path: &Path, mode: u32) {
    let other = u16::try_from(mode & 7).unwrap();
    let entries = [(1u16, 6u16, u32::MAX), (2, 4, 62_345), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, other, u32::MAX)];
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        value.extend(tag.to_le_bytes().into_iter().chain(rights.to_le_bytes()).chain(id.to_le_bytes()));
    }
    setxattr(path, NAMES[0], &value, XattrFlags::empty()).unwrap();
    setxattr(path, NAMES[1], b"monday", XattrFlags::empty()).unwrap();
}

fn value(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 256];
    let length = getxattr(path, name, &mut value[..]).unwrap_or(0);
    value.truncate(length);
    value
}

/// Mode, text, and what somebody noted, of each.
fn all(machine: &Machine) -> Vec<(u32, String, [Vec<u8>; 2])> {
    let look = |(path, _): &(&str, u32)| {
        let path = machine.path(path);
        let mode = fs::metadata(&path).unwrap().mode() & 0o7777;
        (mode, fs::read_to_string(&path).unwrap(), NAMES.map(|name| value(&path, name)))
    };
    FILES.iter().map(look).collect()
}

/// As [`all`], without the texts.
fn noted(machine: &Machine) -> Vec<(u32, [Vec<u8>; 2])> {
    all(machine).into_iter().map(|(mode, _, noted)| (mode, noted)).collect()
}

#[test]
fn lists_of_who_may_read_a_file_and_notes_on_it_outlive_that_it_is_rewritten() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        FILES.iter().for_each(|(path, mode)| note(&machine.path(path), *mode));
        assert_eq!(machine.must(&["apply"]), "nothing to do\n");
        let before = all(machine);
        assert!(before.iter().all(|(.., noted)| noted.iter().all(|value| !value.is_empty())), "{before:?}");
        let limits = "[limits]\nmemory_mib = 512\n";
        machine.configure_with(1, "mode = \"bridge\"\nguard = false\n", limits);
        // The last thing that it does.
        let in_the_way = machine.path("var/lib/plat/.node-format-node.json");
        fs::create_dir_all(in_the_way.join("here")).unwrap();
        let (code, why) = machine.run(&["apply"]);
        fs::remove_dir_all(in_the_way).unwrap();
        assert!(code == 1 && why.contains("as it was before the run\n"), "{why}");
        assert_eq!(all(machine), before);
        let noted_before = noted(machine);
        machine.must(&["apply"]);
        assert_eq!(noted(machine), noted_before);
        assert!(all(machine) != before, "nothing was rewritten");
        assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
        machine.must(&["reset"]);
    });
}

#[test]
fn files_that_a_failed_run_brings_back_have_what_they_had() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        FILES.iter().for_each(|(path, mode)| note(&machine.path(path), *mode));
        let before = all(machine);
        let home = machine.path("srv/plat/partitions/part0");
        let (code, why) = acting_before("unlinkat", &machine.command(&["reset"]), || {
            fs::write(home.join("srv/his"), "").unwrap();
        });
        assert!(code == 1 && !why.contains("P0505"), "{why}");
        assert_eq!(all(machine), before, "{why}");
        fs::remove_file(home.join("srv/his")).unwrap();
        machine.must(&["reset"]);
    });
}

#[test]
fn a_file_whose_attributes_cannot_be_kept_is_not_rewritten() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        FILES.iter().for_each(|(path, _)| {
            setxattr(machine.path(path), NAMES[1], b"monday", XattrFlags::empty()).unwrap();
        });
        let before = all(machine);
        machine.configure_with(1, "mode = \"bridge\"\nguard = false\n", "[limits]\nmemory_mib = 512\n");
        let plain = machine.command(&["apply"]);
        let mut refused = Command::new("strace");
        refused.args(["-f", "-qq", "-o", "/dev/null", "-e", "inject=fsetxattr:error=ENOSPC"]);
        let Output { status, stderr, .. } = refused.arg(plain.get_program()).args(plain.get_args()).output().unwrap();
        let why = String::from_utf8(stderr).unwrap();
        assert!(status.code() == Some(1) && why.contains("its attribute user.backup cannot be kept: "), "{why}");
        assert!(why.contains("as it was before the run\n"), "{why}");
        assert_eq!(all(machine), before);
        machine.must(&["apply"]);
        machine.must(&["reset"]);
    });
}

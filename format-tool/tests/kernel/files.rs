//! Files of node-format's that somebody else says more of: who may read them, and what he notes on them.

use super::effects::acting_before;
use super::machine::{Machine, ip, on_a_machine};
use rustix::fs::{IFlags, XattrFlags, getxattr, ioctl_getflags, ioctl_setflags, setxattr};
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

const FILES: [(&str, u32); 2] = [("srv/plat/resources/part0/resource.json", 0o640), ("var/lib/plat/node.json", 0o644)];
const NAMES: [&str; 2] = ["system.posix_acl_access", "user.backup"];
const LABEL: &str = "security.plat";

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
fn a_file_that_has_a_label_and_flags_alone_gets_them_back() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        let flags = |path: &Path| ioctl_getflags(fs::File::open(path).unwrap());
        for (path, _) in FILES {
            let path = machine.path(path);
            setxattr(&path, LABEL, b"secret", XattrFlags::empty()).unwrap();
            let _ = flags(&path).map(|flags| {
                ioctl_setflags(fs::File::open(&path).unwrap(), flags | IFlags::NODUMP).unwrap();
            });
        }
        let look = || FILES.map(|(path, _)| (value(&machine.path(path), LABEL), flags(&machine.path(path))));
        let before = look();
        assert!(before.iter().all(|(label, _)| label == b"secret"));
        let home = machine.path("srv/plat/partitions/part0");
        let (code, why) = acting_before("unlinkat", &machine.command(&["reset"]), || {
            fs::write(home.join("srv/his"), "").unwrap();
        });
        assert!(code == 1 && !why.contains("P0505"), "{why}");
        assert_eq!(look(), before, "{why}");
        machine.configure_with(1, "mode = \"bridge\"\nguard = false\n", "[limits]\nmemory_mib = 512\n");
        machine.must(&["apply"]);
        assert_eq!(look(), before);
        fs::remove_file(home.join("srv/his")).unwrap();
        machine.must(&["reset"]);
    });
}

/// Has uid 62345 read whatever is made in a directory from now on.
fn hand_on(directory: &Path) {
    let entries = [(1u16, 7u16, u32::MAX), (2, 5, 62_345), (4, 5, u32::MAX), (16, 5, u32::MAX), (32, 5, u32::MAX)];
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        value.extend(tag.to_le_bytes().into_iter().chain(rights.to_le_bytes()).chain(id.to_le_bytes()));
    }
    setxattr(directory, "system.posix_acl_default", &value, XattrFlags::empty()).unwrap();
}

#[test]
fn what_is_made_lets_nobody_in_but_whom_its_mode_says() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        ["srv", "var/lib", "etc"].iter().for_each(|directory| hand_on(&machine.path(directory)));
        machine.must(&["apply"]);
        let made = ["srv/plat", "srv/plat/partitions/part0", "srv/plat/partitions/part0/srv", FILES[0].0, FILES[1].0];
        for path in made.into_iter().chain(["etc/passwd", "etc/shadow"]) {
            let lists = [NAMES[0], "system.posix_acl_default"].map(|name| value(&machine.path(path), name));
            assert!(lists.iter().all(Vec::is_empty), "{path}: {lists:?}");
        }
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

#[test]
fn what_somebody_put_in_the_place_of_a_file_is_neither_replaced_nor_removed() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        let (away, kind) = (machine.path("away"), |path: &Path| fs::symlink_metadata(path).unwrap().file_type());
        type Put = fn(&Path);
        let others: [(&str, Put); 3] = [
            ("a symbolic link", |at| symlink("/somebody/file", at).unwrap()),
            ("a pipe", |at| nix::unistd::mkfifo(at, nix::sys::stat::Mode::S_IRWXU).unwrap()),
            ("a directory", |at| fs::create_dir(at).unwrap()),
        ];
        machine.configure_with(1, "mode = \"bridge\"\nguard = false\n", "[limits]\nmemory_mib = 512\n");
        for ((path, _), (what, put)) in FILES.iter().flat_map(|file| others.iter().map(move |other| (file, other))) {
            let path = machine.path(path);
            fs::rename(&path, &away).unwrap();
            put(&path);
            let before = machine.everything();
            let (code, why) = machine.run(&["apply"]);
            assert!(
                code == 4 && why.contains("is in the way") && why.contains(&format!("it is {what} by now")),
                "{why}"
            );
            assert_eq!(machine.everything(), before);
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
            fs::rename(&away, &path).unwrap();
        }
        machine.must(&["apply"]);
        let [resources, node_file] = FILES.map(|(path, _)| machine.path(path));
        // One that comes once the run has begun: the last file goes before it.
        let (code, why) = acting_before("unlinkat", &machine.command(&["reset"]), || {
            fs::rename(&resources, &away).unwrap();
            symlink("/somebody/file", &resources).unwrap();
        });
        assert!(code == 1 && why.contains("it is a symbolic link by now, no file of node-format's"), "{why}");
        assert!(kind(&resources).is_symlink() && node_file.exists());
        fs::rename(&away, &resources).unwrap();
        fs::rename(&node_file, &away).unwrap();
        symlink(&away, &node_file).unwrap();
        // What a killed run left beside one that is forgotten goes nevertheless.
        let left = node_file.with_file_name(".node-format-node.json");
        fs::write(&left, "").unwrap();
        let said = machine.must(&["reset"]);
        assert!(said.contains("! /var/lib/plat/node.json is left: it is a symbolic link by now"), "{said}");
        assert!(kind(&node_file).is_symlink() && !left.exists() && away.exists());
        assert!(!machine.path("srv/plat").exists());
    });
}

//! Partitions' directories that somebody else than their users has a say in: root, who locks one, and whoever a list of
//! access control names.

use super::machine::{FIRST_UID, Machine, ip, on_a_machine, program};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// One partition, whose directory is returned.
fn formatted(machine: &Machine) -> PathBuf {
    ip("link set lo up");
    machine.configure(1);
    machine.must(&["apply"]);
    machine.path("srv/plat/partitions/part0")
}

fn give(path: &Path, owner: u32, mode: u32) {
    chown(path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    fs::metadata(path).map(|found| (found.uid(), found.gid(), found.mode() & 0o7777)).unwrap()
}

fn all(home: &Path) -> Vec<String> {
    let found = Command::new("find").arg(home).args(["-printf", "%p %U:%G %m\\n"]).output().unwrap();
    let mut lines: Vec<_> = String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// A run that removes the partition's directory, and then cannot make users of another name.
fn fail(machine: &Machine) -> String {
    let config = fs::read_to_string(machine.path("format.toml")).unwrap();
    let other = config.replace("[partitions]\n", "[partitions]\nbase_name = \"guest\"\n");
    fs::write(machine.path("format.toml"), other).unwrap();
    program(&machine.path("bin/systemd-sysusers"), "exit 1");
    let path = format!("{}:{}", machine.path("bin").display(), std::env::var("PATH").unwrap());
    let Output { status, stderr, .. } = machine.command(&["apply"]).env("PATH", path).output().unwrap();
    let why = String::from_utf8(stderr).unwrap();
    assert!(status.code() == Some(1) && why.contains("systemd-sysusers failed"), "{why}");
    fs::write(machine.path("format.toml"), config).unwrap();
    why
}

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// Lets uid 62345 do anything: on a directory, or on what is made in it.
fn list(path: &Path, name: &str) {
    let entries = [(1u16, 7u16, u32::MAX), (2, 7, 62_345), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)];
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        value.extend(tag.to_le_bytes().into_iter().chain(rights.to_le_bytes()).chain(id.to_le_bytes()));
    }
    setxattr(path, name, &value, XattrFlags::empty()).unwrap();
}

fn is_listed(path: &Path) -> bool {
    [ACCESS, DEFAULT].iter().any(|name| getxattr(path, *name, &mut [0u8; 0]).is_ok())
}

#[test]
fn a_run_that_fails_leaves_what_is_in_a_partition_to_whom_it_belongs() {
    on_a_machine(|machine| {
        let home = formatted(machine);
        chown(home.join("srv"), None, Some(62_345)).unwrap();
        let unlocked = all(&home);
        let why = fail(machine);
        assert!(why.contains("the machine is as it was before the run\n"), "{why}");
        assert_eq!(all(&home), unlocked, "{why}");
        give(&home, 0, 0o700);
        let locked = all(&home);
        fail(machine);
        assert_eq!(all(&home), locked);
        // What a list says does not come back, and that is said.
        list(&home.join("var"), ACCESS);
        let why = fail(machine);
        assert!(why.contains("but for what may have gone along: the access control lists of /srv/plat"), "{why}");
        machine.must(&["reset"]);
    });
}

#[test]
fn what_is_somebody_elses_in_a_partition_that_root_locked_does_not_go_with_it() {
    on_a_machine(|machine| {
        let home = formatted(machine);
        give(&home, 0, 0o700);
        for (name, owner) in [("keys", 0), ("his", 62_345)] {
            fs::create_dir(home.join(name)).unwrap();
            give(&home.join(name), owner, 0o700);
            let (code, why) = machine.run(&["reset"]);
            assert!(code == 4 && why.contains(&format!("it holds `{name}`")), "{why}");
            fs::remove_dir(home.join(name)).unwrap();
        }
        machine.must(&["reset"]);
        assert!(!home.exists());
    });
}

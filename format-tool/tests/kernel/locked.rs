//! Partitions' directories that somebody else than their users has a say in: root, who locks one, and whoever a list of
//! access control names.

use super::effects::acting_once;
use super::machine::{FIRST_UID, Machine, ip, on_a_machine, program};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{IFlags, XattrFlags, getxattr, ioctl_getflags, ioctl_setflags, setxattr};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// One partition, whose directory is returned.
pub fn formatted(machine: &Machine) -> PathBuf {
    ip("link set lo up");
    machine.configure(1);
    machine.must(&["apply"]);
    machine.path("srv/plat/partitions/part0")
}

pub fn give(path: &Path, owner: u32, mode: u32) {
    chown(path, Some(owner), Some(owner)).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

pub fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
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
    fail_in(machine, &[])
}

/// As [`fail`], started by another program.
fn fail_in(machine: &Machine, starter: &[&str]) -> String {
    let config = fs::read_to_string(machine.path("format.toml")).unwrap();
    let other = config.replace("[partitions]\n", "[partitions]\nbase_name = \"guest\"\n");
    fs::write(machine.path("format.toml"), other).unwrap();
    program(&machine.path("bin/systemd-sysusers"), "exit 1");
    let path = format!("{}:{}", machine.path("bin").display(), std::env::var("PATH").unwrap());
    let plain = machine.command(&["apply"]);
    let all: Vec<&OsStr> =
        starter.iter().map(OsStr::new).chain([plain.get_program()]).chain(plain.get_args()).collect();
    let Output { status, stderr, .. } = Command::new(all[0]).args(&all[1..]).env("PATH", path).output().unwrap();
    let why = String::from_utf8(stderr).unwrap();
    assert!(!status.success() && why.contains("systemd-sysusers failed"), "{why}");
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

/// Of a directory and those in it, what is said of them besides.
fn noted(home: &Path) -> Vec<(PathBuf, String)> {
    let inner = fs::read_dir(home).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = inner.chain([home.to_path_buf()]).collect();
    paths.sort();
    let noted = |path: &Path| {
        let value = |name| {
            let mut value = [0; 256];
            getxattr(path, name, &mut value[..]).map(|length| value[..length].to_vec())
        };
        let all = [ACCESS, DEFAULT, "user.backup", "security.plat"].map(value);
        format!("{all:?} {:?}", ioctl_getflags(fs::File::open(path).unwrap()))
    };
    paths.into_iter().map(|path| (path.clone(), noted(&path))).collect()
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
        assert!(
            why.contains("the machine is as it was before the run but for what node-format does not know of links"),
            "{why}"
        );
        assert_eq!(all(&home), unlocked, "{why}");
        give(&home, 0, 0o700);
        let locked = all(&home);
        fail(machine);
        assert_eq!(all(&home), locked);
        // What is said of them besides comes back with them.
        for (path, noted) in [(home.join("var"), ACCESS), (home.clone(), DEFAULT), (home.clone(), ACCESS)] {
            list(&path, noted);
            setxattr(&path, "user.backup", b"monday", XattrFlags::empty()).unwrap();
            setxattr(&path, "security.plat", b"secret", XattrFlags::empty()).unwrap();
            let opened = fs::File::open(&path).unwrap();
            // Where the file system has any.
            let _ = ioctl_getflags(&opened).and_then(|flags| ioctl_setflags(&opened, flags | IFlags::NODUMP));
        }
        let (before, noted_before) = (all(&home), noted(&home));
        let why = fail(machine);
        assert!(
            why.contains("directories that were made anew") && why.contains("had the old ones open: /srv/plat"),
            "{why}"
        );
        assert!(!why.contains("does not get back") && !why.contains("P0505"), "{why}");
        assert_eq!((all(&home), noted(&home)), (before, noted_before));
        machine.must(&["reset"]);
    });
}

#[test]
fn what_a_directory_does_not_get_back_is_named() {
    on_a_machine(|machine| {
        let home = formatted(machine);
        for path in [home.clone(), home.join("var")] {
            setxattr(path, "user.backup", b"monday", XattrFlags::empty()).unwrap();
        }
        let before = all(&home);
        let refused = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=fsetxattr:error=ENOSPC"];
        let why = fail_in(machine, &refused);
        assert_eq!(all(&home), before, "{why}");
        assert!(why.contains("error[P0505]") && why.contains("part0 does not get back all that it had"), "{why}");
        for lacking in ["user.backup (No space left on device (os error 28)) of `var` in it", "user.backup (No space"] {
            assert!(why.contains(lacking), "{why}");
        }
        machine.must(&["apply"]);
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

#[test]
fn a_partition_that_was_not_erased_to_the_end_is_made_whole_by_the_next_apply() {
    on_a_machine(|machine| {
        let home = formatted(machine);
        let (kept, file) = (home.join("srv/kept"), home.join("srv/kept/file"));
        fs::create_dir(&kept).unwrap();
        fs::write(&file, "").unwrap();
        list(&home, ACCESS);
        list(&home, DEFAULT);
        list(&home.join("srv"), DEFAULT);
        // Somebody mounts something in it once the erasing has begun.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let (code, why) = acting_once("unlinkat", &machine.command(&["reset", "--erase"]), || {
            let is_begun = fs::metadata(&home).unwrap().uid() == 0;
            is_begun && mount(Some(&kept), &kept, None::<&str>, MsFlags::MS_BIND, None::<&str>).is_ok()
        });
        umount2(&kept, MntFlags::empty()).unwrap();
        assert!(code == 1 && why.contains("files that are gone do not come back"), "{why}");
        assert_eq!(machine.run(&["verify"]).0, 3);
        let said = machine.must(&["apply"]);
        assert!(said.contains("part0 was not emptied to the end: it still holds `srv/kept`"), "{said}");
        assert!(file.exists());
        let inner = ["etc", "log", "run", "srv", "tmp", "var"].map(|name| home.join(name));
        inner.iter().chain([&home]).for_each(|path| {
            assert_eq!(owner_and_mode(path), (FIRST_UID, FIRST_UID, 0o750), "{}", path.display());
            assert!(!is_listed(path), "{}", path.display());
        });
        machine.must(&["verify"]);
        machine.must(&["reset", "--erase"]);
    });
}

#[test]
fn what_vanishes_while_a_partition_is_erased_does_not_end_that() {
    on_a_machine(|machine| {
        let home = formatted(machine);
        for n in 0..20 {
            fs::write(home.join(format!("srv/file{n}")), "").unwrap();
        }
        let (code, why) = acting_once("unlinkat", &machine.command(&["reset", "--erase"]), || {
            let is_begun = fs::metadata(&home).unwrap().uid() == 0;
            is_begun && fs::read_dir(home.join("srv")).unwrap().count() < 20 && {
                fs::read_dir(home.join("srv")).unwrap().for_each(|file| fs::remove_file(file.unwrap().path()).unwrap());
                true
            }
        });
        assert_eq!(code, 0, "{why}");
        assert!(!home.exists());
    });
}

#[test]
fn what_its_user_prepares_does_not_make_a_lock_a_half_made_partition() {
    on_a_machine(|machine| {
        let home = formatted(machine);
        fs::set_permissions(&home, fs::Permissions::from_mode(0o1750)).unwrap();
        fs::create_dir(home.join("srv/his")).unwrap();
        let locked = Command::new("chown").args(["root:root"]).arg(&home).status().unwrap().success()
            && Command::new("chmod").args(["go-rwx"]).arg(&home).status().unwrap().success();
        assert!(locked && owner_and_mode(&home) == (0, 0, 0o1700));
        let said = machine.must(&["apply"]);
        assert!(said.contains("part0 stays locked") && said.contains("nothing to do"), "{said}");
        assert_eq!(owner_and_mode(&home), (0, 0, 0o1700));
        machine.must(&["reset", "--erase"]);
        assert!(!machine.path("var/lib/plat").exists());
    });
}

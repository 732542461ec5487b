//! Directories, files and limits: storage, resource files, slices, disk quota, configurations that are proposed.

mod roots;

use super::machine::{Machine, ip, on_a_machine};
use nix::mount::{MsFlags, mount};
use plat_model::node::{NodeFile, ResourceFile};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

#[test]
fn each_partition_knows_its_resources_from_a_file_that_only_root_writes() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        machine.must(&["apply"]);
        let path = machine.path("srv/plat/resources/part1/resource.json");
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (0, 61_001, 0o640));
        let above = fs::metadata(path.parent().unwrap()).unwrap();
        assert_eq!((above.uid(), above.gid(), above.mode() & 0o7777), (0, 61_001, 0o750));
        let resources: ResourceFile = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let node = NodeFile::parse(&fs::read_to_string(machine.path("var/lib/plat/node.json")).unwrap()).unwrap();
        assert_eq!(resources.partition.addresses, node.partitions[1].addresses);
        assert_eq!(
            node.partitions[1].resource_file.as_deref(),
            Some(Path::new("/srv/plat/resources/part1/resource.json"))
        );
        fs::write(&path, "spoiled").unwrap();
        assert_eq!(machine.run(&["verify"]).0, 3);
        machine.must(&["apply"]);
        machine.must(&["verify"]);
    });
}

#[test]
fn nothing_a_tenant_does_in_his_directory_keeps_the_machine_from_being_formatted() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        machine.must(&["apply"]);
        let home = machine.path("srv/plat/partitions/part0");
        fs::remove_dir(home.join("etc")).unwrap();
        symlink("/etc/passwd", home.join("etc")).unwrap();
        fs::remove_dir(home.join("run")).unwrap();
        fs::write(home.join("run"), "a file").unwrap();
        fs::set_permissions(home.join("srv"), fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(machine.must(&["verify"]), "the machine is as it was formatted\n");
        machine.configure(3);
        machine.must(&["apply"]);
        assert!(fs::symlink_metadata(home.join("etc")).unwrap().is_symlink());
        machine.must(&["reset", "--erase"]);
        assert!(!machine.path("srv/plat").exists());
    });
}

#[test]
fn partitions_have_the_directories_and_modes_that_were_asked_for_on_every_storage() {
    on_a_machine(|machine| {
        ip("link set lo up");
        fs::create_dir(machine.path("data")).unwrap();
        let text = "version = 1\n[paths]\nstorage = [\"/data/fast\"]\n[partitions]\namount = 2\nfirst_uid = 61000\n\
                    first_gid = 61000\nmode = \"0710\"\ndirectories = { srv = \"0700\", www = \"0755\" }\n";
        fs::write(machine.path("format.toml"), text).unwrap();
        let before = machine.everything();
        machine.must(&["apply"]);
        let seen = |path: &str| fs::metadata(machine.path(path)).map(|found| (found.uid(), found.mode() & 0o7777)).ok();
        assert_eq!(seen("srv/plat/partitions/part1"), Some((61_001, 0o710)));
        assert_eq!(seen("srv/plat/partitions/part1/www"), Some((61_001, 0o755)));
        assert_eq!(seen("srv/plat/partitions/part1/etc"), None);
        assert_eq!(seen("data/fast/part1"), Some((61_001, 0o710)));
        assert_eq!(seen("data/fast"), Some((0, 0o711)));
        fs::write(machine.path("data/fast/part1/data"), "kept").unwrap();
        let (code, why) = machine.run(&["reset"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("/data/fast/part1") && why.contains("`data`"), "{why}");
        machine.must(&["reset", "--erase"]);
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn a_node_whose_disk_is_not_mounted_is_not_made_again_beside_it() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        machine.must(&["apply"]);
        fs::rename(machine.path("srv/plat"), machine.path("away")).unwrap();
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("every partition in /srv/plat/partitions is gone") && why.contains("mount it"), "{why}");
        assert!(!machine.path("srv/plat").exists());
        fs::rename(machine.path("away"), machine.path("srv/plat")).unwrap();
        assert_eq!(machine.must(&["apply"]), "nothing to do\n");
        // One that is gone alone is made again.
        fs::remove_dir_all(machine.path("srv/plat/partitions/part0")).unwrap();
        machine.must(&["apply"]);
        assert!(machine.path("srv/plat/partitions/part0/etc").is_dir());
    });
}

#[test]
fn whatever_a_tenant_leaves_is_erased_however_deep() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        // A name that root might want.
        fs::create_dir_all(machine.path("srv/plat/partitions/part0/.deep-0/taken")).unwrap();
        let mut at = fs::File::open(machine.path("srv/plat/partitions/part0/srv")).unwrap();
        for _ in 0..1000 {
            rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).unwrap();
            let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
            at = rustix::fs::openat(&at, "d", flags, rustix::fs::Mode::empty()).unwrap().into();
        }
        machine.must(&["reset", "--erase"]);
        assert!(!machine.path("srv/plat").exists());
    });
}

#[test]
fn a_directory_whose_name_cannot_be_said_is_not_made_again_under_another() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        let home = machine.path("srv/plat/partitions/part0");
        let names: [&[u8]; 3] = [b"not-\xffutf8", b"a\x1bb", &[b'n'; 255]];
        for name in names {
            let inner = home.join(std::ffi::OsStr::from_bytes(name));
            fs::create_dir(&inner).unwrap();
            let (code, why) = machine.run(&["reset"]);
            assert!(code == 4 && why.contains("P0509") && inner.is_dir(), "{why}");
            fs::remove_dir(&inner).unwrap();
        }
        fs::create_dir(home.join("empty")).unwrap();
        std::os::unix::fs::chown(home.join("empty"), Some(super::machine::FIRST_UID), None).unwrap();
        machine.must(&["reset"]);
    });
}

#[test]
fn what_is_mounted_on_a_partition_is_not_erased() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        machine.must(&["apply"]);
        let (home, precious) = (machine.path("srv/plat/partitions/part1"), machine.path("precious"));
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "kept").unwrap();
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        fs::write(machine.path("srv/plat/partitions/part0/srv/file"), "x").unwrap();
        let within = home.join("srv/a place");
        fs::create_dir(&within).unwrap();
        for at in [&home, &within] {
            // Of the same file system, so its device tells nothing.
            mount(Some(&precious), at, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            let before = machine.everything();
            let (code, why) = machine.run(&["reset", "--erase"]);
            assert_eq!(code, 4, "{why}");
            assert!(why.contains("P0509") && why.contains("something is mounted there"), "{why}");
            assert_eq!(machine.everything(), before);
            assert!(machine.path("srv/plat/partitions/part0/srv/file").exists());
            nix::mount::umount2(at, nix::mount::MntFlags::empty()).unwrap();
        }
        machine.must(&["reset", "--erase"]);
        assert!(!machine.path("srv/plat").exists() && precious.join("file").exists());
    });
}

#[test]
fn what_is_immutable_or_append_only_is_erased_too() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        let inside = machine.path("srv/plat/partitions/part0/srv/deep/er");
        fs::create_dir_all(&inside).unwrap();
        for name in ["immutable", "log"] {
            fs::write(inside.join(name), "x").unwrap();
        }
        let flag = |flag: &str, path: &Path| {
            let done = Command::new("chattr").arg(flag).arg(path).status().unwrap();
            assert!(done.success(), "chattr {flag} {}", path.display());
        };
        flag("+i", &inside.join("immutable"));
        flag("+a", &inside.join("log"));
        flag("+a", &inside);
        flag("+i", inside.parent().unwrap());
        flag("+i", &machine.path("srv/plat/partitions/part0"));
        machine.must(&["reset", "--erase"]);
        assert!(!machine.path("srv/plat").exists());
    });
}

#[test]
fn a_resource_file_keeps_its_reader() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        let path = machine.path("srv/plat/resources/part0/resource.json");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(machine.run(&["verify"]).0, 3);
        machine.must(&["apply"]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
    });
}

/// Makes a subvolume read-only.
pub fn freeze(subvolume: &Path) {
    let done =
        Command::new("btrfs").args(["property", "set", "-t", "subvol"]).arg(subvolume).args(["ro", "true"]).status();
    assert!(done.unwrap().success());
}

/// A btrfs in a file, mounted where only this test's thread sees it.
pub fn mount_btrfs(at: &Path) -> bool {
    let image = at.with_extension("img");
    fs::File::create(&image).unwrap().set_len(256 << 20).unwrap();
    let Ok(made) = Command::new("mkfs.btrfs").arg("-q").arg(&image).status() else {
        assert!(std::env::var_os("CI").is_none(), "this test needs mkfs.btrfs, and CI must have it");
        eprintln!("SKIPPED: this test needs mkfs.btrfs (package btrfs-progs)");
        return false;
    };
    assert!(made.success());
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(at));
    run(Command::new("btrfs").args(["quota", "enable"]).arg(at));
    true
}

#[test]
fn a_partition_cannot_take_more_disk_space_than_it_was_given() {
    on_a_machine(|machine| {
        ip("link set lo up");
        if !mount_btrfs(&machine.path("srv")) {
            return;
        }
        let limits = "[limits]\ndisk_mib = 16\ndisk_quota = true\n";
        // What was made without a limit is no subvolume.
        machine.configure(2);
        machine.must(&["apply"]);
        machine.configure_with(2, "mode = \"bridge\"\nguard = false\n", limits);
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("plain directory") && why.contains("disk_quota = false"), "{why}");
        machine.must(&["reset"]);
        machine.configure_with(2, "mode = \"bridge\"\nguard = false\n", limits);
        machine.must(&["apply"]);
        assert_eq!(machine.must(&["apply"]), "nothing to do\n");
        freeze(&machine.path("srv/plat/partitions/part1"));
        machine.must(&["reset"]);
        machine.must(&["apply"]);
        let write = |name: &str, mib: usize| {
            let file = machine.path("srv/plat/partitions/part0/srv").join(name);
            let written = fs::write(&file, vec![7; mib << 20]).and_then(|()| fs::File::open(&file)?.sync_all());
            written.map_err(|e| e.raw_os_error())
        };
        write("fits", 8).unwrap();
        assert_eq!(write("too-much", 16), Err(Some(nix::libc::EDQUOT)));
        fs::remove_file(machine.path("srv/plat/partitions/part0/srv/too-much")).unwrap();
        machine.configure_with(2, "mode = \"bridge\"\nguard = false\n", &limits.replace("16", "64"));
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        write("fits-now", 24).unwrap();
        // What he owns, its user can forbid everybody to change; root does not ask him.
        let run = |arguments: &[&str], last: &Path| {
            let done = Command::new("btrfs").args(arguments).arg(last).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        let home = machine.path("srv/plat/partitions/part1");
        run(&["subvolume", "create"], &home.join("srv/nested"));
        fs::write(home.join("srv/nested/file"), "kept").unwrap();
        // Deep in it lies what cannot be moved out of it.
        fs::create_dir_all(home.join("srv/nested").join("d/".repeat(300))).unwrap();
        freeze(&home.join("srv/nested"));
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        freeze(&home);
        // So may root have said, and a plan that names the mode alone does not change that.
        let said = machine.command(&["apply"]).output().unwrap();
        let said = String::from_utf8(said.stderr).unwrap();
        assert!(said.contains("cannot change directory") && said.contains("Read-only"), "{said}");
        assert!(fs::set_permissions(&home, fs::Permissions::from_mode(0o750)).is_err(), "it is read-only still");
        machine.must(&["reset", "--erase"]);
        assert!(!machine.path("srv/plat").exists());
        let gone = Command::new("umount").arg(machine.path("srv")).status().unwrap();
        assert!(gone.success());
    });
}

#[test]
fn a_file_system_without_limits_is_refused_before_anything_is_made() {
    on_a_machine(|machine| {
        ip("link set lo up");
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some("none"), &machine.path("srv"), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        machine.configure_with(2, "mode = \"bridge\"\nguard = false\n", "[limits]\ndisk_mib = 16\ndisk_quota = true\n");
        let before = machine.everything();
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("P0503") && why.contains("tmpfs") && why.contains("disk_quota = false"), "{why}");
        assert_eq!(machine.everything(), before);
    });
}

#[test]
fn a_proposed_configuration_formats_the_machine() {
    on_a_machine(|machine| {
        ip("link set lo up");
        ip("link add eth7 type veth peer name other");
        ip("address add 10.112.3.4/24 dev eth7");
        fs::write(machine.path("etc/machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
        let text = machine.must(&["init", "--partitions", "3", "--stdout"]);
        assert!(text.contains("10.113.0.0/16") && text.contains("amount    = 3"), "{text}");
        machine.must(&["init", "--partitions", "3"]);
        assert_eq!(fs::read_to_string(machine.path("format.toml")).unwrap(), text);
        let (code, why) = machine.run(&["init"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("cannot be written"), "{why}");
        // Without the packet filter, which other tests are about.
        let text = text.replace("guard        = true", "guard = false");
        fs::write(machine.path("format.toml"), text).unwrap();
        machine.must(&["apply"]);
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn what_root_made_immutable_is_changed_by_nobody_else() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        let home = machine.path("srv/plat/partitions/part0");
        std::os::unix::fs::chown(&home, Some(0), None).unwrap();
        let flag = |flag: &str| assert!(Command::new("chattr").arg(flag).arg(&home).status().unwrap().success());
        flag("+i");
        let (code, why) = machine.run(&["apply"]);
        let kept = fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).is_err();
        flag("-i");
        assert_eq!(code, 1, "{why}");
        assert!(why.contains("chattr -ia") && kept, "{why}");
        machine.must(&["apply"]);
        machine.must(&["verify"]);
    });
}

#[test]
fn what_a_killed_run_left_is_finished_but_not_what_is_mounted_in_it() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        let (home, precious) = (machine.path("srv/plat/partitions/part0"), machine.path("precious"));
        fs::create_dir(&precious).unwrap();
        // As a run leaves it that is killed while it makes what is in it.
        fs::remove_dir(home.join("var")).unwrap();
        std::os::unix::fs::chown(&home, Some(0), Some(0)).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o1700)).unwrap();
        let record = machine.path("var/lib/plat/format/record");
        let begun = "{\"add\":{\"thing\":\"begun-directory\",\"path\":\"/srv/plat/partitions/part0\"}}\n";
        fs::write(&record, fs::read_to_string(&record).unwrap() + begun).unwrap();
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some(&precious), &home.join("etc"), None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let (code, why) = machine.run(&["apply"]);
        assert_eq!(code, 1, "{why}");
        assert!(why.contains("something is mounted there"), "{why}");
        assert_eq!(fs::metadata(&precious).unwrap().uid(), 0);
        nix::mount::umount2(&home.join("etc"), nix::mount::MntFlags::empty()).unwrap();
        machine.must(&["apply"]);
        assert_eq!(fs::metadata(home.join("var")).unwrap().uid(), super::machine::FIRST_UID);
        assert_eq!(fs::metadata(&home).unwrap().mode() & 0o7777, 0o750);
    });
}

/// A machine with one partition: a directory in that, and one of somebody else's that must stay.
fn formatted(machine: &Machine) -> (PathBuf, PathBuf) {
    ip("link set lo up");
    machine.configure(1);
    machine.must(&["apply"]);
    let (inside, precious) = (machine.path("srv/plat/partitions/part0/srv"), machine.path("precious"));
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("file"), "kept").unwrap();
    (inside, precious)
}

#[test]
fn what_a_service_has_mounted_in_a_partition_for_itself_keeps_it() {
    on_a_machine(|machine| {
        let (inside, precious) = formatted(machine);
        // Over its own copy of all that is there.
        let script = format!(
            "mount --bind {0} {0} && mount --bind {1} {2} && echo ready; read end; \
             test -e {2}/file",
            machine.root.path().display(),
            precious.display(),
            inside.display()
        );
        let mut service = service(&script);
        let (code, why) = machine.run(&["reset", "--erase"]);
        assert_eq!(code, 4, "{why}");
        assert!(
            why.contains("P0509") && why.contains(&format!("in the mount namespace of process {}", service.id())),
            "{why}"
        );
        drop(service.stdin.take());
        assert!(service.wait().unwrap().success(), "it is still mounted");
        machine.must(&["reset", "--erase"]);
        assert!(precious.join("file").exists());
    });
}

#[test]
fn what_a_service_has_mounted_keeps_it_although_its_only_process_is_in_a_jail() {
    on_a_machine(|machine| {
        let (inside, precious) = formatted(machine);
        let jail = machine.path("jail");
        fs::create_dir(&jail).unwrap();
        let script = format!(
            "mount --bind {} {} && cd {} && for at in usr bin lib lib64; do \
             if test -L /$at; then cp -P /$at $at; elif test -d /$at; then mkdir $at && mount --bind /$at $at; fi; done && \
             exec chroot . /bin/sh -c 'echo ready; read end'",
            precious.display(),
            inside.display(),
            jail.display()
        );
        let mut service = service(&script);
        let (code, why) = machine.run(&["reset", "--erase"]);
        let said = format!("in the mount namespace of process {}", service.id());
        assert!(code == 4 && why.contains("P0509") && why.contains(&said), "{why}");
        drop(service.stdin.take());
        service.wait().unwrap();
        machine.must(&["reset", "--erase"]);
        assert!(precious.join("file").exists());
    });
}

/// A script in a mount namespace of its own, once it has said that it is ready.
pub(super) fn service(script: &str) -> Child {
    let mut service = Command::new("unshare");
    service.args(["--mount", "--propagation", "private", "sh", "-c", script]);
    let mut service = service.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(service.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    service
}

#[test]
fn a_removal_that_fails_leaves_each_partition_as_it_was() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        machine.must(&["apply"]);
        let homes = ["part0", "part1"].map(|name| machine.path("srv/plat/partitions").join(name));
        let all = || {
            let found = Command::new("find").args(&homes).args(["-printf", "%p %U:%G %m\\n"]).output().unwrap();
            let mut lines: Vec<_> = String::from_utf8(found.stdout).unwrap().lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        fs::set_permissions(homes[1].join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        let before = all();
        let flag = |flag: &str| {
            assert!(Command::new("chattr").arg(flag).arg(homes[0].join("srv")).status().unwrap().success());
        };
        flag("+i");
        let (code, why) = machine.run(&["reset"]);
        flag("-i");
        assert!(code == 1 && why.contains("as it was before the run"), "{why}");
        assert_eq!(all(), before);
        // What root made in a partition is root's, and no partition's.
        fs::create_dir(homes[1].join("keys")).unwrap();
        let (code, why) = machine.run(&["reset"]);
        assert!(code == 4 && why.contains("it holds `keys`"), "{why}");
        fs::remove_dir(homes[1].join("keys")).unwrap();
        // A partition that root locked goes with what its user has in it.
        std::os::unix::fs::chown(&homes[1], Some(0), Some(0)).unwrap();
        fs::set_permissions(&homes[1], fs::Permissions::from_mode(0o700)).unwrap();
        machine.must(&["reset"]);
    });
}

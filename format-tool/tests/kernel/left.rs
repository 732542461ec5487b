//! What a run leaves because somebody put it elsewhere or mounted something there, and what it does not leave.

use super::machine::{FIRST_UID, ip, on_a_machine};
use super::uplink::where_is;
use nix::mount::{MsFlags, mount};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

#[test]
fn what_is_on_a_disk_that_is_not_mounted_is_named_and_not_said_to_be_removed() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        machine.must(&["apply"]);
        fs::rename(machine.path("srv/plat"), machine.path("away")).unwrap();
        let said = machine.must(&["reset", "-v"]);
        let named = "! /srv/plat is not there: if it is on a disk that is not mounted, it stays, with the 7 directories in it\n";
        assert!(said.contains(named) && !said.contains("resource.json"), "{said}");
        assert!(machine.path("away/resources/part0/resource.json").exists());
    });
}

#[test]
fn a_partition_that_root_put_elsewhere_is_left_with_what_it_lies_in() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        machine.must(&["apply"]);
        let home = machine.path("srv/plat/partitions/part1");
        fs::write(machine.path("srv/plat/partitions/part0/srv/file"), "x").unwrap();
        fs::rename(&home, machine.path("elsewhere")).unwrap();
        symlink(machine.path("elsewhere"), &home).unwrap();
        let said = machine.must(&["reset", "--erase"]);
        assert!(said.contains("! /srv/plat/partitions/part1 is left: it is a symbolic link by now"), "{said}");
        assert!(fs::symlink_metadata(&home).unwrap().is_symlink() && machine.path("elsewhere/srv").exists());
        assert!(!machine.path("srv/plat/partitions/part0").exists() && !machine.path("var/lib/plat").exists());
    });
}

#[test]
fn a_file_behind_what_root_put_in_the_place_of_its_directory_is_refused_before_anything_is_done() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        let resources = machine.path("srv/plat/resources");
        fs::rename(&resources, machine.path("elsewhere")).unwrap();
        symlink(machine.path("elsewhere"), &resources).unwrap();
        let before = machine.everything();
        let (code, why) = machine.run(&["reset", "--erase"]);
        assert_eq!(code, 4, "{why}");
        assert!(why.contains("resource.json cannot be removed") && why.contains("a symbolic link by now"), "{why}");
        assert_eq!(machine.everything(), before);
        fs::remove_file(&resources).unwrap();
        fs::rename(machine.path("elsewhere"), &resources).unwrap();
        machine.must(&["reset", "--erase"]);
        assert!(!machine.path("srv/plat").exists());
    });
}

#[test]
fn what_is_mounted_on_a_partitions_directory_is_named_and_stays_as_it_is() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        machine.must(&["apply"]);
        let foreign = machine.path("foreign");
        fs::create_dir(&foreign).unwrap();
        fs::set_permissions(&foreign, fs::Permissions::from_mode(0o755)).unwrap();
        chown(&foreign, Some(1000), Some(1000)).unwrap();
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        mount(Some(&foreign), &machine.path("srv/plat/partitions/part0"), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .unwrap();
        let seen = || fs::metadata(&foreign).map(|it| (it.uid(), it.gid(), it.mode() & 0o7777)).unwrap();
        let said = machine.must(&["apply"]);
        assert!(said.contains("! what is mounted on /srv/plat/partitions/part0 is left as it is: uid 1000"), "{said}");
        assert_eq!(seen(), (1000, 1000, 0o755));
        machine.must(&["verify"]);
        // A disk for one partition, once somebody gave it that.
        chown(&foreign, Some(FIRST_UID), Some(FIRST_UID)).unwrap();
        fs::set_permissions(&foreign, fs::Permissions::from_mode(0o750)).unwrap();
        assert_eq!(machine.must(&["apply"]), "nothing to do\n");
        nix::mount::umount2(&machine.path("srv/plat/partitions/part0"), nix::mount::MntFlags::empty()).unwrap();
    });
}

/// Somebody without rights who has mounted something on a directory for himself alone, and waits until its input ends.
fn mounted_by_a_user(at: &Path) -> Child {
    let script = format!("mount -t tmpfs none {} && echo ready; read end", at.display());
    let mut user = Command::new("unshare");
    user.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).uid(62_345).gid(62_345);
    let mut user = user.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut ready = String::new();
    BufReader::new(user.stdout.as_mut().unwrap()).read_line(&mut ready).unwrap();
    assert_eq!(ready, "ready\n", "he cannot mount there");
    user
}

#[test]
fn what_a_user_mounts_for_himself_on_a_neighbours_directory_does_not_keep_it() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        machine.must(&["apply"]);
        let home = machine.path("srv/plat/partitions/part1");
        let mut user = mounted_by_a_user(&home);
        machine.configure(1);
        machine.must(&["apply"]);
        assert!(!home.exists());
        machine.must(&["reset", "--erase"]);
        assert!(!machine.path("srv/plat").exists());
        drop(user.stdin.take());
        user.wait().unwrap();
    });
}

#[test]
fn a_link_that_was_renamed_is_named_and_not_said_to_be_removed() {
    on_a_machine(|machine| {
        ip("link set lo up");
        ip("link add up0 type veth peer name far");
        ip("address add 192.0.2.7/24 dev up0");
        ip("link set up0 up");
        let network = "mode = \"bridge\"\nguard = false\n";
        machine.configure_with(2, &format!("{network}uplink = \"up0\"\n"), "");
        machine.must(&["apply", "--take-uplink", "--confirm-within", "3600"]);
        let rename = |from: &str, to: &str| {
            ip(&format!("link set {from} down"));
            ip(&format!("link set {from} name {to}"));
        };
        rename("up0", "wan0");
        for verb in ["rollback", "reset"] {
            let (code, why) = machine.run(&[verb]);
            assert!(code == 4 && why.contains("P0511") && why.contains("`ip link set wan0 name up0`"), "{verb}: {why}");
        }
        rename("wan0", "up0");
        machine.must(&["rollback"]);
        assert_eq!(where_is(machine, "192.0.2.7/24"), ["up0"]);
        rename("up0", "wan0");
        machine.configure_with(2, network, "");
        rename("part1", "oops1");
        let said = machine.must(&["apply"]);
        assert!(
            said.contains("! part1, which node-format made, is not there and is made anew: it seems to be oops1"),
            "{said}"
        );
        rename("plat0", "oops0");
        ip("link delete part0");
        let said = machine.must(&["reset"]);
        assert!(said.contains("! plat0, which node-format made, is not there: it seems to be oops0 by now"), "{said}");
        assert!(said.contains("! part0, which node-format made, is not there: what somebody renamed"), "{said}");
        assert!(!said.contains("stands alone"), "{said}");
        ["oops0", "oops1", "wan0"].iter().for_each(|link| assert!(machine.network().links.contains_key(*link)));
    });
}

#[test]
fn a_run_that_finds_no_room_for_its_record_leaves_nothing() {
    on_a_machine(|machine| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let (disk, options) = (machine.path("var"), Some("size=64k"));
        mount(Some("tmpfs"), &disk, Some("tmpfs"), MsFlags::empty(), options).unwrap();
        fs::create_dir(disk.join("lib")).unwrap();
        fs::set_permissions(&disk, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(fs::write(disk.join("full"), [0; 1 << 17]).is_err());
        ip("link set lo up");
        machine.configure(1);
        let before = machine.everything();
        let (code, why) = machine.run(&["apply"]);
        assert!(code != 0 && why.contains("the record") && why.contains("No space left"), "{code}: {why}");
        assert_eq!(machine.everything(), before);
        // One that is there already stays as it was.
        fs::remove_file(disk.join("full")).unwrap();
        machine.must(&["apply"]);
        assert!(fs::write(disk.join("full"), [0; 1 << 17]).is_err());
        let before = machine.everything();
        machine.configure(2);
        let (code, why) = machine.run(&["apply"]);
        assert!(code != 0 && why.contains("No space left"), "{code}: {why}");
        assert_eq!(machine.everything(), before);
        fs::remove_file(disk.join("full")).unwrap();
        machine.must(&["reset"]);
        assert_eq!(fs::read_dir(disk.join("lib")).unwrap().count(), 0);
        nix::mount::umount2(&disk, nix::mount::MntFlags::MNT_DETACH).unwrap();
    });
}

#[test]
fn a_partition_on_another_disk_than_its_own_is_neither_changed_nor_erased() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(2);
        machine.must(&["apply"]);
        // As if another disk were mounted above.
        let (partitions, first) = (machine.path("srv/plat/partitions"), machine.path("first"));
        fs::rename(&partitions, &first).unwrap();
        fs::create_dir_all(partitions.join("part0")).unwrap();
        fs::write(partitions.join("part0/file"), "his").unwrap();
        chown(partitions.join("part0"), Some(59_999), Some(0)).unwrap();
        let before = machine.everything();
        for verb in [&["apply"][..], &["reset", "--erase"], &["reset"]] {
            let (code, why) = machine.run(verb);
            assert_eq!(code, 4, "{why}");
            let named = "/srv/plat/partitions/part0 is perhaps not the partition's";
            assert!(why.contains("P0509") && why.contains(named) && why.contains("uid 59999"), "{why}");
        }
        assert_eq!(machine.everything(), before);
        fs::remove_dir_all(&partitions).unwrap();
        fs::rename(&first, &partitions).unwrap();
        machine.must(&["reset"]);
    });
}

#[test]
fn what_a_service_has_mounted_keeps_it_although_another_root_was_moved_above_its_own() {
    on_a_machine(|machine| {
        ip("link set lo up");
        machine.configure(1);
        machine.must(&["apply"]);
        let (inside, precious) = (machine.path("srv/plat/partitions/part0/srv"), machine.path("precious"));
        let above = machine.path("above");
        [&precious, &above].iter().for_each(|path| fs::create_dir(path).unwrap());
        fs::write(precious.join("file"), "kept").unwrap();
        let script = format!(
            "mount --bind {} {} && mount -t tmpfs none {above} && mount --move {above} / && echo ready; read end",
            precious.display(),
            inside.display(),
            above = above.display()
        );
        let mut service = super::places::service(&script);
        let (code, why) = machine.run(&["reset", "--erase"]);
        let said = format!("in the mount namespace of process {}", service.id());
        assert!(code == 4 && why.contains("P0509") && why.contains(&said), "{why}");
        drop(service.stdin.take());
        service.wait().unwrap();
        machine.must(&["reset", "--erase"]);
        assert!(precious.join("file").exists());
    });
}

//! Partitions that a run was at work on which was killed or undone: no other is taken for one, and the next apply makes them
//! whole.

use super::effects::{Ended, acting_before, acting_once, killed_once};
use super::locked::{formatted, give, owner_and_mode};
use super::machine::{FIRST_UID, Machine, ip, on_a_machine};
use super::places::{freeze, mount_btrfs};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const MARK: &str = "trusted.plat.begun";
const NONE: Option<&str> = None;
const HALF_MADE: (u32, u32, u32) = (0, 0, 0o1700);

fn is_marked(home: &Path) -> bool {
    getxattr(home, MARK, &mut [0u8; 0]).is_ok()
}

fn is_whole(home: &Path) -> bool {
    let wanted = |path: &Path| path.is_dir() && owner_and_mode(path) == (FIRST_UID, FIRST_UID, 0o750);
    !is_marked(home)
        && wanted(home)
        && ["etc", "log", "run", "srv", "tmp", "var"].iter().all(|name| wanted(&home.join(name)))
}

/// As a run leaves it that is killed while it takes out what is in it.
fn break_off(home: &Path) {
    fs::remove_dir(home.join("etc")).unwrap();
    fs::remove_dir(home.join("var")).unwrap();
    setxattr(home, MARK, b"", XattrFlags::empty()).unwrap();
    give(home, 0, 0o1700);
}

/// A verb of which the user database cannot be replaced.
fn without_accounts(machine: &Machine, verb: &[&str]) -> String {
    let passwd = machine.path("etc/passwd");
    mount(Some(&passwd), &passwd, NONE, MsFlags::MS_BIND, NONE).unwrap();
    let (code, why) = machine.run(verb);
    umount2(&passwd, MntFlags::empty()).unwrap();
    assert_eq!(code, 1, "{why}");
    why
}

#[test]
fn erasing_that_is_undone_leaves_a_half_made_partition_however_often() {
    on_a_machine(|machine| {
        let home = formatted(machine);
        fs::write(home.join("srv/file"), "").unwrap();
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).unwrap();
        for _ in 0..2 {
            let why = without_accounts(machine, &["reset", "--erase"]);
            assert!(why.contains("makes them whole these are root's: /srv/plat/partitions/part0"), "{why}");
            assert!(is_marked(&home) && owner_and_mode(&home) == HALF_MADE, "{why}");
            assert_eq!(machine.run(&["verify"]).0, 3);
        }
        // One that goes without being erased comes back as what it was.
        without_accounts(machine, &["reset"]);
        assert!(is_marked(&home) && owner_and_mode(&home) == HALF_MADE);
        machine.must(&["apply"]);
        assert!(is_whole(&home));
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn what_a_run_made_whole_stays_so_though_it_fails() {
    on_a_machine(|machine| {
        let home = formatted(machine);
        break_off(&home);
        machine.configure(2);
        // The last thing that it does.
        fs::create_dir_all(machine.path("var/lib/plat/.node-format-node.json/in-the-way")).unwrap();
        let (code, why) = machine.run(&["apply"]);
        fs::remove_dir_all(machine.path("var/lib/plat/.node-format-node.json")).unwrap();
        assert!(code == 1 && why.contains("which stays: /srv/plat/partitions/part0"), "{why}");
        assert!(is_whole(&home) && !home.with_file_name("part1").exists(), "{why}");
        machine.configure(1);
        assert!(machine.must(&["apply"]).contains("nothing to do"));
        machine.must(&["reset"]);
    });
}

#[test]
fn what_a_killed_erasing_did_not_come_to_stays_as_root_locked_it() {
    on_a_machine(|machine| {
        formatted(machine);
        machine.configure(2);
        machine.must(&["apply"]);
        let homes = ["part0", "part1"].map(|name| machine.path("srv/plat/partitions").join(name));
        for home in &homes {
            fs::create_dir(home.join("srv/his")).unwrap();
            // As `chown root:root` and `chmod go-rwx` leave it where its user had prepared that.
            give(home, 0, 0o1700);
        }
        let ended = killed_once(&machine.command(&["reset", "--erase"]), || homes.iter().any(|home| is_marked(home)));
        assert!(matches!(ended, Ended::Killed(_)), "{ended:?}");
        let (begun, locked): (Vec<_>, Vec<_>) = homes.iter().partition(|home| is_marked(home));
        assert_eq!((begun.len(), locked.len()), (1, 1));
        let said = machine.must(&["apply"]);
        let name = |home: &Path| home.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(said.contains(&format!("{} was not emptied to the end", name(begun[0]))), "{said}");
        assert!(said.contains(&format!("{} stays locked", name(locked[0]))), "{said}");
        assert!(!is_marked(begun[0]) && owner_and_mode(begun[0]).2 == 0o750);
        assert_eq!(owner_and_mode(locked[0]), HALF_MADE);
        machine.must(&["reset", "--erase"]);
    });
}

#[test]
fn what_a_user_put_in_the_place_of_a_directory_stays_and_keeps_nothing() {
    on_a_machine(|machine| {
        let home = formatted(machine);
        break_off(&home);
        for name in ["log", "run"] {
            fs::remove_dir(home.join(name)).unwrap();
        }
        fs::write(home.join("etc"), "his").unwrap();
        nix::unistd::mkfifo(&home.join("log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        symlink("/etc", home.join("run")).unwrap();
        let said = machine.must(&["apply"]);
        assert!(said.contains("! /srv/plat/partitions/part0 was not emptied to the end: it still holds"), "{said}");
        assert_eq!(fs::read_to_string(home.join("etc")).unwrap(), "his");
        assert!(fs::symlink_metadata(home.join("run")).unwrap().is_symlink() && home.join("log").exists());
        assert!(!is_marked(&home) && owner_and_mode(&home.join("var")) == (FIRST_UID, FIRST_UID, 0o750));
        machine.must(&["verify"]);
        machine.must(&["reset", "--erase"]);
    });
}

#[test]
fn a_directory_is_its_users_only_in_its_place_and_made_whole_by_the_next_run_if_a_killed_one_did_not_come_to_that() {
    on_a_machine(|machine| {
        let home = formatted(machine);
        machine.configure(2);
        let (made, placed) = (home.with_file_name(".node-format-part1"), home.with_file_name("part1"));
        let (mut was_his, mut was_made) = (false, false);
        let ended = killed_once(&machine.command(&["apply"]), || {
            was_made |= made.exists();
            was_his |= made.exists() && owner_and_mode(&made).0 != 0;
            placed.exists()
        });
        assert!(matches!(ended, Ended::Killed(_)) && was_made && !was_his, "{ended:?}");
        assert!(is_marked(&placed) && owner_and_mode(&placed) == HALF_MADE);
        machine.must(&["apply"]);
        assert!(!is_marked(&placed) && owner_and_mode(&placed) == (FIRST_UID + 1, FIRST_UID + 1, 0o750));
        machine.must(&["verify"]);
        machine.must(&["reset"]);
    });
}

#[test]
fn a_directory_that_a_killed_run_had_not_brought_to_its_place_is_taken_away() {
    on_a_machine(|machine| {
        let home = formatted(machine);
        machine.configure(2);
        let made = home.with_file_name(".node-format-part1");
        let ended = killed_once(&machine.command(&["apply"]), || made.join("srv").exists());
        assert!(matches!(ended, Ended::Killed(_)) && !home.with_file_name("part1").exists(), "{ended:?}");
        machine.must(&["reset"]);
        assert!(!machine.path("srv/plat").exists());
    });
}

#[test]
fn a_subvolume_that_its_user_makes_read_only_as_soon_as_it_is_his_is_made_or_taken_away() {
    on_a_machine(|machine| {
        ip("link set lo up");
        if !mount_btrfs(&machine.path("srv")) {
            return;
        }
        let limits = "[limits]\ndisk_mib = 16\ndisk_quota = true\n";
        machine.configure_with(1, "mode = \"bridge\"\nguard = false\n", limits);
        let home = machine.path("srv/plat/partitions/part0");
        // He says so again and again.
        let mut times = 0;
        let (code, why) = acting_once("fremovexattr", &machine.command(&["apply"]), || {
            assert_eq!(owner_and_mode(&home), (FIRST_UID, FIRST_UID, 0o750));
            freeze(&home);
            times += 1;
            times == 50
        });
        assert!(code == 1 && why.contains("cannot make directory /srv/plat/partitions/part0"), "{why}");
        assert!(why.contains("the machine is as it was before the run") && !home.exists(), "{why}");
        // What he has put into it by then keeps it, and it stays known.
        times = 0;
        let (code, why) = acting_once("fremovexattr", &machine.command(&["apply"]), || {
            times += 1;
            if times == 50 {
                fs::write(home.join("srv/his"), "").unwrap();
            }
            freeze(&home);
            times == 50
        });
        assert!(code != 0 && why.contains("part0 is not made to the end") && home.join("srv/his").exists(), "{why}");
        machine.must(&["reset", "--erase"]);
        assert!(!machine.path("srv/plat").exists());
        // He says so once.
        let (code, why) = acting_before("fremovexattr", &machine.command(&["apply"]), || freeze(&home));
        assert_eq!(code, 0, "{why}");
        assert!(is_whole(&home));
        machine.must(&["verify"]);
        machine.must(&["reset"]);
        assert!(Command::new("umount").arg(machine.path("srv")).status().unwrap().success());
    });
}

#[test]
fn empty_directories_of_a_half_made_partitions_user_get_to_no_other_user() {
    on_a_machine(|machine| {
        let home = formatted(machine);
        fs::create_dir(home.join("d10")).unwrap();
        give(&home.join("d10"), FIRST_UID, 0o777);
        break_off(&home);
        let text = fs::read_to_string(machine.path("format.toml")).unwrap();
        let other = text.replace("60999", "60990").replace(&FIRST_UID.to_string(), &(FIRST_UID - 1).to_string());
        let other = other.replace("amount = 1", "amount = 2\nuser_base_name = \"web\"");
        fs::write(machine.path("format.toml"), other).unwrap();
        let (code, why) = machine.run(&["apply"]);
        assert!(code == 4 && why.contains("part0 keeps its owner"), "{why}");
        assert_eq!(owner_and_mode(&home.join("d10")).0, FIRST_UID);
        fs::write(machine.path("format.toml"), text).unwrap();
        machine.must(&["apply"]);
        fs::remove_dir(home.join("d10")).unwrap();
        machine.must(&["reset"]);
    });
}

#[test]
fn a_home_that_somebody_gave_another_user_gives_him_no_partition_of_the_first() {
    on_a_machine(|machine| {
        formatted(machine);
        machine.configure(2);
        machine.must(&["apply"]);
        let home = machine.path("srv/plat/partitions/part0");
        let passwd = fs::read_to_string(machine.path("etc/passwd")).unwrap();
        fs::write(machine.path("etc/passwd"), passwd.replace("partitions/part1:", "partitions/part0:")).unwrap();
        let text = fs::read_to_string(machine.path("format.toml")).unwrap();
        let other = text.replace(&FIRST_UID.to_string(), &(FIRST_UID + 1).to_string());
        let other = other.replace("amount = 2", "amount = 1\nuser_base_name = \"web\"");
        fs::write(machine.path("format.toml"), other).unwrap();
        // As it is; locked by root; half-made and empty.
        for (owner, breaks) in [(FIRST_UID, false), (0, false), (0, true)] {
            give(&home, owner, 0o1700);
            if breaks {
                ["etc", "log", "run", "srv", "tmp", "var"]
                    .iter()
                    .for_each(|name| fs::remove_dir(home.join(name)).unwrap());
                setxattr(&home, MARK, b"", XattrFlags::empty()).unwrap();
            }
            let (code, why) = machine.run(&["apply"]);
            assert!(code == 4 && why.contains("part0 keeps its owner"), "{owner} {breaks}: {why}");
            assert_eq!(owner_and_mode(&home).0, owner);
        }
        fs::write(machine.path("etc/passwd"), passwd).unwrap();
        fs::write(machine.path("format.toml"), text).unwrap();
        machine.must(&["reset", "--erase"]);
    });
}

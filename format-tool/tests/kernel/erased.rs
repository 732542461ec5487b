//! Erasing partitions while somebody is at work in them: it comes to an end, and it can be ended.

use super::effects::{Ended, acting_once, killed_once};
use super::locked::{formatted, give, owner_and_mode};
use super::machine::{FIRST_UID, Machine, on_a_machine};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

#[test]
fn whoever_has_a_directory_open_does_not_keep_it_from_being_erased() {
    on_a_machine(|machine| {
        let home = formatted(machine);
        let open = home.join("srv/open");
        fs::create_dir(&open).unwrap();
        for path in [&home, &home.join("srv"), &open] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        // For each line that he reads he tries to make a directory where he is, and says whether he could.
        let script = "n=0; while read line; do n=$((n+1)); mkdir $n 2>/dev/null && echo made || echo refused; done";
        let mut other = Command::new("sh");
        other.args(["-c", script]).uid(65_001).gid(65_001).current_dir(&open);
        let mut other = other.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ask = other.stdin.take().unwrap();
        let mut says = BufReader::new(other.stdout.take().unwrap());
        let mut made = 0;
        let (code, why) = acting_once("unlinkat", &machine.command(&["reset", "--erase"]), || {
            ask.write_all(b"\n").unwrap();
            let mut said = String::new();
            says.read_line(&mut said).unwrap();
            made += u32::from(said == "made\n");
            said == "refused\n" || made == 200
        });
        drop(ask);
        other.wait().unwrap();
        assert_eq!(code, 0, "{why}");
        assert!((1..200).contains(&made), "{made}");
        assert!(!home.exists());
    });
}

/// An erasing that a signal ends in the middle, before it removes something, once it is time.
fn interrupted_once(machine: &Machine, is_time: impl Fn() -> bool) -> (i32, String) {
    acting_once("unlinkat", &machine.command(&["reset", "--erase"]), || {
        is_time() && {
            let child = fs::read_to_string("/proc/thread-self/children").unwrap();
            kill(Pid::from_raw(child.trim().parse().unwrap()), Signal::SIGINT).unwrap();
            true
        }
    })
}

#[test]
fn erasing_can_be_ended_and_taken_up_again() {
    on_a_machine(|machine| {
        let home = formatted(machine);
        for n in 0..20 {
            fs::write(home.join(format!("srv/file{n}")), "").unwrap();
        }
        let (code, why) = interrupted_once(machine, || fs::metadata(&home).unwrap().uid() == 0);
        assert!(code == 1 && why.contains("a signal asked the run to stop"), "{why}");
        assert!(fs::read_dir(home.join("srv")).unwrap().count() >= 19, "{why}");
        let srv = fs::metadata(home.join("srv")).unwrap();
        assert_eq!((srv.uid(), srv.mode() & 0o7777), (FIRST_UID, 0o750), "what was not erased is its user's");
        machine.must(&["reset", "--erase"]);
        assert!(!home.exists());
    });
}

/// Whose each is after a run that erased was killed, and the next `apply`; a tenant has it if it was his.
#[test]
fn a_directory_of_somebody_else_is_his_again_after_a_killed_erasing() {
    const SOMEBODY: u32 = 65_001;
    on_a_machine(|machine| {
        let home = formatted(machine);
        fs::create_dir(home.join("admin")).unwrap();
        for (name, uid) in [("admin", SOMEBODY), ("etc", SOMEBODY), ("var", 0), ("srv", FIRST_UID)] {
            for n in 0..20 {
                fs::write(home.join(name).join(format!("file{n}")), "").unwrap();
            }
            give(&home.join(name), uid, 0o700);
        }
        let state = |name: &str| owner_and_mode(&home.join(name));
        for name in ["admin", "etc", "var", "srv"] {
            let is_taken = || home.join(name).exists() && state(name) == (0, 0, 0o1700);
            let ended = killed_once(&machine.command(&["reset", "--erase"]), is_taken);
            if matches!(ended, Ended::Whole(_)) {
                break; // The others had gone first.
            }
            machine.must(&["apply"]);
            for (name, whose) in [("etc", (SOMEBODY, SOMEBODY, 0o700)), ("var", (0, 0, 0o700))] {
                let holds = fs::read_dir(home.join(name)).unwrap().next().is_some();
                let mine = (FIRST_UID, FIRST_UID, 0o750);
                assert!(state(name) == if holds { whose } else { mine }, "{name}: {:?}", state(name));
            }
            assert_eq!(state("srv"), (FIRST_UID, FIRST_UID, 0o750));
            let is_his = || state("admin") == (SOMEBODY, SOMEBODY, 0o700);
            assert!(!home.join("admin").exists() || is_his(), "{:?}", state("admin"));
        }
        machine.must(&["reset", "--erase"]);
        assert!(!home.exists());
    });
}

#[test]
fn a_directory_that_root_gave_to_somebody_after_a_killed_erasing_stays_his() {
    const SOMEBODY: u32 = 65_001;
    on_a_machine(|machine| {
        let home = formatted(machine);
        let srv = home.join("srv");
        for n in 0..20 {
            fs::write(srv.join(format!("file{n}")), "").unwrap();
        }
        let is_taken = || srv.exists() && owner_and_mode(&srv) == (0, 0, 0o1700);
        let ended = killed_once(&machine.command(&["reset", "--erase"]), is_taken);
        assert!(matches!(ended, Ended::Killed(_)), "{ended:?}");
        give(&srv, SOMEBODY, 0o700);
        machine.must(&["apply"]);
        assert_eq!(owner_and_mode(&srv), (SOMEBODY, SOMEBODY, 0o700));
        let (code, why) = interrupted_once(machine, is_taken);
        assert_eq!(code, 1, "{why}");
        assert_eq!(owner_and_mode(&srv), (SOMEBODY, SOMEBODY, 0o700), "{why}");
        machine.must(&["reset", "--erase"]);
    });
}

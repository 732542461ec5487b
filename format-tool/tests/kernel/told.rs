//! What people are told, and the exit code beside it.

use super::machine::{FIRST_UID, Machine, ip, on_a_machine};
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

/// What somebody who is not root is told.
fn as_a_user(machine: &Machine, verb: &[&str]) -> (i32, String) {
    // A copy where everybody may run it.
    let program = machine.path("node-format");
    let install = Command::new("install").args(["-m", "755", env!("CARGO_BIN_EXE_node-format")]).arg(&program).status();
    assert!(install.unwrap().success());
    let mut command = Command::new(program);
    command.args(machine.command(verb).get_args()).uid(FIRST_UID + 500).gid(FIRST_UID + 500);
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code().unwrap(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

#[test]
fn whoever_may_not_look_at_the_record_is_not_told_that_there_is_none() {
    on_a_machine(|machine| {
        machine.configure(1);
        ip("link set lo up");
        assert_eq!(machine.must(&["show"]), "nothing was made\n");
        assert_eq!(machine.must(&["reset"]), "nothing to do: there is no record\n");
        assert_eq!(machine.must(&["rollback"]), "nothing to do: there is no record\n");
        machine.must(&["apply"]);
        for verb in ["reset", "rollback", "show", "verify"] {
            let (code, said) = as_a_user(machine, &[verb]);
            assert_eq!(code, 4, "{verb}: {said}");
            assert!(said.contains("P0508") && said.contains("run node-format as root"), "{verb}: {said}");
            assert!(!said.contains("P0506"), "{verb}: {said}");
        }
        assert!(machine.must(&["show"]).contains("tap part0\n"));
    });
}

#[test]
fn what_is_in_the_way_of_a_repair_is_drift() {
    on_a_machine(|machine| {
        machine.configure(1);
        ip("link set lo up");
        machine.must(&["apply"]);
        machine.configure(2);
        ip("link add part1 type veth peer name other");
        let (code, said) = machine.run(&["verify"]);
        assert_eq!(code, 3, "{said}");
        assert!(said.contains("P0501") && said.contains("the machine is not as the configuration says"), "{said}");
    });
}

#[test]
fn what_only_the_machine_shows_to_be_wrong_is_said_with_its_line() {
    on_a_machine(|machine| {
        machine.configure_with(1, "mode = \"bridge\"\nuplink = \"up7\"\n", "");
        let text = fs::read_to_string(machine.path("format.toml")).unwrap();
        let line = text.lines().position(|line| line.starts_with("uplink")).unwrap() + 1;
        for verb in ["plan", "apply"] {
            let (code, said) = machine.run(&[verb]);
            assert_eq!(code, 2, "{said}");
            assert!(said.contains(&format!("/format.toml:{line}:1\n")), "{said}");
        }
    });
}

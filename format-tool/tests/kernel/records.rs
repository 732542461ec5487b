//! The record's own directories: they go with it, and nobody else's do.

use super::machine::{Machine, ip, on_a_machine, until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

const RECORD: &str = "var/lib/plat/format/record";

fn configured(machine: &Machine) {
    ip("link set lo up");
    machine.configure(1);
}

#[test]
fn what_a_run_made_for_the_record_goes_although_another_came_first() {
    on_a_machine(|machine| {
        configured(machine);
        let plain = machine.command(&["apply"]);
        let mut late = Command::new("strace");
        late.args([
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=flock",
            "-e",
            "inject=flock:delay_enter=500000:when=1",
        ]);
        late.arg(plain.get_program()).args(plain.get_args()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut late = late.spawn().unwrap();
        until("it has made the directories", || machine.path("var/lib/plat/format").is_dir());
        machine.must(&["apply"]);
        assert!(late.wait().unwrap().success());
        machine.must(&["reset"]);
        assert!(!machine.path("var/lib/plat").exists());
    });
}

#[test]
fn a_record_beneath_a_copy_of_its_own_path_takes_nobodys_directories() {
    on_a_machine(|machine| {
        configured(machine);
        machine.must(&["apply"]);
        let record = machine.path(RECORD);
        let copy = machine.path("backup").join(record.strip_prefix("/").unwrap());
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::set_permissions(copy.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
        fs::rename(&record, &copy).unwrap();
        let beneath = Path::new("/").join(copy.strip_prefix(machine.path("")).unwrap());
        let (code, said) = machine.run(&["reset", "--record", beneath.to_str().unwrap()]);
        assert_eq!(code, 0, "{said}");
        assert!(copy.parent().unwrap().is_dir(), "somebody's own: {said}");
    });
}
